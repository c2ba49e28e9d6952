"""What the telemetry page reads and what it may change; each part may be absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from otel.store.reader import StoreReader
    from streamlit_extension.alerts.model import AlertRule, AlertState
    from streamlit_extension.alerts.state import SilenceFile
    from streamlit_extension.control import ControlFile
    from streamlit_extension.health.service import HealthService


class AlertStates(Protocol):
    """The alerts of this process, as far as the page reads them."""

    @property
    def rules(self) -> tuple[AlertRule, ...]:
        """The rules that are evaluated."""

    def states(self) -> Mapping[str, AlertState]:
        """The state of every rule."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the page's facts come from.

    Arguments:
        reader: the embedded store; None where it is off.
        service: health; None for a page of a process without checks.
        alerts: the alerts of this process.
        silences: what operators silenced, for all processes of the data folder.
        control: orders for all processes of the data folder.
        name, version: of the service.
    """

    reader: StoreReader | None = None
    service: HealthService | None = None
    alerts: AlertStates | None = None
    silences: SilenceFile | None = None
    control: ControlFile | None = None
    name: str = "streamlit-app"
    version: str = ""

    def close(self) -> None:
        """Close what is read."""
        if self.reader is not None:
            self.reader.close()
