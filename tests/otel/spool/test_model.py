"""The spool's store against a simple model: append, crash, recover, send, split, cap, age, take over."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from otel.export.notices import Notices
from otel.export.payload import carve
from otel.ledger import Ledger
from otel.records import DropReason, Signal
from otel.spool.rows import ROW_BYTES
from otel.spool.shelf import Shelf
from otel.spool.takeover import TakeOver
from tests.support.spooling import batch, ids_of, request

SIGNALS = st.sampled_from(list(Signal))
CAP = 4000
AGE_S = 100.0


class Store:
    """One process's shelf without its threads."""

    def __init__(self, folder: Path, clock: list[float]) -> None:
        self.folder = folder
        self.ledger = Ledger()
        notices = Notices("otel.spool")
        self.shelf = Shelf(self.ledger, notices, max_bytes=10**9, memory_bytes=10**9, clock=lambda: clock[0])
        self.take_over = TakeOver(folder, self.shelf, self.ledger, notices)
        self.shelf.open(folder)

    def commit(self, signal: Signal, ids: list[int]) -> None:
        self.ledger.queued(signal, len(ids))
        self.shelf.put([batch(signal, ids)])


@dataclass
class Batch_:
    signal: Signal
    ids: list[int]
    made: float

    @property
    def size(self) -> int:
        return len(request(self.signal, self.ids)) + ROW_BYTES


class File(list[Batch_]):
    """Batches in one file; `born` counts the files in the order of their making."""

    born = 0


@dataclass
class Account:
    emitted: Counter[Signal] = field(default_factory=Counter)
    delivered: Counter[Signal] = field(default_factory=Counter)
    dropped: Counter[tuple[Signal, DropReason]] = field(default_factory=Counter)


class SpoolMachine(RuleBasedStateMachine):
    """Files are lists of batches, oldest file first; the last is the own one."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.clock = [1_000_000.0]
        self.generation = 0
        self.next_id = 1
        self.store = Store(self._folder(), self.clock)
        self.births = 0
        self.files: list[File] = [self._file()]
        self.account = Account()

    def _file(self, *batches: Batch_) -> File:
        file = File(batches)
        self.births += 1
        file.born = self.births
        return file

    def _folder(self) -> Path:
        self.generation += 1
        folder = self.root / f"{self.generation}"
        folder.mkdir(exist_ok=True)
        return folder

    def _ids(self, count: int) -> list[int]:
        self.next_id += count
        return list(range(self.next_id - count, self.next_id))

    @rule(signal=SIGNALS, count=st.integers(1, 6))
    def append(self, signal: Signal, count: int) -> None:
        ids = self._ids(count)
        self.store.commit(signal, ids)
        self.files[-1].append(Batch_(signal, ids, self.clock[0]))
        self.account.emitted[signal] += count

    def _expected(self, signal: Signal) -> tuple[File, Batch_] | None:
        return next(((file, each) for file in self.files for each in file if each.signal is signal), None)

    @rule(signal=SIGNALS, rejected=st.integers(0, 2), refused=st.booleans())
    def send(self, signal: Signal, rejected: int, refused: bool) -> None:
        held, expected = self.store.shelf.take(signal), self._expected(signal)
        if expected is None:
            assert held is None
            return
        file, first = expected
        assert held is not None
        assert ids_of(signal, held.row.payload) == first.ids
        count = len(first.ids)
        if refused:
            self.store.shelf.settle(held, dropped={DropReason.REFUSED: count})
            self.account.dropped[signal, DropReason.REFUSED] += count
        else:
            lost = min(rejected, count)
            dropped = {DropReason.PARTIAL: lost} if lost else None
            self.store.shelf.settle(held, delivered=count - lost, dropped=dropped)
            self.account.delivered[signal] += count - lost
            self.account.dropped[signal, DropReason.PARTIAL] += lost
        file.remove(first)
        self._forget_empty()

    @rule(signal=SIGNALS)
    def send_a_part(self, signal: Signal) -> None:
        expected = self._expected(signal)
        if expected is None or len(expected[1].ids) < 2:
            return
        first = expected[1]
        held = self.store.shelf.take(signal)
        assert held is not None
        (_, count), (rest, left) = carve(signal, held.row.payload, len(first.ids) // 2)
        self.store.shelf.settle(held, delivered=count, left=held.row.without(rest, left))
        self.account.delivered[signal] += count
        first.ids = first.ids[count:]

    @rule(signal=SIGNALS)
    def fail_to_send(self, signal: Signal) -> None:
        held = self.store.shelf.take(signal)
        if held is not None:
            self.store.shelf.put_back(held)

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        self.clock[0] += seconds

    @rule(limited=st.booleans())
    def look_after(self, limited: bool) -> None:
        """Give up what is too old and, now and then, what is above a small cap."""
        self.store.shelf.max_bytes = CAP if limited else 10**9
        while self.store.shelf.give_up(AGE_S):
            pass
        self.store.shelf.max_bytes = 10**9
        for file in self.files:
            for signal in Signal:
                for each in [each for each in file if each.signal is signal]:
                    if each.made >= self.clock[0] - AGE_S:
                        break
                    self._give_up(file, each, DropReason.AGE)
        for file in self.files:
            while limited and file and sum(each.size for other in self.files for each in other) > CAP:
                self._give_up(file, file[0], DropReason.SIZE)
        self._forget_empty()

    def _give_up(self, file: File, each: Batch_, reason: DropReason) -> None:
        file.remove(each)
        self.account.dropped[each.signal, reason] += len(each.ids)

    def _forget_empty(self) -> None:
        self.files = [file for file in self.files[:-1] if file] + self.files[-1:]

    @rule(kill=st.booleans())
    def restart(self, kill: bool) -> None:
        """A new process takes everything over, after a clean stop or in the state in which SIGKILL leaves the files."""
        old = self.store
        if kill:
            folder = self._folder()
            shutil.copytree(old.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*-shm"))
            old.shelf.close(10)
        else:
            old.shelf.close(10)
            folder = old.folder
        self.store = Store(folder, self.clock)
        self.store.take_over.look()
        self._forget_empty()
        self.files = sorted((file for file in self.files if file), key=lambda file: file.born) + [self._file()]
        self.account = Account(emitted=self._waiting())

    @precondition(lambda self: len(self.files) < 6)
    @rule(signal=SIGNALS, count=st.integers(1, 4))
    def neighbour_dies(self, signal: Signal, count: int) -> None:
        """Another process on the same folder leaves something, which is taken over and counted once."""
        neighbour = Store(self.store.folder, self.clock)
        ids = self._ids(count)
        neighbour.commit(signal, ids)
        assert self.store.take_over.look() == 0  # it lives
        neighbour.shelf.close(10)
        assert self.store.take_over.look() == 1
        self.files.insert(len(self.files) - 1, self._file(Batch_(signal, ids, self.clock[0])))
        self.account.emitted[signal] += count

    def _waiting(self) -> Counter[Signal]:
        found: Counter[Signal] = Counter()
        for file in self.files:
            for each in file:
                found[each.signal] += len(each.ids)
        return found

    @invariant()
    def the_accounts_agree(self) -> None:
        snapshot, waiting = self.store.ledger.snapshot(), self.store.shelf.waiting()
        expected = self._waiting()
        for signal in Signal:
            account = snapshot[signal]
            assert account.balance == 0
            assert account.queued == 0
            assert account.spooled == waiting[signal].records == expected[signal]
            assert account.emitted == self.account.emitted[signal]
            assert account.delivered == self.account.delivered[signal]
            for reason in DropReason:
                assert account.dropped.get(reason, 0) == self.account.dropped[signal, reason], reason
        assert self.store.shelf.size_bytes() == sum(each.size for file in self.files for each in file)

    def teardown(self) -> None:
        self.store.shelf.close(10)
        shutil.rmtree(self.root)


SpoolMachine.TestCase.settings = settings(
    max_examples=400 if os.environ.get("SOAK") else 25,
    stateful_step_count=40,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # every step writes files: shrinking takes too long
    suppress_health_check=list(HealthCheck),
)
TestSpool = SpoolMachine.TestCase
