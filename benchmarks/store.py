"""The embedded store at 10,000 and at 1,000,000 spans and log records: `python benchmarks/store.py`.

Both stores got telemetry at the same rate, so the large one looks back a hundred times as far. Questions are asked of
both in turn, of a connection that is open; each figure is a median. Ingest is measured beside plain `executemany` of
the same rows into the same tables, indexes and full-text index, in the same transactions.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from otel.ledger import Ledger
from otel.records import Batch
from otel.store import schema
from otel.store.model import LogQuery, RunFilter
from otel.store.reader import StoreReader
from otel.store.segment import Rows
from otel.store.store import Store
from tests.support.storing import SECOND, fact, logs_batch, run, traces_batch

#: Spans and log records of a run, runs a second, records in one commit.
SPANS, LOGS, RATE, COMMIT = 10, 10, 1, 4000
WORDS = ("order", "client", "invoice", "payment", "cache", "session", "query", "render", "upload", "report")
STATEMENTS = tuple(f"SELECT id, name, total FROM {word}s WHERE owner = ? ORDER BY id" for word in WORDS)


def records(count: int, chance: random.Random) -> Iterator[tuple[list[Batch], list[int]]]:
    """Commits with `count` spans and as many log records, and the traces in each."""
    runs = count // SPANS
    begin_ns = time.time_ns() - runs * SECOND // RATE
    spans: list[Any] = []
    facts: list[Any] = []
    ids: list[int] = []
    for number in range(runs):
        trace_id = chance.getrandbits(128) or 1
        start_ns = begin_ns + number * SECOND // RATE
        failed = number % 50 == 0
        spans += run(
            trace_id,
            session=f"session-{number // 20:06d}",
            page=f"page {chance.randrange(12)}",
            outcome="error" if failed else "success",
            error="ValueError" if failed else "",
            queries=[chance.choice(STATEMENTS) for _ in range(SPANS - 1)],
            start_ns=start_ns,
            seconds=chance.lognormvariate(-2, 0.8),
        )
        for each in range(LOGS):
            words = " ".join(chance.choices(WORDS, k=4))
            error = each == 0 and failed
            facts.append(
                fact(
                    f"{words} saved in {chance.randrange(1000)} ms",
                    time_ns=start_ns + each * 1_000_000,
                    severity_number=17 if error else 9,
                    severity_text="ERROR" if error else "INFO",
                    attributes={
                        "user": f"user{chance.randrange(5000)}",
                        "ticket": f"t{number}",
                        "page": "list",
                        "status": "ok",
                    },
                    trace_id=trace_id,
                    span_id=(trace_id & 0xFFFFFFFF) * 1000 + 1,
                )
            )
        ids.append(trace_id)
        if len(facts) >= COMMIT:
            yield [traces_batch(spans), logs_batch(facts)], ids
            spans, facts, ids = [], [], []
    if facts:
        yield [traces_batch(spans), logs_batch(facts)], ids


def fill(folder: Path, count: int) -> list[str]:
    """A store with `count` spans and log records; returns some of its traces."""
    chance = random.Random(1)
    store = Store(folder, Ledger(), max_bytes=8 * 2**30)
    kept: list[str] = []
    for batches, ids in records(count, chance):
        store.commit(batches)
        kept += [format(each, "032x") for each in ids[:: max(1, count // 50_000)]]
    state = store.state()
    assert not state.lost, state
    store.close(10)
    return kept


def spent(question: Callable[[], Any]) -> float:
    """Seconds of one answer."""
    begin = time.perf_counter()
    question()
    return time.perf_counter() - begin


def compare(label: str, budget_s: float, rounds: int, questions: list[Callable[[], Any]]) -> None:
    """One line: both sizes, asked in turn."""
    found: list[list[float]] = [[], []]
    for _ in range(rounds):
        for times, question in zip(found, questions, strict=True):
            times.append(spent(question))
    small, large = (statistics.median(times) for times in found)
    worst = max(found[1])
    print(
        f"{label:<42} {small * 1000:8.2f} ms {large * 1000:8.2f} ms  {large / small:5.2f} x   "
        f"(worst {worst * 1000:.1f} ms, budget {budget_s * 1000:.0f} ms)",
        flush=True,
    )


def ask(folders: list[Path], traces: list[list[str]], rounds: int) -> None:
    """All questions, of the small and of the large store."""
    chance = random.Random(2)
    readers = [StoreReader(folder) for folder in folders]
    until = [(reader.facts().newest_ns or 0) + SECOND for reader in readers]
    for reader in readers:
        print(f"{reader.facts()}")
    print(f"{'':<42} {'10,000':>11} {'1,000,000':>11}")

    def each(question: Callable[[int], Any]) -> list[Callable[[], Any]]:
        return [lambda place=place: question(place) for place in range(len(readers))]  # type: ignore[misc]

    def texts(text: Callable[[], str]) -> list[Callable[[], Any]]:
        return each(lambda place: readers[place].logs(LogQuery(text=text()), limit=50))

    compare("trace by id", 0.010, rounds, each(lambda place: readers[place].trace(chance.choice(traces[place]))))
    compare(
        "trace by the first 8 digits",
        0.010,
        rounds,
        each(lambda place: readers[place].find_traces(chance.choice(traces[place])[:8])),
    )
    compare("text: a common word", 0.050, rounds, texts(lambda: chance.choice(WORDS)))
    compare("text: two words", 0.050, rounds, texts(lambda: " ".join(chance.sample(WORDS, 2))))
    compare("text: a phrase", 0.050, rounds, texts(lambda: '"{} {}"'.format(*chance.sample(WORDS, 2))))
    compare("text: a rare word (10 records)", 0.050, rounds, texts(lambda: f"t{chance.randrange(1000)}"))
    compare("text: a field", 0.050, rounds, texts(lambda: f"ticket:t{chance.randrange(1000)}"))
    compare("text: a word that is nowhere", 0.050, rounds, texts(lambda: f"zebra{chance.randrange(99)}"))
    failed = each(lambda place: readers[place].logs(LogQuery(text=chance.choice(WORDS), min_severity=17), limit=5))
    compare("text: a word, errors alone, 5", 0.050, rounds, failed)
    for minutes in (15, 60 * 24):
        compare(
            f"overview of {minutes} minutes",
            0.200,
            rounds if minutes < 60 else max(3, rounds // 10),
            each(lambda place, ns=minutes * 60 * SECOND: readers[place].overview(until[place] - ns, until[place])),  # type: ignore[misc]
        )
    compare("newest log records", 0.050, rounds, each(lambda place: readers[place].logs(limit=100)))
    compare(
        "newest 20 errors", 0.050, rounds, each(lambda place: readers[place].logs(LogQuery(min_severity=17), limit=20))
    )
    compare(
        "runs of a page, slower than 0.2 s",
        0.050,
        rounds,
        each(lambda place: readers[place].runs(RunFilter(page="page 3", min_duration_s=0.2), limit=20)),
    )
    compare("runs by text", 0.050, rounds, each(lambda place: readers[place].runs(RunFilter(text="invoice"))))
    compare("sessions", 0.050, rounds, each(lambda place: readers[place].sessions()))
    compare(
        "statements of 15 minutes",
        0.200,
        max(3, rounds // 10),
        each(lambda place: readers[place].statements(until[place] - 900 * SECOND, until[place])),
    )
    for reader in readers:
        reader.close()


class Recording(Store):
    """Keeps the statements of each commit, for the peer to repeat."""

    kept: list[list[tuple[str, Any]]]

    def _rows(self, batches: Any) -> Rows:
        rows = super()._rows(batches)
        self.kept.append(rows.statements())
        return rows


def ingest(count: int, rounds: int) -> None:
    """Ours beside plain `executemany`."""
    commits = [batches for batches, _ in records(count, random.Random(3))]
    with tempfile.TemporaryDirectory() as name:
        recording = Recording(Path(name) / "r", Ledger(), max_bytes=8 * 2**30)
        recording.kept = []
        for batches in commits:
            recording.commit(batches)
        statements = recording.kept
        recording.close(5)
        shares, rates = [], []
        for turn in range(rounds):
            store = Store(Path(name) / f"ours{turn}", Ledger(), max_bytes=8 * 2**30)
            begin = time.perf_counter()
            for batches in commits:
                store.commit(batches)
            ours = time.perf_counter() - begin
            assert not store.state().lost
            store.close(5)
            connection = schema.open_to_write(Path(name) / f"plain{turn}.db")
            begin = time.perf_counter()
            for commit in statements:
                connection.execute("BEGIN IMMEDIATE")
                for statement, rows in commit:
                    connection.executemany(statement, rows)
                connection.execute("COMMIT")
            plain = time.perf_counter() - begin
            connection.close()
            shares.append(plain / ours)
            rates.append(2 * count / ours)
    print(
        f"ingest of {count:,} spans and {count:,} log records: {statistics.median(rates):,.0f} records/s, "
        f"{statistics.median(shares):.2f} x plain executemany (budget 0.5 x)",
        flush=True,
    )


def main() -> None:
    """Fill, ask, ingest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--ingest", type=int, default=50_000)
    options = parser.parse_args()
    ingest(options.ingest, 3)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / "small", Path(name) / "large"]
        traces = [fill(folders[0], options.small), fill(folders[1], options.count)]
        ask(folders, traces, options.rounds)


if __name__ == "__main__":
    main()
