"""Traces in Jaeger, by its query API: runs of a service, and one trace."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from otel.names import Attribute
from otel.store.model import FAILED, Page, RunFilter, RunRow, SpanEvent, SpanLink, SpanRow, Trace
from streamlit_extension.remote.asking import RemoteError, ask, where
from streamlit_extension.remote.jaeger_answer import Answer, OneLog, OneSpan, OneTrace, Tag

_NAME: Final = "Jaeger"
#: How far back it looks where nobody says since when: an index by days is not walked through to its beginning.
_BACK_NS: Final = 7 * 86_400 * 10**9
_PAGE: Final = 200
_MAX_PAGES: Final = 20
_KINDS: Final = ("internal", "server", "client", "producer", "consumer")


class Jaeger:
    """Asks one server about a service's traces."""

    def __init__(self, root: str, service: str) -> None:
        self._root = root
        self._service = service

    def runs(self, filter_: RunFilter | None = None, *, limit: int = 50, cursor: str = "") -> Page[RunRow]:
        """Runs, newest first; the cursor is the moment before which they began."""
        wanted = filter_ or RunFilter()
        until = int(cursor) if cursor.isdecimal() else wanted.until_ns or time.time_ns() + 60 * 10**9
        found: list[RunRow] = []
        for run, spans in self._walk(wanted, until):
            if _fits(run, spans, wanted):
                found.append(run)
                if len(found) > limit:
                    return Page(tuple(found[:limit]), str(found[limit - 1].start_ns))
        return Page(tuple(found))

    def find_traces(self, prefix: str, *, limit: int = 20) -> list[RunRow]:
        """Roots of traces whose id begins with `prefix`: a whole id of any time, a part of one among the newest."""
        wanted = prefix.strip().lower()
        if len(wanted) == 32:
            trace = self.trace(wanted)
            return [trace.run] if trace is not None and trace.run is not None else []
        everything = RunFilter(types=("full", "fragment", "request", "other"))
        walk = self._walk(everything, time.time_ns() + 60 * 10**9)
        runs = (run for run, _ in walk if run.trace_id.startswith(wanted))
        return [run for run, _ in zip(runs, range(limit), strict=False)]

    def trace(self, trace_id: str, *, limit: int = 10_000) -> Trace | None:
        """One trace, None when it is not known."""
        found = self._asked(f"/api/traces/{trace_id}", {})
        return _trace(found[0], limit) if found else None

    def _asked(self, path: str, parameters: Mapping[str, object]) -> list[OneTrace]:
        """Traces; none where Jaeger itself, and nobody else at this address, says that there is none."""
        status, body = ask(_NAME, self._root, path, parameters)
        try:
            answer = msgspec.json.decode(body, type=Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            answer = Answer()
        known = answer.errors is not None if status == 404 else answer.data is not msgspec.UNSET
        if not known:
            place = where(_NAME, self._root)
            raise RemoteError(f"{place} does not answer as {_NAME} does; is it the root of its page?")
        return answer.data or []

    def _walk(self, wanted: RunFilter, until_ns: int) -> Iterator[tuple[RunRow, Sequence[SpanRow]]]:
        """Every trace's root with its spans, newest first."""
        since_ns = wanted.since_ns if wanted.since_ns is not None else time.time_ns() - _BACK_NS
        asked: dict[str, object] = {"service": self._service, "start": since_ns // 1000, "limit": _PAGE}
        if wanted.failed:
            asked["tags"] = json.dumps({"error": "true"})
        known: set[str] = set()
        end_ns = until_ns
        for _ in range(_MAX_PAGES):
            answer = self._asked("/api/traces", {**asked, "end": end_ns // 1000})
            traces = [_trace(each, 10_000) for each in answer]
            fresh = [(each.run, each.spans) for each in traces if each.trace_id not in known and each.run is not None]
            known |= {run.trace_id for run, _ in fresh}
            fresh.sort(key=lambda pair: pair[0].start_ns, reverse=True)
            yield from (pair for pair in fresh if pair[0].start_ns < until_ns)
            if len(traces) < _PAGE or not fresh:
                return
            end_ns = fresh[-1][0].start_ns  # some of the same moment may be on the next page


def _fits(run: RunRow, spans: Sequence[SpanRow], wanted: RunFilter) -> bool:
    """What Jaeger was not asked for."""
    texts = [run.page, run.name, run.error_type, run.error_message, run.session_id]
    if wanted.text:
        texts += [f"{each.name} {each.attributes.get(Attribute.DB_QUERY_TEXT, '')}" for each in spans]
    text = " ".join(texts).lower()
    return (
        run.type in wanted.types
        and (not wanted.page or run.page == wanted.page)
        and (not wanted.outcome or run.outcome == wanted.outcome)
        and (not wanted.failed or run.failed)
        and (not wanted.session_id or run.session_id == wanted.session_id)
        and (wanted.min_duration_s is None or run.duration_s >= wanted.min_duration_s)
        and (wanted.max_duration_s is None or run.duration_s <= wanted.max_duration_s)
        and all(word in text for word in wanted.text.lower().split())
    )


def _trace(answer: OneTrace, limit: int) -> Trace:
    numbers = {name: number for number, name in enumerate(answer.processes)}
    spans = sorted((_span(each, numbers) for each in answer.spans), key=lambda span: span.start_ns)
    resources = {
        numbers[name]: {"service.name": process.service, **_values(process.tags)}
        for name, process in answer.processes.items()
    }
    return Trace(answer.trace_id, tuple(spans[:limit]), len(spans), resources, _run(spans))


def _span(answer: OneSpan, numbers: Mapping[str, int]) -> SpanRow:
    tags = _values(answer.tags)
    kind = str(tags.pop("span.kind", "internal"))
    status = str(tags.pop("otel.status_code", "unset")).lower()
    references = answer.references or []
    parents = [each.span_id for each in references if each.kind == "CHILD_OF"]
    links = [each for each in references if each.kind != "CHILD_OF"]
    start_ns = answer.start_us * 1000
    tags.pop("error", None)
    return SpanRow(
        trace_id=answer.trace_id,
        span_id=answer.span_id,
        parent_id=parents[0] if parents else "",
        name=answer.name,
        kind=kind if kind in _KINDS else "internal",
        start_ns=start_ns,
        end_ns=start_ns + answer.duration_us * 1000,
        status=status if status in ("ok", "error") else "unset",
        status_text=str(tags.pop("otel.status_description", "")),
        scope=str(tags.pop("otel.scope.name", "")),
        attributes=tags,
        events=tuple(_event(each) for each in answer.logs or ()),
        links=tuple(SpanLink(each.trace_id, each.span_id, {}) for each in links),
        resource=numbers.get(answer.process, 0),
    )


def _event(answer: OneLog) -> SpanEvent:
    fields = _values(answer.fields)
    return SpanEvent(str(fields.pop("event", "")), answer.time_us * 1000, fields)


def _values(tags: Sequence[Tag] | None) -> dict[str, Any]:
    return {each.key: each.value for each in tags or ()}


def _run(spans: Sequence[SpanRow]) -> RunRow | None:
    """A trace's local root: of several the first, and where there is none the first span."""
    if not spans:
        return None
    root = next((each for each in spans if not each.parent_id), spans[0])
    said = root.attributes
    queries = [each for each in spans if Attribute.DB_SYSTEM_NAME in each.attributes]
    texts = [str(each.attributes.get(Attribute.DB_QUERY_TEXT, "")) for each in queries]
    errors = [event for event in root.events if event.name == "exception"]
    failed = root.status == "error"
    type_ = str(said.get(Attribute.RUN_TYPE) or ("request" if root.kind == "server" else "other"))
    outcome = str(said.get(Attribute.RUN_OUTCOME) or (FAILED[0] if failed else "success"))
    return RunRow(
        trace_id=root.trace_id,
        span_id=root.span_id,
        name=root.name,
        type=type_,
        session_id=str(said.get(Attribute.SESSION_ID, "")),
        page=str(said.get(Attribute.APP_SCREEN_NAME, "")),
        trigger=str(said.get(Attribute.RUN_TRIGGER, "")),
        outcome=outcome,
        start_ns=root.start_ns,
        duration_s=root.duration_s,
        error_type=str(said.get(Attribute.ERROR_TYPE, "")),
        error_message=str(errors[0].attributes.get(Attribute.EXCEPTION_MESSAGE, "")) if errors else "",
        spans=len(spans),
        queries=len(queries),
        query_s=sum(each.duration_s for each in queries),
        repeats=max((texts.count(each) for each in set(texts)), default=0),
        errors=sum(each.status == "error" for each in spans),
    )
