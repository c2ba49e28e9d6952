"""From settings to running alerts: what the composition root starts, tells and stops."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streamlit_extension.alerts.autoscale import AutoScaler, autoscaler_from
from streamlit_extension.alerts.breaker import CIRCUITS, Circuits
from streamlit_extension.alerts.delivery import Delivery
from streamlit_extension.alerts.evaluation import Policy
from streamlit_extension.alerts.manager import Action, AlertLoop, AlertManager, Identity
from streamlit_extension.alerts.model import Phase, Snapshot
from streamlit_extension.alerts.rules import rules_from
from streamlit_extension.alerts.sinks import sinks_from
from streamlit_extension.alerts.state import AlertFile, SilenceFile

if TYPE_CHECKING:
    from streamlit_extension.health.model import Maintenance
    from streamlit_extension.settings import Settings

_log = logging.getLogger("streamlit_extension.alerts")

#: Evaluations that a pending breach may miss before its time counts anew.
_MISSED: Final = 3


class Alerts:
    """The alerts of a process.

    Arguments:
        settings: `[alerts]`, `[notify]`, `[autoscale]` and `[breaker]`.
        data_dir: keeps state and silences; None keeps nothing.
        read: returns the readings of now; called at every interval on the alerts' own thread.
        circuits: opened by alerts; by default the process's.
        instance: the process among its replicas, by default the host's name.
    """

    def __init__(
        self,
        settings: Settings,
        data_dir: Path | None,
        read: Callable[[], Snapshot],
        *,
        circuits: Circuits = CIRCUITS,
        instance: str | None = None,
    ) -> None:
        chosen = settings.alerts
        file = AlertFile(data_dir)
        name = socket.gethostname() if instance is None else instance
        name = f"{name}-{file.slot}" if file.slot else name
        circuits.configure(
            failures=settings.breaker.failures, reset_s=settings.breaker.reset_s, on_alerts=settings.breaker.on_alerts
        )
        self.scaler: AutoScaler | None = autoscaler_from(settings.autoscale)
        actions: list[Action] = [circuits]
        if self.scaler is not None:
            actions.append(self.scaler)
        self.manager = AlertManager(
            rules=rules_from(chosen),
            delivery=Delivery(sinks_from(settings)),
            file=file,
            silences=SilenceFile(data_dir),
            actions=actions,
            identity=Identity(settings.service_name, name),
            policy=Policy(repeat_s=chosen.repeat_s, gap_s=max(60.0, _MISSED * chosen.interval_s)),
        )
        self._loop = AlertLoop(self.manager, read, interval_s=chosen.interval_s)

    def start(self) -> None:
        """Begin to evaluate."""
        self._loop.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End every thread within `timeout_s`; what was not delivered is kept. False when something still hangs."""
        deadline_s = time.monotonic() + timeout_s
        scaler_ended = self.scaler is None or self.scaler.stop(timeout_s / 2)
        ended = self._loop.stop(max(0.0, deadline_s - time.monotonic())) and scaler_ended
        if not ended:
            _log.warning("an alert's sink still hangs", extra={"event": "alerts.stop_over_budget"})
        return ended

    def set_maintenance(self, maintenance: Maintenance | None) -> None:
        """Tell nobody of alerts during maintenance; None ends it."""
        if maintenance is None:
            self.manager.silence(until=0.0, reason="")
        else:
            self.manager.silence(until=maintenance.until.timestamp(), reason=f"maintenance: {maintenance.reason}")

    def active(self) -> Mapping[str, bool]:
        """Return for each rule whether it fires now, for `alert.active`."""
        states = self.manager.states()
        return {
            rule.name: rule.name in states and states[rule.name].phase is Phase.FIRING for rule in self.manager.rules
        }
