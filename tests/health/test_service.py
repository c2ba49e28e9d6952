"""The service as a whole: what results, clocks, dependencies, phases and faults do to what is told."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from streamlit_extension.endpoints.health import HealthCheckEndpoint
from streamlit_extension.health import report
from streamlit_extension.health.checks.database import DatabaseCheck
from streamlit_extension.health.model import (
    CheckFunction,
    CheckResult,
    CheckSpec,
    HealthResponse,
    Maintenance,
    Outcome,
    Scope,
    ServicePhase,
)
from streamlit_extension.health.service import HealthService
from tests.support.faults import kill_thread

CYCLES = 10_000 if os.environ.get("SOAK") else 1_000
PATIENT_S = 30.0
OK, FAILED = CheckResult(Outcome.OK), CheckResult(Outcome.FAILED, error="OperationalError: gone")


def good() -> CheckResult:
    return OK


@dataclass
class Clocks:
    """Both clocks by hand: seconds that only go on, and wall time that may go anywhere."""

    now_s: float = 1000.0
    wall: datetime = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


@dataclass
class Told:
    """A service with clocks by hand, and what its paths would answer."""

    clocks: Clocks
    service: HealthService
    spans: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def ask(self, kind: Callable[..., report.Rendered], **more: Any) -> HealthResponse:
        return kind(self.service.snapshot, self.clocks.now_s, self.clocks.wall, **more).response

    @property
    def ready(self) -> tuple[int, str | None]:
        """Status code and reason of `/health/ready`."""
        answer = self.ask(report.ready)
        return answer.status_code, answer.body.get("reason")

    @property
    def status(self) -> tuple[int, str]:
        """Status code and status of `/health`."""
        answer = self.ask(report.basic)
        return answer.status_code, answer.body["status"]

    def component(self, name: str) -> dict[str, Any]:
        """One component of `/health/detailed`."""
        found: dict[str, Any] = self.ask(report.detailed, entitled=True).body["components"][name]
        return found

    def report(self, name: str, *results: CheckResult) -> None:
        for result in results:
            self.service.report(name, result)

    def pass_time(self, seconds: float) -> None:
        self.clocks.now_s += seconds
        self.clocks.wall += timedelta(seconds=seconds)


@pytest.fixture
def told() -> Told:
    """A serving service whose scheduler isn't started: results come from the test."""
    clocks, spans = Clocks(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    service = HealthService(
        version="1", clock=lambda: clocks.now_s, wall=lambda: clocks.wall, tracer=provider.get_tracer("test")
    )
    service.set_phase(ServicePhase.SERVING)
    return Told(clocks, service, spans)


@pytest.fixture
def running() -> Iterator[HealthService]:
    """A serving service whose scheduler runs, in real time."""
    service = HealthService(version="1")
    service.start()
    service.set_phase(ServicePhase.SERVING)
    yield service
    service.stop()


def wait_until(accept: Callable[[], bool], timeout_s: float = PATIENT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not accept():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def events(caplog: pytest.LogCaptureFixture, *names: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if getattr(record, "event", "") in names]


# -- age and clocks -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_killed_scheduler_turns_everything_stale(running: HealthService, caplog: pytest.LogCaptureFixture) -> None:
    """With the scheduler's thread dead the last green results hold for `max_age_s` and no longer; it is told once."""
    caplog.set_level(logging.INFO)
    running.register(CheckSpec("database", good, critical=True, interval_s=0.1, max_age_s=1))
    running.register(CheckSpec("cache", good, interval_s=0.1, max_age_s=1))
    endpoint = HealthCheckEndpoint(service=running)
    wait_until(
        lambda: endpoint.readiness_check().body["dependencies"] == {"database": "connected", "cache": "available"}
    )
    assert endpoint.readiness_check().status_code == 200
    kill_thread("stx-health-scheduler")
    wait_until(lambda: endpoint.readiness_check().status_code == 503)
    wait_until(lambda: endpoint.readiness_check().body["dependencies"]["cache"] == "stale")
    assert endpoint.readiness_check().body == {
        "ready": False,
        "reason": "database",
        "dependencies": {"database": "stale", "cache": "stale"},
    }
    found = endpoint.detailed_health()
    assert (found.status_code, found.body["status"]) == (503, "unhealthy")
    for name in ("database", "cache"):
        component = found.body["components"][name]
        assert (component["status"], component["reason"]) == ("unhealthy", "stale")
        assert component["age"] >= 1.0
    assert endpoint.liveness_check().status_code == 200
    for _ in range(3):
        running.heartbeat()
    (event,) = events(caplog, "health.service_status_changed")
    assert (event.__dict__["old"], event.__dict__["new"]) == ("healthy", "unhealthy")


def test_an_old_result_is_never_green_whatever_its_check_is(told: Told) -> None:
    """Too old: a critical check is down and any other degrades; one whose results come from outside never is."""
    told.service.register(CheckSpec("database", good, critical=True, max_age_s=30))
    told.service.register(CheckSpec("cache", good, max_age_s=10))
    told.service.register(CheckSpec("script", None, max_age_s=5))
    for name in ("database", "cache", "script"):
        told.report(name, OK)
    assert (told.ready, told.status) == ((200, None), (200, "healthy"))
    told.pass_time(10.5)
    assert (told.ready, told.status) == ((200, None), (200, "degraded"))
    assert told.component("script")["status"] == "healthy"
    told.pass_time(20)
    assert (told.ready, told.status) == ((503, "database"), (503, "unhealthy"))
    told.report("database", OK)
    told.report("cache", OK)
    assert (told.ready, told.status) == ((200, None), (200, "healthy"))


@pytest.mark.parametrize("jump", [timedelta(days=-4000), timedelta(hours=-1), timedelta(hours=1), timedelta(days=4000)])
def test_a_wall_clock_that_jumps_changes_nothing_but_the_times_shown(told: Told, jump: timedelta) -> None:
    """Set back or forward, the wall clock makes no result old or young, moves no uptime and no readiness."""
    told.service.register(CheckSpec("database", good, critical=True, max_age_s=30))
    told.report("database", OK)
    told.pass_time(20)
    told.clocks.wall += jump
    told.service.heartbeat()
    assert (told.ready, told.status) == ((200, None), (200, "healthy"))
    basic = told.ask(report.basic).body
    assert basic["uptime"] == "00:00:20"
    assert basic["timestamp"] == told.clocks.wall.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert told.component("database")["age"] == 20.0
    told.report("database", FAILED, FAILED)
    assert told.ready == (503, "database")
    told.clocks.wall -= 2 * jump
    assert told.ready == (503, "database")
    told.report("database", OK)
    told.clocks.now_s += 31
    told.clocks.wall -= timedelta(days=365)
    assert told.ready == (503, "database")
    assert told.ask(report.ready).body["dependencies"]["database"] == "stale"


# -- hysteresis, criticality, dependencies --------------------------------------------------------------------------


def test_readiness_follows_the_hysteresis_and_dependencies_what_was_last_seen(told: Told) -> None:
    """Three failures in a row trip, two successes recover; meanwhile the dependency is told as it was found."""
    spec = CheckSpec("database", good, critical=True, failures_to_trip=3, successes_to_recover=2)
    told.service.register(spec)
    seen = []
    for result in (OK, FAILED, FAILED, OK, FAILED, FAILED, FAILED, OK, FAILED, OK, OK):
        told.report("database", result)
        seen.append((told.ready[0], told.ask(report.ready).body["dependencies"]["database"]))
    up, down = "connected", "disconnected"
    assert seen[:6] == [(200, up), (200, down), (200, down), (200, up), (200, down), (200, down)]
    assert seen[6:] == [(503, down), (503, up), (503, down), (503, up), (200, up)]


@pytest.mark.parametrize(
    ("critical", "scope", "policy", "ready", "status"),
    [
        (True, Scope.LOCAL, "unready", 503, "unhealthy"),
        (True, Scope.LOCAL, "degrade", 503, "unhealthy"),
        (True, Scope.SHARED, "unready", 503, "unhealthy"),
        (True, Scope.SHARED, "degrade", 200, "degraded"),
        (False, Scope.LOCAL, "unready", 200, "degraded"),
        (False, Scope.SHARED, "unready", 200, "degraded"),
        (False, Scope.SHARED, "degrade", 200, "degraded"),
    ],
)
@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMEOUT])
def test_what_a_failure_does(
    told: Told, critical: bool, scope: Scope, policy: str, ready: int, status: str, outcome: Outcome
) -> None:
    """A critical failure makes the process unready, unless all replicas share it and the policy says to degrade."""
    told.service.register(CheckSpec("x", good, critical=critical, scope=scope), shared_failure=policy)
    told.report("x", CheckResult(outcome))
    assert (told.ready[0], told.status[1]) == (ready, status)
    assert told.component("x")["status"] == "unhealthy"


def test_a_dependent_of_a_failed_check_is_skipped_with_its_cause(running: HealthService) -> None:
    """It isn't run, names what failed, skips in turn what depends on it, and is run again when the cause is over."""
    broken = threading.Event()
    ran = {"reports": 0, "mails": 0}

    def database() -> CheckResult:
        return FAILED if broken.is_set() else OK

    def counted(name: str) -> CheckFunction:
        def run() -> CheckResult:
            ran[name] += 1
            return OK

        return run

    quick: dict[str, Any] = {"interval_s": 0.05, "failures_to_trip": 1}
    running.register(CheckSpec("mails", counted("mails"), depends_on=("reports",), **quick))
    running.register(CheckSpec("reports", counted("reports"), depends_on=("database", "unknown"), **quick))
    running.register(CheckSpec("database", database, critical=True, **quick))
    endpoint = HealthCheckEndpoint(service=running)

    def statuses() -> list[str]:
        components = endpoint.detailed_health().body["components"]
        return [components[name]["status"] for name in ("database", "reports", "mails")]

    wait_until(lambda: statuses() == ["healthy"] * 3)
    broken.set()
    wait_until(lambda: statuses() == ["unhealthy", "skipped", "skipped"])
    before = dict(ran)
    time.sleep(0.3)
    assert ran == before
    components = endpoint.detailed_health().body["components"]
    assert (components["reports"]["reason"], components["mails"]["reason"]) == ("database failed", "reports failed")
    assert endpoint.readiness_check().body["reason"] == "database"
    broken.clear()
    wait_until(lambda: statuses() == ["healthy"] * 3)


def test_dependencies_that_lead_back_are_refused_in_one_line(told: Told) -> None:
    """Registering a check that would depend on itself says so, and leaves what was there."""
    told.service.register(CheckSpec("a", good, depends_on=("b",)))
    told.service.register(CheckSpec("b", good, depends_on=("c",)))
    for spec in (CheckSpec("c", good, depends_on=("a",)), CheckSpec("d", good, depends_on=("d",))):
        with pytest.raises(ValueError, match=r"^check '[cd]' would depend on itself through depends_on \['[ad]'\]$"):
            told.service.register(spec)
    assert list(told.service.snapshot.checks) == ["a", "b"]


# -- start ----------------------------------------------------------------------------------------------------------


def test_the_start_is_over_after_the_first_run_of_every_critical_check(told: Told) -> None:
    """Until then startup and readiness are 503; how the first run ended is readiness's business, not the start's."""
    told.service.set_phase(ServicePhase.STARTING)
    told.service.register(CheckSpec("database", good, critical=True))
    told.service.register(CheckSpec("vault", good, critical=True))
    told.service.register(CheckSpec("cache", good))
    told.service.register(CheckSpec("off", good, critical=True, enabled=False))
    answers = []
    steps: list[Callable[[], None]] = [
        lambda: None,
        lambda: told.report("database", FAILED),
        lambda: told.service.set_phase(ServicePhase.SERVING),
        lambda: told.report("vault", OK),
        lambda: told.report("database", OK),
    ]
    for step in steps:
        step()
        startup = told.ask(report.startup)
        answers.append((startup.status_code, startup.body["pending"], *told.ready))
    assert answers == [
        (503, ["database", "vault"], 503, "starting"),
        (503, ["vault"], 503, "starting"),
        (503, ["vault"], 503, "starting"),
        (200, [], 503, "database"),
        (200, [], 200, None),
    ]


def test_what_is_found_later_counts_from_its_first_result(told: Told) -> None:
    """An engine that is found while serving is `pending` and harms nobody; its first failure counts at once."""
    told.service.register(CheckSpec("database:reports", good, critical=True))
    assert (told.ready, told.status) == ((200, None), (200, "healthy"))
    assert told.ask(report.ready).body["dependencies"]["database:reports"] == "pending"
    assert told.component("database:reports")["status"] == "pending"
    told.report("database:reports", FAILED)
    assert (told.ready, told.status) == ((503, "database:reports"), (503, "unhealthy"))
    told.service.unregister("database:reports")
    assert (told.ready, told.status) == ((200, None), (200, "healthy"))


# -- what is said of changes ----------------------------------------------------------------------------------------


def test_each_change_makes_one_event_and_one_span(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand results with two changes after the first: three events, three spans, the trace id in the details."""
    caplog.set_level(logging.DEBUG)
    told.service.register(CheckSpec("database", good, critical=True))
    told.report("database", *[OK] * 400, FAILED, OK, *[FAILED] * 200, *[OK] * 400)
    changes = events(caplog, "health.status_changed")
    assert [(each.__dict__["old"], each.__dict__["new"]) for each in changes] == [
        ("pending", "healthy"),
        ("healthy", "unhealthy"),
        ("unhealthy", "healthy"),
    ]
    assert len(caplog.records) == 3
    assert "gone" in changes[1].__dict__["error"]
    spans = told.spans.get_finished_spans()
    assert [span.attributes["health.status.new"] for span in spans if span.attributes] == [
        "healthy",
        "unhealthy",
        "healthy",
    ]
    assert told.component("database")["trace_id"] == format(spans[-1].context.trace_id, "032x")
    assert len({span.context.trace_id for span in spans}) == 3


def test_changes_from_many_threads_are_each_told_once(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """While heartbeats look at the status without pause, a check's change is told as its own and not again as theirs."""
    caplog.set_level(logging.INFO)
    names = [f"check-{number}" for number in range(8)]
    for name in names:
        told.service.register(CheckSpec(name, good, critical=True, failures_to_trip=1))
    over = threading.Event()

    def beat() -> None:
        while not over.is_set():
            told.service.heartbeat()

    def alternate(name: str) -> None:
        for _ in range(50):
            told.report(name, FAILED, OK)

    beating = threading.Thread(target=beat)
    threads = [threading.Thread(target=alternate, args=(name,)) for name in names]
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for each in (beating, *threads):
            each.start()
        for each in threads:
            each.join(PATIENT_S)
    finally:
        over.set()
        beating.join(PATIENT_S)
        sys.setswitchinterval(switching)
    assert len(events(caplog, "health.status_changed")) == len(told.spans.get_finished_spans()) == 8 * 100
    assert events(caplog, "health.service_status_changed") == []
    assert told.status == (200, "healthy")


def test_a_run_that_was_asked_for_counts_once(running: HealthService) -> None:
    """Asking for a run of a failing check is one failure, not two."""
    results = iter([OK])
    running.register(
        CheckSpec("database", lambda: next(results, FAILED), critical=True, interval_s=600, max_age_s=3600)
    )
    wait_until(lambda: running.snapshot.checks["database"].state.consecutive_successes == 1)
    assert running.run_now("database").outcome is Outcome.FAILED
    assert running.snapshot.checks["database"].state.consecutive_failures == 1
    assert HealthCheckEndpoint(service=running).readiness_check().status_code == 200


# -- maintenance ----------------------------------------------------------------------------------------------------


def test_maintenance_ends_with_its_time_and_is_told_once_each_way(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """It holds until its wall time, hides no liveness, and its beginning and end are one event each."""
    caplog.set_level(logging.INFO)
    told.service.register(CheckSpec("database", good, critical=True))
    told.report("database", OK)
    caplog.clear()
    told.service.set_maintenance(Maintenance("new disks", told.clocks.wall + timedelta(minutes=30)))
    for _ in range(3):
        told.service.heartbeat()
        assert (told.ready, told.status) == ((503, "maintenance"), (503, "maintenance"))
    assert told.ask(report.live).status_code == 200
    assert told.ask(report.detailed, entitled=False).body.keys() == {"status", "timestamp"}
    told.clocks.wall += timedelta(minutes=29, seconds=59)
    told.service.heartbeat()
    assert told.ready == (503, "maintenance")
    told.clocks.wall += timedelta(seconds=1)
    assert told.status == (200, "healthy")  # also before anybody has noticed
    for _ in range(3):
        told.service.heartbeat()
    names = [record.__dict__["event"] for record in caplog.records]
    assert names.count("health.maintenance_started") == names.count("health.maintenance_ended") == 1
    assert [
        (each.__dict__["old"], each.__dict__["new"]) for each in events(caplog, "health.service_status_changed")
    ] == [("healthy", "maintenance"), ("maintenance", "healthy")]


def test_what_fails_during_maintenance_counts_after_it(told: Told) -> None:
    """Checks go on in maintenance; what they found decides at once when it is over."""
    told.service.register(CheckSpec("database", good, critical=True))
    told.report("database", OK)
    told.service.set_maintenance(Maintenance("move", told.clocks.wall + timedelta(minutes=5)))
    told.report("database", FAILED, FAILED)
    assert told.status == (503, "maintenance")
    told.service.set_maintenance(None)
    assert (told.ready, told.status) == ((503, "database"), (503, "unhealthy"))


# -- many runs ------------------------------------------------------------------------------------------------------


def resources() -> tuple[int, int]:
    """Threads and open descriptors of this process."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads open descriptors where Linux shows them")
@pytest.mark.timeout(600 if os.environ.get("SOAK") else 180)
def test_many_cycles_leave_threads_descriptors_and_memory_where_they_were(
    running: HealthService, tmp_path: Path
) -> None:
    """Thousands of runs of checks that work, fail, degrade and time out, of one that asks a real database among them."""
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect():
        pass
    database = DatabaseCheck(lambda: engine)
    turn = iter(range(10**9))
    runs = [0]

    def counted(function: CheckFunction) -> CheckFunction:
        def run() -> CheckResult:
            runs[0] += 1
            return function()

        return run

    def wild() -> CheckResult:
        number = next(turn)
        if number % 50 == 7:
            time.sleep(0.06)  # over its time-out
        if number % 5 == 1:
            raise RuntimeError(f"failure {number}")
        return CheckResult(Outcome.DEGRADED if number % 3 else Outcome.OK, detail={"number": number})

    functions: Sequence[tuple[str, CheckFunction]] = [("database", database), ("wild", wild), ("good", good)]
    for name, function in functions:
        running.register(CheckSpec(name, counted(function), critical=True, interval_s=0.002, timeout_s=0.05))
    endpoint = HealthCheckEndpoint(service=running)

    def cycle(count: int) -> None:
        wanted = runs[0] + count
        while runs[0] < wanted:
            endpoint.readiness_check()
            endpoint.detailed_health()
            running.heartbeat()
            time.sleep(0.01)

    logging.getLogger("streamlit_extension.health").setLevel(logging.CRITICAL)  # the test's own records are memory
    try:
        cycle(300)
        gc.collect()
        before, blocks = resources(), sys.getallocatedblocks()
        cycle(CYCLES)
        running.stop()
        gc.collect()
        after, grown = resources(), sys.getallocatedblocks() - blocks
    finally:
        logging.getLogger("streamlit_extension.health").setLevel(logging.NOTSET)
    assert after[0] <= before[0]
    assert after[1] <= before[1] + 2
    assert grown < max(2_000, CYCLES // 4)
    database.close()
    engine.dispose()


def test_an_endpoint_without_a_service_starts_one_at_the_first_question(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`HealthCheckEndpoint()` alone becomes ready and tells of the machine; nothing runs before it is asked."""
    for name in [name for name in os.environ if name.startswith("STX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STX_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    endpoint = HealthCheckEndpoint()
    assert not [each for each in threading.enumerate() if each.name == "stx-health-scheduler"]
    assert endpoint.readiness_check().status_code == 200
    wait_until(lambda: "disk_usage" in endpoint.detailed_health().body["components"]["system"])
    endpoint.service.stop()
