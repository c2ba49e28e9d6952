"""Twenty real sessions, and what of it arrives in Jaeger, VictoriaLogs and Prometheus."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from streamlit_extension.demo.client import StreamlitClient
from tests.stack.backends import until
from tests.stack.conftest import StartStack
from tests.stack.crowd import SERVICE, SESSIONS, crowd, exporting, ran, shop
from tests.support.server import Start

RUNS = f'streamlit_script_run_duration_seconds_count{{service_name="{SERVICE}"}}'
SPAN_METRIC = f'traces_span_metrics_calls_total{{service_name="{SERVICE}",span_name=~"script_run.*"}}'
PROBES = ("/health", "/health/ready", "/health/live", "/health/startup", "/health/detailed", "/metrics")


async def test_everything_of_the_sample_application_is_found_again(start_stack: StartStack, serve: Start) -> None:
    """Each run's trace, each line by its trace id, the histogram with an exemplar; probes are nowhere."""
    backends = start_stack()
    command = [sys.executable, "-m", "streamlit_extension", "demo"]
    server = serve("", command=command, env=exporting(backends.stack))
    for path in PROBES * 20:
        server.get(path)

    async def visit() -> int:
        async with StreamlitClient(server.url) as client:
            await client.wait_finished(1)
            for number, name in enumerate(sorted(client.pages.values()), 2):
                await client.open_page(name)
                await client.wait_finished(number)
            await client.open_page("Operations")
            await client.wait_finished(len(client.pages) + 2)
            await client.click("Write a log line")
            await client.wait_finished(len(client.pages) + 3)
            await client.click("Break something")
            await client.wait_finished(len(client.pages) + 4)
            return client.runs_finished

    finished = sum(await asyncio.gather(*(visit() for _ in range(SESSIONS))))
    runs = until(lambda: backends.runs(SERVICE), lambda found: len(found) >= finished)
    assert len(runs) == finished
    lines = [each for each in server.lines if each.get("trace_id")]
    assert sum(each["message"] == "somebody pressed the button" for each in lines) == SESSIONS
    by_trace = {each["trace_id"] for each in lines}

    def stored() -> list[tuple[str, str]]:
        return [(each["trace_id"], each["_msg"]) for each in backends.logs("trace_id:*")]

    def written() -> list[tuple[str, str]]:
        return [(each["trace_id"], each["message"]) for each in server.lines if each.get("trace_id")]

    found = until(stored, lambda seen: len(seen) >= len(written()))
    assert sorted(found) == sorted(written())
    for trace_id in sorted(by_trace & set(runs))[:40]:
        assert backends.logs(f"trace_id:{trace_id}"), trace_id
    assert until(lambda: backends.value(f"sum({RUNS})"), lambda seen: seen >= finished) == finished
    buckets = RUNS.replace("_count", "_bucket")
    examples = until(lambda: backends.exemplars(buckets), lambda seen: bool(set(seen) & set(runs)))
    assert set(examples) & set(runs)
    assert backends.has_trace(next(each for each in examples if each in runs))
    server.stop()
    spans = backends.spans(SERVICE)
    for path in PROBES[:-1]:
        assert not [span for span in spans if path in str(span)], path
        assert path not in backends.everything_in_prometheus()
        assert not backends.logs(f'"{path}" trace_id:*')


async def test_sampling_keeps_errors_and_slow_runs_and_counts_all(
    start_stack: StartStack, serve: Start, tmp_path: Path
) -> None:
    """With 5 % of the rest kept, no error and no slow run is missing, and span metrics count every run."""
    backends = start_stack(COLLECTOR_KEEP_PERCENT="5")
    server = shop(serve, tmp_path, backends.stack)
    finished = await crowd(server.url, ["Work", "Fail", "Work", "Slow", "Work", "Work", "Work"])
    server.stop()
    done = ran(server)
    assert len(done.all) == finished
    must = done.of("fail", "slow")
    assert len(must) == 2 * SESSIONS
    runs = until(lambda: set(backends.runs(SERVICE)), lambda found: found >= must)
    assert must <= runs <= set(done.all)
    assert len(runs - must) < len(done.of("work")) / 2
    assert until(lambda: backends.value(f"sum({SPAN_METRIC})"), lambda seen: seen >= finished) == finished
    assert backends.value(f"sum({RUNS})") == finished
    logged = until(lambda: {each["trace_id"] for each in backends.logs("_msg:ran")}, lambda seen: len(seen) >= finished)
    assert logged == set(done.all)
