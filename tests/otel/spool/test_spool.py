"""The spool as its users see it: what is committed arrives, in order, is counted once, and survives."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import pytest

from otel.export.outcome import Kind, Outcome
from otel.ledger import Ledger
from otel.records import Signal
from otel.spool import Spool
from tests.support.spooling import LATER, TAKEN, Steered, batch, commit, senders, settled


def spool_files(folder: Path) -> list[str]:
    """Names below the folder."""
    return sorted(each.name for each in folder.iterdir())


def test_what_is_committed_is_sent_in_order_and_leaves_no_file(tmp_path: Path) -> None:
    """Every record arrives once, in order for each signal, and an empty spool is removed at the end."""
    ledger = Ledger()
    traces, logs = Steered(Signal.TRACES), Steered(Signal.LOGS)
    spool = Spool(tmp_path / "spool", ledger, senders(traces, logs))
    spool.start()
    for number in range(50):
        commit(spool, ledger, batch(Signal.TRACES, [2 * number, 2 * number + 1]), batch(Signal.LOGS, [number]))
    assert spool.flush(20)
    spool.close(5)
    assert traces.taken == list(range(100))
    assert logs.taken == list(range(50))
    assert settled(ledger) == {
        Signal.TRACES: {"emitted": 100, "delivered": 100},
        Signal.LOGS: {"emitted": 50, "delivered": 50},
    }
    assert spool_files(tmp_path / "spool") == []


def test_what_could_not_be_sent_is_sent_by_the_next_start_and_counted_once(tmp_path: Path) -> None:
    """A stop without a receiver leaves everything in the spool; whoever starts next counts it as emitted, once."""
    ledger = Ledger()
    spool = Spool(tmp_path, ledger, senders(Steered(Signal.LOGS, lambda _: LATER)))
    spool.start()
    commit(spool, ledger, batch(Signal.LOGS, [1, 2, 3]))
    spool.close(0.2)
    assert settled(ledger) == {Signal.LOGS: {"emitted": 3, "spooled": 3}}
    again, receiver = Ledger(), Steered(Signal.LOGS)
    following = Spool(tmp_path, again, senders(receiver))
    following.start()
    assert receiver.wait_for(lambda: receiver.taken == [1, 2, 3])
    assert following.flush(20)
    following.close(5)
    assert settled(again) == {Signal.LOGS: {"emitted": 3, "delivered": 3}}
    assert spool_files(tmp_path) == []


def test_what_a_dead_process_left_is_sent_before_what_is_new(tmp_path: Path) -> None:
    """Order holds across processes: the older file goes first."""
    ledger = Ledger()
    first = Spool(tmp_path, ledger, {})
    first.start()
    commit(first, ledger, batch(Signal.LOGS, [1]), batch(Signal.LOGS, [2]))
    first.close(0)
    again, gate = Ledger(), threading.Event()
    receiver = Steered(Signal.LOGS, lambda _: TAKEN if gate.is_set() else LATER)
    second = Spool(tmp_path, again, senders(receiver))
    second.start()
    assert receiver.wait_for(lambda: receiver.attempts != [])
    commit(second, again, batch(Signal.LOGS, [3]))
    gate.set()
    assert second.flush(20)
    second.close(5)
    assert receiver.taken == [1, 2, 3]


def test_a_living_process_keeps_its_file(tmp_path: Path) -> None:
    """While its owner lives nobody takes a spool file, and as soon as it has ended somebody does."""
    one, other = Ledger(), Ledger()
    owner = Spool(tmp_path, one, {})
    owner.start()
    commit(owner, one, batch(Signal.LOGS, [1]))
    receiver = Steered(Signal.LOGS)
    taker = Spool(tmp_path, other, senders(receiver), period_s=0.05)
    taker.start()
    taker.look_after()
    assert settled(other) == {}
    owner.close(0)
    assert receiver.wait_for(lambda: receiver.taken == [1])
    taker.close(5)
    assert settled(other) == {Signal.LOGS: {"emitted": 1, "delivered": 1}}


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        (Outcome(Kind.TAKEN, rejected=2), {"delivered": 8, "partial": 2}),
        (Outcome(Kind.REFUSED, "HTTP 400"), {"refused": 10}),
        (Outcome(Kind.FAILED, "HTTP 500"), {"refused": 10}),
    ],
)
def test_what_a_receiver_says_is_counted(tmp_path: Path, outcome: Outcome, counted: dict[str, int]) -> None:
    """Partial success, refusals and five failures are counted by reason, and what comes after is sent."""
    ledger = Ledger()
    receiver = Steered(Signal.TRACES, lambda ids: outcome if 3 in ids else TAKEN)
    spool = Spool(tmp_path, ledger, senders(receiver))
    spool.start()
    commit(spool, ledger, batch(Signal.TRACES, range(10)), batch(Signal.TRACES, [10]))
    assert receiver.wait_for(lambda: 10 in receiver.taken)
    assert spool.flush(20)
    spool.close(5)
    assert receiver.taken[-1] == 10
    counted = {**counted, "delivered": counted.get("delivered", 0) + 1}
    assert settled(ledger) == {Signal.TRACES: {"emitted": 11, **counted}}
    assert len(receiver.attempts) == (6 if outcome.kind is Kind.FAILED else 2)


@pytest.mark.parametrize("signal", list(Signal))
def test_what_is_too_large_is_split_and_a_record_that_is_alone_is_refused(tmp_path: Path, signal: Signal) -> None:
    """A 413 halves what is sent until it is taken, in order; a single record that is still too large is given up."""
    ledger = Ledger()

    def answer(ids: list[int]) -> Outcome:
        return Outcome(Kind.TOO_LARGE) if len(ids) > 3 or 7 in ids else TAKEN

    receiver = Steered(signal, answer)
    spool = Spool(tmp_path, ledger, senders(receiver))
    spool.start()
    commit(spool, ledger, batch(signal, range(20)), batch(signal, [20]))
    assert spool.flush(20)
    spool.close(5)
    assert receiver.taken == [each for each in range(21) if each != 7]
    assert settled(ledger) == {signal: {"emitted": 21, "delivered": 20, "refused": 1}}


def test_a_part_that_was_taken_is_not_sent_again_after_a_restart(tmp_path: Path) -> None:
    """Of a batch that was split the part that arrived is remembered on disk."""
    ledger = Ledger()

    def answer(ids: list[int]) -> Outcome:
        if len(ids) > 2:
            return Outcome(Kind.TOO_LARGE)
        return TAKEN if 0 in ids else LATER

    first = Steered(Signal.LOGS, answer)
    spool = Spool(tmp_path, ledger, senders(first))
    spool.start()
    commit(spool, ledger, batch(Signal.LOGS, [0, 1, 2, 3]))
    assert first.wait_for(lambda: any(2 in ids and len(ids) == 2 for ids in first.attempts))
    spool.close(0)
    assert settled(ledger) == {Signal.LOGS: {"emitted": 4, "delivered": 2, "spooled": 2}}
    again, second = Ledger(), Steered(Signal.LOGS)
    following = Spool(tmp_path, again, senders(second))
    following.start()
    assert second.wait_for(lambda: second.taken == [2, 3])
    following.close(5)
    assert settled(again) == {Signal.LOGS: {"emitted": 2, "delivered": 2}}


def test_above_the_size_cap_the_oldest_go_first(tmp_path: Path) -> None:
    """The cap is kept, the newest records stay, and what was given up is counted."""
    ledger = Ledger()
    spool = Spool(tmp_path, ledger, {}, max_bytes=20_000)
    spool.start()
    for number in range(30):
        commit(spool, ledger, batch(Signal.LOGS, [number], padding=1000))
    state = spool.state()
    spool.close(0)
    kept = state.waiting[Signal.LOGS].records
    assert 10 < kept < 20
    assert state.size_bytes <= 20_000
    assert settled(ledger) == {Signal.LOGS: {"emitted": 30, "spooled": kept, "size": 30 - kept}}
    receiver = Steered(Signal.LOGS)
    following = Spool(tmp_path, Ledger(), senders(receiver))
    following.start()
    assert receiver.wait_for(lambda: len(receiver.taken) == kept)
    following.close(5)
    assert receiver.taken == list(range(30 - kept, 30))


def test_what_is_too_old_is_given_up(tmp_path: Path) -> None:
    """Age is counted from the commit, also across a restart."""
    clock = [1_000_000.0]
    ledger = Ledger()
    spool = Spool(tmp_path, ledger, {}, max_age_s=60, clock=lambda: clock[0])
    spool.start()
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    clock[0] += 50
    commit(spool, ledger, batch(Signal.LOGS, [2, 3]))
    spool.look_after()
    assert settled(ledger) == {Signal.LOGS: {"emitted": 3, "spooled": 3}}
    clock[0] += 20
    spool.look_after()
    assert settled(ledger) == {Signal.LOGS: {"emitted": 3, "spooled": 2, "age": 1}}
    spool.close(0)
    clock[0] += 50
    again = Ledger()
    following = Spool(tmp_path, again, {}, max_age_s=60, clock=lambda: clock[0])
    following.start()
    following.look_after()
    following.close(0)
    assert settled(again) == {Signal.LOGS: {"emitted": 2, "age": 2}}


def test_a_stop_is_bounded_while_a_request_hangs(tmp_path: Path) -> None:
    """A receiver that never answers is left, and what it was sent stays in the spool."""
    ledger = Ledger()
    sender = Steered(Signal.LOGS)
    begun = threading.Event()

    def hang(_: list[int]) -> Outcome:
        begun.set()
        assert sender.aborted.wait(60)
        return LATER

    sender.answer = hang
    spool = Spool(tmp_path, ledger, senders(sender))
    spool.start()
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    assert begun.wait(20)
    began = time.monotonic()
    spool.close(1)
    assert time.monotonic() - began < 20  # the hang alone is three times that
    assert settled(ledger) == {Signal.LOGS: {"emitted": 1, "spooled": 1}}
    assert [each.name for each in threading.enumerate() if each.name.startswith("otel.spool")] == []


def test_a_stop_gives_a_failing_receiver_up_before_its_time_is_over(tmp_path: Path) -> None:
    """With nobody there a stop does not use a long budget up: what waits is safe."""
    ledger = Ledger()
    spool = Spool(tmp_path, ledger, senders(Steered(Signal.LOGS, lambda _: LATER)))
    spool.start()
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    began = time.monotonic()
    spool.close(120)
    assert time.monotonic() - began < 60
    assert settled(ledger) == {Signal.LOGS: {"emitted": 1, "spooled": 1}}


def test_a_stop_sends_what_a_short_outage_held_up(tmp_path: Path) -> None:
    """A receiver that comes back during the stop still gets everything, whatever the back-off had reached."""
    ledger, failures = Ledger(), [6]

    def answer(_: list[int]) -> Outcome:
        failures[0] -= 1
        return LATER if failures[0] >= 0 else TAKEN

    receiver = Steered(Signal.LOGS, answer)
    spool = Spool(tmp_path, ledger, senders(receiver))
    spool.start()
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    assert receiver.wait_for(lambda: len(receiver.attempts) >= 4)
    spool.close(60)
    assert settled(ledger) == {Signal.LOGS: {"emitted": 1, "delivered": 1}}


def test_a_signal_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    """Each signal has a way of its own."""
    ledger, ended = Ledger(), threading.Event()
    slow = Steered(Signal.TRACES, lambda _: TAKEN if ended.wait(60) else LATER)
    quick = Steered(Signal.LOGS)
    spool = Spool(tmp_path, ledger, senders(slow, quick))
    spool.start()
    for number in range(20):
        commit(spool, ledger, batch(Signal.TRACES, [number]), batch(Signal.LOGS, [number]))
    assert quick.wait_for(lambda: len(quick.taken) == 20)
    assert slow.taken == []
    ended.set()
    assert spool.flush(20)
    spool.close(5)


def test_a_flush_says_whether_all_was_sent(tmp_path: Path) -> None:
    """It waits no longer than it may, and tells the truth."""
    ledger, there = Ledger(), threading.Event()
    receiver = Steered(Signal.LOGS, lambda _: TAKEN if there.is_set() else LATER)
    spool = Spool(tmp_path, ledger, senders(receiver))
    spool.start()
    assert spool.flush(0)
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    assert not spool.flush(0.1)
    there.set()
    assert spool.flush(20)
    spool.close(5)


def test_the_file_is_private_and_a_removed_one_is_made_anew(tmp_path: Path) -> None:
    """Strangers can't read it; when somebody removes it its records are still sent, and the next ones are kept."""
    ledger, there = Ledger(), threading.Event()
    receiver = Steered(Signal.LOGS, lambda _: TAKEN if there.is_set() else LATER)
    spool = Spool(tmp_path / "spool", ledger, senders(receiver))
    spool.start()
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    for each in (tmp_path / "spool").iterdir():
        assert each.stat().st_mode & 0o077 == 0, each
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0
    for each in (tmp_path / "spool").iterdir():
        each.unlink()
    spool.look_after()
    commit(spool, ledger, batch(Signal.LOGS, [2]))
    assert any(name.endswith(".db") for name in spool_files(tmp_path / "spool"))
    there.set()
    assert spool.flush(20)
    spool.close(5)
    assert receiver.taken == [1, 2]
    assert settled(ledger) == {Signal.LOGS: {"emitted": 2, "delivered": 2}}


def test_without_a_folder_it_works_in_memory(tmp_path: Path) -> None:
    """No data folder: batches wait in memory as queued, up to its cap, and are sent."""
    ledger, there = Ledger(), threading.Event()
    receiver = Steered(Signal.LOGS, lambda _: TAKEN if there.is_set() else LATER)
    spool = Spool(None, ledger, senders(receiver), memory_bytes=20_000)
    spool.start()
    for number in range(30):
        commit(spool, ledger, batch(Signal.LOGS, [number], padding=1000))
    figures = settled(ledger)[Signal.LOGS]
    assert 10 < figures["queued"] < 20
    assert figures["queued"] + figures["disk"] == 30
    there.set()
    assert spool.flush(20)
    spool.close(5)
    assert settled(ledger)[Signal.LOGS] == {
        "emitted": 30,
        "delivered": figures["queued"],
        "disk": figures["disk"],
    }


def test_a_network_file_system_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a lock does not hold no file is made; records go by memory."""
    monkeypatch.setattr("otel.spool.spool.network_file_system", lambda _: "nfs4")
    ledger, receiver = Ledger(), Steered(Signal.LOGS)
    spool = Spool(tmp_path / "spool", ledger, senders(receiver))
    with caplog.at_level(logging.WARNING, "otel.spool"):
        spool.start()
        spool.look_after()
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    assert spool.flush(20)
    spool.close(5)
    assert not (tmp_path / "spool").exists()
    assert [each.getMessage() for each in caplog.records if "nfs4" in each.getMessage()] == [
        f"{tmp_path / 'spool'} is on a network file system (nfs4), where no spool is safe; telemetry waits in memory"
    ]
    assert receiver.taken == [1]


def test_its_statements_make_no_telemetry(tmp_path: Path) -> None:
    """The forwarder's thread is one where instrumentations keep still."""
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled

    seen = []

    def answer(_: list[int]) -> Outcome:
        seen.append(is_instrumentation_enabled())
        return TAKEN

    ledger = Ledger()
    spool = Spool(tmp_path, ledger, senders(Steered(Signal.LOGS, answer)))
    spool.start()
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    assert spool.flush(20)
    spool.close(5)
    assert seen == [False]


def test_after_the_end_what_comes_is_counted_as_lost(tmp_path: Path) -> None:
    """A commit after the close neither fails nor vanishes; a second close does nothing."""
    ledger = Ledger()
    spool = Spool(tmp_path, ledger, {})
    spool.start()
    spool.close(1)
    spool.close(1)
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    assert settled(ledger) == {Signal.LOGS: {"emitted": 1, "shutdown": 1}}
    assert os.listdir(tmp_path) == []


def test_a_flush_sends_what_others_have_left_until_then(tmp_path: Path) -> None:
    """A child that ended a moment ago is not waited for until the keeper's next round, which may never come."""
    receiver, ledger = Steered(Signal.LOGS), Ledger()
    spool = Spool(tmp_path, ledger, senders(receiver), period_s=3600)
    spool.start()
    spool.look_after()
    left = Ledger()
    child = Spool(tmp_path, left, {})
    child.start(own=True)
    commit(child, left, batch(Signal.LOGS, [1, 2]))
    child.close(0)
    assert spool.flush(20)
    assert receiver.taken == [1, 2]
    assert settled(ledger) == {Signal.LOGS: {"emitted": 2, "delivered": 2}}
    spool.close(5)


def test_a_folder_with_a_spool_files_name_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is no spool file: nothing is complained of, and no lock file is made beside it."""
    (tmp_path / "dir.db").mkdir()
    spool = Spool(tmp_path, Ledger(), {}, period_s=3600)
    spool.start()
    spool.look_after()
    spool.close(5)
    assert spool_files(tmp_path) == ["dir.db"]
    assert caplog.records == []
