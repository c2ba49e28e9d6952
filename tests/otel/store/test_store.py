"""Nothing committed is lost, the folder keeps its bounds, and no trouble of the disk reaches the application."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from otel.records import DropReason, Signal
from otel.spool.gate import GATE
from otel.store import keeper, schema
from otel.store.model import LogQuery, RunFilter
from otel.store.reader import StoreReader
from tests.otel.spool.test_damage import mounted
from tests.otel.store.conftest import Place
from tests.support.storing import SECOND, fact, logs_batch, now_ns, run, traces_batch

ROUNDS = 50 if os.environ.get("SOAK") else 6

PROGRAM = """
import sys
from pathlib import Path
from otel.ledger import Ledger
from otel.store.store import Store
from tests.support.storing import fact, logs_batch, run, traces_batch
store = Store(Path(sys.argv[1]), Ledger(), max_bytes=int(sys.argv[4]))
number = int(sys.argv[2])
last = number + int(sys.argv[3])
while number < last:
    store.commit([logs_batch([fact(f"number{number}")]), traces_batch(run(number + 1, queries=["SELECT 1"]))])
    assert not store.state().lost
    print(number, flush=True)
    number += 1
store.close(10)
"""


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.02)


def all_messages(reader: StoreReader, query: LogQuery | None = None) -> list[str]:
    """Every log record's message, page by page."""
    found: list[str] = []
    cursor = ""
    while True:
        page = reader.logs(query, limit=97, cursor=cursor)
        found += [each.message for each in page.items]
        cursor = page.next
        if not cursor:
            return found


def start_program(folder: Path, first: int, count: int, max_bytes: int = 2**29) -> subprocess.Popen[str]:
    """A process that writes records and says which are committed."""
    command = [sys.executable, "-c", PROGRAM, str(folder), str(first), str(count), str(max_bytes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_was_committed_survives_sigkill(place: Place) -> None:
    """A process is killed at a random moment and another goes on: every number that was said is there, once."""
    chance = random.Random()
    said: list[int] = []
    for number in range(ROUNDS):
        process = start_program(place.folder, number * 100_000, 100_000)
        assert process.stdout is not None
        said += [int(process.stdout.readline()) for _ in range(chance.randrange(1, 60))]
        process.kill()
        said += [int(line) for line in process.stdout.read().splitlines() if line.isdigit()]
        process.stdout.close()
        process.wait()
    found = all_messages(place.reader)
    assert len(found) == len(set(found))
    assert {f"number{each}" for each in said} <= set(found)
    runs = place.reader.find_traces(format(said[-1] + 1, "032x"))
    assert [run.queries for run in runs] == [1]
    assert place.reader.facts().problems == ()
    assert len(list(place.folder.glob("*.db"))) == 1  # each went on with the file of the one before


def test_several_processes_write_one_folder(place: Place) -> None:
    """Three processes write at once; a reader sees all of it in order while they do, and after."""
    processes = [start_program(place.folder, each * 1000, 150) for each in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert len(process.stdout.read().split()) == 150
        process.stdout.close()
        assert process.wait() == 0
    found = all_messages(place.reader)
    assert sorted(found) == sorted(f"number{each * 1000 + i}" for each in range(3) for i in range(150))
    rows = place.reader.logs(limit=1000).items
    assert [row.time_ns // 10**9 for row in rows] == sorted((row.time_ns // 10**9 for row in rows), reverse=True)
    assert all_messages(place.reader, LogQuery(text="number1007")) == ["number1007"]


def test_retention_holds_the_size_under_load(place: Place) -> None:
    """Much more than may be kept is written as fast as it goes: the folder stays below its bound, the newest stays."""
    cap = 12 * 2**20
    store = place.store(max_bytes=cap)
    sizes = []
    for number in range(120):
        facts = [fact(f"number{number} {i} " + "word " * 40, attributes={"n": number}) for i in range(400)]
        place.commit(store, logs_batch(facts))
        sizes.append(sum(schema.size_of(path) for path in place.folder.glob("*.db")))  # the keeper removes meanwhile
        if number % 10 == 9:
            store.keeper.look_after()
    assert store.keeper.removed > 0
    # A file's write-ahead log (8 MiB at most) comes on top of what it holds.
    assert max(sizes) <= cap + 8 * 2**20
    newest = place.reader.logs(limit=1).items[0]
    assert newest.message.startswith("number119 399")
    assert not all_messages(place.reader, LogQuery(text='"number0 0"'))
    account = place.ledger.snapshot()[Signal.LOGS]
    assert account.delivered == account.emitted == 120 * 400


def test_old_files_go(place: Place) -> None:
    """What is older than the age is removed, a file at a time; what is younger stays."""
    moment = time.time()
    store = place.store(max_age_s=1000, clock=lambda: moment)
    place.commit(store, logs_batch([fact("old")]))
    store.close(5)
    [old] = place.folder.glob("*.db")
    os.utime(old, (moment - 2000, moment - 2000))
    moment += 500
    later = place.store(max_age_s=1000, clock=lambda: moment)
    place.commit(later, logs_batch([fact("new")]))
    assert len(list(place.folder.glob("*.db"))) == 2  # an eighth of the age had passed: a new file was begun
    later.keeper.look_after()
    assert all_messages(place.reader) == ["new"]


def test_a_full_disk_stops_the_store_and_not_the_application(caplog: pytest.LogCaptureFixture) -> None:
    """Records are given up and counted, one line is logged; with room again the store goes on by itself."""
    with mounted("size=6m") as root, caplog.at_level(logging.WARNING, "otel"):
        place = Place(root / "store")
        try:
            store = place.store(max_bytes=2**30)
            text = "word " * 500
            for number in range(40):
                place.commit(store, logs_batch([fact(f"{number} {i} {text}") for i in range(100)]))
            account = place.ledger.snapshot()[Signal.LOGS]
            assert account.dropped[DropReason.DISK] > 0
            assert account.delivered > 0
            assert store.state().problem
            assert place.balance() == [0, 0, 0]
            lines = [each for each in caplog.records if each.__dict__.get("event") == "store.failed"]
            assert len(lines) == 1
            subprocess.run(["mount", "-o", "remount,size=60m", str(root)], check=True)

            def works() -> bool:
                place.commit(store, logs_batch([fact("again")]))
                return not store.state().problem

            wait_until(works)
            assert "again" in all_messages(place.reader, LogQuery(text="again"))
        finally:
            place.close()


def test_a_damaged_file_is_set_aside_and_counted(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is no database any more does not stop the next start; it is kept beside, and said."""
    store = place.store()
    place.commit(store, logs_batch([fact("gone")]))
    store.close(5)
    [file] = place.folder.glob("*.db")
    file.write_bytes(b"nothing of SQLite's" * 1000)
    assert all_messages(place.reader) == []
    assert len(place.reader.facts().problems) == 1
    with caplog.at_level(logging.WARNING, "otel"):
        again = place.store()
        place.commit(again, logs_batch([fact("here")]))
    assert again.state().damaged == 1
    assert any(each.__dict__.get("event") == "store.damaged" for each in caplog.records)
    assert [path.name for path in place.folder.glob("*.damaged")] == [f"{file.name}.damaged"]
    assert all_messages(place.reader) == ["here"]
    assert place.reader.facts().problems == ()


def test_a_file_that_is_damaged_while_it_is_written_is_replaced(place: Place) -> None:
    """The write that meets the damage goes to a new file."""
    store = place.store()
    place.commit(store, traces_batch(run(7)), logs_batch([fact("before")]))
    assert store._segment is not None
    with GATE():  # the keeper looks after the file too
        segment = store._segment
        segment.run(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        size = segment.path.stat().st_size
        with open(segment.path, "r+b") as opened:  # no lock of SQLite's is held between two commits
            opened.seek(4096)
            opened.write(os.urandom(size - 4096))
        segment.run(lambda connection: connection.execute("PRAGMA shrink_memory").fetchall())  # else it need not look
    for number in range(50):
        place.commit(store, traces_batch(run(8 + number)), logs_batch([fact(f"after {number}")]))
    assert store.state().damaged == 1
    assert "after 49" in all_messages(place.reader)
    assert place.balance() == [0, 0, 0]


def test_a_removed_file_is_made_anew(place: Place) -> None:
    """Somebody empties the folder while the application runs."""
    store = place.store()
    place.commit(store, logs_batch([fact("before")]))
    for path in place.folder.iterdir():
        path.unlink()
    place.commit(store, logs_batch([fact("after")]))
    assert all_messages(place.reader) == ["after"]


def test_an_older_file_is_brought_forward(place: Place) -> None:
    """A file of version 1 is read and gone on with: its rows stay, and it is of this release's version afterwards."""
    place.folder.mkdir()
    path = place.folder / f"{int(time.time() * 1e6):014x}-00000000.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    for statement in schema.MIGRATIONS[1]:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    moment = now_ns()
    number = (moment // 10**6) << 12
    connection.execute(
        "INSERT INTO logs VALUES (?, ?, 9, 'INFO', 'app', NULL, 'old', NULL, NULL, NULL, NULL)", (number, moment)
    )
    connection.execute("INSERT INTO words (rowid, text) VALUES (?, 'old')", (number,))
    minutes = [moment // (60 * 10**9) - ago for ago in (200, 100, 90)]
    connection.executemany("INSERT INTO run_steps VALUES (?, 'p', 'success', 5, 3, 300)", [(each,) for each in minutes])
    connection.commit()
    connection.close()
    assert all_messages(place.reader, LogQuery(text="old")) == ["old"]
    day = place.reader.overview(moment - 86_400 * SECOND, moment)
    assert day.runs == sum(step.runs for step in day.steps) == sum(page.runs for page in day.pages) == 9
    store = place.store()
    place.commit(store, logs_batch([fact("new")]), traces_batch(run(5, queries=["SELECT 1"] * 9)))
    assert sorted(all_messages(place.reader)) == ["new", "old"]
    store.put_session_memory([("s1", 1, 2)])  # a table that version 1 had not
    assert [each.bytes for each in place.reader.memory(0, now_ns()).sessions] == [3]
    store.close(5)
    assert [each.name for each in place.folder.glob("*.db")] == [path.name]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION
    connection.close()


def test_a_file_of_a_newer_release_is_left_alone(place: Place) -> None:
    """Going back to an older release loses nothing that the newer one wrote."""
    store = place.store()
    place.commit(store, logs_batch([fact("of the future")]))
    store.close(5)
    [path] = place.folder.glob("*.db")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    again = place.store()
    place.commit(again, logs_batch([fact("now")]))
    again.keeper.look_after()
    assert all_messages(place.reader) == ["now"]
    assert path.exists()
    assert "999" in place.reader.facts().problems[0]


def test_the_keeper_ends(place: Place) -> None:
    """Its thread has a name, and is gone after the close."""
    store = place.store()
    place.commit(store, logs_batch([fact()]))
    assert "otel.store.keeper" in {thread.name for thread in threading.enumerate()}
    store.close(10)
    assert "otel.store.keeper" not in {thread.name for thread in threading.enumerate()}
    place.commit(store, logs_batch([fact()]))
    assert place.ledger.snapshot()[Signal.LOGS].dropped == {DropReason.SHUTDOWN: 1}


def test_a_file_that_a_process_has_is_not_removed(place: Place) -> None:
    """Retention takes only what nobody writes."""
    store = place.store(max_bytes=8 * 2**20)
    place.commit(store, logs_batch([fact("here")]))
    other = keeper.Keeper(place.folder, store._notices, 1, 3600, lambda work, old_s: None)
    other.look_after()
    assert other.removed == 0
    assert all_messages(place.reader) == ["here"]


def test_metrics_are_thinned_and_steps_stay(place: Place) -> None:
    """After an hour points as they were collected go, after a day those of minutes; the steps that stand for them stay."""
    from tests.support.storing import Meters

    moment = time.time()
    store = place.store(clock=lambda: moment)
    meters = Meters()
    counter = meters.meter.create_counter("things")
    for _ in range(3):
        counter.add(5)
        place.commit(store, meters.collect())
    store.keeper._clock = lambda: moment + 2 * 3600
    store.keeper.look_after()
    begin, end = now_ns() - 600 * SECOND, now_ns() + SECOND
    fine = place.reader.series("things", begin, end, steps=600)
    assert len(fine) == 1
    [path] = place.folder.glob("*.db")
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    levels = dict(connection.execute("SELECT level, count(*) FROM points GROUP BY level").fetchall())
    connection.close()
    assert 0 not in levels and levels[1] >= 1 and levels[2] >= 1
    [coarse] = place.reader.series("things", begin - 3600 * SECOND, end, steps=7)
    assert sum(point.value for point in coarse.points) * coarse.step_s == pytest.approx(15)


def test_a_number_that_is_taken_is_given_anew(place: Place) -> None:
    """A process that goes on with a file begins with the same numbers: two records of one moment are both there."""
    moment = now_ns()
    first = place.store()
    place.commit(first, logs_batch([fact("one", time_ns=moment)]), traces_batch(run(1, start_ns=moment)))
    first.close(5)
    second = place.store()  # goes on with the file, and begins with the same numbers
    place.commit(second, logs_batch([fact("two", time_ns=moment)]), traces_batch(run(2, start_ns=moment)))
    assert sorted(all_messages(place.reader)) == ["one", "two"]
    assert all_messages(place.reader, LogQuery(text="two")) == ["two"]
    assert len(place.reader.runs(RunFilter()).items) == 2


def test_what_sessions_hold_is_kept(place: Place) -> None:
    """The largest sessions of the newest sample, largest first."""
    store = place.store()
    store.put_session_memory([("too early", 1, 1)])  # nothing was committed yet: there is no file, and none is made
    place.commit(store, logs_batch([fact()]))
    store.put_session_memory([("small", 10, 0), ("large", 5, 500)])
    store.put_session_memory([("small", 20, 0)])
    memory = place.reader.memory(0, now_ns())
    assert [(each.session_id, each.bytes) for each in memory.sessions] == [("large", 505), ("small", 20)]
