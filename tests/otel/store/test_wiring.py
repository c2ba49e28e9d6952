"""Where nothing says where telemetry goes, it is in the store; beside a collector the store is one copy more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from opentelemetry import metrics, trace

from otel.config import Destinations, TelemetryConfig
from otel.providers import Telemetry, install
from otel.records import Signal
from otel.store import FOLDER
from otel.store.model import LogQuery
from otel.store.reader import StoreReader
from tests.support.otlp import OtlpReceiver
from tests.support.storing import fact, now_ns

CONFIG = TelemetryConfig(service_name="shop", metric_interval_s=3600, commit_delay_s=0.05)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data folder."""
    return tmp_path / "data"


def make_some(telemetry: Telemetry) -> str:
    """A span, a log record and a measurement; returns the trace's id."""
    with trace.get_tracer("test").start_as_current_span("here") as span:
        context = span.get_span_context()
        assert telemetry.log_sink is not None
        telemetry.log_sink(fact("in the span", trace_id=context.trace_id, span_id=context.span_id))
    metrics.get_meter("test").create_counter("things").add(3)
    return format(context.trace_id, "032x")


def end(telemetry: Telemetry) -> None:
    """End and put the providers back."""
    telemetry.shutdown(10)
    telemetry.uninstall()


def test_with_no_collector_all_of_it_is_in_the_store(data_dir: Path) -> None:
    """Traces, logs and metrics can be read at once and after the end, and delivered means committed there."""
    telemetry = install(msgspec.structs.replace(CONFIG, data_dir=data_dir))
    try:
        trace_id = make_some(telemetry)
        assert telemetry.flush(20)
        with StoreReader(data_dir / FOLDER) as reader:
            found = reader.trace(trace_id)
            assert found is not None and [span.name for span in found.spans] == ["here"]
            assert found.resources[found.spans[0].resource]["service.name"] == "shop"
            assert [log.message for log in reader.logs(LogQuery(trace_id=trace_id)).items] == ["in the span"]
            assert "things" in [each.name for each in reader.instruments()]
        snapshot = telemetry.ledger.snapshot()
        for signal in Signal:
            account = snapshot[signal]
            assert account.balance == 0
            assert account.emitted == account.delivered > 0
    finally:
        end(telemetry)
    with StoreReader(data_dir / FOLDER) as reader:
        assert reader.trace(trace_id) is not None


def test_beside_a_collector_the_collector_accounts(data_dir: Path) -> None:
    """What is sent is counted once, although the store has it too; what has no exporter is counted by the store."""
    from tests.otel.test_providers import otlp_config

    with OtlpReceiver() as receiver:
        telemetry = install(otlp_config(receiver, data_dir=data_dir, store=True, logs=Destinations()))
        try:
            trace_id = make_some(telemetry)
            assert telemetry.flush(20)
            assert [span.name for span in receiver.spans] == ["here"]
            snapshot = telemetry.ledger.snapshot()
            assert (snapshot[Signal.TRACES].emitted, snapshot[Signal.TRACES].delivered) == (1, 1)
            assert (snapshot[Signal.LOGS].emitted, snapshot[Signal.LOGS].delivered) == (1, 1)
            with StoreReader(data_dir / FOLDER) as reader:
                assert reader.trace(trace_id) is not None
                assert len(reader.logs().items) == 1
        finally:
            end(telemetry)


def test_no_request_is_encoded_for_the_store_alone(data_dir: Path) -> None:
    """The encoders of OTLP are not even imported where nothing is sent."""
    code = (
        "import sys, pathlib\n"
        "from otel.config import TelemetryConfig\n"
        "from otel.providers import install\n"
        "from opentelemetry import trace\n"
        f"telemetry = install(TelemetryConfig(data_dir=pathlib.Path({str(data_dir)!r})))\n"
        "with trace.get_tracer('test').start_as_current_span('here'): pass\n"
        "assert telemetry.flush(20) and telemetry.shutdown(20)\n"
        "print([name for name in sys.modules if name.startswith(('google.protobuf', 'opentelemetry.exporter'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


FORKING = """
import os, pathlib, sys
from otel.config import TelemetryConfig
from otel.providers import install
from tests.support.storing import fact

telemetry = install(
    TelemetryConfig(metric_interval_s=3600, commit_delay_s=0.05, data_dir=pathlib.Path(sys.argv[1]))
)
telemetry.log_sink(fact("before the fork"))
assert telemetry.flush(20)
telemetry.log_sink(fact("of the parent"))
child = os.fork()
if child == 0:
    code = 1
    try:
        telemetry.begin_in_child()
        telemetry.log_sink(fact("of the child"))
        code = 0 if telemetry.flush(20) and telemetry.shutdown(20) else 2
    finally:
        os._exit(code)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(code, telemetry.flush(20) and telemetry.shutdown(20))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_a_file_of_its_own(data_dir: Path) -> None:
    """Parent and child lose nothing and duplicate nothing."""
    # Forking beside threads, of which Python 3.12 warns, is what is tried here.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, str(data_dir)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "0 True\n", done.stderr
    with StoreReader(data_dir / FOLDER) as reader:
        found = sorted(log.message for log in reader.logs(LogQuery(until_ns=now_ns())).items)
    assert found == ["before the fork", "of the child", "of the parent"]
