"""Pages of log records from the real VictoriaLogs: each record once, also while others are written."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from otel.store.model import LogQuery, LogRow
from streamlit_extension.remote.victorialogs import VictoriaLogs
from tests.stack.backends import until
from tests.support.backends import free_port
from tests.support.stack import built

Write = Callable[[list[int]], None]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A running VictoriaLogs."""
    place = f"127.0.0.1:{free_port()}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                built("victorialogs", "victoria-logs"), f"-httpListenAddr={place}", "-inmemoryDataFlushInterval=1s",
                f"-storageDataPath={tmp_path / 'data'}",
            ],
            stderr=log,
        )  # fmt: skip
    try:
        until(lambda: urllib.request.urlopen(f"http://{place}/health", timeout=5).status, lambda status: status == 200)
        yield f"http://{place}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def write(url: str) -> Write:
    """Writes a record for each moment, numbered, and waits until all are found."""
    numbers = iter(range(1_000_000))

    def put(moments: list[int]) -> None:
        lines = []
        for moment in moments:
            seconds, part = divmod(moment, 10**9)
            text = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{part:09d}Z"
            lines.append(json.dumps({"_time": text, "_msg": f"line {next(numbers)}", "service.name": "shop"}))
        target = f"{url}/insert/jsonline?_stream_fields=service.name"
        words = {"Content-Type": "application/stream+json"}
        with urllib.request.urlopen(urllib.request.Request(target, "\n".join(lines).encode(), words)) as answer:
            assert answer.status == 200
        everything = LogQuery(since_ns=0)
        written = int(json.loads(lines[-1])["_msg"].split()[1]) + 1
        logs = VictoriaLogs(url, "shop")
        assert until(lambda: len(logs.logs(everything, limit=100_000).items), lambda seen: seen == written) == written

    return put


def test_records_of_one_moment_are_on_one_page_or_the_next(url: str, write: Write) -> None:
    """A page may end among records of the same nanosecond."""
    now = time.time_ns()
    write([now] * 7 + [now + 1] * 5 + [now + 2] * 9)
    logs = VictoriaLogs(url, "shop")
    for size, newest_first in itertools.product((1, 2, 5, 21, 30), (True, False)):
        found: list[LogRow] = []
        cursor = ""
        for _ in range(25):
            page = logs.logs(limit=size, cursor=cursor, newest_first=newest_first)
            found += page.items
            cursor = page.next
            if not cursor:
                break
        assert sorted(each.message for each in found) == sorted(f"line {number}" for number in range(21))
        moments = [each.time_ns for each in found]
        assert moments == sorted(moments, reverse=newest_first), (size, newest_first)


def test_what_is_written_meanwhile_moves_no_page(url: str, write: Write) -> None:
    """Between two pages others come: nothing is shown twice, nothing that was there is left out."""
    now = time.time_ns()
    write([now + number for number in range(60)])
    logs, cursor = VictoriaLogs(url, "shop"), ""
    found: list[str] = []
    for turn in range(6):
        page = logs.logs(limit=10, cursor=cursor)
        found += [each.message for each in page.items]
        cursor = page.next
        write([now + 1000 + 10 * turn + number for number in range(10)])
    assert found == [f"line {number}" for number in reversed(range(60))]
    assert cursor == ""


def test_a_window_is_exact(url: str, write: Write) -> None:
    """`since_ns` ≤ time < `until_ns`, to the nanosecond."""
    now = time.time_ns()
    write([now, now + 1, now + 2])
    page = VictoriaLogs(url, "shop").logs(LogQuery(since_ns=now + 1, until_ns=now + 2))
    assert [each.message for each in page.items] == ["line 1"]


def test_a_cursor_that_is_none_is_no_page(url: str) -> None:
    """Whatever is typed for one."""
    logs = VictoriaLogs(url, "shop")
    for cursor in ("x", "1", "1.x", "-1.0", "²._", ".", "1.0.0"):
        assert logs.logs(cursor=cursor).items == ()
