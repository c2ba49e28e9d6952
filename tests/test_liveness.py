"""When liveness asks for a restart, and when it must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.runtime import Runtime

from streamlit_extension.app import ObservableApp, create_app
from streamlit_extension.endpoints.health import HealthCheckEndpoint
from streamlit_extension.liveness import runtime_problem
from streamlit_extension.settings import Settings
from streamlit_extension.utils.graceful_shutdown import Deadline, ShutdownPhase


class State:
    """Streamlit's enumeration of states has names."""

    def __init__(self, name: str) -> None:
        self.name = name


class Task:
    """The task of Streamlit's loop."""

    def __init__(self, ended: bool) -> None:
        self.ended = ended

    def done(self) -> bool:
        return self.ended


class Fake:
    """A runtime in a state that no real one reaches without being stopped."""

    def __init__(self, state: str, ended: bool | None) -> None:
        self.state = State(state)
        self._loop_coroutine_task = None if ended is None else Task(ended)


@pytest.mark.parametrize(
    ("state", "ended", "problem"),
    [
        ("INITIAL", None, None),
        ("ONE_OR_MORE_SESSIONS_CONNECTED", False, None),
        ("STOPPED", False, "Streamlit's runtime has stopped"),
        ("NO_SESSIONS_CONNECTED", True, "Streamlit's loop has ended"),
    ],
)
def test_a_runtime_that_serves_nobody_any_more_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, state: str, ended: bool | None, problem: str | None
) -> None:
    """Stopped, or its loop's task ended; not one that is starting, serving or idle."""
    monkeypatch.setattr(Runtime, "_instance", Fake(state, ended))
    assert runtime_problem() == problem


def test_without_a_runtime_there_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first start nothing can have ended."""
    monkeypatch.setattr(Runtime, "_instance", None)
    assert runtime_problem() is None


class Moved:
    """A runtime whose every internal is somewhere else, or asks for what isn't there."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> object:
        raise self._error


@pytest.mark.parametrize("error", [AttributeError("moved"), TypeError("moved"), RuntimeError("moved"), KeyError("x")])
def test_internals_that_have_moved_are_no_reason_for_a_restart(
    monkeypatch: pytest.MonkeyPatch, app: ObservableApp, error: Exception
) -> None:
    """Whatever a newer Streamlit raises there, liveness answers 200."""
    monkeypatch.setattr(Runtime, "_instance", Moved(error))
    assert HealthCheckEndpoint(service=app.service).liveness_check().status_code == 200


@pytest.fixture
def app(tmp_path: Path) -> ObservableApp:
    """An application that is not started."""
    (tmp_path / "app.py").write_text("")
    return create_app(str(tmp_path / "app.py"), settings=Settings.load({"STX_DATA_DIR": str(tmp_path)}, tmp_path))


def test_a_stop_over_its_budget_is_not_alive(app: ObservableApp) -> None:
    """While a stop lasts longer than its budget liveness is 503 with the reason; before and after it is 200."""
    now_s = [0.0]
    endpoint = HealthCheckEndpoint(service=app.service)
    app.shutdown._clock = lambda: now_s[0]
    seen = [endpoint.liveness_check().status_code]

    def step(_deadline: Deadline) -> None:
        seen.append(endpoint.liveness_check().status_code)
        now_s[0] = app.shutdown.budget_s + 0.1
        answer = endpoint.liveness_check()
        seen.append(answer.status_code)
        assert "budget" in str(answer.body)

    app.shutdown.add_step(ShutdownPhase.CLEANUP_RESOURCES, step)
    assert app.shutdown.shutdown_sequence().phases[2].failures == ()
    seen.append(endpoint.liveness_check().status_code)
    assert seen == [200, 200, 503, 200]
