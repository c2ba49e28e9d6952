"""A forked child has telemetry of its own and nothing of its parent's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.otlp import OtlpReceiver, Reply, attributes

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

BEGIN = """
import json, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tried here
from opentelemetry import metrics, trace
from otel.config import TelemetryConfig
from otel.providers import install
from otel.records import LogFact, Signal

def fact(body):
    return LogFact(time.time_ns(), 9, "INFO", body, {}, None, 0, 0, 0, "test")

telemetry = install(TelemetryConfig.from_environment(os.environ, service_name="forking"))
tracer = trace.get_tracer("test")
counter = metrics.get_meter("test").create_counter("things")

def account(signal):
    each = telemetry.ledger.snapshot()[signal]
    return [each.emitted, each.delivered, sum(each.dropped.values()), each.queued]
"""


def run(receiver: OtlpReceiver, body: str, timeout_s: float = 120) -> Any:
    """Run a program that exports to `receiver`; what it prints last is JSON."""
    environ = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol,
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + body],
        env=environ,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_child_begins_with_empty_accounts_and_its_own_identity(otlp: OtlpReceiver) -> None:
    """What waits in the parent is sent by the parent once; the child sends its own under another instance id."""
    found = run(
        otlp,
        """
telemetry.log_sink(fact("parent"))
with tracer.start_as_current_span("around"):
    counter.add(5)
    pid = os.fork()
    if pid == 0:
        before = account(Signal.LOGS)
        telemetry.log_sink(fact("child"))
        with tracer.start_as_current_span("inside"):
            counter.add(1)
if pid == 0:  # the child left the parent's span too
    ok = telemetry.flush(20) and telemetry.shutdown(5)
    os._exit(0 if ok and before == [0, 0, 0, 0] and account(Signal.LOGS) == [1, 1, 0, 0] else 1)
_, status = os.waitpid(pid, 0)
ok = telemetry.flush(20) and telemetry.shutdown(5)
print(json.dumps([status, ok, account(Signal.LOGS), account(Signal.TRACES)]))
""",
    )
    assert found == [0, True, [1, 1, 0, 0], [1, 1, 0, 0]]
    assert sorted(record.body.string_value for record in otlp.logs) == ["child", "parent"]
    assert sorted(span.name for span in otlp.spans) == ["around", "inside"]
    spans = {span.name: span for span in otlp.spans}
    assert spans["inside"].parent_span_id == spans["around"].span_id
    things = sorted(
        point.as_int for metric in otlp.metrics if metric.name == "things" for point in metric.sum.data_points
    )
    assert things == [1, 5], "the child's counter does not carry the parent's on"
    for signal in ("traces", "logs", "metrics"):
        identities = {(each["service.instance.id"], each["process.pid"]) for each in otlp.resources(signal)}
        assert len({instance for instance, _ in identities}) == len({pid for _, pid in identities}) == 2


def test_a_grandchild_is_told_from_both(otlp: OtlpReceiver) -> None:
    """Three generations, three instance ids, and each span once."""
    assert run(
        otlp,
        """
spans = [tracer.start_span("begun by 0")]
for generation in (1, 2):
    pid = os.fork()
    if pid:
        break
    spans.append(tracer.start_span(f"begun by {generation}"))
else:
    generation = 3
for each in spans:
    each.end()
ok = telemetry.flush(20) and telemetry.shutdown(5)
if pid:
    ok = os.waitpid(pid, 0)[1] == 0 and ok
if generation > 1:
    os._exit(0 if ok else 1)
print(json.dumps(ok))
""",
    )
    assert Counter(span.name for span in otlp.spans) == {f"begun by {generation}": 1 for generation in range(3)}
    assert len({each["service.instance.id"] for each in otlp.resources("traces")}) == 3


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_hundred_forks_while_eight_threads_emit(protocol: str) -> None:
    """No deadlock in parent or child, whatever a thread held at the fork; every record arrives exactly once."""
    with OtlpReceiver(protocol) as otlp:
        _a_hundred_forks(otlp)


def _a_hundred_forks(otlp: OtlpReceiver) -> None:
    found = run(
        otlp,
        """
stop = threading.Event()
made = [0] * 8
histogram = metrics.get_meter("test").create_histogram("lengths")
gauge = metrics.get_meter("test").create_observable_gauge("level", [lambda _: [metrics.Observation(1)]])

def emit(number):
    while not stop.is_set():
        telemetry.log_sink(fact(f"parent-{number}-{made[number]}"))
        with tracer.start_as_current_span("busy", attributes={"thread": number}):
            counter.add(1, {"thread": number})
            histogram.record(made[number] % 100)
        made[number] += 1
        stop.wait(0.002)

threads = [threading.Thread(target=emit, args=(number,)) for number in range(8)]
for each in threads:
    each.start()
failed = []
for fork in range(100):
    pid = os.fork()
    if pid == 0:
        telemetry.log_sink(fact(f"child-{fork}"))
        with tracer.start_as_current_span(f"child-{fork}"):
            counter.add(1, {"fork": fork})
            histogram.record(1)
        ok = telemetry.flush(60)
        os._exit(0 if ok and account(Signal.LOGS) == [1, 1, 0, 0] else 1)
    if os.waitpid(pid, 0)[1] != 0:
        failed.append(fork)
stop.set()
for each in threads:
    each.join()
ok = telemetry.flush(60) and telemetry.shutdown(10)
print(json.dumps([failed, ok, sum(made), account(Signal.LOGS), account(Signal.TRACES)]))
""",
        timeout_s=150,
    )
    failed, ok, made, logs, traces = found
    assert (failed, ok) == ([], True)
    assert logs == traces == [made, made, 0, 0]
    bodies = Counter(record.body.string_value for record in otlp.logs)
    assert set(bodies.values()) == {1}
    assert {body for body in bodies if body.startswith("child")} == {f"child-{fork}" for fork in range(100)}
    assert len(bodies) == made + 100
    names = Counter(span.name for span in otlp.spans)
    assert names == {"busy": made, **{f"child-{fork}": 1 for fork in range(100)}}
    assert max(Counter(span.span_id for span in otlp.spans).values()) == 1
    instances = {each["service.instance.id"] for each in otlp.resources("logs")}
    assert len(instances) == 101


@pytest.mark.parametrize("answers", [True, False], ids=["taken", "later"])
def test_a_forked_child_that_ends_as_programs_do_loses_nothing(
    otlp: OtlpReceiver, tmp_path: Path, answers: bool
) -> None:
    """It calls `sys.exit()` at once after its last record, as does its own child; the parent goes on and takes over."""
    otlp.otherwise = Reply() if answers else Reply(503)
    body = f"""
import msgspec, pathlib
telemetry.shutdown(5)
telemetry.uninstall()
telemetry = install(msgspec.structs.replace(
    TelemetryConfig.from_environment(os.environ, service_name="forking"), data_dir=pathlib.Path({str(tmp_path)!r})
))
pids = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        if number == 2 and os.fork() == 0:
            number = 3
        telemetry.log_sink(fact(f"child-{{number}}"))
        sys.exit(number)
    pids.append(pid)
telemetry.log_sink(fact("parent"))
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
print(json.dumps([codes, telemetry.flush(10 if {answers} else 0.1), telemetry.shutdown(5)]))
"""
    assert run(otlp, body) == [[0, 1, 2], answers, True]
    otlp.otherwise = Reply()
    if not answers:
        assert run(otlp, body.replace("range(3)", "range(0)").replace("if False", "if True"))[1]
    wanted = {"parent", *(f"child-{number}" for number in range(4))}
    assert otlp.wait_for(lambda: {record.body.string_value for record in otlp.logs} == wanted, 20)
    bodies = Counter(record.body.string_value for record in otlp.logs)
    assert bodies.pop("parent") == (1 if answers else 2)
    assert set(bodies.values()) == {1}


def test_processes_of_the_multiprocessing_module_export(otlp: OtlpReceiver, tmp_path: Path) -> None:
    """A pool of forked workers, which is how most programs come by children."""
    assert run(
        otlp,
        """
import multiprocessing

def work(number):
    telemetry.log_sink(fact(f"worker-{number}"))
    return telemetry.flush(20)

with multiprocessing.get_context("fork").Pool(2) as pool:
    answers = pool.map(work, range(10), chunksize=1)
telemetry.log_sink(fact("parent"))
print(json.dumps(answers == [True] * 10 and telemetry.flush(20) and telemetry.shutdown(5)))
""",
    )
    expected = {"parent", *(f"worker-{number}" for number in range(10))}
    assert Counter(record.body.string_value for record in otlp.logs) == dict.fromkeys(expected, 1)
    pids = {
        attributes(resource.resource.attributes)["process.pid"]
        for m in otlp.accepted("logs")
        for resource in m.resource_logs
    }
    assert 2 <= len(pids) <= 3


MODULE = """
import json, multiprocessing, os, sys, time
from opentelemetry import trace
from otel.config import TelemetryConfig
from otel.providers import install
from otel.records import LogFact
from pathlib import Path

telemetry = install(TelemetryConfig.from_environment(os.environ, data_dir=Path(os.environ["DATA"])))

def fact(body):
    return LogFact(time.time_ns(), 9, "INFO", body, {}, None, 0, 0, 0, "test")

def work(number):
    telemetry.log_sink(fact(f"child-{number}"))
    with trace.get_tracer("test").start_as_current_span(f"child-{number}"):
        pass  # and it ends at once, without a flush

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    telemetry.log_sink(fact("parent"))
    children = [context.Process(target=work, args=(number,)) for number in range(4)]
    for each in children:
        each.start()
    for each in children:
        each.join(60)
    ok = [each.exitcode for each in children] == [0] * 4 and telemetry.flush(20) and telemetry.shutdown(5)
    print(json.dumps([ok, {s: a.balance for s, a in telemetry.ledger.snapshot().accounts.items()}]))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("answers", [True, False], ids=["taken", "later"])
def test_a_child_of_multiprocessing_that_ends_at_once_loses_nothing(
    otlp: OtlpReceiver, tmp_path: Path, method: str, answers: bool
) -> None:
    """Such a child ends without the interpreter's end; its last records arrive, by itself or by whoever starts next."""
    (tmp_path / "program.py").write_text(MODULE)
    otlp.otherwise = Reply() if answers else Reply(503)
    environ = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.endpoint,
        "OTEL_METRICS_EXPORTER": "none",
        "PYTHONPATH": str(ROOT),
        "DATA": str(tmp_path / "data"),
    }

    def call(program: str, *words: str) -> Any:
        command = [sys.executable, "-W", "ignore::DeprecationWarning", program, *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    ok, balances = call("program.py", method)
    assert ok is answers
    assert set(balances.values()) == {0}
    otlp.otherwise = Reply()
    if not answers:
        (tmp_path / "next.py").write_text(MODULE.replace("range(4)", "range(0)").replace("[0] * 4", "[]"))
        assert call("next.py", method)[0]
    expected = {f"child-{number}" for number in range(4)}
    assert Counter(span.name for span in otlp.spans) == dict.fromkeys(expected, 1)
    bodies = Counter(record.body.string_value for record in otlp.logs)
    assert bodies.pop("parent") == (1 if answers else 2)
    assert bodies == dict.fromkeys(expected, 1)
    assert len({each["service.instance.id"] for each in otlp.resources("traces")}) == 4
    assert list((tmp_path / "data" / "spool").iterdir()) == []
