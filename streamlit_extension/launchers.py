"""Which scripts are launchers, and under which name they hold their application; read from the source, not run."""

from __future__ import annotations

import ast
from pathlib import Path


def launcher_app_name(path: Path) -> str | None:
    """The name under which a launcher holds its application (`app = st.App(…)`, `app = create_app(…)`), else None."""
    name = _assigned_from_create_app(path)
    if name is not None:
        return name
    try:
        from streamlit.web.server.app_discovery import discover_asgi_app
    except ImportError:
        return None
    found = discover_asgi_app(path)
    return found.app_name if found.is_asgi_app else None


def _assigned_from_create_app(path: Path) -> str | None:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            called = node.value.func
            if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) == "create_app":
                names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return "app" if "app" in names else (names[-1] if names else None)
