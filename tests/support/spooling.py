"""What the tests of the spool share: batches with countable ids, senders that a test steers, and their accounts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel.export.outcome import Kind, Outcome
from otel.ledger import Ledger
from otel.records import Batch, Signal
from otel.spool import Spool

TAKEN = Outcome(Kind.TAKEN)
LATER = Outcome(Kind.LATER, "HTTP 503")


def request(signal: Signal, ids: Sequence[int], padding: int = 0) -> bytes:
    """An encoded request whose records carry `ids` (a span's name, a log's body, a data point's value)."""
    if signal is Signal.TRACES:
        traces = ExportTraceServiceRequest()
        scope = traces.resource_spans.add().scope_spans.add()
        for each in ids:
            span = scope.spans.add(name=f"{each}", trace_id=each.to_bytes(16, "big"), span_id=each.to_bytes(8, "big"))
            if padding:
                span.attributes.add(key="padding").value.string_value = "x" * padding
        return bytes(traces.SerializeToString())
    if signal is Signal.LOGS:
        logs = ExportLogsServiceRequest()
        holder = logs.resource_logs.add().scope_logs.add()
        for each in ids:
            record = holder.log_records.add()
            record.body.string_value = f"{each}"
            if padding:
                record.attributes.add(key="padding").value.string_value = "x" * padding
        return bytes(logs.SerializeToString())
    metrics = ExportMetricsServiceRequest()
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="numbers")
    for each in ids:
        metric.gauge.data_points.add(as_int=each)
    return bytes(metrics.SerializeToString())


def ids_of(signal: Signal, payload: bytes) -> list[int]:
    """The ids that `request` put in."""
    if signal is Signal.TRACES:
        traces = ExportTraceServiceRequest.FromString(payload)
        return [int(s.name) for r in traces.resource_spans for c in r.scope_spans for s in c.spans]
    if signal is Signal.LOGS:
        logs = ExportLogsServiceRequest.FromString(payload)
        return [int(x.body.string_value) for r in logs.resource_logs for c in r.scope_logs for x in c.log_records]
    metrics = ExportMetricsServiceRequest.FromString(payload)
    return [
        p.as_int
        for r in metrics.resource_metrics
        for c in r.scope_metrics
        for m in c.metrics
        for p in m.gauge.data_points
    ]


def batch(signal: Signal, ids: Sequence[int], padding: int = 0) -> Batch:
    """A batch as the pipeline makes it."""
    return Batch(signal, (), request(signal, ids, padding), len(ids))


def commit(spool: Spool, ledger: Ledger, *batches: Batch) -> None:
    """Commit batches as the pipeline does: their records were queued before."""
    for each in batches:
        ledger.queued(each.signal, each.count)
    spool.commit(batches)


class Steered:
    """A sender whose answers a test gives; keeps the ids that were taken.

    `answer` is asked for each attempt's ids, on the forwarder's thread.
    """

    def __init__(self, signal: Signal, answer: Callable[[list[int]], Outcome] = lambda _: TAKEN) -> None:
        self.signal = signal
        self.answer = answer
        self.taken: list[int] = []
        self.attempts: list[list[int]] = []
        self.aborted = threading.Event()
        self.changed = threading.Condition()

    def send(self, payload: bytes, count: int) -> Outcome:
        """Answer as told."""
        ids = ids_of(self.signal, payload)
        assert len(ids) == count
        outcome = self.answer(ids)
        with self.changed:
            self.attempts.append(ids)
            if outcome.kind is Kind.TAKEN:
                self.taken += ids
            self.changed.notify_all()
        return outcome

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
        """Wait until `condition` holds, asked after each attempt."""
        with self.changed:
            return self.changed.wait_for(condition, timeout_s)

    def abort(self) -> None:
        """A test may wait for this."""
        self.aborted.set()

    def close(self) -> None:
        """Nothing is open."""

    def begin_in_child(self) -> None:
        """Nothing is open."""


def settled(ledger: Ledger) -> dict[Signal, dict[str, Any]]:
    """The accounts as plain figures, without those that are 0; their balance is checked."""
    found = {}
    for signal, account in ledger.snapshot().accounts.items():
        assert account.balance == 0, account
        figures: dict[str, Any] = {
            "emitted": account.emitted,
            "delivered": account.delivered,
            "spooled": account.spooled,
            "queued": account.queued,
            **{str(reason): count for reason, count in account.dropped.items()},
        }
        found[signal] = {name: value for name, value in figures.items() if value}
    return {signal: figures for signal, figures in found.items() if figures}


def senders(*each: Steered) -> Mapping[Signal, Steered]:
    """By signal."""
    return {sender.signal: sender for sender in each}
