"""The pipeline's own health: when it is degraded, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel.export.outcome import Kind
from otel.export.outcome import Outcome as Sent
from otel.ledger import Ledger
from otel.records import DropReason, Signal
from otel.spool import Spool
from streamlit_extension.health.checks.telemetry import LATELY_S, TelemetryCheck, TelemetryFacts, decide, facts_of
from streamlit_extension.health.model import Outcome
from tests.support.spooling import Steered, batch, commit, senders


@pytest.mark.parametrize(
    ("facts", "lately", "error"),
    [
        (TelemetryFacts(), {}, None),
        (TelemetryFacts(failing_s=59, reason="HTTP 503"), {}, None),
        (TelemetryFacts(failing_s=61, reason="HTTP 503"), {}, "not taken for 61 s (HTTP 503)"),
        (TelemetryFacts(spool_percent=79), {}, None),
        (TelemetryFacts(spool_percent=85), {}, "the spool is 85 % full"),
        (TelemetryFacts(problem="no spool can be made in /x: Read-only file system"), {}, "Read-only file system"),
        (TelemetryFacts(dropped={"size": 3}), {"size": 0}, None),
        (TelemetryFacts(dropped={"size": 3}), {"size": 2}, "records given up lately: 2 size"),
    ],
)
def test_the_decision(facts: TelemetryFacts, lately: dict[str, int], error: str | None) -> None:
    """Never worse than degraded, with every reason in one line."""
    result = decide(facts, lately)
    assert result.outcome is (Outcome.OK if error is None else Outcome.DEGRADED)
    assert (result.error is None) if error is None else (error in (result.error or ""))


def test_a_loss_is_told_for_five_minutes() -> None:
    """From the first check that sees it until it is long ago; the next loss counts anew."""
    now, dropped = [0.0], {"size": 0}
    check = TelemetryCheck(lambda: TelemetryFacts(dropped=dict(dropped)), clock=lambda: now[0])

    def at(moment: float) -> str | None:
        now[0] = moment
        return check().error

    assert at(0) is None
    assert at(10) is None
    dropped["size"] = 5
    assert at(20) == "records given up lately: 5 size"
    assert at(20 + LATELY_S - 1) == "records given up lately: 5 size"
    assert at(20 + LATELY_S + 1) is None
    dropped["size"] = 6
    assert at(1000) == "records given up lately: 1 size"
    assert at(1010) == "records given up lately: 1 size"
    assert at(1001 + LATELY_S) is None


def test_without_telemetry_it_is_not_configured() -> None:
    """An application that exports nothing has no such dependency."""
    assert TelemetryCheck(lambda: None)().outcome is Outcome.NOT_CONFIGURED


def test_the_facts_of_a_real_spool(tmp_path: Path) -> None:
    """What fails, how full it is and what was given up are read from the spool and the accounts."""
    ledger = Ledger()
    receiver = Steered(Signal.LOGS, lambda _: Sent(Kind.LATER, "HTTP 503"))
    spool = Spool(tmp_path, ledger, senders(receiver), max_bytes=10_000)
    spool.start()
    for number in range(6):
        commit(spool, ledger, batch(Signal.LOGS, [number], padding=2000))
    assert receiver.wait_for(lambda: len(receiver.attempts) >= 2)
    facts = facts_of(ledger, spool)
    spool.close(0)
    assert facts.failing_s is not None and facts.reason == "HTTP 503"
    assert 50 < facts.spool_percent <= 100
    assert facts.dropped == {DropReason.SIZE: 6 - facts.records}
    assert facts_of(ledger, None).records == facts.records
