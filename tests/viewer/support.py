"""The telemetry page in front of a store, without a Streamlit behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel.ledger import Ledger
from otel.store.reader import StoreReader
from otel.store.store import Store
from streamlit_extension.alerts.manager import AlertManager
from streamlit_extension.alerts.state import SilenceFile
from streamlit_extension.control import ControlFile
from streamlit_extension.endpoints.entitlement import Audience, Entitlement
from streamlit_extension.health.model import CheckResult, CheckSpec, Outcome, ServicePhase
from streamlit_extension.health.service import HealthService
from streamlit_extension.viewer.front import TelemetryPage
from streamlit_extension.viewer.links import LinkBox
from streamlit_extension.viewer.sources import Sources

TOKEN = "t" * 40
LOCAL = "http://127.0.0.1:8501"


@dataclass
class Desktop:
    """One page, its parts, and a client of it. Behind it every other path answers 204."""

    page: TelemetryPage
    folder: Path
    store: Store
    service: HealthService
    alerts: AlertManager
    links: LinkBox

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI interface."""
        if not await self.page.handle(scope, receive, send):
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    def client(self, *, peer: str = "127.0.0.1", base: str = LOCAL, **headers: str) -> httpx.AsyncClient:
        """A caller at `peer`."""
        transport = httpx.ASGITransport(app=self, client=(peer, 40000))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.AsyncClient(transport=transport, base_url=base, headers=named)


Open = Callable[..., Desktop]


@pytest.fixture
def desktop(tmp_path: Path) -> Iterator[Open]:
    """Opens pages: `desktop(audience=…, loopback=…, store=…)`; closed with the test."""
    opened: list[Desktop] = []

    def open_one(
        *,
        audience: Audience = Audience.AUTO,
        loopback: bool | None = True,
        store: bool = True,
        prefixes: tuple[str, ...] = ("",),
        here: bool = True,
    ) -> Desktop:
        folder = tmp_path / "store"
        folder.mkdir(exist_ok=True)
        service = HealthService(version="1")
        service.register(CheckSpec("database", None, critical=True))
        service.report("database", CheckResult(Outcome.FAILED, error="could not connect"))
        service.set_phase(ServicePhase.SERVING)
        alerts = AlertManager()
        page = TelemetryPage(Entitlement(lambda: TOKEN, lambda: loopback, audience), prefixes, here=here)
        links = LinkBox(tmp_path)
        sources = Sources(
            reader=StoreReader(folder) if store else None,
            service=service,
            alerts=alerts,
            silences=SilenceFile(tmp_path),
            control=ControlFile(tmp_path),
            name="shop",
        )
        page.behind.serve(lambda: sources, links)
        made = Desktop(page, tmp_path, Store(folder, Ledger(), accounts_for=frozenset()), service, alerts, links)
        opened.append(made)
        return made

    yield open_one
    for each in opened:
        each.page.behind.close()
        each.store.close(2.0)
        each.alerts.stop(1.0)
