"""`streamlit-extension logs` and `traces` read VictoriaLogs and Jaeger where they are configured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.backends import until
from tests.stack.conftest import StartStack
from tests.stack.crowd import SERVICE, crowd, ran, shop
from tests.support.server import Start


def command(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one of our commands."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STX_", "OTEL_"))}
    variables = {**clean, "STX_DATA_DIR": str(folder), "OTEL_SERVICE_NAME": SERVICE, **environ}
    line = [sys.executable, "-m", "streamlit_extension", *words]
    return subprocess.run(line, env=variables, capture_output=True, text=True, check=False, timeout=60)


async def test_one_command_finds_logs_and_traces_wherever_they_are(
    start_stack: StartStack, serve: Start, tmp_path: Path
) -> None:
    """Lines by trace id, words and level; runs, failed ones, and one as a tree: from the real back ends."""
    backends = start_stack("keep-every-trace")
    server = shop(serve, tmp_path, backends.stack)
    finished = await crowd(server.url, ["Work", "Fail", "Slow"])
    server.stop()
    done = ran(server)
    until(lambda: len(backends.logs("_msg:=ran")), lambda seen: seen >= finished)
    until(lambda: len(backends.runs(SERVICE)), lambda seen: seen >= finished)
    urls = {
        "STX_QUERY__JAEGER_URL": backends.stack.url("jaeger"),
        "STX_QUERY__VICTORIALOGS_URL": backends.stack.url("victorialogs"),
    }

    def asked(*words: str) -> list[dict[str, object]]:
        got = command(tmp_path / "nothing", *words, "--json", **urls)
        assert got.returncode == 0, got.stderr
        return [json.loads(line) for line in got.stdout.splitlines()]

    failed = min(done.of("fail"))
    lines = asked("logs", "--trace-id", failed)
    assert {each["trace_id"] for each in lines} == {failed}
    assert [each["attributes"] for each in lines if each["message"] == "ran"] == [{"kind": "fail"}]
    assert asked("logs", "--trace-id", failed[:12]) == lines
    every = asked("logs", "--query", "kind:slow", "--limit", "1000")
    assert {each["trace_id"] for each in every} == done.of("slow")
    assert [each["timestamp"] for each in every] == sorted(str(each["timestamp"]) for each in every)
    assert {each["trace_id"] for each in asked("logs", "--level", "error", "--limit", "1000")} == done.of("fail")
    runs = asked("traces", "--limit", "1000")
    assert {each["trace_id"] for each in runs} == set(done.all)
    assert {each["trace_id"] for each in asked("traces", "--failed", "--limit", "1000")} == done.of("fail")
    (trace,) = asked("traces", failed[:16])
    assert trace["trace_id"] == failed
    drawn = command(tmp_path / "nothing", "traces", failed, **urls)
    assert "script_run" in drawn.stdout
    assert "RuntimeError: asked for" in drawn.stdout


@pytest.mark.parametrize("words", [("logs",), ("traces",)], ids=["logs", "traces"])
def test_a_back_end_that_is_away_is_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    """With the address, without its password."""
    url = "http://reader:hunter2-planted@127.0.0.1:9"
    got = command(tmp_path, *words, STX_QUERY__JAEGER_URL=url, STX_QUERY__VICTORIALOGS_URL=url)
    assert got.returncode == 2
    (line,) = got.stderr.strip().splitlines()
    assert "127.0.0.1:9 does not answer" in line
    assert "hunter2" not in line
