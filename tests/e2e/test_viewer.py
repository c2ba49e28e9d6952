"""The telemetry page of a running application, as a person sees it: every page, both schemes, a phone, the keyboard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import browser
from tests.support.server import Server, Start
from tests.support.viewing import Watched, printed_link, shop, until, use

__all__ = ["browser"]
pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PATHS = ("", "sessions", "runs", "logs", "metrics", "health", "statements", "memory", "search?q=clients")


def entered(browser: Any, server: Server, **options: Any) -> tuple[Any, Watched]:
    """A browser's context in which the printed link was opened, and its page."""
    context = browser.new_context(**options)
    watched = Watched(context.new_page(), server.url)
    watched.page.goto(printed_link(server))
    assert watched.page.url == f"{server.url}/telemetry/"
    return context, watched


def test_from_an_error_reference_to_the_failing_statement_in_two_clicks(
    serve: Start, browser: Any, tmp_path: Path
) -> None:
    """What the user reads below the error is searched for, the run opens, and the statement that failed is shown."""
    server = shop(serve, tmp_path, env={"STX_HEALTH_DETAILS": "token"})
    user = browser.new_context()
    reference = use(user.new_page(), server.url)
    assert re.fullmatch(r"[0-9a-f]{8}", reference)
    context, watched = entered(browser, server)
    page = watched.page
    until(lambda: page.get_by_text("OperationalError").count() > 0, page)
    page.get_by_role("searchbox", name="Search").fill(reference)
    page.keyboard.press("Enter")  # the first: the run
    page.get_by_role("heading", name="What failed").wait_for()
    assert f"/telemetry/traces/{reference}" in page.url
    page.get_by_role("link", name=re.compile("SELECT .* FROM archived_clients")).first.click()  # the second
    statement = page.locator("pre.statement")
    statement.wait_for()
    assert "archived_clients" in statement.inner_text()
    assert "no such table" in page.locator("#detail").inner_text()
    page.reload()  # a permalink
    assert "archived_clients" in page.locator("pre.statement").inner_text()
    assert page.locator(".times", has_text="8 ×").count() == 1
    assert watched.problems == []
    cookie = next(each for each in context.cookies() if each["name"].startswith("stx_"))
    assert (cookie["path"], cookie["httpOnly"], cookie["sameSite"]) == ("/telemetry/", True, "Strict")
    stranger = browser.new_context().new_page()
    assert stranger.goto(f"{server.url}/telemetry/").status == 401
    assert "/telemetry" not in "".join(line for line in server.output.splitlines() if "GET" in line)
    assert server.stop() == 0


def test_every_page_in_light_and_dark_on_a_desk_and_on_a_phone(serve: Start, browser: Any, tmp_path: Path) -> None:
    """No console error, nothing asked of another machine, nothing wider than the screen, nothing serious for axe-core."""
    from axe_playwright_python.sync_playwright import Axe

    server = shop(serve, tmp_path)
    use(browser.new_page(), server.url)
    found: dict[str, Any] = {}
    looked = Watched(browser.new_page(), server.url)
    looked.page.goto(f"{server.url}/telemetry/metrics")
    until(lambda: looked.page.locator(".card").count() > 5, looked.page)
    looked.page.goto(f"{server.url}/telemetry/runs?outcome=failed")
    run = looked.page.locator("a.row").first.get_attribute("href").removeprefix("/telemetry/")
    looked.page.goto(f"{server.url}/telemetry/{run}")
    span = looked.page.locator("a.fault-link").first.get_attribute("href").removeprefix("/telemetry/")
    looked.page.goto(f"{server.url}/telemetry/sessions")
    session = looked.page.locator("a.row").first.get_attribute("href").removeprefix("/telemetry/")
    paths = (
        *PATHS,
        run,
        span,
        session,
        "metrics/streamlit.script_run.duration",
        "traces/ffffffff",
        "runs?q=nothing-has-this",
    )
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
        watched = Watched(context.new_page(), server.url)
        for path in paths:
            watched.page.goto(f"{server.url}/telemetry/{path}")
            watched.page.locator("#main").wait_for()
            where = f"{path} {scheme} {width}"
            wide = watched.page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                found[f"{where} width"] = wide
            if (scheme, width) in (("light", 1280), ("dark", 390)):
                for each in Axe().run(watched.page).response["violations"]:
                    if each["impact"] in ("serious", "critical"):
                        found[f"{where} {each['id']}"] = [node["html"][:200] for node in each["nodes"][:3]]
        problems = [each for each in watched.problems if "404" not in each]  # the page that is not there is meant
        if problems:
            found[f"{scheme} {width}"] = problems
        context.close()
    assert found == {}
    assert looked.problems == []
    assert server.stop() == 0


def test_by_keyboard_alone(serve: Start, browser: Any, tmp_path: Path) -> None:
    """Skip link, search by slash, rows by j and k, Enter opens, Escape closes, brackets lead to the runs around."""
    server = shop(serve, tmp_path)
    use(browser.new_page(), server.url)
    context, watched = entered(browser, server)
    page = watched.page
    page.goto(f"{server.url}/telemetry/runs?page=shop")
    page.goto(f"{server.url}/telemetry/runs")
    until(lambda: page.locator("a.row").count() >= 3, page)

    def focused() -> str:
        return str(page.evaluate("document.activeElement.textContent.trim()"))

    page.keyboard.press("Tab")
    assert focused() == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Waterfall").wait_for()
    first = page.url
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "span=" in url)
    page.locator("#detail .facts").wait_for()
    assert page.evaluate("document.activeElement.id") == "detail"
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "span=" not in url)
    page.go_back()
    page.wait_for_url(lambda url: "span=" in url)
    page.keyboard.press("[")
    page.wait_for_url(lambda url: url.split("?")[0] != first.split("?")[0] and "/traces/" in url)
    page.keyboard.press("/")
    page.keyboard.type("one by one")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Search").wait_for()
    assert page.get_by_text("the clients were read one by one").count() > 0
    assert watched.problems == []
    context.close()
    assert server.stop() == 0


def test_maintenance_and_the_live_page(serve: Start, browser: Any, tmp_path: Path) -> None:
    """The switch takes the application out of service and back; the overview follows by itself; log lines come live."""
    server = shop(serve, tmp_path)
    context, watched = entered(browser, server)
    page, second = watched.page, context.new_page()
    second.goto(f"{server.url}/telemetry/logs?live=1")
    page.goto(f"{server.url}/telemetry/health")
    page.get_by_label("Reason").last.fill("moving the database")
    page.get_by_role("button", name="Begin maintenance").click()
    page.get_by_text("Maintenance is ordered").wait_for()
    assert server.wait_for("/health/ready", lambda answer: answer.status == 503).json["ready"] is False
    second.get_by_text("moving the database").or_(second.get_by_text("maintenance is on")).first.wait_for(
        timeout=20_000
    )
    page.goto(f"{server.url}/telemetry/")
    page.get_by_text("moving the database").wait_for(timeout=20_000)
    second.goto(f"{server.url}/telemetry/health")
    second.get_by_role("button", name="End maintenance").click()
    server.wait_for("/health/ready", lambda answer: answer.status == 200)
    page.get_by_text("moving the database").wait_for(state="detached", timeout=20_000)
    assert server.events("audit.maintenance_ordered")
    assert server.events("audit.maintenance_off")
    assert watched.problems == []
    assert server.stop() == 0
