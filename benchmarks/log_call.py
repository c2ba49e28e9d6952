"""What a log call costs, beside its peers: `python benchmarks/log_call.py [--calls N] [--rounds N]`.

Every contender is a process of its own, inside a span, and logs the same five fields to a file of its own; they take
turns, round by round, so that what else the machine does meets all of them. "Caller" is the time of the calling thread,
"CPU" is what the whole process has used when all of it is out, worker threads included. Ratios are medians over rounds.

- ours: one JSON line and one record for the sink, correlated, every field searched for secrets
- ours, exported: the same, encoded, kept in the spool and sent to a receiver by HTTP
- structlog: tuned as its documentation says (orjson, bytes, filtering logger, cached), JSON alone
- loguru: its serializer
- python-json-logger: standard logging, JSON alone
- python-json-logger + OTel handler: the same and a record for the SDK's batch processor, which hands it to nobody
- … exported: the same by the SDK's exporter to a receiver by HTTP, with a queue that loses nothing
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.collector import Counting
from benchmarks.support import PEERS_PYTHON, has

WARM_UP = 2000
ROOT = str(Path(__file__).parents[1])

#: Each program defines `call(number)` and, where something happens later, `finish()`.
OURS = """
import collections
from otel.logsink import set_log_sink
from streamlit_extension.utils.structured_logging import StructuredLogger, configure_logging
configure_logging(stream=open(PATH, "w", encoding="utf-8"))
records = collections.deque(maxlen=2048)
set_log_sink(records.append)
log = StructuredLogger(name="app").log_with_correlation
def call(n):
    log("INFO", "client saved", user="ada", page="clients/list", count=n, duration_ms=12.5, status="ok")
"""
#: The records go through the queue, the worker's encoding and the spool to a receiver.
OURS_EXPORTED = """
import os
from pathlib import Path
from otel.config import TelemetryConfig
from otel.logsink import set_log_sink
from otel.providers import install
from streamlit_extension.utils.structured_logging import StructuredLogger, configure_logging
configure_logging(stream=open(PATH, "w", encoding="utf-8"))
endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": os.environ["ENDPOINT"], "OTEL_METRIC_EXPORT_INTERVAL": "3600000"}
telemetry = install(TelemetryConfig.from_environment(endpoint, data_dir=Path(PATH + ".data")))
set_log_sink(telemetry.log_sink)
log = StructuredLogger(name="app").log_with_correlation
def call(n):
    log("INFO", "client saved", user="ada", page="clients/list", count=n, duration_ms=12.5, status="ok")
finish = lambda: telemetry.flush(60)
"""
OURS_LOGGING = """
import collections, logging
from otel.logsink import set_log_sink
from streamlit_extension.utils.structured_logging import configure_logging
configure_logging(stream=open(PATH, "w", encoding="utf-8"))
records = collections.deque(maxlen=2048)
set_log_sink(records.append)
log = logging.getLogger("app").info
def call(n):
    log("client saved", extra=dict(user="ada", page="clients/list", count=n, duration_ms=12.5, status="ok"))
"""
STRUCTLOG = """
import logging, orjson, structlog
structlog.configure(
    cache_logger_on_first_use=True,
    wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=orjson.dumps)],
    logger_factory=structlog.BytesLoggerFactory(open(PATH, "wb")),
)
log = structlog.get_logger().bind().info
def call(n):
    log("client saved", user="ada", page="clients/list", count=n, duration_ms=12.5, status="ok")
"""
LOGURU = """
from loguru import logger
logger.remove()
logger.add(open(PATH, "w", encoding="utf-8"), serialize=True)
log = logger.info
def call(n):
    log("client saved", user="ada", page="clients/list", count=n, duration_ms=12.5, status="ok")
"""
JSON_LOGGER = """
import logging
from pythonjsonlogger.json import JsonFormatter
handler = logging.StreamHandler(open(PATH, "w", encoding="utf-8"))
handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
root = logging.getLogger()
root.addHandler(handler)
root.setLevel(logging.INFO)
log = logging.getLogger("app").info
def call(n):
    log("client saved", extra=dict(user="ada", page="clients/list", count=n, duration_ms=12.5, status="ok"))
"""
OTEL = (
    JSON_LOGGER
    + """
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
class Nobody:
    def export(self, batch): return LogRecordExportResult.SUCCESS
    def shutdown(self): pass
    def force_flush(self, timeout_millis=0): return True
provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(Nobody()))
root.addHandler(LoggingHandler(logger_provider=provider))
finish = provider.force_flush
"""
)
OTEL_EXPORTED = (
    JSON_LOGGER
    + """
import os
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
logging.getLogger("urllib3").setLevel(logging.WARNING)
provider = LoggerProvider()
provider.add_log_record_processor(
    BatchLogRecordProcessor(OTLPLogExporter(os.environ["ENDPOINT"] + "/v1/logs"), max_queue_size=10**6)
)
root.addHandler(LoggingHandler(logger_provider=provider))
finish = lambda: provider.force_flush(60_000)
"""
)
#: Runs inside a span and answers each line with the CPU seconds of a round: the calling thread's and the process's.
DRIVER = """
import sys, time
from opentelemetry.sdk.trace import TracerProvider
PATH, calls = sys.argv[1], int(sys.argv[2])
finish = lambda: None
PROGRAM
clock, cpu = time.thread_time, time.process_time
with TracerProvider().get_tracer("benchmark").start_as_current_span("run"):
    for n in range(WARM_UP): call(n)
    finish()
    for _ in sys.stdin:
        began, used = clock(), cpu()
        for n in range(calls): call(n)
        took = clock() - began
        finish()
        print(took, cpu() - used, flush=True)
"""
CONTENDERS = {
    "ours": (sys.executable, OURS),
    "ours, exported": (sys.executable, OURS_EXPORTED),
    "ours, standard logging": (sys.executable, OURS_LOGGING),
    "structlog": (PEERS_PYTHON, STRUCTLOG),
    "loguru": (PEERS_PYTHON, LOGURU),
    "python-json-logger": (PEERS_PYTHON, JSON_LOGGER),
    "python-json-logger + OTel handler": (PEERS_PYTHON, OTEL),
    "… + OTel handler, exported": (PEERS_PYTHON, OTEL_EXPORTED),
}


def start(python: str, program: str, path: Path, calls: int, endpoint: str) -> subprocess.Popen[str]:
    """One contender, ready for its rounds."""
    environ = {**os.environ, "ENDPOINT": endpoint}
    code = DRIVER.replace("PROGRAM", program).replace("WARM_UP", str(WARM_UP))
    pipe = subprocess.PIPE
    words = [python, "-c", code, str(path), str(calls)]
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=environ)


def turn(process: subprocess.Popen[str]) -> tuple[float, float]:
    """One round of one contender: seconds of the caller and of CPU."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    answer = process.stdout.readline().split()
    if len(answer) != 2:
        raise SystemExit(f"a contender ended with {process.wait()}")
    return float(answer[0]), float(answer[1])


def main() -> None:
    """Take turns and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if not has(PEERS_PYTHON, "structlog"):
        raise SystemExit("the peers are not installed; `make bench` does it")
    with tempfile.TemporaryDirectory() as folder, Counting() as receiver:
        running = {
            name: start(python, program, Path(folder) / f"{number}.log", options.calls, receiver.endpoint)
            for number, (name, (python, program)) in enumerate(CONTENDERS.items())
        }
        rounds = [{name: turn(process) for name, process in running.items()} for _ in range(options.rounds)]
        for process in running.values():
            process.communicate()
        for number, name in enumerate(CONTENDERS):
            with open(Path(folder) / f"{number}.log", "rb") as lines:
                found, due = sum(1 for _ in lines), WARM_UP + options.rounds * options.calls
            if found != due:
                raise SystemExit(f"{name} has written {found} lines of {due}")
    print(f"{'':36} {'caller (µs)':>12} {'× structlog':>12} {'CPU (µs)':>10} {'× OTel handler':>15}")
    for name in CONTENDERS:
        caller, used = (statistics.median(each[name][i] for each in rounds) / options.calls * 1e6 for i in (0, 1))
        beside = statistics.median(each[name][0] / each["structlog"][0] for each in rounds)
        total = statistics.median(each[name][1] / each["python-json-logger + OTel handler"][1] for each in rounds)
        print(f"{name:36} {caller:12.2f} {beside:12.2f} {used:10.2f} {total:15.2f}")
    print("budgets: ours, caller ≤ 0.80 × structlog; ours, CPU ≤ 0.50 × OTel handler")


if __name__ == "__main__":
    main()
