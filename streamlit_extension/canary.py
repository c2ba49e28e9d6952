"""A run of the script now and then when nobody else runs it, in a session of its own that is removed."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from otel.instrumentation.streamlit import RunWatcher, ScriptRun

_logger = logging.getLogger("streamlit_extension.canary")

#: At most one canary run in this many seconds, and only when no user's run has ended within them.
QUIET_S = 60.0
#: A canary run that takes longer is given up.
RUN_TIMEOUT_S = 30.0


class Canary(msgspec.Struct):
    """Runs the script as nobody, so that an unused application's health is known.

    Arguments:
        watcher: tells of runs, and hides the canary's session from everybody else.
        allowed: whether a run may start now (not while starting, draining or in maintenance).
        quiet_s: seconds without any run before one is made.

    It executes the user's code, so it is off by default (`health.canary`).
    """

    watcher: RunWatcher
    allowed: Callable[[], bool]
    quiet_s: float = QUIET_S
    _last_run_s: float = msgspec.field(default_factory=time.monotonic)
    _waiting: dict[str, asyncio.Event] = msgspec.field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop | None = None

    async def run_forever(self) -> None:
        """Watch and run until cancelled; belongs to the event loop on which Streamlit's runtime lives."""
        self._loop = asyncio.get_running_loop()
        self.watcher.add_listener(self._on_run)
        try:
            while True:
                wait_s = self.quiet_s - (time.monotonic() - self._last_run_s)
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                elif self.allowed() and not self.watcher.active_sessions:
                    await self._run_once()
                else:
                    self._last_run_s = time.monotonic()
        finally:
            self.watcher.remove_listener(self._on_run)

    def _on_run(self, run: ScriptRun) -> None:
        self._last_run_s = time.monotonic()
        finished = self._waiting.get(run.session_id)
        if finished is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(finished.set)

    async def _run_once(self) -> None:
        self._last_run_s = time.monotonic()
        session_id = f"health-canary-{uuid.uuid4()}"
        finished = self._waiting[session_id] = asyncio.Event()
        self.watcher.hide_session(session_id)
        try:
            close = _start_run(session_id)
        except Exception as error:
            _logger.warning(
                "the health canary could not run: %s", type(error).__name__, extra={"event": "health.canary_failed"}
            )
            self._forget(session_id)
            return
        try:
            async with asyncio.timeout(RUN_TIMEOUT_S):
                await finished.wait()
        except TimeoutError:
            _logger.warning("the health canary's run took too long", extra={"event": "health.canary_timeout"})
        finally:
            close()
            self._forget(session_id)

    def _forget(self, session_id: str) -> None:
        self._waiting.pop(session_id, None)
        self.watcher.unhide_session(session_id)


def _start_run(session_id: str) -> Callable[[], None]:
    """Start one run in a new session without a browser; returns what removes that session."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.runtime import get_instance
    from streamlit.runtime.session_manager import SessionClient

    class Nobody(SessionClient):
        """Takes what the script shows, and shows it to nobody."""

        def write_forward_msg(self, msg: Any) -> None:
            """Nothing to show it on."""

        @property
        def client_context(self) -> Any:
            """No request brought this session."""
            return None

    runtime = get_instance()
    runtime.connect_session(client=Nobody(), user_info={}, session_id_override=session_id)
    message = BackMsg()
    message.rerun_script.query_string = ""
    runtime.handle_backmsg(session_id, message)
    return lambda: runtime.close_session(session_id)


def seams() -> Mapping[str, str | None]:
    """Whether Streamlit lets a session without a browser run; None where it does, else what is lost."""
    try:
        from inspect import signature

        from streamlit.runtime import Runtime

        lets = "session_id_override" in signature(Runtime.connect_session).parameters
        _ = Runtime.handle_backmsg, Runtime.close_session
    except (ImportError, AttributeError, ValueError):
        lets = False
    return {"canary": None if lets else "health.canary can't run the script"}
