"""The sample, used by simulated users and by a browser, probed, broken and healed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import Postgres, free_port
from tests.support.server import Server, Start

PAGES = ("overview", "clients", "projects", "tasks", "reports", "operations")


def demo(serve: Start, *options: str, **settings: Any) -> Server:
    """The sample, running."""
    command = [sys.executable, "-m", "streamlit_extension", "demo", *options]
    return serve("demo", command=command, **settings)


async def test_every_page_works_and_the_database_is_found(serve: Start) -> None:
    """Each page runs without an error; the engine of the script is found, checked and critical by itself."""
    server = demo(serve)
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        for name in sorted(set(client.pages.values())):
            await client.open_page(name)
            page = await client.wait_finished()
            assert page.exceptions == [], name
        assert len(client.pages) == len(PAGES)
    found = server.wait_for(
        "/health/detailed", lambda answer: answer.json["components"]["database"]["status"] == "healthy"
    ).json
    assert found["status"] == "healthy"
    assert server.get("/health/ready").json["dependencies"]["database"] == "connected"
    assert server.stop() == 0


async def test_a_form_and_a_failing_button(serve: Start) -> None:
    """A form writes to the database; a button that fails shows its error, and the next run is well again."""
    server = demo(serve)
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await client.open_page("Clients")
        await client.wait_finished()
        for label, value in (("Name", "Ada & Co"), ("Industry of the client", "Research"), ("Contact", "Ada")):
            await client.set(label, value, rerun=False)
        await client.click("Add client")
        page = await client.wait_finished()
        assert "Ada & Co was added." in page.texts
        await client.open_page("Operations")
        await client.wait_finished()
        await client.click("Break something")
        page = await client.wait_finished()
        assert page.exceptions == ["RuntimeError"]
        await client.rerun()
        assert (await client.wait_finished()).exceptions == []
    assert server.stop() == 0


async def test_postgresql_breaks_and_heals_under_the_sample(serve: Start, postgres: Postgres) -> None:
    """The database goes away: unready with the cause; it comes back: ready, without a restart of the application."""
    admin = create_engine(postgres.url(), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS sample"))
        connection.execute(text("CREATE DATABASE sample"))
    admin.dispose()
    url = postgres.url().removesuffix("/postgres") + "/sample"
    fast = {"STX_HEALTH__INTERVAL_S": "0.3", "STX_HEALTH__TIMEOUT_S": "1"}
    server = demo(serve, "--database-url", url, env=fast)
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        server.wait_for("/health/ready", lambda answer: answer.json["dependencies"].get("database") == "connected")
        postgres.stop()
        try:
            answer = server.wait_for("/health/ready", lambda answer: answer.status == 503)
            assert answer.json["dependencies"]["database"] == "disconnected"
            assert server.get("/health").status == 503
            assert server.get("/health/live").status == 200
            detailed = server.get("/health/detailed")
            assert detailed.json["components"]["database"]["status"] == "unhealthy"
            assert detailed.json["components"]["database"]["last_error"]
        finally:
            postgres.start()
        server.wait_for("/health/ready", lambda answer: answer.status == 200)
        await client.rerun()
        assert (await client.wait_finished()).exceptions == []
    assert server.stop() == 0


def test_simulated_users_are_real_sessions_and_leave_with_the_server(serve: Start) -> None:
    """`--simulate 2` connects two WebSocket sessions that run the script; none of it outlives the server."""
    server = demo(serve, "--simulate", "2")
    found = server.wait_for(
        "/health/detailed", lambda answer: answer.json["components"]["script"]["status"] == "healthy"
    )
    assert found.status == 200
    assert server.stop() == 0
    assert "Traceback" not in server.output


def test_a_database_that_can_not_be_used_is_one_line(serve: Start, tmp_path: Path) -> None:
    """No server, no driver, no URL: one clear line without the password, exit code 2."""
    for url, said in (
        (f"postgresql+psycopg://me:hunter2@127.0.0.1:{free_port()}/x", "can't be used"),
        ("oracle+cx_oracle://me:hunter2@127.0.0.1/x", "cx_Oracle"),
        ("no url", "SQLAlchemy URL"),
        ("sqlite:////nowhere/at/all.db", "unable to open"),
    ):
        server = demo(serve, "--database-url", url, ready=None)
        assert server.process.wait(60) == 2
        lines = [line for line in server.output.splitlines() if line and not line.startswith("Preparing")]
        assert len(lines) == 1, lines
        assert said in lines[0]
        assert "hunter2" not in server.output


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of the browser."""
    opened = browser.new_page(viewport={"width": 1280, "height": 860})
    yield opened
    opened.close()


@pytest.mark.browser
def test_a_browser_goes_through_the_sample(serve: Start, page: Any) -> None:
    """Open, look at charts, fill in the form, press the failing button: as a person sees it, no error in the console."""
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(f"{said.text} {said.location}") if said.type == "error" else None)
    server = demo(serve)
    page.goto(server.url)
    page.get_by_role("heading", name="Overview").wait_for(timeout=60_000)
    page.get_by_test_id("stVegaLiteChart").locator("canvas, svg").first.wait_for(timeout=60_000)
    assert page.get_by_test_id("stVegaLiteChart").count() == 2
    assert page.get_by_test_id("stMetric").count() == 4

    page.get_by_test_id("stSidebarNav").get_by_text("Clients").click()
    page.get_by_role("heading", name="Clients").wait_for()
    page.get_by_label("Name", exact=True).fill("Lovelace Analytics")
    page.get_by_label("Industry of the client").fill("Research")
    page.get_by_label("Contact").fill("Ada Lovelace")
    page.get_by_role("button", name="Add client").click()
    page.get_by_text("Lovelace Analytics was added.").wait_for()

    page.get_by_test_id("stSidebarNav").get_by_text("Reports").click()
    page.get_by_role("button", name="Compute forecast").click()
    page.get_by_text("At this pace").wait_for(timeout=60_000)

    page.get_by_test_id("stSidebarNav").get_by_text("Operations").click()
    clock = page.get_by_test_id("stMetricValue").nth(2)
    clock.wait_for()
    first = clock.inner_text()
    page.wait_for_function(
        "first => document.querySelectorAll('[data-testid=stMetricValue]')[2]?.innerText !== first", arg=first
    )
    page.get_by_role("button", name="Break something").click()
    page.get_by_test_id("stException").or_(page.get_by_test_id("stAlert")).first.wait_for()
    assert server.get("/health").json["status"] in ("healthy", "degraded")
    page.get_by_test_id("stSidebarNav").get_by_text("Overview").click()
    page.get_by_role("heading", name="Overview").wait_for()
    assert problems == [], problems
    assert server.stop() == 0
