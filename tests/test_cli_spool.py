"""`spool status|drain|export`: what waits, while processes run and after they ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel.ledger import Ledger
from otel.records import Signal
from otel.spool import FOLDER, Spool
from tests.support.otlp import OtlpReceiver, Reply
from tests.support.spooling import batch, commit


def call(cwd: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `spool …` in a process of its own, with a data folder in `cwd`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("STX_", "OTEL_"))}
    env.update({"STX_DATA_DIR": str(cwd), **environ})
    command = [sys.executable, "-m", "streamlit_extension", "spool", *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def living(tmp_path: Path) -> Iterator[tuple[Spool, Ledger]]:
    """A spool of this process, which lives, beside one that an ended process has left."""
    ledger = Ledger()
    dead = Spool(tmp_path / FOLDER, ledger, {}, clock=lambda: 1_700_000_000.0)
    dead.start()
    commit(dead, ledger, batch(Signal.TRACES, [1, 2, 3]), batch(Signal.LOGS, [4]), batch(Signal.LOGS, [5, 6]))
    spool = Spool(tmp_path / FOLDER, ledger, {}, period_s=3600)
    spool.start()
    spool.look_after()
    commit(spool, ledger, batch(Signal.METRICS, [7, 8]), batch(Signal.LOGS, [9]))
    dead.close(0)
    yield spool, ledger
    spool.close(0)


def test_status_tells_what_waits_where_and_since_when(tmp_path: Path, living: tuple[Spool, Ledger]) -> None:
    """Also in the file of a process that runs, which goes on unhindered."""
    spool, ledger = living
    told = json.loads(call(tmp_path, "status", "--json").stdout)
    assert [each["owned"] for each in told["files"]] == [False, True]
    assert {signal: each["records"] for signal, each in told["signals"].items()} == {
        "traces": 3,
        "logs": 4,
        "metrics": 2,
    }
    assert told["signals"]["logs"]["batches"] == 3
    assert told["signals"]["traces"]["since"] == "2023-11-14T22:13:20Z"
    text = call(tmp_path, "status")
    assert text.returncode == 0
    assert "9 records waiting since 2023-11-14T22:13:20Z" in text.stdout
    assert "2 files, 1 of running processes" in text.stdout
    commit(spool, ledger, batch(Signal.LOGS, [10]))
    assert ledger.snapshot()[Signal.LOGS].queued == 0


def test_an_empty_spool_says_so(tmp_path: Path) -> None:
    """No folder, nothing waiting, no error."""
    assert "0 records waiting" in call(tmp_path, "status").stdout
    done = call(tmp_path, "drain", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (0, "nothing waits\n")
    assert call(tmp_path, "export").stdout == ""


def test_export_writes_otlp_json_lines_and_takes_nothing(tmp_path: Path, living: tuple[Spool, Ledger]) -> None:
    """To standard output or a file, everything that waits; afterwards it still waits."""
    done = call(tmp_path, "export", "--output", "out.jsonl")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert call(tmp_path, "export").stdout.splitlines() == lines
    bodies = [
        record["body"]["stringValue"]
        for line in map(json.loads, lines)
        for resource in line.get("resourceLogs", ())
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]
    assert bodies == ["4", "5", "6", "9"]
    span = next(json.loads(line) for line in lines if "resourceSpans" in line)["resourceSpans"][0]
    assert span["scopeSpans"][0]["spans"][0]["traceId"] == f"{1:032x}"
    told = json.loads(call(tmp_path, "status", "--json").stdout)
    assert sum(each["records"] for each in told["signals"].values()) == 9


def test_drain_sends_what_ended_processes_left(
    tmp_path: Path, living: tuple[Spool, Ledger], otlp: OtlpReceiver
) -> None:
    """A running process's records stay its own; the rest is sent and its file removed."""
    done = call(tmp_path, "drain", OTEL_EXPORTER_OTLP_ENDPOINT=otlp.endpoint)
    assert done.returncode == 0, done.stderr
    assert "traces: 3 sent\nlogs: 3 sent\n" in done.stdout
    assert [span.name for span in otlp.spans] == ["1", "2", "3"]
    assert [record.body.string_value for record in otlp.logs] == ["4", "5", "6"]
    assert otlp.metrics == []
    told = json.loads(call(tmp_path, "status", "--json").stdout)
    assert [each["owned"] for each in told["files"]] == [True]
    again = call(tmp_path, "drain", OTEL_EXPORTER_OTLP_ENDPOINT=otlp.endpoint)
    assert "nothing waits that is not a running process's own" in again.stdout


def test_drain_says_what_it_could_not_send(tmp_path: Path, living: tuple[Spool, Ledger], otlp: OtlpReceiver) -> None:
    """Without a receiver nothing is lost, and the exit code is 1; refused records are named."""
    otlp.otherwise = Reply(503)
    done = call(tmp_path, "drain", "--for", "1s", OTEL_EXPORTER_OTLP_ENDPOINT=otlp.endpoint)
    assert done.returncode == 1
    assert "traces: 0 sent, 3 still waiting" in done.stdout
    otlp.otherwise = Reply(400)
    done = call(tmp_path, "drain", OTEL_EXPORTER_OTLP_ENDPOINT=otlp.endpoint)
    assert done.returncode == 0
    assert "logs: 0 sent, 3 given up (refused)" in done.stdout


def test_drain_without_an_endpoint_is_a_mistake(tmp_path: Path) -> None:
    """One line that says what to set."""
    done = call(tmp_path, "drain")
    assert done.returncode == 2
    assert done.stderr == ("streamlit-extension: no OTLP endpoint is configured; set OTEL_EXPORTER_OTLP_ENDPOINT\n")
