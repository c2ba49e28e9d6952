"""How an application's alerts begin and end, and how circuits are shown."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel.names import ALLOWED_VALUES, METRIC_ATTRIBUTES, UNITS, Attribute, Metric
from streamlit_extension.alerts.breaker import CIRCUITS, Circuits, CircuitState
from streamlit_extension.alerts.circuit_health import show_circuits
from streamlit_extension.alerts.delivery import Delivery, FailureReason, Retry, SinkError
from streamlit_extension.alerts.instruments import AlertInstruments
from streamlit_extension.alerts.manager import AlertManager
from streamlit_extension.alerts.model import Reading
from streamlit_extension.alerts.room import Alerts
from streamlit_extension.alerts.wiring import RunningAlerts, configure_circuits
from streamlit_extension.health.model import Maintenance, ServicePhase
from streamlit_extension.health.service import HealthService
from streamlit_extension.settings import Settings
from streamlit_extension.utils.shutdown_model import Deadline
from tests.alerts.support import HangingSink, ListSink, eventually, threads


def make(**environ: str) -> tuple[Alerts, Callable[[], object]]:
    """Alerts that read a breach at every look."""
    settings = Settings.load({"STX_ALERTS__FOR_S": "0", **environ}, Path("/"))
    return Alerts(settings, None, lambda: {"cpu_usage": Reading(99.0)}, circuits=Circuits()), lambda: None


def broken(*_: object) -> Any:
    """Fails as whatever is handed in may."""
    raise ValueError


def test_alerts_begin_after_the_start_and_end_with_every_thread() -> None:
    """They are made on their own thread, evaluate, and leave nothing behind; their figures stay to be collected."""
    closed: list[bool] = []
    running = RunningAlerts(lambda: (make()[0], lambda: closed.append(True)), first_s=0.0)
    assert running.alerts is None
    running.start()
    eventually(lambda: running.alerts is not None and running.alerts.active()["cpu_usage"])
    assert running.stop_by(Deadline(time.monotonic() + 20, time.monotonic)) == ()
    assert running.stop(0.0) and closed == []
    running.close()
    running.close()
    assert closed == [True]
    eventually(lambda: threads("stx-alerts") == [])


def test_a_stop_before_the_first_evaluation_makes_nothing() -> None:
    """A process that ends at once has imported nothing for its alerts."""
    running = RunningAlerts(lambda: pytest.fail("made"), first_s=60.0)
    running.start()
    assert running.stop(20.0)
    assert running.alerts is None and threads("stx-alerts") == []


def test_maintenance_that_is_ordered_first_holds(caplog: pytest.LogCaptureFixture) -> None:
    """What an operator ordered before there were alerts silences them."""
    running = RunningAlerts(lambda: make(STX_ALERTS__INTERVAL_S="0.01"), first_s=0.0)
    running.set_maintenance(Maintenance("moving", datetime.now(UTC) + timedelta(hours=1)))
    running.start()
    eventually(lambda: running.alerts is not None and running.alerts.active()["cpu_usage"])
    assert not [record for record in caplog.records if getattr(record, "event", "") == "alert.fired"]
    running.set_maintenance(None)
    eventually(lambda: any(getattr(record, "event", "") == "alert.fired" for record in caplog.records))
    assert running.stop(20.0)


def test_alerts_that_can_not_be_made_stop_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and the application goes on."""
    running = RunningAlerts(broken, first_s=0.0)
    running.start()
    eventually(lambda: any(getattr(record, "event", "") == "alerts.not_started" for record in caplog.records))
    running.set_maintenance(None)
    assert running.stop(20.0)


def test_a_sink_that_hangs_is_named_by_the_stop() -> None:
    """The step of the stop returns within its share of the budget and says what was cut off."""
    hanging = HangingSink()
    alerts = make()[0]
    alerts.manager._delivery = Delivery([hanging])
    running = RunningAlerts(lambda: (alerts, lambda: None), first_s=0.0)
    running.start()
    assert hanging.entered.wait(20)
    assert running.stop_by(Deadline(time.monotonic() + 0.4, time.monotonic)) == ("the delivery of alerts",)
    hanging.go_on.set()
    eventually(lambda: threads("stx-alerts") == [])


def test_a_start_imports_nothing_of_alerts() -> None:
    """Start time is a budget: rules, sinks and circuits come on their own thread, later."""
    code = (
        "import sys, streamlit_extension.app\n"
        "from streamlit_extension.alerts.wiring import configure_circuits\n"
        "from streamlit_extension.settings import Settings\n"
        "configure_circuits(Settings())\n"
        "print(*[name for name in sys.modules if name.startswith('streamlit_extension.alerts.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["streamlit_extension.alerts.wiring"]


def test_breaker_settings_hold_from_the_first_run_on() -> None:
    """A circuit that a script makes before the first evaluation has the configured values."""
    try:
        configure_circuits(Settings.load({"STX_BREAKER__FAILURES": "2"}, Path("/")))
        assert CIRCUITS.get("test-breaker-settings").failures == 2
    finally:
        CIRCUITS.configure(failures=5, reset_s=30.0)


@pytest.fixture
def service() -> Iterator[HealthService]:
    made = HealthService(version="1")
    made.set_phase(ServicePhase.SERVING)
    yield made
    made.stop()


def fail(circuits: Circuits, name: str, times: int) -> None:
    for _ in range(times):
        with contextlib.suppress(ValueError), circuits.get(name):
            raise ValueError


def test_circuits_are_components_of_health(service: HealthService) -> None:
    """One that was there and one that comes: closed is healthy, open degrades at once and keeps the process ready."""
    circuits = Circuits(failures=2)
    circuits.get("old")
    hide = show_circuits(circuits, service)
    circuits.get("new")
    states = service.snapshot.checks
    assert {"circuit:old", "circuit:new"} <= states.keys() and str(service.status()) == "healthy"
    fail(circuits, "new", 2)
    result = service.snapshot.checks["circuit:new"].state.result
    assert result is not None and result.detail["state"] == "open" and str(service.status()) == "degraded"
    hide()
    assert "circuit:new" not in service.snapshot.checks
    circuits.get("later")
    assert "circuit:later" not in service.snapshot.checks


def points(reader: InMemoryMetricReader) -> dict[str, dict[tuple[Any, ...], Any]]:
    """Metric → attributes' values → value; each is in the registry with its unit."""
    found: dict[str, dict[tuple[Any, ...], Any]] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                known = Metric(metric.name)
                assert metric.unit == UNITS[known]
                for point in metric.data.data_points:
                    attributes = dict(point.attributes or {})
                    assert set(attributes) <= set(METRIC_ATTRIBUTES[known])
                    assert all(
                        value in ALLOWED_VALUES.get(Attribute(key), {value}) for key, value in attributes.items()
                    )
                    found.setdefault(metric.name, {})[tuple(attributes.values())] = point.value  # type: ignore[union-attr]
    return found


def test_alerts_sinks_and_circuits_are_metrics() -> None:
    """Which rules fire, what became of notifications by sink and reason, and where each circuit stands."""
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    refuse = ListSink("refuses", lambda _: SinkError(FailureReason.REFUSED))
    hanging = HangingSink()
    delivery = Delivery([ListSink("takes"), refuse, hanging], retry=Retry(first_s=0.001))
    manager = AlertManager(delivery=delivery)
    circuits = Circuits(failures=2)
    fail(circuits, "billing", 2)
    with contextlib.suppress(Exception), circuits.get("billing"):
        pass
    instruments = AlertInstruments(
        lambda: {"cpu_usage": True, "disk_usage": False}, manager.counts, circuits.snapshots, meters
    )
    manager.send_notifications(manager.check_alerts({"cpu_usage": Reading(99.0)}, now=0.0))
    manager.send_notifications(manager.check_alerts({"cpu_usage": Reading(99.0)}, now=31.0))
    eventually(lambda: delivery.counts()["takes"].delivered == 1 and delivery.counts()["refuses"].waiting == 0)
    found = points(reader)
    assert found["alert.active"] == {("cpu_usage",): 1, ("disk_usage",): 0}
    finished = found["alert.notification.finished"]
    assert finished["takes", "delivered"] == 1 and finished["refuses", "failed", "refused"] == 1
    assert found["alert.notification.waiting"] == {("takes",): 0, ("refuses",): 0, ("hanging",): 1}
    assert found["circuit_breaker.active"]["billing", "open"] == 1
    assert found["circuit_breaker.active"]["billing", "closed"] == 0
    assert found["circuit_breaker.calls"] == {
        ("billing", "success"): 0,
        ("billing", "failure"): 2,
        ("billing", "rejected"): 1,
    }
    instruments.close()
    assert points(reader) == {}
    hanging.go_on.set()
    assert manager.stop(20)
    meters.shutdown()


def test_a_subscriber_of_new_circuits_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The circuit is made all the same."""
    caplog.set_level(logging.WARNING)
    circuits = Circuits()
    end = circuits.subscribe(lambda _: None, broken)
    assert circuits.get("billing").state is CircuitState.CLOSED
    assert [vars(record)["error_type"] for record in caplog.records] == ["ValueError"]
    end()
