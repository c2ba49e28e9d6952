"""What the composition root builds, starts and stops of this room; nothing heavy is imported before it is asked."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamlit_extension.endpoints.entitlement import Entitlement
from streamlit_extension.viewer.front import ROOT, TelemetryPage
from streamlit_extension.viewer.links import LinkBox, link_of

if TYPE_CHECKING:
    from streamlit_extension.alerts.model import AlertRule, AlertState
    from streamlit_extension.alerts.wiring import RunningAlerts
    from streamlit_extension.health.service import HealthService
    from streamlit_extension.settings import Settings
    from streamlit_extension.viewer.sources import Sources

_logger = logging.getLogger("streamlit_extension.viewer")

#: The store's folder below the data folder.
STORE_FOLDER = "store"


class LiveAlerts(msgspec.Struct, frozen=True):
    """The alerts of this process as the page reads them; none before they are made."""

    running: RunningAlerts

    @property
    def rules(self) -> tuple[AlertRule, ...]:
        """The rules that are evaluated."""
        alerts = self.running.alerts
        return () if alerts is None else alerts.manager.rules

    def states(self) -> Mapping[str, AlertState]:
        """The state of every rule."""
        alerts = self.running.alerts
        return {} if alerts is None else alerts.manager.states()


def page_for(settings: Settings, entitlement: Entitlement) -> TelemetryPage:
    """The page for the application's own port; 404 there once a management port answers."""
    here = settings.management_port is None
    return TelemetryPage(entitlement, (settings.path_prefix,), here=here)


def serve_page(
    stack: contextlib.AsyncExitStack,
    page: TelemetryPage,
    settings: Settings,
    data_dir: Path | None,
    service: HealthService,
    alerts: RunningAlerts | None = None,
) -> None:
    """Let the page answer from what runs in this process.

    Arguments:
        stack: gets what ends it.
        data_dir: where store, links, silences and orders are; None for nowhere.
        alerts: the alerts of this process, which may be made only later.
    """

    def sources() -> Sources:
        from otel.store.reader import StoreReader
        from streamlit_extension.alerts.state import SilenceFile
        from streamlit_extension.control import ControlFile
        from streamlit_extension.viewer.sources import Sources

        return Sources(
            reader=StoreReader(data_dir / STORE_FOLDER) if data_dir is not None and settings.store_enabled else None,
            service=service,
            alerts=None if alerts is None else LiveAlerts(alerts),
            silences=SilenceFile(data_dir),
            control=None if data_dir is None else ControlFile(data_dir),
            name=settings.service_name,
        )

    page.behind.serve(sources, LinkBox(data_dir))
    stack.callback(page.behind.close)


def new_link(settings: Settings, root_url: str) -> str | None:
    """A link that opens the page once, and where it is told to other processes; None where no code can be kept.

    Arguments:
        root_url: of the port that answers it (`http://127.0.0.1:8501`).
    """
    from streamlit_extension.data_folder import make_data_folder

    folder = make_data_folder(settings)
    if folder.path is None:
        return None
    links, url = LinkBox(folder.path), f"{root_url}{settings.path_prefix}{ROOT}/"
    links.publish(url)
    try:
        return link_of(url, links.make())
    except OSError as error:
        fields = {"event": "viewer.link_not_made", "error_type": type(error).__name__}
        _logger.warning("no link to the telemetry page could be made", extra=fields)
        return None
