"""Takes the pictures of the README from the running sample: `python scripts/screenshots.py [FOLDER]`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PORT = 8599
SHOTS = (
    ("overview", "", "light", (1280, 860)),
    ("overview-dark", "", "dark", (1280, 860)),
    ("operations", "operations", "light", (1280, 620)),
    ("phone", "tasks", "light", (390, 780)),
)


def wait(url: str) -> None:
    """Wait until it answers 200."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


def shoot(folder: Path) -> None:
    """Take every picture."""
    from playwright.sync_api import sync_playwright

    from tests.support.browser import QUIET

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(QUIET))
        for name, path, scheme, (width, height) in SHOTS:
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
            )
            page.goto(f"http://127.0.0.1:{PORT}/{path}")
            page.get_by_test_id("stMain").locator("h1").wait_for()
            page.wait_for_timeout(2500)
            page.screenshot(path=str(folder / f"{name}.png"))
            page.close()
        browser.close()


def main() -> None:
    """Start the sample, take the pictures, stop it."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        environment = {**os.environ, "STX_DATA_DIR": data}
        command = [sys.executable, "-m", "streamlit_extension", "demo", "--server.headless", "true"]
        process = subprocess.Popen([*command, "--server.port", str(PORT)], env=environment)
        try:
            wait(f"http://127.0.0.1:{PORT}/health/startup")
            shoot(folder)
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
