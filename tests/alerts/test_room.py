"""The alerts of a process as they are put together from settings, and what their messages say."""

from __future__ import annotations

import logging
import math
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlit_extension.alerts.breaker import Circuits, CircuitState
from streamlit_extension.alerts.message import Links, amount, describe, moment, trial_notice
from streamlit_extension.alerts.model import Reading, Snapshot
from streamlit_extension.alerts.room import Alerts
from streamlit_extension.alerts.sinks import links_from, sinks_from
from streamlit_extension.health.model import Maintenance
from streamlit_extension.settings import Settings
from tests.alerts.fakes import slack
from tests.alerts.support import eventually, threads

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
EVERY_SINK = {
    "STX_NOTIFY__EMAIL__HOST": "smtp.example.com",
    "STX_NOTIFY__EMAIL__SENDER": "a@example.com",
    "STX_NOTIFY__EMAIL__RECIPIENTS": '["b@example.com"]',
    "STX_NOTIFY__SLACK__WEBHOOK_URL": "https://hooks.example.com/s3cr3t",
    "STX_NOTIFY__PAGERDUTY__ROUTING_KEY": "s3cr3t",
    "STX_NOTIFY__URLS": '["tgram://s3cr3t/1", "json://s3cr3t"]',
    "STX_NOTIFY__PUBLIC_URL": "https://shop.example.com/",
    "STX_NOTIFY__JAEGER_URL": "https://jaeger.example.com/ui",
    "STX_PATH_PREFIX": "/ops",
}


def load(**environ: str) -> Settings:
    return Settings.load(environ, Path("/"))


def test_every_configured_sink_is_made_and_none_shows_a_secret() -> None:
    """Each table of `[notify]` is a sink, each URL one of its own; names hold no secret."""
    settings = load(**EVERY_SINK)
    sinks = sinks_from(settings)
    assert [sink.name for sink in sinks] == ["log", "email", "slack", "pagerduty", "url1-tgram", "url2-json"]
    assert "s3cr3t" not in "".join(map(repr, sinks)) + str(settings.dump())
    links = links_from(settings).for_trace(TRACE)
    assert [link.url for link in links] == [
        f"https://shop.example.com/ops/telemetry/traces/{TRACE}",
        f"https://jaeger.example.com/ui/trace/{TRACE}",
    ]
    assert [sink.name for sink in sinks_from(Settings())] == ["log"]


def test_links_without_bases_or_example() -> None:
    """No base, no link; no example, the telemetry page itself and Jaeger's search."""
    assert Links().for_trace(TRACE) == ()
    only = Links("https://a.example.com", "https://j.example.com").for_trace(None)
    assert [link.url for link in only] == ["https://a.example.com/telemetry/", "https://j.example.com/search"]
    odd = Links("https://a.example.com").for_trace("../../x?y")
    assert odd[0].url == "https://a.example.com/telemetry/traces/..%2F..%2Fx%3Fy"


def test_a_breach_is_told_by_every_sink_and_so_is_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From settings to Slack and the log: a breach and its end arrive, within interval, `for` and five seconds each."""
    caplog.set_level(logging.INFO)
    readings: Snapshot = {"cpu_usage": Reading(10.0)}
    with slack() as chat:
        env = {
            "STX_NOTIFY__SLACK__WEBHOOK_URL": chat.url,
            "STX_ALERTS__INTERVAL_S": "0.05",
            "STX_ALERTS__FOR_S": "0.2",
            "OTEL_SERVICE_NAME": "shop",
        }
        alerts = Alerts(load(**env), tmp_path, lambda: readings, circuits=Circuits(), instance="pod-1")
        alerts.start()
        crossed = time.monotonic()
        readings = {"cpu_usage": Reading(97.0, trace_id=TRACE)}
        eventually(lambda: len(chat.taken) == 1)
        assert time.monotonic() - crossed <= 0.05 + 0.2 + 5
        assert alerts.active()["cpu_usage"] and not alerts.active()["disk_usage"]
        readings = {"cpu_usage": Reading(10.0)}
        eventually(lambda: len(chat.taken) == 2)
        assert alerts.stop(20)
    titles = [body["text"] for body in chat.taken]
    assert titles == ["[FIRING] shop (pod-1): CPU usage", "[RESOLVED] shop (pod-1): CPU usage"]
    events = [record for record in caplog.records if getattr(record, "event", "").startswith("alert.")]
    assert [vars(record)["event"] for record in events] == ["alert.fired", "alert.resolved"]
    assert events[0].levelno == logging.CRITICAL and vars(events[0])["example_trace_id"] == TRACE
    assert threads("stx-alerts") == []


def test_maintenance_alarms_nobody(tmp_path: Path) -> None:
    """During maintenance nothing is told; what still fires after its end is."""
    settings = load(STX_ALERTS__FOR_S="0")
    alerts = Alerts(settings, tmp_path, dict, circuits=Circuits())
    until = datetime.now(UTC) + timedelta(hours=1)
    alerts.set_maintenance(Maintenance("moving", until))
    assert alerts.manager.check_alerts({"cpu_usage": Reading(99.0)}) == ()
    alerts.set_maintenance(None)
    (notice,) = alerts.manager.check_alerts({"cpu_usage": Reading(99.0)})
    assert str(notice.kind) == "fired"
    assert alerts.stop()


def test_settings_reach_circuits(tmp_path: Path) -> None:
    """`[breaker]` gives failures and the alerts that open."""
    circuits = Circuits()
    settings = load(STX_BREAKER__FAILURES="2", STX_BREAKER__ON_ALERTS='["database_connections"]', STX_ALERTS__FOR_S="0")
    alerts = Alerts(settings, None, dict, circuits=circuits)
    circuit = circuits.get("database")
    alerts.manager.check_alerts({"database_connections": Reading(9.0, limit=10.0)})
    assert circuit.failures == 2 and circuit.state is CircuitState.OPEN and alerts.scaler is None
    assert alerts.stop()


@given(st.floats(), st.sampled_from(["", "%", "ms"]))
def test_any_value_can_be_written(value: float, unit: str) -> None:
    """Numbers of any size have a short text, and times that are none too."""
    assert len(amount(value, unit)) < 40
    assert moment(value) == "unknown" or moment(value).endswith("Z")


def test_amounts_have_no_needless_digits() -> None:
    """Units and digits as people write them."""
    assert [amount(97.25, "%"), amount(5000.0, "ms"), amount(18.0, ""), amount(0.0, "%"), amount(100.0, "")] == [
        "97.25%",
        "5000 ms",
        "18",
        "0%",
        "100",
    ]
    assert moment(math.inf) == "unknown" and moment(0.0) == "1970-01-01T00:00:00Z"


def test_a_test_says_that_nothing_is_wrong() -> None:
    """Title and text are marked."""
    message = describe(trial_notice(0.0, service="shop"))
    assert message.title.startswith("[TEST] [FIRING] shop") and message.as_text().startswith("This is a test")
