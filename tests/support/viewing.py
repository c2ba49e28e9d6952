"""An application that makes telemetry of every kind, and a browser that looks at it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.server import Server, Start

#: A page with repeated statements, logs, session state and a button whose statement fails.
APP = """
import logging
import streamlit as st
from sqlalchemy import create_engine, text

@st.cache_resource
def engine():
    made = create_engine("sqlite:///{database}")
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS clients (id INTEGER PRIMARY KEY, name TEXT)"))
        connection.execute(text("INSERT INTO clients (name) VALUES ('Ada'), ('Grace')"))
    return made

st.title("Clients")
st.session_state.setdefault("kept", "x" * 50_000)
with engine().connect() as connection:
    for number in range(8):
        connection.execute(text("SELECT name FROM clients WHERE id = :id"), {{"id": number}}).all()
logging.getLogger("shop").warning("the clients were read one by one")
st.button("Again")
if st.button("Archive"):
    with engine().connect() as connection:
        connection.execute(text("SELECT * FROM archived_clients WHERE year = 2024")).all()
"""

#: Metrics and checks come quickly, so that no test waits for them.
QUICK = {"OTEL_METRIC_EXPORT_INTERVAL": "500", "STX_HEALTH__INTERVAL_S": "0.5", "STX_ALERTS__INTERVAL_S": "1"}


def shop(serve: Start, tmp_path: Path, **options: Any) -> Server:
    """The application, running."""
    script = tmp_path / "shop.py"
    script.write_text(APP.format(database=tmp_path / "shop.db"))
    environment = {**QUICK, **options.pop("env", {})}
    return serve(script, env=environment, **options)


def printed_link(server: Server) -> str:
    """The link that the start printed."""
    found = re.search(r"Telemetry +(http\S+)", server.output)
    assert found is not None, server.output
    return found[1].replace("//localhost:", "//127.0.0.1:")  # as the tests ask


@dataclass
class Watched:
    """A browser's page whose console and requests are watched; `origin` is all that it may ask."""

    page: Any
    origin: str
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        def said(message: Any) -> None:
            if message.type in ("error", "warning"):
                self.problems.append(f"{message.text} {message.location}")

        def asked(request: Any) -> None:
            if not request.url.startswith((self.origin, "data:", "blob:")):
                self.problems.append(f"asked {request.url}")

        self.page.on("console", said)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", asked)


def use(page: Any, url: str, times: int = 2) -> str:
    """Use the application as a person does and let it fail once; returns the error reference."""
    page.goto(url)
    page.get_by_role("heading", name="Clients").wait_for(timeout=60_000)
    for _ in range(times):
        page.get_by_role("button", name="Again").click()
        page.wait_for_function("!document.querySelector('[data-test-script-state=running]')")
    page.get_by_role("button", name="Archive").click()
    reference = page.locator(".stx-error-reference code")
    reference.wait_for(timeout=60_000)
    return str(reference.inner_text()).strip()


def until(ready: Callable[[], bool], page: Any, timeout_s: float = 30.0) -> None:
    """Load the page again until it shows what it should."""
    import time

    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, page.content()
        page.wait_for_timeout(200)
        page.reload()
