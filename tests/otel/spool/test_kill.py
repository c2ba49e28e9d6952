"""SIGKILL at random moments: what was committed arrives after the restart, and every start succeeds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path

import pytest

from otel.config import OtlpTarget
from otel.export.target import make_sender
from otel.ledger import Ledger
from otel.records import Signal
from otel.spool import Spool
from tests.support.otlp import OtlpReceiver, Reply

ROUNDS = 200 if os.environ.get("SOAK") else 20

PROGRAM = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from otel.config import OtlpTarget
    from otel.export.target import make_sender
    from otel.ledger import Ledger
    from otel.records import Signal
    from otel.spool import Spool
    from tests.support.spooling import batch, commit

    folder, endpoint, base = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    ledger = Ledger()
    targets = {s: make_sender(s, OtlpTarget(f"{endpoint}/v1/{s}")) for s in (Signal.TRACES, Signal.LOGS)}
    spool = Spool(folder, ledger, targets, period_s=0.05)
    spool.start()
    number = base
    while True:
        commit(spool, ledger, batch(Signal.TRACES, [number, number + 1]), batch(Signal.LOGS, [number]))
        # What is said is committed: whoever reads this holds us to it.
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        number += 2
    """
)


@pytest.mark.timeout(600 if ROUNDS > 20 else 170)
def test_what_was_committed_survives_sigkill_at_any_moment(tmp_path: Path) -> None:
    """Processes are killed while they start, commit, send, delete and take over what the one before left."""
    chance = random.Random()
    committed: list[int] = []
    with OtlpReceiver() as receiver:
        for each in range(ROUNDS):
            # Half of the time the receiver is away, so that much is left; then it is there, so that much is deleted.
            receiver.otherwise = Reply(503) if each % 4 < 2 else Reply()
            command = [sys.executable, "-c", PROGRAM, str(tmp_path), receiver.endpoint, str(each * 1_000_000)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None and process.stderr is not None
                first = process.stdout.readline()
                assert first, process.stderr.read()  # every start succeeds
                killer = threading.Timer(chance.random() * 0.3, process.kill)
                killer.start()
                lines = [first, *process.stdout]
                killer.join()
            committed += [int(line) for line in lines if line.endswith("\n")]
        receiver.otherwise = Reply()
        ledger = Ledger()
        targets = {
            signal: make_sender(signal, OtlpTarget(f"{receiver.endpoint}/v1/{signal}"))
            for signal in (Signal.TRACES, Signal.LOGS)
        }
        spool = Spool(tmp_path, ledger, targets)
        spool.start()
        spool.look_after()
        assert spool.flush(100)
        spool.close(5)
        spans = Counter(int(span.name) for span in receiver.spans)
        logs = Counter(int(record.body.string_value) for record in receiver.logs)
    assert len(committed) > ROUNDS
    assert [each for each in committed if not logs[each]] == []
    assert [each for each in committed if not (spans[each] and spans[each + 1])] == []
    # Twice came at most what was under way at each death: one batch of each signal.
    assert sum(count - 1 for count in logs.values()) <= ROUNDS
    assert sum(count - 1 for count in spans.values()) <= 2 * ROUNDS
    for account in ledger.snapshot().accounts.values():
        assert account.balance == 0
        assert account.emitted == account.delivered
        assert account.dropped == {}
    assert list(tmp_path.iterdir()) == []


EMITTING = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from otel.config import TelemetryConfig
    from otel.providers import install

    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRICS_EXPORTER": "none"}
    telemetry = install(TelemetryConfig.from_environment(environ, data_dir=Path(sys.argv[1])))
    tracer = telemetry.tracer_provider.get_tracer("t")
    number = int(sys.argv[2])
    while True:
        tracer.start_span(f"{number}").end()
        sys.stdout.write(f"{number} {time.monotonic()}\\n")
        sys.stdout.flush()
        number += 1
        time.sleep(0.002)
    """
)


@pytest.mark.timeout(600 if ROUNDS > 20 else 170)
def test_what_is_older_than_half_a_second_and_a_commit_survives(tmp_path: Path) -> None:
    """From the end of a span to the disk it is half a second and one commit, whenever the process is killed."""
    chance = random.Random()
    wanted: list[int] = []
    for each in range(ROUNDS // 5):
        command = [sys.executable, "-c", EMITTING, str(tmp_path), str(each * 1_000_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            killer = threading.Timer(2.0 + chance.random(), process.kill)
            killer.start()
            lines = [line.split() for line in (first, *process.stdout) if line.endswith("\n")]
            killer.join()
        end = float(lines[-1][1])
        # Half a second, and what one commit may take on a busy machine.
        wanted += [int(number) for number, moment in lines if float(moment) < end - 0.5 - 1.0]
    assert len(wanted) > ROUNDS
    with OtlpReceiver() as receiver:
        ledger = Ledger()
        sender = make_sender(Signal.TRACES, OtlpTarget(f"{receiver.endpoint}/v1/traces"))
        spool = Spool(tmp_path / "spool", ledger, {Signal.TRACES: sender})
        spool.start()
        spool.look_after()
        assert spool.flush(60)
        spool.close(5)
        arrived = Counter(int(span.name) for span in receiver.spans)
    assert [number for number in wanted if arrived[number] != 1] == []
