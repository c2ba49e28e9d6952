"""Damage: whatever lies in the folder the spool starts, sends what can be read, and counts what can't."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel.ledger import Ledger
from otel.records import DropReason, Signal
from otel.spool import Spool
from tests.support.requirements import require
from tests.support.spooling import LATER, TAKEN, Steered, batch, commit, senders, settled

PAGE = 4096
ROWS = 24


def corpse(folder: Path, *, checkpointed: bool) -> dict[Signal, list[int]]:
    """Leave in `folder` what a process that was killed leaves, and return the ids that wait in it."""
    alive = folder.with_name(folder.name + "-alive")
    ledger = Ledger()
    spool = Spool(alive, ledger, {})
    spool.start()
    ids: dict[Signal, list[int]] = {signal: [] for signal in Signal}
    for number in range(ROWS):
        signal = list(Signal)[number % 3]
        each = [number * 10 + k for k in range(3)]
        ids[signal] += each
        commit(spool, ledger, batch(signal, each, padding=800))
    if checkpointed:
        with contextlib.closing(sqlite3.connect(next(alive.glob("*.db")))) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    shutil.copytree(alive, folder)
    spool.close(0)
    shutil.rmtree(alive)
    return ids


def drained(folder: Path) -> tuple[Ledger, dict[Signal, list[int]]]:
    """Start on a folder as it is, commit something, send everything, and stop: what arrived of each signal."""
    ledger = Ledger()
    receivers = {signal: Steered(signal) for signal in Signal}
    spool = Spool(folder, ledger, receivers)
    began = time.monotonic()
    spool.start()
    for signal in Signal:
        commit(spool, ledger, batch(signal, [999_999]))
    assert time.monotonic() - began < 10  # a second is promised, the slack is for a busy machine
    spool.look_after()
    spool.look_after()
    assert spool.flush(30)
    spool.close(5)
    taken = {}
    for signal, receiver in receivers.items():
        assert receiver.taken.count(999_999) == 1
        taken[signal] = [each for each in receiver.taken if each != 999_999]
        assert len(set(taken[signal])) == len(taken[signal])
    return ledger, taken


def check_loss(ledger: Ledger, taken: dict[Signal, list[int]], ids: dict[Signal, list[int]]) -> None:
    """What arrived is of what there was, in its order; the rest is counted as damaged, exactly."""
    for signal in Signal:
        assert taken[signal] == [each for each in ids[signal] if each in set(taken[signal])]
        account = ledger.snapshot()[signal]
        assert account.balance == 0
        assert account.emitted == len(ids[signal]) + 1
        assert account.delivered == len(taken[signal]) + 1
        assert dict(account.dropped) in ({}, {DropReason.DAMAGED: len(ids[signal]) - len(taken[signal])})
        assert account.spooled == account.queued == 0


@pytest.mark.parametrize("suffix", [".db", ".db-wal"])
def test_truncated_at_every_page(tmp_path: Path, suffix: str) -> None:
    """A spool file, or its log, that ends too early is no reason not to start; what is gone is counted."""
    ids = corpse(tmp_path / "whole", checkpointed=suffix == ".db")
    size = next((tmp_path / "whole").glob(f"*{suffix}")).stat().st_size
    assert size > 10 * PAGE
    lost = 0
    for length in [*range(0, size, PAGE), size]:
        folder = tmp_path / f"{length}"
        shutil.copytree(tmp_path / "whole", folder)
        os.truncate(next(folder.glob(f"*{suffix}")), length)
        ledger, taken = drained(folder)
        check_loss(ledger, taken, ids)
        lost += sum(len(each) for each in ids.values()) - sum(len(each) for each in taken.values())
        shutil.rmtree(folder)
    assert lost > 0


@pytest.mark.parametrize("suffix", [".db", ".db-wal"])
def test_flipped_bytes(tmp_path: Path, suffix: str) -> None:
    """A changed byte, wherever it is, costs what it hit, is noticed, and nothing wrong is ever sent."""
    ids = corpse(tmp_path / "whole", checkpointed=suffix == ".db")
    chance = random.Random(5)
    size = next((tmp_path / "whole").glob(f"*{suffix}")).stat().st_size
    places = [*range(0, 100, 5), *(chance.randrange(size) for _ in range(600 if os.environ.get("SOAK") else 40))]
    for place in places:
        folder = tmp_path / f"{place}"
        shutil.copytree(tmp_path / "whole", folder)
        file = next(folder.glob(f"*{suffix}"))
        data = bytearray(file.read_bytes())
        data[place] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        ledger, taken = drained(folder)
        check_loss(ledger, taken, ids)
        shutil.rmtree(folder)


def test_a_missing_log(tmp_path: Path) -> None:
    """Without its write-ahead log a file has lost what was only there; the tally knows how much."""
    ids = corpse(tmp_path / "dead", checkpointed=False)
    next((tmp_path / "dead").glob("*-wal")).unlink()
    ledger, taken = drained(tmp_path / "dead")
    check_loss(ledger, taken, ids)
    assert ledger.snapshot()[Signal.LOGS].dropped[DropReason.DAMAGED] > 0


def test_a_missing_tally(tmp_path: Path) -> None:
    """Without the lock file's contents what can be read is sent and counted."""
    ids = corpse(tmp_path / "dead", checkpointed=False)
    next((tmp_path / "dead").glob("*.lock")).write_bytes(b"")
    ledger, taken = drained(tmp_path / "dead")
    check_loss(ledger, taken, ids)
    assert taken == ids


def test_a_missing_lock_file(tmp_path: Path) -> None:
    """A spool file without a lock file belongs to nobody and is taken over."""
    ids = corpse(tmp_path / "dead", checkpointed=True)
    next((tmp_path / "dead").glob("*.lock")).unlink()
    _, taken = drained(tmp_path / "dead")
    assert taken == ids


@pytest.mark.parametrize("what", ["version", "garbage", "empty"])
def test_what_cant_be_read_at_all_is_set_aside(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """A file of another version, of garbage or of nothing is renamed, its loss counted and logged once."""
    ids = corpse(tmp_path / "dead", checkpointed=True)
    file = next((tmp_path / "dead").glob("*.db"))
    if what == "version":
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA user_version = 99")
    else:
        file.write_bytes(b"" if what == "empty" else random.Random(1).randbytes(50_000))
    with caplog.at_level(logging.INFO, "otel"):
        ledger, taken = drained(tmp_path / "dead")
    if what != "version":  # the rows of another version are what they were; they are read if they can be
        assert taken == {signal: [] for signal in Signal}
        check_loss(ledger, taken, ids)
        assert sum("are lost" in each.getMessage() for each in caplog.records) == 1
    assert sum("was set aside" in each.getMessage() for each in caplog.records) == 1
    assert [each.name for each in (tmp_path / "dead").glob("*.damaged")] == [file.name + ".damaged"]
    assert sorted(each.suffix for each in (tmp_path / "dead").iterdir() if "damaged" not in each.name) == []


def test_only_a_few_files_that_were_set_aside_are_kept(tmp_path: Path) -> None:
    """Damage does not fill the disk."""
    for number in range(8):
        (tmp_path / f"{number:012x}-aa.db").write_bytes(b"not a database, by far" * 100)
    drained(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_damage_while_it_is_in_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that breaks under its owner is mended: what can be read is sent, the rest counted, what comes is kept."""
    ledger, open_ = Ledger(), [False]
    receiver = Steered(Signal.LOGS)
    receiver.answer = lambda _: TAKEN if open_[0] else LATER
    spool = Spool(tmp_path, ledger, senders(receiver), period_s=3600)
    spool.start()
    for number in range(60):
        commit(spool, ledger, batch(Signal.LOGS, [number], padding=30_000))
    file = next(tmp_path.glob("*.db"))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with file.open("r+b") as opened:
        opened.seek(100 * PAGE)
        opened.write(random.Random(2).randbytes(80 * PAGE))
    open_[0] = True
    with caplog.at_level(logging.WARNING, "otel"):
        for number in range(60, 70):
            commit(spool, ledger, batch(Signal.LOGS, [number], padding=30_000))
            spool.flush(0.2)
            spool.look_after()
        spool.look_after()
        assert spool.flush(30)
    spool.close(5)
    account = ledger.snapshot()[Signal.LOGS]
    assert account.balance == 0 and account.spooled == account.queued == 0
    assert account.delivered == len(receiver.taken) == len(set(receiver.taken))
    assert set(range(60, 70)) <= set(receiver.taken)
    assert account.emitted == 70
    assert 10 < account.dropped[DropReason.DAMAGED] < 50
    assert set(account.dropped) == {DropReason.DAMAGED}


def test_a_locked_file_is_left_until_it_is_free(tmp_path: Path) -> None:
    """Somebody's open transaction on an old file holds up neither the start nor what is new."""
    ids = corpse(tmp_path / "dead", checkpointed=True)
    file = next((tmp_path / "dead").glob("*.db"))
    ledger = Ledger()
    receivers = {signal: Steered(signal) for signal in Signal}
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        spool = Spool(tmp_path / "dead", ledger, receivers, period_s=0.05)
        began = time.monotonic()
        spool.start()
        commit(spool, ledger, batch(Signal.LOGS, [999_999]))
        assert time.monotonic() - began < 10
        assert receivers[Signal.LOGS].wait_for(lambda: receivers[Signal.LOGS].taken == [999_999])
    for signal, receiver in receivers.items():
        wanted = ([999_999] if signal is Signal.LOGS else []) + ids[signal]
        assert receiver.wait_for(lambda receiver=receiver, wanted=wanted: receiver.taken == wanted)  # type: ignore[misc]
    assert spool.flush(20)
    spool.close(5)


def test_an_own_file_that_is_locked_holds_nothing_up(tmp_path: Path) -> None:
    """While somebody locks the own file records wait in memory and are sent from there; none is lost."""
    ledger, receiver = Ledger(), Steered(Signal.LOGS)
    spool = Spool(tmp_path, ledger, senders(receiver))
    spool.start()
    with contextlib.closing(sqlite3.connect(next(tmp_path.glob("*.db")), isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        commit(spool, ledger, batch(Signal.LOGS, [1]))
        assert spool.flush(20)
    commit(spool, ledger, batch(Signal.LOGS, [2]))
    assert spool.flush(20)
    spool.close(5)
    assert receiver.taken == [1, 2]
    assert settled(ledger) == {Signal.LOGS: {"emitted": 2, "delivered": 2}}


@contextlib.contextmanager
def mounted(options: str) -> Iterator[Path]:
    """A file system of its own in memory; needs the right to mount."""
    with tempfile.TemporaryDirectory() as name:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", name]
        done = subprocess.run(command, capture_output=True, check=False)
        require(done.returncode == 0, "the right to mount a tmpfs")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def test_a_read_only_folder(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing can be written records go by memory, and one line says so."""
    with mounted("size=1m") as place, caplog.at_level(logging.WARNING, "otel"):
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        ledger, receiver = Ledger(), Steered(Signal.LOGS)
        spool = Spool(place / "spool", ledger, senders(receiver))
        began = time.monotonic()
        spool.start()
        commit(spool, ledger, batch(Signal.LOGS, [1]))
        assert time.monotonic() - began < 10
        spool.look_after()
        assert spool.flush(20)
        spool.close(5)
        assert receiver.taken == [1]
        assert settled(ledger) == {Signal.LOGS: {"emitted": 1, "delivered": 1}}
    told = [each.getMessage() for each in caplog.records]
    assert told == [f"no spool can be made in {place / 'spool'}: Read-only file system; telemetry waits in memory"]


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    """That is no folder, and no reason not to start."""
    (tmp_path / "spool").write_text("something else")
    ledger, receiver = Ledger(), Steered(Signal.LOGS)
    spool = Spool(tmp_path / "spool", ledger, senders(receiver))
    spool.start()
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    assert spool.flush(20)
    spool.close(5)
    assert receiver.taken == [1]


def test_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    """What the disk does not take waits in memory up to its cap; above it the oldest are dropped and counted.

    When there is room again what waits in memory is written, and everything that was kept arrives, once and in order.
    """
    with mounted("size=6m") as place, caplog.at_level(logging.WARNING, "otel"):
        ledger, open_ = Ledger(), [False]
        receiver = Steered(Signal.LOGS)
        receiver.answer = lambda _: TAKEN if open_[0] else LATER
        spool = Spool(place / "spool", ledger, senders(receiver), memory_bytes=2_000_000)
        spool.start()
        for number in range(500):
            commit(spool, ledger, batch(Signal.LOGS, [number], padding=20_000))
        figures = settled(ledger)[Signal.LOGS]
        assert figures["emitted"] == 500
        assert figures["spooled"] > 50
        assert 50 < figures["queued"] <= 100
        assert figures["disk"] == 500 - figures["spooled"] - figures["queued"]
        assert sum("the spool can't be used now" in each.getMessage() for each in caplog.records) == 1
        subprocess.run(["mount", "-o", "remount,size=40m", str(place)], check=True)
        spool.look_after()
        assert settled(ledger)[Signal.LOGS].get("queued", 0) == 0
        open_[0] = True
        assert spool.flush(60)
        spool.close(5)
        assert receiver.taken == sorted(set(receiver.taken))
        assert settled(ledger)[Signal.LOGS] == {
            "emitted": 500,
            "delivered": len(receiver.taken),
            "disk": figures["disk"],
        }
        assert len(receiver.taken) == 500 - figures["disk"]


def test_on_a_full_disk_what_arrived_is_not_sent_again(tmp_path: Path) -> None:
    """A deletion that the disk does not take is remembered: by the process, and by the tally for the next one."""
    with mounted("size=6m") as place:
        ledger, most = Ledger(), [0]
        receiver = Steered(Signal.LOGS)
        receiver.answer = lambda _: TAKEN if len(receiver.taken) < most[0] else LATER
        spool = Spool(place / "spool", ledger, senders(receiver), memory_bytes=2_000_000)
        spool.start()
        for number in range(400):
            commit(spool, ledger, batch(Signal.LOGS, [number], padding=20_000))
        most[0] = 60
        assert receiver.wait_for(lambda: len(receiver.taken) == 60, 60)
        shutil.copytree(place / "spool", tmp_path / "dead")
        spool.close(0)
    again, other = Ledger(), Steered(Signal.LOGS)
    following = Spool(tmp_path / "dead", again, senders(other))
    following.start()
    following.look_after()
    assert following.flush(30)
    following.close(5)
    assert other.taken == sorted(set(other.taken))
    assert len(set(other.taken) & set(receiver.taken)) <= 1  # the last one's answer may be younger than the copy
    assert settled(again)[Signal.LOGS]["delivered"] == len(other.taken)
