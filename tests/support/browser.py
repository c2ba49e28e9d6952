"""Headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.requirements import program

#: Without these Chromium asks servers of its own, which a closed network refuses.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def browser() -> Iterator[Any]:
    """A running browser; pages are opened with `browser.new_page()`.

    One for each test: while Playwright's synchronous interface is open, its event loop counts as this thread's running
    one, and every asynchronous test in between would fail.
    """
    from playwright.sync_api import sync_playwright

    path = program("chromium", "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield running
        running.close()
