"""What a user sees below an error, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel.instrumentation.streamlit.error_reference import box
from tests.support.telemetry import StartTraced, Traced

pytestmark = pytest.mark.browser

SCRIPT = """
import streamlit as st

def broken():
    raise ValueError("callback")

st.title("Orders")
st.button("Callback", on_click=broken)

@st.fragment
def part():
    if st.button("Part"):
        raise RuntimeError("part")

part()
if st.button("Script"):
    raise KeyError("script")
"""
REFERENCE = ".stx-error-reference"


def opened(browser: Any, traced: Traced) -> Any:
    """A page that may read and write the clipboard."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(traced.url)
    return page


def check(page: Any, traced: Traced, kind: str) -> None:
    """The box shows the first digits of the failed run's trace, and its button copies all of them."""
    page.locator(REFERENCE).first.wait_for(state="attached")
    run = traced.wait_for(lambda: [each for each in traced.runs if each["attributes"].get("error.type") == kind])[-1]
    place = page.locator(f'{REFERENCE}[data-trace-id="{run["trace"]}"]:visible')
    place.wait_for()
    assert run["trace"][:8] in place.inner_text()
    assert run["trace"] not in place.inner_text()
    place.get_by_role("button").click()
    place.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == run["trace"]


@pytest.mark.parametrize(
    ("label", "kind"), [("Script", "KeyError"), ("Part", "RuntimeError"), ("Callback", "ValueError")]
)
@pytest.mark.parametrize("details", ["full", "none"])
def test_a_failed_run_shows_its_reference(
    browser: Any, trace_server: StartTraced, script: Callable[[str], Path], label: str, kind: str, details: str
) -> None:
    """Below Streamlit's own box, in a script, a fragment and a callback, whatever details are shown."""
    traced = trace_server(script(SCRIPT), "--client.showErrorDetails", details)
    page = opened(browser, traced)
    page.get_by_role("button", name=label).click()
    page.get_by_test_id("stException").wait_for()
    check(page, traced, kind)
    error, reference = (page.locator(each).bounding_box() for each in ('[data-testid="stException"]', REFERENCE))
    assert error["y"] + error["height"] <= reference["y"]


def test_a_compile_error_shows_its_reference_above_the_dialogue(
    browser: Any, trace_server: StartTraced, script: Callable[[str], Path]
) -> None:
    """It can be copied while the dialogue is open, the page keeps its elements, and the next run takes it away."""
    path = script(SCRIPT)
    traced = trace_server(path, "--server.fileWatcherType", "poll", "--server.runOnSave", "true")
    page = opened(browser, traced)
    page.get_by_text("Orders").wait_for()
    source = path.read_text()
    path.write_text("import streamlit as st\nst.write('x'\n")
    page.get_by_role("dialog").wait_for()
    check(page, traced, "SyntaxError")
    page.keyboard.press("Escape")
    assert page.get_by_text("Orders").is_visible()
    path.write_text(source)
    page.wait_for_function(f"document.querySelectorAll('body > {REFERENCE}').length === 0")


def test_the_box_holds_the_id_alone() -> None:
    """Nothing of the error is in it."""
    assert box("0af7651916cd43dd8448eb211c80319c").count("0af7651916cd43dd8448eb211c80319c") == 3
