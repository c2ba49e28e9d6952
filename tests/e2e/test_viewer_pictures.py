"""The pictures in the README."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.screenshots_viewer import SHOTS
from tests.support.requirements import program

ROOT = Path(__file__).parents[2]


def size_of(path: Path) -> tuple[int, int]:
    """Width and height that a PNG's header gives."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return int(width), int(height)


@pytest.mark.browser
def test_the_pictures_are_taken_from_the_sample(tmp_path: Path) -> None:
    """The script that made the README's pictures makes them again, from a sample in use, and the README shows those."""
    program("chromium")
    environment = {**os.environ, "USE_S": "8"}
    done = subprocess.run(
        [sys.executable, "scripts/screenshots_viewer.py", str(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wanted = {f"{name}.png": size for name, _, _, size in SHOTS}
    assert {each.name: size_of(each) for each in tmp_path.iterdir()} == wanted
    assert {each.name: size_of(each) for each in (ROOT / "docs/images").glob("telemetry-*.png")} == wanted
    shown = re.findall(r"docs/images/(telemetry-[\w-]+\.png)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown
    assert set(shown) <= set(wanted)
