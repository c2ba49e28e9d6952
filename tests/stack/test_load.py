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

SOAK = bool(os.environ.get("STX_SOAK"))
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
