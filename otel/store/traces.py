"""What is told of spans besides their rows: runs, sessions, statements, repeats, and steps of time.

A run's children end before it does, in the same process: what they are is held in memory until their root comes, and
is written with it. What comes later (a thread that outlives its run) is added to it.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from otel.names import Attribute
from otel.store.ids import Numbers, half
from otel.store.plain import text
from otel.store.rows import MAX_NAME, SpanFacts
from otel.store.schema import STATEMENT_STEP_S

#: Traces whose root has not come, and those whose root has, that are remembered.
MAX_OPEN: Final = 4096
#: Different statements of a trace that are told apart, and of all since the file began.
MAX_STATEMENTS: Final = 1000
MAX_KNOWN: Final = 5000
#: So often a run executes a statement to be told of.
REPEATED: Final = 5
#: Bounds of durations grow by this share of a doubling: percentiles are within 4.5 %.
BUCKETS_PER_DOUBLING: Final = 8
#: What a run is found by, in characters.
MAX_WORDS: Final = 1024

_MINUTE_NS: Final = 60 * 10**9
_STEP_NS: Final = STATEMENT_STEP_S * 10**9

_SESSION: Final = str(Attribute.SESSION_ID)
_TYPE: Final = str(Attribute.RUN_TYPE)
_TRIGGER: Final = str(Attribute.RUN_TRIGGER)
_OUTCOME: Final = str(Attribute.RUN_OUTCOME)
_SCREEN: Final = str(Attribute.APP_SCREEN_NAME)
_ERROR: Final = str(Attribute.ERROR_TYPE)
_SYSTEM: Final = str(Attribute.DB_SYSTEM_NAME)
_QUERY: Final = str(Attribute.DB_QUERY_TEXT)
_SUMMARY: Final = str(Attribute.DB_QUERY_SUMMARY)
_NAMESPACE: Final = str(Attribute.DB_NAMESPACE)
_ROUTE: Final = str(Attribute.HTTP_ROUTE)
_METHOD: Final = str(Attribute.HTTP_METHOD)


def bucket_of(duration_ns: int) -> int:
    """The bucket of a duration; its upper bound is `bound_s`."""
    return math.ceil(math.log2(max(duration_ns, 1000) / 1e9) * BUCKETS_PER_DOUBLING)


def bound_s(bucket: float) -> float:
    """The upper bound of a bucket, in seconds."""
    return float(2.0 ** (bucket / BUCKETS_PER_DOUBLING))


class OpenTrace(msgspec.Struct):
    """What is known of a trace before its root has come."""

    spans: int = 0
    queries: int = 0
    query_ns: int = 0
    errors: int = 0
    statements: dict[int, list[int]] = msgspec.field(default_factory=dict)  # id → count, nanoseconds
    words: dict[str, None] = msgspec.field(default_factory=dict)
    size: int = 0

    def say(self, words: str) -> None:
        """Let the run be found by these words."""
        if words not in self.words and self.size < MAX_WORDS:
            words = words[:256]
            self.words[words] = None
            self.size += len(words)


class TraceRows(msgspec.Struct):
    """What one commit adds, besides the spans themselves."""

    runs: list[tuple[Any, ...]] = msgspec.field(default_factory=list)
    late: dict[int, OpenTrace] = msgspec.field(default_factory=dict)  # number of a run → what is added to it
    run_steps: dict[tuple[int, str, str, int], list[int]] = msgspec.field(default_factory=dict)
    sessions: dict[str, list[Any]] = msgspec.field(default_factory=dict)
    statements: dict[int, tuple[str, str, str, str]] = msgspec.field(default_factory=dict)
    statement_steps: dict[tuple[int, int], list[int]] = msgspec.field(default_factory=dict)
    repeats: list[tuple[int, int, int, int]] = msgspec.field(default_factory=list)


class Traces:
    """Holds what is known of traces from one commit to the next; used by one thread."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, OpenTrace] = OrderedDict()
        self._numbers = Numbers()
        self._ids: dict[tuple[Any, Any, Any], int] = {}  # statement → its id
        self.forget_file()

    def forget_file(self) -> None:
        """A new file was begun: what was written to the one before can't be added to."""
        self._done: OrderedDict[int, int] = OrderedDict()  # trace → number of its run in this file
        self._written: set[int] = set()  # statements that this file explains

    def add(self, spans: Iterable[SpanFacts]) -> TraceRows:
        """Take the spans of one commit, in the order in which they ended."""
        rows = TraceRows()
        for span in spans:
            done = self._done.get(span.trace_id)
            if done is not None and not span.is_root:
                trace = rows.late.setdefault(done, OpenTrace())
            else:
                found = self._open.get(span.trace_id)
                if found is None:
                    found = self._open[span.trace_id] = OpenTrace()
                    if len(self._open) > MAX_OPEN:
                        self._open.popitem(last=False)
                trace = found
            trace.spans += 1
            trace.errors += span.failed
            if _SYSTEM in span.attributes:
                self._query(span, trace, rows)
            elif not span.is_root:
                trace.say(span.name)
            if span.is_root:
                self._root(span, self._open.pop(span.trace_id, trace), rows)
        return rows

    def written(self, rows: TraceRows) -> None:
        """`rows` are committed."""
        self._written.update(rows.statements)

    # -- statements -------------------------------------------------------------------------------------------------

    def _query(self, span: SpanFacts, trace: OpenTrace, rows: TraceRows) -> None:
        trace.queries += 1
        trace.query_ns += span.duration_ns
        statement = self._statement(span, rows)
        counts = trace.statements.get(statement)
        first = counts is None
        if counts is None and len(trace.statements) < MAX_STATEMENTS:
            counts = trace.statements[statement] = [0, 0]
            trace.say(str(span.attributes.get(_SUMMARY) or span.name))
        if counts is not None:
            counts[0] += 1
            counts[1] += span.duration_ns
        end_ns = span.start_ns + span.duration_ns
        key = (end_ns // _STEP_NS, statement)
        step = rows.statement_steps.get(key)
        if step is None:
            step = rows.statement_steps[key] = [0, 0, 0, 0, 0, -1, 0]
        step[0] += 1
        step[1] += span.failed
        step[2] += span.duration_ns
        step[3] = max(step[3], span.duration_ns)
        step[4] += first
        if end_ns > step[5]:
            step[5], step[6] = end_ns, span.trace_id

    def _statement(self, span: SpanFacts, rows: TraceRows) -> int:
        attributes = span.attributes
        key = (
            attributes.get(_QUERY) or attributes.get(_SUMMARY) or span.name,
            attributes[_SYSTEM],
            attributes.get(_NAMESPACE, ""),
        )
        found = self._ids.get(key)
        if found is not None and found in self._written:
            return found
        words, system, namespace = key = (str(key[0]), str(key[1]), str(key[2]))
        if found is None:
            if len(self._ids) >= MAX_KNOWN:
                key = words, system, namespace = "(others)", "", ""
            if len(words) > 8192:
                key = (words[:8192], system, namespace)
            found = self._ids.setdefault(key, _hash(*key))
        if found not in self._written and found not in rows.statements:
            summary = text(str(attributes.get(_SUMMARY) or span.name), MAX_NAME)
            rows.statements[found] = text(words, 8192), summary, text(system, 64), text(namespace, MAX_NAME)
        return found

    # -- roots ------------------------------------------------------------------------------------------------------

    def _root(self, span: SpanFacts, trace: OpenTrace, rows: TraceRows) -> None:
        attributes = span.attributes

        def of(name: str) -> str:
            value = attributes.get(name)
            return "" if value is None else text(str(value), MAX_NAME)

        run_type = of(_TYPE)
        is_run = bool(run_type)
        if not is_run:
            run_type = "request" if _METHOD in attributes else "other"
        page = of(_SCREEN) if is_run else of(_ROUTE)
        outcome = of(_OUTCOME) if is_run else ("error" if span.failed else "success")
        session, error = of(_SESSION), of(_ERROR)
        failed = outcome in ("error", "compile_error")
        number = self._numbers(span.start_ns)
        repeats = [(count, total, each) for each, (count, total) in trace.statements.items() if count >= REPEATED]
        hi, lo = half(span.trace_id >> 64), half(span.trace_id)
        words = "\n".join((span.name, page, error, span.error_message[:256], session, *trace.words))
        rows.runs.append(
            (
                *(number, hi, lo, half(span.span_id), span.name, run_type, session, page, of(_TRIGGER), outcome),
                *(span.start_ns, span.duration_ns, error, span.error_message, trace.spans, trace.queries),
                *(trace.query_ns, max((each[0] for each in repeats), default=0), trace.errors, text(words.lower())),
            )
        )
        self._done[span.trace_id] = number
        if len(self._done) > MAX_OPEN:
            self._done.popitem(last=False)
        if not is_run:
            return
        end_ns = span.start_ns + span.duration_ns
        rows.repeats += [(number, each, count, total) for count, total, each in repeats]
        step = rows.run_steps.setdefault((end_ns // _MINUTE_NS, page, outcome, bucket_of(span.duration_ns)), [0, 0])
        step[0] += 1
        step[1] += span.duration_ns
        if session:
            self._session(session, span, (page, hi, lo), failed, rows)

    @staticmethod
    def _session(name: str, span: SpanFacts, last: tuple[str, int, int], failed: bool, rows: TraceRows) -> None:
        end_ns = span.start_ns + span.duration_ns
        found = rows.sessions.get(name)
        if found is None:
            rows.sessions[name] = [span.start_ns, end_ns, 1, int(failed), span.duration_ns, *last]
            return
        found[0] = min(found[0], span.start_ns)
        found[2] += 1
        found[3] += failed
        found[4] += span.duration_ns
        if end_ns >= found[1]:
            found[1] = end_ns
            found[5:] = last


def _hash(words: str, system: str, namespace: str) -> int:
    named = f"{words}\0{system}\0{namespace}".encode("utf-8", "replace")
    digest = hashlib.blake2b(named, digest_size=8).digest()
    return half(int.from_bytes(digest))
