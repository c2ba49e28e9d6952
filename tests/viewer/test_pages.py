"""What the pages show of a store that is filled as the pipeline fills it."""

from __future__ import annotations

import json
import re
import time
from functools import partial
from typing import Any

import pytest
from opentelemetry.sdk.trace import Event

from streamlit_extension.alerts.model import Reading
from streamlit_extension.health.model import CheckResult, Outcome
from streamlit_extension.viewer.front import POLICY
from tests.support.storing import SECOND, Meters, fact, logs_batch, now_ns, query, run, span, traces_batch
from tests.viewer.support import Desktop, Open, desktop

__all__ = ["desktop"]

PATHS = ("", "sessions", "runs", "logs", "metrics", "health", "statements", "memory", "search?q=nothing")
TRACE = 0xABCDEF12 << 96 | 7
TRACE_ID = format(TRACE, "032x")


def failing_run() -> list[Any]:
    """A run of 42 alike statements and one that fails."""
    start = now_ns() - 5 * SECOND
    root = (TRACE & 0xFFFFFFFF) * 1000 + 1
    told = {"exception.type": "OperationalError", "exception.message": "no such table: archive"}
    spans = run(
        TRACE,
        session="session-one",
        page="Clients",
        outcome="error",
        error="OperationalError",
        queries=["SELECT name FROM clients WHERE id = ?"] * 42,
        start_ns=start,
        seconds=2.0,
    )
    failed = query(
        TRACE,
        root + 900,
        "SELECT * FROM archive",
        parent_id=root,
        start_ns=start + SECOND,
        failed=True,
        events=(Event("exception", told, start),),
    )
    return [failed, *spans]


def fill(opened: Desktop) -> None:
    before = run(TRACE - 1, session="session-one", page="Home", trigger="connect", start_ns=now_ns() - 9 * SECOND)
    after = run(TRACE + 1, session="session-one", page="Clients", start_ns=now_ns() - 2 * SECOND)
    root = (TRACE & 0xFFFFFFFF) * 1000 + 1
    lines = [
        fact(
            "loading the archive",
            trace_id=TRACE,
            span_id=root,
            time_ns=now_ns() - 4 * SECOND,
            attributes={"client": "7"},
        ),
        fact("it broke", trace_id=TRACE, span_id=root, severity_number=17, severity_text="ERROR"),
        fact("elsewhere", severity_number=5, severity_text="DEBUG"),
    ]
    opened.store.commit([traces_batch([*before, *failing_run(), *after]), logs_batch(lines)])
    meters = Meters()
    meters.meter.create_histogram("streamlit.script_run.duration", unit="s").record(0.2, {"app.screen.name": "Clients"})
    meters.meter.create_counter("orders.placed", unit="{order}").add(3)
    meters.meter.create_gauge("streamlit.memory.cache", unit="By").set(2048)
    opened.store.commit([meters.collect()])


@pytest.mark.parametrize("full", [False, True])
async def test_every_page_answers_with_its_policy(desktop: Open, full: bool) -> None:
    """Empty and filled: 200, nothing inline, nothing from elsewhere, no script or style in the page itself."""
    opened = desktop()
    if full:
        fill(opened)
    async with opened.client() as client:
        for path in PATHS + ((f"traces/{TRACE_ID}", "metrics/orders.placed", "sessions/session-one") if full else ()):
            answer = await client.get(f"/telemetry/{path}")
            assert answer.status_code == 200, path
            assert answer.headers["content-security-policy"] == POLICY
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["cache-control"] == "no-store"
            assert "set-cookie" not in answer.headers
            assert " style=" not in answer.text
            assert not re.search(r"\son[a-z]+=", answer.text)
            assert "http://" not in answer.text
            assert "https://" not in answer.text
            assert answer.text.count("<script") == 1
            head = await client.head(f"/telemetry/{path}")
            assert (head.status_code, head.content) == (200, b"")
            if not full and path not in ("", "health"):
                assert 'class="empty"' in answer.text, path


async def test_from_an_error_reference_to_the_failing_statement(desktop: Open) -> None:
    """Eight digits lead to the run, and the first thing told there is the statement that failed."""
    opened = desktop()
    fill(opened)
    async with opened.client() as client:
        found = await client.get("/telemetry/search?q=ABCDEF12")
        several = found.text if found.status_code == 200 else ""
        assert "Clients" in several  # three runs share these digits here
        answer = await client.get(f"/telemetry/search?q={TRACE_ID[:32]}")
        assert answer.headers["location"] == f"/telemetry/traces/{TRACE_ID}"
        page = (await client.get(answer.headers["location"])).text
        link = re.search(r'class="fault-link" href="([^"]+)#detail"[^>]*>([^<]+)<', page)
        assert link is not None
        assert link[2] == "SELECT * FROM archive"
        statement = (await client.get(link[1])).text
        assert '<pre class="statement"' in statement
        assert "no such table: archive" in statement
        prefix = await client.get("/telemetry/traces/" + TRACE_ID[:31])
        assert prefix.status_code == 200
        assert (await client.get("/telemetry/traces/deadbeef")).status_code == 404
        assert (await client.get("/telemetry/traces/not-hex")).status_code == 404


async def test_a_run_is_told_whole(desktop: Open) -> None:
    """Repeats, the runs around it, its logs in place, its session."""
    opened = desktop()
    fill(opened)
    async with opened.client() as client:
        page = (await client.get(f"/telemetry/traces/{TRACE_ID}")).text
        assert '<b class="times">42 ×</b> SELECT name FROM clients WHERE id = ?' in page
        assert f'href="/telemetry/traces/{TRACE - 1:032x}" rel="prev"' in page
        assert f'href="/telemetry/traces/{TRACE + 1:032x}" rel="next"' in page
        assert page.count("loading the archive") == 2
        assert "/telemetry/sessions/session-one" in page
        opened_group = re.search(r'href="([^"]*open=[^"]+)"', page)
        assert opened_group is not None
        whole = (await client.get(opened_group[1].replace("&amp;", "&"))).text
        assert whole.count("fall") > page.count("fall") + 40
        assert "Show all of it" in (await client.get(f"/telemetry/traces/{TRACE_ID}?zoom=0.2-0.4")).text
        for nonsense in ("zoom=x-y", "zoom=nan-inf", "zoom=1e999-2", "span=zz", "open=..", "all=1"):
            assert (await client.get(f"/telemetry/traces/{TRACE_ID}?{nonsense}")).status_code == 200


async def test_a_run_as_otlp_json(desktop: Open) -> None:
    """The official types read the file and find the same spans."""
    from google.protobuf.json_format import Parse
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    opened = desktop()
    fill(opened)
    async with opened.client() as client:
        answer = await client.get(f"/telemetry/traces/{TRACE_ID}.json")
    assert answer.headers["content-disposition"] == f'attachment; filename="trace-{TRACE_ID}.json"'
    data = answer.json()
    spans = [each for group in data["resourceSpans"] for scope in group["scopeSpans"] for each in scope["spans"]]
    assert {each["traceId"] for each in spans} == {TRACE_ID}
    assert len(spans) == 44
    for each in spans:  # the canonical protobuf JSON has base64 where OTLP JSON has hexadecimal digits
        for key in ("traceId", "spanId", "parentSpanId"):
            each.pop(key, None)
    request = Parse(json.dumps(data), ExportTraceServiceRequest())
    read = [one for group in request.resource_spans for scope in group.scope_spans for one in scope.spans]
    failed = next(one for one in read if one.status.code == 2 and one.name.startswith("SELECT"))
    assert failed.events[0].attributes[1].value.string_value == "no such table: archive"
    assert request.resource_spans[0].resource.attributes[0].value.string_value == "shop"


async def test_runs_are_filtered(desktop: Open) -> None:
    """By page, outcome, duration, words and time; nonsense asks for nothing."""
    opened = desktop()
    fill(opened)

    async def count(query_text: str) -> int:
        async with opened.client() as client:
            text = (await client.get(f"/telemetry/runs?{query_text}")).text
        return text.count('class="row" href="/telemetry/traces/')

    assert await count("") == 3
    assert await count("page=Clients") == 2
    assert await count("outcome=failed") == 1
    assert await count("min=1s") == 1
    assert await count("max=500ms") == 2
    assert await count("q=archive") == 1
    assert await count("since=1h") == 3
    assert await count("until=2001-01-01") == 0
    assert await count("kind=request") == 0
    assert await count("min=x&since=y&outcome=z%00&cursor=%22") in (0, 3)


async def test_logs_are_searched(desktop: Open) -> None:
    """By words, fields, level, trace and time; a line leads to its run, and the live page says so."""
    opened = desktop()
    fill(opened)

    async def lines(query_text: str) -> list[str]:
        async with opened.client() as client:
            text = (await client.get(f"/telemetry/logs?{query_text}")).text
        return re.findall(r'class="words">([^<]+)<', text)

    assert len(await lines("")) == 3
    assert await lines("q=archive") == ["loading the archive"]
    assert await lines("q=client:7") == ["loading the archive"]
    assert await lines("level=error") == ["it broke"]
    assert len(await lines(f"q=trace_id:{TRACE_ID}")) == 2
    assert await lines("until=2001-01-01") == []
    assert await lines('q="unfinished AND (') == []
    async with opened.client() as client:
        text = (await client.get("/telemetry/logs?live=1&q=broke")).text
    assert f"/telemetry/traces/{TRACE_ID}?span=" in text
    assert 'data-live="2"' in text


async def test_metrics_statements_memory_and_sessions(desktop: Open) -> None:
    """Every instrument has a chart; statements by time and by repeats; a session's runs in order."""
    opened = desktop()
    fill(opened)
    async with opened.client() as client:
        metrics = (await client.get("/telemetry/metrics")).text
        for name in ("streamlit.script_run.duration", "orders.placed", "streamlit.memory.cache"):
            assert f'href="/telemetry/metrics/{name}?since=1h"' in metrics
        assert metrics.count('class="chart small"') == 3
        assert (await client.get("/telemetry/metrics/nothing")).status_code == 404
        statements = (await client.get("/telemetry/statements")).text
        assert "42 ×" in statements
        assert "SELECT * FROM archive" in statements
        for order in ("count", "mean", "max", "errors", "x"):
            assert (await client.get(f"/telemetry/statements?by={order}")).status_code == 200
        assert "2.0 KiB" in (await client.get("/telemetry/memory")).text
        session = (await client.get("/telemetry/sessions/session-one")).text
        assert session.count('class="row" href="/telemetry/traces/') == 3
        assert "connect" in session
        assert (await client.get("/telemetry/sessions/unknown")).status_code == 404


async def test_health_alerts_and_switches(desktop: Open) -> None:
    """What fails is first with its error; an alert is silenced and speaks again; maintenance is ordered and ended."""
    opened = desktop()
    opened.alerts.define_thresholds(for_s=0)
    opened.alerts.check_alerts({"cpu_usage": Reading(99.0)}, now=time.time())
    opened.service.report("database", CheckResult(Outcome.FAILED, error="could not connect"))
    async with opened.client() as client:
        page = (await client.get("/telemetry/health")).text
        assert "could not connect" in page
        assert "unhealthy" in page
        assert ">firing<" in page
        token = re.search(r'name="form_token" value="([^"]+)"', page)
        assert token is not None
        form = {"form_token": token[1]}

        async def post(path: str, **fields: str) -> int:
            return (await client.post(f"/telemetry/{path}", data={**form, **fields})).status_code

        assert await post("silence", rule="cpu_usage", reason="known", **{"for": "2h"}) == 303
        assert "silenced" in (await client.get("/telemetry/health")).text
        assert "known" in (opened.folder / "silences.json").read_text()
        assert await post("silence", rule="cpu_usage", switch="off") == 303
        assert "known" not in (opened.folder / "silences.json").read_text()
        assert await post("silence", rule="no such", reason="x", **{"for": "2h"}) == 400
        assert await post("silence", rule="cpu_usage", reason="", **{"for": "2h"}) == 400
        assert await post("maintenance", switch="on", reason="up\ngrade", **{"for": "30m"}) == 303
        assert "up grade" in (await client.get("/telemetry/health")).text
        assert await post("maintenance", switch="on", reason="x", **{"for": "9y"}) == 400
        assert await post("maintenance", switch="off") == 303
        assert "up grade" not in (opened.folder / "control.json").read_text()
        assert await post("nothing") == 405


async def test_without_a_store_health_still_is(desktop: Open) -> None:
    """The pages that need the store say what to do; overview and health answer."""
    opened = desktop(store=False)
    async with opened.client() as client:
        for path in PATHS:
            answer = await client.get(f"/telemetry/{path}")
            assert answer.status_code == 200, path
            assert "store" in answer.text, path
        assert "could not connect" in (await client.get("/telemetry/health")).text


async def test_paths_methods_and_prefixes(desktop: Open) -> None:
    """Below each prefix and a mount; a slash is added; other methods, unknown and too long addresses are refused."""
    opened = desktop(prefixes=("/ops", "/base/ops"))
    async with opened.client() as client:
        assert (await client.get("/telemetry/")).status_code == 204
        assert (await client.get("/ops/telemetryx")).status_code == 204
        moved = await client.get("/ops/telemetry?since=1h")
        assert (moved.status_code, moved.headers["location"]) == (307, "/ops/telemetry/?since=1h")
        page = (await client.get("/base/ops/telemetry/")).text
        assert 'href="/base/ops/telemetry/runs"' in page
        assert (await client.put("/ops/telemetry/")).status_code == 405
        assert (await client.options("/ops/telemetry/")).status_code == 405
        assert (await client.get("/ops/telemetry/nothing")).status_code == 404
        assert (await client.get("/ops/telemetry/static/nothing.js")).status_code == 404
        assert (await client.get("/ops/telemetry/logs?q=" + "x" * 20_000)).status_code == 414
    async with desktop(here=False).client() as client:
        assert (await client.get("/telemetry/")).status_code == 404
        assert (await client.get("/telemetry/static/viewer.css")).status_code == 404


async def test_hostile_telemetry_is_shown_for_what_it_is(desktop: Open) -> None:
    """Script tags, escape sequences, signs of direction, a mebibyte, ten thousand attributes: text, and bounded."""
    opened = desktop()
    evil = '"><script>alert(1)</script>\x1b[31m\u202e\x00'
    trace = 0xBAD << 100 | 1
    root = (trace & 0xFFFFFFFF) * 1000 + 1
    spans = run(trace, session=evil, page=evil, outcome=evil, trigger=evil, error=evil, queries=[evil] * 6)
    spans.append(span(trace, root + 50, evil, parent_id=root, attributes={"big": "x" * 2**20, evil: evil}))
    spans.append(span(trace, root + 51, "many", parent_id=root, attributes={f"k{n}": n for n in range(10_000)}))
    lines = [fact(evil, trace_id=trace, span_id=root, scope=evil, severity_text=evil, attributes={evil: evil})]
    lines.append(fact("y" * 2**20, trace_id=trace, span_id=root))
    opened.store.commit([traces_batch(spans), logs_batch(lines)])
    meters = Meters()
    meters.meter.create_counter("odd", unit="<b>", description=evil).add(1, {"a": evil})
    opened.store.commit([meters.collect()])
    trace_id = format(trace, "032x")
    async with opened.client() as client:
        details = [f"traces/{trace_id}?span={root + number:016x}" for number in (0, 1, 50, 51)]
        for path in (
            *PATHS,
            f"traces/{trace_id}",
            *details,
            "metrics/odd",
            "search?q=%22%3E%3Cscript%3E",
            "logs?q=%3Cscript",
        ):
            answer = await client.get(f"/telemetry/{path}")
            assert answer.status_code == 200, path
            assert answer.text.count("<script") == 1, path
            seen = re.sub("<[^>]*>", "", answer.text)  # an attribute's value is kept as it is
            assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", seen), path
            assert len(answer.content) < 400_000, (path, len(answer.content))
        many = (await client.get(f"/telemetry/{details[3]}")).text
        assert "more attributes" in many
        everything = (await client.get(f"/telemetry/{details[3]}&all=1")).text
        assert everything.count("<dt>k") == 1_024  # so many the store keeps of one span


async def test_a_run_of_ten_thousand_spans_in_circles(desktop: Open) -> None:
    """Cyclic parents, a clock of 1970, ends before starts: every span is on one of the pages."""
    opened = desktop()
    trace = 0xC1C << 100
    start = now_ns() - 60 * SECOND
    spans = [
        span(trace, n + 1, f"work {n % 700}", parent_id=(n + 1) % 5_000 + 1, start_ns=start + n, seconds=0.01)
        for n in range(5_000)
    ]
    spans += [
        span(trace, n + 1, f"step {n}", parent_id=n, start_ns=5 if n % 9 == 0 else start + n, seconds=-1.0)
        for n in range(5_000, 10_000)
    ]
    opened.store.commit([traces_batch(spans)])
    async with opened.client() as client:
        page = await client.get(f"/telemetry/traces/{trace:032x}")
        assert page.status_code == 200
        assert "of 10,000 spans come after these" in page.text
        seen = 1
        while (after := re.search(r'href="([^"]+)" data-swap rel="next"', page.text)) is not None:
            assert len(page.content) < 1_500_000
            page = await client.get(after[1].replace("&amp;", "&"))
            seen += 1
        assert "These are the last of 10,000 spans" in page.text
        assert seen > 5


async def test_it_answers_while_every_script_thread_is_stuck(desktop: Open) -> None:
    """It reads on threads of its own: the default executor may be full of what never ends."""
    import asyncio
    import threading

    opened = desktop()
    fill(opened)
    loop, release = asyncio.get_running_loop(), threading.Event()
    stuck = [loop.run_in_executor(None, release.wait, 60) for _ in range(64)]
    try:
        async with opened.client() as client:
            assert (await client.get("/telemetry/runs")).status_code == 200
    finally:
        release.set()
        await asyncio.gather(*stuck)


async def test_too_many_questions_are_put_off(desktop: Open) -> None:
    """Where the threads hang, a bounded number waits; the rest is told to come again; nothing else is held up."""
    import asyncio
    import threading

    from streamlit_extension.viewer.threads import MOST_WAITING, THREADS

    opened = desktop()
    release = threading.Event()
    jobs = []
    started = [threading.Event() for _ in range(THREADS)]

    def hang(event: threading.Event) -> Any:
        event.set()
        release.wait(60)

    try:
        for event in started:
            jobs.append(opened.page.behind.submit(partial(hang, event)))
            assert await asyncio.to_thread(event.wait, 10)
        jobs += [opened.page.behind.submit(lambda: hang(threading.Event())) for _ in range(MOST_WAITING)]
        async with opened.client() as client:
            answer = await client.get("/telemetry/")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    finally:
        release.set()
    for job in jobs:
        job.result(20)
    async with opened.client() as client:
        assert (await client.get("/telemetry/")).status_code == 200


@pytest.mark.parametrize("path", ["", "runs", "logs", "sessions", "metrics", "statements", "memory", "health"])
async def test_any_time_and_any_cursor_have_an_answer(desktop: Open, path: str) -> None:
    """Times before and after all times, and cursors that nobody gave out, are no errors."""
    opened = desktop()
    fill(opened)
    client = opened.client()
    for asked in (
        *(
            "since=999999d",
            "until=9999-12-31",
            "since=0001-01-01&until=9999-12-31",
            "since=2262-04-12&until=9999-01-01",
        ),
        *("cursor=ffffffffffffffff.x", "cursor=ffffffffffffffffff.x", "cursor=-ffffffffffffffff", "cursor=%00"),
    ):
        answer = await client.get(f"/telemetry/{path}?{asked}")
        assert answer.status_code == 200, asked


async def test_a_run_of_ten_thousand_spans_is_read_page_by_page(desktop: Open) -> None:
    """A page holds some hundred rows, however many spans there are, and leads to those before and after."""
    opened = desktop()
    queries = [f"SELECT {number} FROM clients" for number in range(9_999)]
    opened.store.commit([traces_batch(run(TRACE, queries=queries, seconds=2))])
    client = opened.client()
    first = (await client.get(f"/telemetry/traces/{TRACE_ID}?all=1")).text
    assert len(first) < 600_000
    assert "9,600 of 10,000 spans come after these" in first
    [after] = re.findall(r'href="([^"]+)" data-swap rel="next"', first)
    second = (await client.get(after.replace("&amp;", "&"))).text
    assert "9,200 of 10,000 spans come after these" in second
    last = (await client.get(f"/telemetry/traces/{TRACE_ID}?from=9600")).text
    assert "SELECT 9998 FROM clients" in last and "These are the last of 10,000 spans" in last
    assert 'rel="next"' not in last and "from=9200" in last


async def test_names_with_a_slash_lead_to_their_pages(desktop: Open) -> None:
    """An instrument's name may hold a slash, and a session's id anything."""
    opened = desktop()
    meters = Meters()
    meters.meter.create_counter("shop/orders").add(1)
    session = "a/b?c#d"
    opened.store.commit([meters.collect(), traces_batch(run(TRACE, session=session))])
    client = opened.client()
    for listed, title in (("metrics", "shop/orders"), ("sessions", "a/b?c#d")):
        page = (await client.get(f"/telemetry/{listed}")).text
        [link] = re.findall(rf'href="(/telemetry/{listed}/[^"]+)"', page)
        answer = await client.get(link.replace("&amp;", "&"))
        assert answer.status_code == 200, link
        assert title in answer.text
