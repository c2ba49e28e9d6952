"""Takes the pictures of the telemetry page from the sample in use: `python scripts/screenshots_viewer.py [FOLDER]`.

`USE_S` says for how many seconds the sample is used before.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: Name of the picture, what is opened, colour scheme, size.
SHOTS = (
    ("telemetry-overview", "", "light", (1280, 860)),
    ("telemetry-run", "runs?q=SELECT&page=Overview", "light", (1280, 760)),
    ("telemetry-run-dark", "runs?outcome=failed", "dark", (1280, 760)),
    ("telemetry-sessions", "sessions", "light", (1280, 760)),
    ("telemetry-phone", "", "dark", (390, 780)),
)
#: How long the sample is used before the pictures, in seconds.
USE_S = 75


def link_of(log: Path, deadline_s: float) -> str:
    """The link that the start prints."""
    while time.monotonic() < deadline_s:
        found = re.search(r"Telemetry +(http\S+)", log.read_text(errors="replace"))
        if found is not None:
            return found[1]
        time.sleep(0.2)
    raise SystemExit("the sample printed no link")


def shoot(folder: Path, link: str) -> None:
    """Take every picture; a list that is not itself the picture leads to its first row."""
    from playwright.sync_api import sync_playwright

    from tests.support.browser import QUIET

    root = link.partition("/telemetry/")[0] + "/telemetry/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(QUIET))
        entering = browser.new_context()
        entering.new_page().goto(link)
        kept = entering.storage_state()
        for name, path, scheme, (width, height) in SHOTS:
            context = browser.new_context(
                storage_state=kept,
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page = context.new_page()
            page.goto(root + path)
            open_first(page, path)
            page.wait_for_timeout(500)
            page.screenshot(path=str(folder / f"{name}.png"))
            context.close()
        browser.close()


def open_first(page: Any, path: str) -> None:
    """Go from a list to what it is about."""
    rows = page.locator("main a.row")
    if path and rows.count():
        counts = page.evaluate(
            "[...document.querySelectorAll('tbody tr')].map(row => Number(row.cells[3].textContent))"
        )
        rows.nth(counts.index(max(counts)) if path == "sessions" else 0).click()
        page.locator(
            "h2"
        ).first.wait_for()  # no error is opened: its stack would show where this machine keeps its files


def main() -> None:
    """Start the sample with simulated users, take the pictures, stop it."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    use_s = float(os.environ.get("USE_S", USE_S))
    with tempfile.TemporaryDirectory() as data:
        environment = {**os.environ, "STX_DATA_DIR": data, "OTEL_METRIC_EXPORT_INTERVAL": "5000"}
        log = Path(data) / "output"
        command = [sys.executable, "-m", "streamlit_extension", "demo", "--simulate", "4", "--server.headless", "true"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with log.open("wb") as output:
            process = subprocess.Popen([*command, "--server.port", str(port)], env=environment, stdout=output)
        try:
            link = link_of(log, time.monotonic() + 60)
            time.sleep(use_s)
            shoot(folder, link)
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
