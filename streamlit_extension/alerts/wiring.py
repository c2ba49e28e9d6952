"""What the composition root starts, tells and stops of this room; none of it is imported before it is needed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from streamlit_extension.alerts.model import Snapshot
    from streamlit_extension.alerts.room import Alerts
    from streamlit_extension.health.model import Maintenance
    from streamlit_extension.health.service import HealthService
    from streamlit_extension.settings import Settings
    from streamlit_extension.utils.shutdown_model import Deadline

_log = logging.getLogger("streamlit_extension.alerts")

#: How long after the start the first evaluation is, in seconds: what it imports does not delay the start.
FIRST_S: Final = 1.0
#: What a stop may take for deliveries that are under way, in seconds, and as a share of what is left of its budget.
STOP_S, STOP_SHARE = 5.0, 0.5


class RunningAlerts:
    """The alerts of an application from its start to its stop, made on a thread of their own.

    Arguments:
        make: makes them, with all that belongs to them; returns what takes that away again.
        first_s: seconds until they are made.
    """

    def __init__(self, make: Callable[[], tuple[Alerts, Callable[[], object]]], *, first_s: float = FIRST_S) -> None:
        self._make = make
        self._first_s = first_s
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._alerts: Alerts | None = None
        self._close: Callable[[], object] = lambda: None
        self._maintenance: Maintenance | None = None

    @property
    def alerts(self) -> Alerts | None:
        """What is evaluated; None before they are made and where that failed."""
        return self._alerts

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="stx-alerts-start", daemon=True)
        self._thread.start()

    def set_maintenance(self, maintenance: Maintenance | None) -> None:
        """Tell nobody of alerts during maintenance, also of one that is ordered before there are alerts."""
        with self._lock:
            self._maintenance = maintenance
            if self._alerts is not None:
                self._alerts.set_maintenance(maintenance)

    def stop(self, timeout_s: float) -> bool:
        """End every thread within `timeout_s`; False when a sink still hangs. A second call does nothing."""
        deadline_s = time.monotonic() + timeout_s
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(max(0.0, timeout_s))
        with self._lock:
            alerts, self._alerts = self._alerts, None
        return alerts is None or alerts.stop(max(0.0, deadline_s - time.monotonic()))

    def close(self) -> None:
        """End what a stop has not, and take away what shows them: until then a last collection tells of them."""
        self.stop(0.0)
        with self._lock:
            close, self._close = self._close, lambda: None
        close()

    def stop_by(self, deadline: Deadline) -> tuple[str, ...]:
        """The step of a stop: deliver what can be; names what was cut off."""
        return () if self.stop(min(STOP_S, STOP_SHARE * deadline.remaining_s)) else ("the delivery of alerts",)

    def _run(self) -> None:
        if self._stopping.wait(self._first_s):
            return
        try:
            with self._lock:  # an order of maintenance waits, and then finds them
                if self._stopping.is_set():
                    return
                alerts, self._close = self._make()
                if self._maintenance is not None:
                    alerts.set_maintenance(self._maintenance)
                alerts.start()
                self._alerts = alerts
        except Exception as error:
            fields = {"event": "alerts.not_started", "error_type": type(error).__name__}
            _log.error("there are no alerts: %s", type(error).__name__, extra=fields)


def start_alerts(
    stack: AsyncExitStack,
    settings: Settings,
    data_dir: Path | None,
    read: Callable[[], Snapshot],
    service: HealthService,
) -> RunningAlerts:
    """Watch the thresholds from now on.

    Arguments:
        stack: gets what ends it where no stop has.
        read: returns the readings of now.
        service: shows the circuits.
    """
    configure_circuits(settings)
    running = RunningAlerts(partial(_make, settings, data_dir, read, service))
    running.start()
    stack.callback(running.close)
    return running


def configure_circuits(settings: Settings) -> None:
    """Let circuits have the values of `[breaker]` from the first run of a script on."""
    if settings.breaker != type(settings.breaker)():
        from streamlit_extension.alerts.breaker import CIRCUITS

        chosen = settings.breaker
        CIRCUITS.configure(failures=chosen.failures, reset_s=chosen.reset_s, on_alerts=chosen.on_alerts)


def _make(
    settings: Settings, data_dir: Path | None, read: Callable[[], Snapshot], service: HealthService
) -> tuple[Alerts, Callable[[], object]]:
    from otel import installed
    from streamlit_extension.alerts.breaker import CIRCUITS
    from streamlit_extension.alerts.circuit_health import show_circuits
    from streamlit_extension.alerts.instruments import AlertInstruments
    from streamlit_extension.alerts.room import Alerts

    alerts = Alerts(settings, data_dir, read)
    telemetry = installed.current()
    meters = None if telemetry is None else telemetry.meter_provider
    instruments = AlertInstruments(alerts.active, alerts.manager.counts, CIRCUITS.snapshots, meters)
    hide = show_circuits(CIRCUITS, service)

    def close() -> None:
        hide()
        instruments.close()

    return alerts, close
