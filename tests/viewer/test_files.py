"""What the page consists of: files that are in the wheel, written by hand, and ask nobody."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.server import ROOT

VIEWER = ROOT / "streamlit_extension" / "viewer"


def test_the_wheel_holds_templates_and_files(tmp_path: Path) -> None:
    """Everything that the page is rendered from is installed with it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        file.relative_to(ROOT).as_posix() for folder in ("templates", "static") for file in (VIEWER / folder).iterdir()
    }
    assert len(wanted) > 15
    assert wanted <= inside


def test_no_file_asks_another_machine_or_runs_text() -> None:
    """No address but XML's own name, no `eval`, no style or handler inside a template, and a script of modest size."""
    for file in [*(VIEWER / "templates").iterdir(), *(VIEWER / "static").iterdir()]:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.[a-z]|\beval\(|new Function|@import", text), file.name
        if file.suffix == ".html":
            assert not re.search(r"\sstyle=|\son[a-z]+=\"|<style|\|safe", text), file.name
    assert len((VIEWER / "static" / "viewer.js").read_bytes()) < 20_000
