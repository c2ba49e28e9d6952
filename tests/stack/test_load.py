"""The shipped configuration under load."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stack.backends import until
from tests.stack.conftest import StartStack
from tests.support.stack import built

SOAK = bool(os.environ.get("SOAK"))
SECONDS = 30 if SOAK else 10
SPANS_A_SECOND = 5000
#: The least share of them that has to be sent: the generator gives up what it can't send in time on a busy machine.
LEAST = 0.9 if SOAK else 0.2
WORKERS = 8
MEMORY_MIB = 512


@pytest.mark.timeout(300)
def test_five_thousand_spans_a_second_lose_none(
    start_stack: StartStack, record_property: Callable[[str, object], None]
) -> None:
    """All that was taken is counted and handed on, nothing is refused, and memory stays below the limiter's bound."""
    backends = start_stack(COLLECTOR_MEMORY_MIB=str(MEMORY_MIB))
    pid = backends.stack.pid("otelcol")
    # The rate is a worker's; one alone does not come to so many.
    command = [
        built("telemetrygen", "telemetrygen"), "traces", "--otlp-insecure",
        f"--otlp-endpoint={backends.stack.address('otlp_grpc')}", "--service=load", f"--workers={WORKERS}",
        f"--rate={SPANS_A_SECOND / WORKERS}", f"--duration={SECONDS}s", "--batch-size=500",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS + 60)
    accepted = backends.own("otelcol_receiver_accepted_spans")
    assert accepted > LEAST * SPANS_A_SECOND * SECONDS, done.stderr[-2000:]
    sent = until(lambda: backends.own("otelcol_exporter_sent_spans"), lambda seen: seen >= accepted, 90)
    assert sent == accepted
    assert backends.own("otelcol_receiver_refused_spans") == 0
    assert backends.own("otelcol_receiver_failed_spans") == 0
    assert backends.own("otelcol_exporter_send_failed_spans") == 0
    calls = 'sum(traces_span_metrics_calls_total{service_name="load"})'
    assert until(lambda: backends.value(calls), lambda seen: seen >= accepted, 60) == accepted
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (peak_kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    record_property("spans", accepted)
    record_property("peak MiB", int(peak_kib) // 1024)
    print(f"{accepted:.0f} spans in {SECONDS} s, all handed on; peak {int(peak_kib) // 1024} MiB of {MEMORY_MIB}")
    assert int(peak_kib) / 1024 < MEMORY_MIB


#: What a run's span says of itself, as long as the sample application's: some 530 bytes in OTLP.
RUN = {
    "session.id": "0f6f4bd2a7b84f5b9f0b1f3d4c5e6a7b",
    "app.screen.name": "Projects and tasks",
    "streamlit.run.type": "full",
    "streamlit.run.trigger": "widget",
    "streamlit.run.outcome": "success",
    "db.system.name": "postgresql",
    "db.query.text": "SELECT projects.id, projects.name, projects.state FROM projects WHERE projects.client_id = ? "
    "ORDER BY projects.name LIMIT ?",
}


def resident_kib(pid: int) -> int:
    """A process' memory."""
    (found,) = re.findall(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"), re.MULTILINE)
    return int(found)


@pytest.mark.timeout(300)
def test_a_span_that_tail_sampling_holds_takes_two_kibibytes(
    start_stack: StartStack, record_property: Callable[[str, object], None]
) -> None:
    """docs/scale.md calculates with it: what the collector grows by while it has decided on nothing yet."""
    backends = start_stack(COLLECTOR_DECISION_WAIT="600s", COLLECTOR_MEMORY_MIB="2048")
    pid = backends.stack.pid("otelcol")
    assert pid is not None
    before = resident_kib(pid)
    command = [
        built("telemetrygen", "telemetrygen"), "traces", "--otlp-insecure", "--service=load", "--batch-size=500",
        f"--otlp-endpoint={backends.stack.address('otlp_grpc')}", f"--workers={WORKERS}", "--child-spans=2",
        f"--rate={SPANS_A_SECOND / WORKERS}", f"--duration={SECONDS}s",
        *(f'--telemetry-attributes={name}="{value}"' for name, value in RUN.items()),
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS + 60)
    held = backends.own("otelcol_receiver_accepted_spans")
    assert held > LEAST * SPANS_A_SECOND * SECONDS
    assert backends.own("otelcol_exporter_sent_spans") == 0, "all of them are held"
    each = (resident_kib(pid) - before) / held
    record_property("KiB a span", round(each, 2))
    print(f"{held:.0f} spans are held; the collector grew by {each:.2f} KiB for each")
    assert 0.5 < each < (3 if SOAK else 8), "of few spans each has a large part of what the collector takes anyway"
