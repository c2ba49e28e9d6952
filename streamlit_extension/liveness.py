"""Whether Streamlit's runtime can still serve; asked for `/health/live`, so it waits for nothing and raises nothing."""

from __future__ import annotations


def runtime_problem() -> str | None:
    """Why Streamlit's runtime can serve nobody any more; None while it can, or where there is none yet."""
    try:
        from streamlit.runtime import Runtime

        if not Runtime.exists():
            return None
        runtime = Runtime.instance()
        task = getattr(runtime, "_loop_coroutine_task", None)
        if runtime.state.name == "STOPPED":
            return "Streamlit's runtime has stopped"
        if task is not None and task.done():
            return "Streamlit's loop has ended"
    except Exception:  # Streamlit has moved its internals: that is no reason for a restart
        return None
    return None
