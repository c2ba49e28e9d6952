"""Telemetry of a running application: made real at its start, flushed and ended within its stop."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from otel.config import TelemetryConfig
from otel.logsink import current_log_sink, set_log_sink
from streamlit_extension.health.checks.telemetry import TelemetryFacts, facts_of
from streamlit_extension.settings import Settings
from streamlit_extension.utils.graceful_shutdown import Deadline, GracefulShutdownHandler, ShutdownPhase

if TYPE_CHECKING:
    from otel.providers import Telemetry

_logger = logging.getLogger("streamlit_extension.telemetry")

#: What the last lines of a stop, which tell of its last phase, may take to leave, in seconds, and of its budget.
LAST_LINES_S, LAST_LINES_SHARE = 0.5, 0.02
#: Share of the last phase that a flush may take: it says itself that it was cut off before the phase does.
FLUSH_SHARE = 0.9


def telemetry_config(settings: Settings, data_dir: Path | None) -> TelemetryConfig:
    """What the settings say about telemetry; `data_dir` is the data folder as it can be used."""
    spool = settings.spool
    found: TelemetryConfig = settings.telemetry or TelemetryConfig(
        service_name=settings.service_name, service_version=settings.service_version, store=settings.store_enabled
    )
    return msgspec.structs.replace(
        found, data_dir=data_dir, spool_max_bytes=spool.max_bytes, spool_max_age_s=spool.max_age_s
    )


class RunningTelemetry:
    """The telemetry of one application, from its start to its stop.

    Arguments:
        config: what is wanted.
        budget_s: of a whole stop, in seconds.
    """

    def __init__(self, config: TelemetryConfig, budget_s: float) -> None:
        self._config = config
        self._last_lines_s = min(LAST_LINES_S, LAST_LINES_SHARE * budget_s)
        self._telemetry: Telemetry | None = None

    @property
    def telemetry(self) -> Telemetry | None:
        """What is in place now, None before the start and after the end."""
        return self._telemetry

    def facts(self) -> TelemetryFacts | None:
        """What the check of the pipeline's health looks at; None where telemetry goes nowhere."""
        telemetry = self._telemetry
        if telemetry is None or telemetry.pipeline is None:
            return None
        facts = facts_of(telemetry.ledger, getattr(telemetry.destination, "spool", None))
        store = getattr(telemetry.destination, "store", None)
        problem = facts.problem or (store.problem if store is not None else "")
        return msgspec.structs.replace(facts, problem=problem)

    def start(self) -> None:
        """Make telemetry real. Nothing of it ever stops the start of the application."""
        from otel.providers import install

        try:
            self._telemetry = install(self._config)
        except Exception as error:
            _logger.warning(
                "telemetry could not be started: %s", type(error).__name__, extra={"event": "telemetry.not_started"}
            )
            return
        set_log_sink(self._telemetry.log_sink)

    def flush(self, deadline: Deadline) -> tuple[str, ...]:
        """The last step of a stop: commit what waits by the deadline; names what was cut off."""
        if self._telemetry is None or self._telemetry.flush(FLUSH_SHARE * deadline.remaining_s):
            return ()
        return ("the last flush of telemetry",)

    def finish(self) -> None:
        """Let the lines of the last phase leave, then end every thread; a second call does nothing."""
        if self._telemetry is not None:
            self._telemetry.shutdown(self._last_lines_s)

    def close(self) -> None:
        """End, and put the process's providers back."""
        telemetry, self._telemetry = self._telemetry, None
        if telemetry is None:
            return
        telemetry.shutdown(self._last_lines_s)
        if current_log_sink() is telemetry.log_sink:
            set_log_sink(None)
        telemetry.uninstall()


def start_telemetry(settings: Settings, data_dir: Path | None, shutdown: GracefulShutdownHandler) -> RunningTelemetry:
    """Make telemetry real, and flush it in the last phase of a stop; whoever calls this calls `close` at the end."""
    running = RunningTelemetry(telemetry_config(settings, data_dir), settings.shutdown_budget_s)
    running.start()
    shutdown.add_step(ShutdownPhase.FINAL_SHUTDOWN, running.flush)
    shutdown.on_complete(running.finish)
    return running
