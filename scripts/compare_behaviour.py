"""Compare what browsers get from scripts under plain Streamlit and under ours: `compare_behaviour.py FOLDER`.

Each script of the folder runs in a fresh copy of it at the same path: twice by `streamlit run`, once by
`streamlit-extension run`. A simulated session sees the first run, asks for another, then presses the first buttons.
Compared is every message that tells what to show (elements, exceptions, pages, how a run ended), ours against plain.
Where plain differs from plain (random numbers, clocks), kinds and places of elements and the exceptions are compared.

The reference that we show below an uncaught error is the one difference that is meant, and is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fnmatch
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from streamlit_extension.demo.client import StreamlitClient

#: Kinds of messages that tell what to show.
SHOWN: tuple[str, ...] = (
    "delta",
    "page_config_changed",
    "navigation",
    "logo",
    "script_finished",
    "session_event",
    "page_not_found",
)
SHOWN += ("page_info_changed", "auto_rerun", "stop_auto_rerun", "auth_redirect")
OURS = "stx-error-reference"
#: A message that is larger is compared by its digest.
LARGE_BYTES = 50_000
WAYS = {
    "plain": ["-m", "streamlit", "run"],
    "again": ["-m", "streamlit", "run"],
    "ours": ["-m", "streamlit_extension", "run"],
}
OPTIONS = ["--server.headless=true", "--server.fileWatcherType=none", "--browser.gatherUsageStats=false"]


class Recorder(StreamlitClient):
    """A session that keeps what it is told to show."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.shown: list[tuple[str, str]] = []

    def _take(self, message: Any) -> None:
        with contextlib.suppress(AttributeError):  # a kind of widget that the client does not know
            super()._take(message)
        kind = message.WhichOneof("type")
        if kind in SHOWN:
            place = list(message.metadata.delta_path) if kind == "delta" else []
            found: Any = message.script_finished
            if kind != "script_finished":
                value = getattr(message, kind)
                large = value.ByteSize() > LARGE_BYTES
                found = (
                    sha256(value.SerializeToString(deterministic=True)).hexdigest() if large else MessageToDict(value)
                )
            text = json.dumps([kind, place, found], sort_keys=True)
            if OURS not in text:
                self.shown.append((_shape(kind, place, message), text))


def _shape(kind: str, place: list[int], message: Any) -> str:
    """A message's kind and place, and the type of the exception that it shows."""
    if kind != "delta":
        return kind
    delta = message.delta
    what = delta.WhichOneof("type") or ""
    if what == "new_element":
        what = delta.new_element.WhichOneof("type") or ""
        if what == "exception":
            what += f" {delta.new_element.exception.type}"
    return f"{place} {what}"


@dataclass(frozen=True)
class Seen:
    """What one session saw, step by step; `trouble` says why it could not go on."""

    shown: tuple[tuple[str, ...], ...] = ()
    shapes: tuple[tuple[str, ...], ...] = ()
    trouble: str = ""

    @property
    def elements(self) -> int:
        """How many messages."""
        return sum(map(len, self.shown))

    @property
    def exceptions(self) -> int:
        """How many of them show an exception."""
        return sum(" exception " in each for step in self.shapes for each in step)


async def visit(url: str, presses: int, timeout_s: float) -> Seen:
    """Run the script, run it again, press buttons."""
    steps: list[list[tuple[str, str]]] = []
    trouble = ""
    port = url.rpartition(":")[2]
    async with Recorder(url) as client:
        try:
            await client.wait_finished(1, timeout_s)
            steps.append(client.shown)
            buttons = [each.label for each in client.page.widgets.values() if each.kind == "button"][:presses]
            for label in (None, *buttons):
                client.shown = []
                finished = client.runs_finished
                if label is None:
                    await client.rerun()
                else:
                    await client.click(label)
                await client.wait_finished(finished + 1, timeout_s)
                steps.append(client.shown)
        except (TimeoutError, ConnectionError, KeyError) as error:
            trouble = type(error).__name__
            steps.append(client.shown)
    steps = [_final(step) for step in steps]
    clean = re.compile(rf"\b{port}\b|{re.escape(client.session_id or 'none')}")
    return Seen(
        tuple(tuple(clean.sub("…", text) for _, text in step) for step in steps),
        tuple(tuple(shape for shape, _ in step) for step in steps),
        trouble,
    )


def _final(step: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What stands in each place at a step's end: what it was meanwhile depends on how messages were joined."""
    last: dict[str, tuple[str, str]] = {}
    others = []
    for shape, text in step:
        if shape.startswith("["):
            last[shape.partition("]")[0]] = (shape, text)
        else:
            others.append((shape, text))
    return [*(last[place] for place in sorted(last)), *others]


@contextlib.contextmanager
def served(way: str, script: Path, data: Path) -> Iterator[str]:
    """The script by one way on a free port; yields its URL."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words = [sys.executable, *WAYS[way], script.name, *OPTIONS, f"--server.port={port}", "--server.address=127.0.0.1"]
    paths = [str(Path(__file__).resolve().parents[1]), str(script.parent.parent), os.environ.get("PYTHONPATH", "")]
    environ = {**os.environ, "STX_DATA_DIR": str(data), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with (data / f"{way}.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=script.parent, env=environ, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/_stcore/health", timeout=5):
                break
            time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def see(way: str, script: Path, work: Path, options: argparse.Namespace) -> Seen:
    """One session with a fresh copy of the script's folder."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(script.parent, work / script.parent.name, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    data = work / "data"
    data.mkdir()
    copy = work / script.parent.name / script.name
    try:
        with served(way, copy, data) as url:
            return asyncio.run(visit(url, options.presses, options.timeout))
    except Exception as error:
        return Seen(trouble=type(error).__name__)


def judge(seen: dict[str, Seen]) -> tuple[str, str]:
    """A verdict and its reason: same | same shape | not comparable | DIFFERENT."""
    plain, again, ours = (seen[way] for way in WAYS)
    if not plain.elements:
        return "not comparable", f"plain shows nothing {plain.trouble}"
    if plain == again:
        return ("same", plain.trouble) if ours == plain else ("DIFFERENT", _first_difference(plain, ours))
    if plain.shapes == again.shapes and plain.trouble == again.trouble:
        same = ours.shapes == plain.shapes and ours.trouble == plain.trouble
        return ("same shape", "plain differs from plain") if same else ("DIFFERENT", _first_difference(plain, ours))
    return "not comparable", "plain differs from plain in what it shows"


def _first_difference(plain: Seen, ours: Seen) -> str:
    for number, (left, right) in enumerate(zip(plain.shown, ours.shown, strict=False)):
        for one, other in zip(left, right, strict=False):
            if one != other:
                at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
                start = max(0, at - 60)
                return f"step {number}: plain {one[start : at + 100]!r}, ours {other[start : at + 100]!r}"
        if len(left) != len(right):
            return f"step {number}: plain shows {len(left)}, ours {len(right)}"
    return f"plain {len(plain.shown)} steps {plain.trouble}, ours {len(ours.shown)} steps {ours.trouble}"


def main() -> int:
    """Compare all; the exit code is 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pattern", default="*.py", help="names of scripts")
    parser.add_argument(
        "--skip", default="*_test.py,__init__.py,conftest.py", help="names of files that are no scripts"
    )
    parser.add_argument("--presses", type=int, default=4, help="buttons to press")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for one run")
    parser.add_argument("--every", type=int, default=1, help="take every n-th script")
    options = parser.parse_args()
    names = sorted(each for each in options.folder.resolve().glob(options.pattern) if each.is_file())
    skipped = options.skip.split(",")
    scripts = [each for each in names if not any(fnmatch.fnmatch(each.name, one) for one in skipped)]
    scripts = scripts[:: options.every]
    verdicts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for script in scripts:
            seen = {way: see(way, script, Path(folder) / "work", options) for way in WAYS}
            verdict, reason = judge(seen)
            verdicts[verdict] += 1
            plain = seen["plain"]
            print(
                f"{verdict:<15} {script.name:<45} {len(plain.shown)} steps {plain.elements:>5} messages "
                f"{plain.exceptions} exceptions  {reason}",
                flush=True,
            )
    print(", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()))
    return int(bool(verdicts["DIFFERENT"]))


if __name__ == "__main__":
    sys.exit(main())
