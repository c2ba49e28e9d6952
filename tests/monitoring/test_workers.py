"""What the workers of one server leave for one another."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from otel.families import Exemplar, Family, Sample
from streamlit_extension.monitoring.export import ExemplarMemory
from streamlit_extension.monitoring.workers import STALE_S, WorkerShare, worker_group

FAMILIES = [Family("runs", "counter", "", "Runs", (Sample("_total", {"a": "b"}, 3.0, Exemplar({"t": "1"}, 2.0, 1.0)),))]


def test_what_one_leaves_another_reads(tmp_path: Path) -> None:
    """Whole, with exemplars; its own is not among them, nor is that of another group."""
    first = WorkerShare(tmp_path, "g", lambda: FAMILIES, pid=1)
    second = WorkerShare(tmp_path, "g", list, pid=2)
    stranger = WorkerShare(tmp_path, "h", list, pid=3)
    first.leave(FAMILIES)
    stranger.leave(FAMILIES)
    assert second.others() == {"1": FAMILIES}
    assert first.others() == {}
    assert (tmp_path / "metrics" / "g" / "1.msgpack").stat().st_mode & 0o077 == 0


def test_what_is_stale_or_damaged_is_passed_over(tmp_path: Path) -> None:
    """A worker that was killed is gone from the scrape in half a minute, and its file in an hour."""
    now = 0.0
    first = WorkerShare(tmp_path, "g", list, pid=1)
    second = WorkerShare(tmp_path, "g", list, pid=2, clock=lambda: now)
    first.leave(FAMILIES)
    file = tmp_path / "metrics" / "g" / "1.msgpack"
    (tmp_path / "metrics" / "g" / "9.msgpack").write_bytes(b"\x81\xff")
    left_at = file.stat().st_mtime
    now = left_at + STALE_S - 1
    assert list(second.others()) == ["1"]
    now = left_at + STALE_S + 1
    assert second.others() == {}
    assert file.exists()
    now = left_at + 3601
    assert second.others() == {}
    assert not file.exists()


def test_the_thread_leaves_at_once_and_ends_with_its_file(tmp_path: Path) -> None:
    """A worker that ends is no part of the next scrape."""
    read = threading.Event()

    def families() -> list[Family]:
        read.set()
        return FAMILIES

    share = WorkerShare(tmp_path, "g", families, pid=1)
    share.start()
    assert read.wait(20)
    share.stop()
    assert not (tmp_path / "metrics" / "g").exists()
    assert "stx-metrics-share" not in [each.name for each in threading.enumerate()]


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The thread goes on, and the caller's scrape is its own."""
    (tmp_path / "metrics").write_text("in the way")
    share = WorkerShare(tmp_path, "g", lambda: FAMILIES, pid=1)
    share.start()
    share.stop()
    assert "metrics could not be shared" in caplog.text
    assert share.others() == {}


def _tell_group(pipe: object) -> None:
    pipe.send((os.getppid(), worker_group()))  # type: ignore[attr-defined]


def test_workers_of_one_parent_are_a_group() -> None:
    """Two children of this process have one name together; this process itself is no worker."""
    context = multiprocessing.get_context("spawn")
    found = []
    for _ in range(2):
        ours, theirs = context.Pipe()
        child = context.Process(target=_tell_group, args=(theirs,))
        child.start()
        found.append(ours.recv())
        child.join()
    assert found[0] == found[1]
    assert found[0][1] is not None
    assert worker_group() is None


def test_exemplars_are_kept_between_scrapes_and_forgotten_with_their_series() -> None:
    """The SDK tells each exemplar once."""
    memory = ExemplarMemory()
    bare = [Family("runs", "counter", "", "Runs", (Sample("_total", {"a": "b"}, 4.0),))]
    assert memory.fill(FAMILIES) == FAMILIES
    assert memory.fill(bare)[0].samples[0].exemplar == FAMILIES[0].samples[0].exemplar
    assert memory.fill([]) == []
    assert memory.fill(bare) == bare
