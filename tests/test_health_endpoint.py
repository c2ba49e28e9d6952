"""The health endpoints, as their specification names them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy

from streamlit_extension import ComponentChecker, HealthCheckEndpoint, HealthStatus
from streamlit_extension.endpoints.entitlement import Audience, Entitlement
from streamlit_extension.endpoints.health import HealthRoutes, Message
from streamlit_extension.health.checks.database import DatabaseCheck
from streamlit_extension.health.model import CheckResult, CheckSpec, Maintenance, Outcome, Scope, ServicePhase
from streamlit_extension.health.service import HealthService

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture
def service() -> Iterator[HealthService]:
    """A started service without checks of its own."""
    made = HealthService(version="1.2.3")
    made.start()
    made.set_phase(ServicePhase.SERVING)
    yield made
    made.stop()


def settle(service: HealthService, timeout_s: float = 5.0) -> None:
    """Wait until every check has a result."""
    deadline = time.monotonic() + timeout_s
    while any(entry.state.result is None for entry in service.snapshot.checks.values()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_basic_health_check(service: HealthService) -> None:
    """The basic check returns 200 with status, timestamp, uptime and version, and nothing else."""
    answer = HealthCheckEndpoint(service=service).basic_health()
    assert answer.status_code == 200
    assert answer.body["status"] == HealthStatus.HEALTHY.value
    assert TIMESTAMP.fullmatch(answer.body["timestamp"])
    assert re.fullmatch(r"00:00:\d\d", answer.body["uptime"])
    assert answer.body["version"] == "1.2.3"
    assert set(answer.body) == {"status", "timestamp", "uptime", "version"}


def test_detailed_health_check(service: HealthService, tmp_path: Path) -> None:
    """The detailed check shows the components in the specification's form."""
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'x.db'}", pool_size=5, max_overflow=15)
    with engine.connect():
        pass
    checker = ComponentChecker(engines={"database": engine}, data_dir=tmp_path)
    service.register(CheckSpec("database", checker.check_database, critical=True))
    service.register(CheckSpec("memory", checker.check_memory_usage, component="system"))
    service.register(CheckSpec("disk", checker.check_disk_space, component="system"))
    settle(service)
    answer = HealthCheckEndpoint(service=service).detailed_health()
    components = answer.body["components"]
    assert answer.status_code == 200
    database = components["database"]
    assert database["status"] == "healthy"
    assert re.fullmatch(r"\d+ms", database["response_time"])
    assert database["connections"] == {"active": 0, "idle": 1, "max": 20}
    assert {"age", "last_transition", "last_error", "trace_id"} <= set(database)
    for key in ("cpu_usage", "memory_usage", "disk_usage"):
        assert re.fullmatch(r"\d{1,3}%", components["system"][key])
    assert components["cache"] == {"status": "not_configured"}
    engine.dispose()


def test_readiness_check(service: HealthService) -> None:
    """Readiness is 503 while starting and draining, 200 in between, and tells of its dependencies."""
    endpoint = HealthCheckEndpoint(service=service)
    service.set_phase(ServicePhase.STARTING)
    assert endpoint.readiness_check().status_code == 503
    service.set_phase(ServicePhase.SERVING)
    service.register(CheckSpec("database", lambda: CheckResult(Outcome.OK), critical=True))
    service.register(CheckSpec("cache", lambda: CheckResult(Outcome.OK)))
    settle(service)
    answer = endpoint.readiness_check()
    assert answer.status_code == 200
    assert answer.body == {"ready": True, "dependencies": {"database": "connected", "cache": "available"}}
    service.set_phase(ServicePhase.DRAINING)
    answer = endpoint.readiness_check()
    assert (answer.status_code, answer.body["ready"], answer.body["reason"]) == (503, False, "draining")


def test_liveness_check(service: HealthService) -> None:
    """Liveness depends on no check, and turns 503 with the reason when a restart would help."""
    endpoint = HealthCheckEndpoint(service=service)
    service.register(CheckSpec("database", lambda: CheckResult(Outcome.FAILED), critical=True))
    settle(service)
    service.heartbeat()
    answer = endpoint.liveness_check()
    assert answer.status_code == 200
    assert answer.body["alive"] is True
    assert TIMESTAMP.fullmatch(answer.body["last_heartbeat"])
    service.set_liveness(lambda: "Streamlit's loop has ended")
    answer = endpoint.liveness_check()
    assert (answer.status_code, answer.body["alive"]) == (503, False)


def test_health_check_with_database_down(service: HealthService) -> None:
    """A database that refuses connections makes the service unhealthy and not ready, and names no password."""
    engine = sqlalchemy.create_engine("postgresql+psycopg://me:hunter2hunter2@127.0.0.1:1/none?connect_timeout=2")
    service.register(CheckSpec("database", DatabaseCheck(lambda: engine), critical=True, scope=Scope.SHARED))
    settle(service)
    endpoint = HealthCheckEndpoint(service=service)
    assert endpoint.basic_health().status_code == 503
    assert endpoint.basic_health().body["status"] == "unhealthy"
    ready = endpoint.readiness_check()
    assert (ready.status_code, ready.body["dependencies"]["database"]) == (503, "disconnected")
    detailed = endpoint.detailed_health().body["components"]["database"]
    assert detailed["status"] == "unhealthy"
    assert detailed["last_error"].startswith("OperationalError")
    assert "hunter2" not in str(detailed)


def test_health_check_with_degraded_performance(service: HealthService) -> None:
    """A database that answers, but slowly, degrades: still 200 and ready."""

    def degraded() -> CheckResult:
        return CheckResult(Outcome.DEGRADED, 0.05, {"response_time_s": 0.05, "reason": "slow"}, "slow: answered late")

    service.register(CheckSpec("database", degraded, critical=True))
    settle(service)
    endpoint = HealthCheckEndpoint(service=service)
    basic = endpoint.basic_health()
    assert (basic.status_code, basic.body["status"]) == (200, "degraded")
    assert endpoint.readiness_check().status_code == 200
    component = endpoint.component_health("database").body
    assert (component["status"], component["response_time"], component["reason"]) == ("degraded", "50ms", "slow")


def test_a_slow_real_database_is_degraded(tmp_path: Path) -> None:
    """The check itself compares its time with `slow_s`."""
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect():
        pass
    result = DatabaseCheck(lambda: engine, slow_s=1e-9)()
    assert (result.outcome, result.detail["reason"]) == (Outcome.DEGRADED, "slow")
    assert DatabaseCheck(lambda: engine, slow_s=5)().outcome is Outcome.OK
    engine.dispose()


def test_maintenance_is_told_and_ends_by_itself() -> None:
    """In maintenance health and readiness are 503 with the reason, liveness is not concerned, and it ends in time."""
    wall = [datetime.now(UTC)]
    service = HealthService(version="1.2.3", wall=lambda: wall[0])
    service.set_phase(ServicePhase.SERVING)
    endpoint = HealthCheckEndpoint(service=service)
    service.set_maintenance(Maintenance("new disks", wall[0] + timedelta(hours=1)))
    basic = endpoint.basic_health()
    assert (basic.status_code, basic.body["status"], basic.body["maintenance"]["reason"]) == (
        503,
        "maintenance",
        "new disks",
    )
    assert endpoint.readiness_check().body["reason"] == "maintenance"
    assert endpoint.liveness_check().status_code == 200
    wall[0] += timedelta(hours=1)
    service.heartbeat()
    assert endpoint.basic_health().status_code == 200
    assert endpoint.readiness_check().status_code == 200


# -- over HTTP ------------------------------------------------------------------------------------------------------


def client_for(routes: HealthRoutes, peer: tuple[str, int] = ("127.0.0.1", 1)) -> httpx.AsyncClient:
    """An HTTP client of these routes."""
    transport = httpx.ASGITransport(app=routes, client=peer)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:8501")


def routes_for(service: HealthService, **changes: Any) -> HealthRoutes:
    """Routes as on a loopback port, with changes."""
    entitlement = Entitlement(
        changes.pop("token", lambda: "t0ken"),
        changes.pop("listens", lambda: True),
        Audience(changes.pop("audience", "auto")),
    )
    return HealthRoutes(HealthCheckEndpoint(service=service), entitlement, **changes)


PATHS = ["/health", "/health/detailed", "/health/ready", "/health/live", "/health/startup"]


@pytest.mark.parametrize("path", PATHS)
async def test_each_path_over_http(service: HealthService, path: str) -> None:
    """GET and HEAD agree, nothing is stored, no cookie is set, other methods are 405 with what is allowed."""
    async with client_for(routes_for(service)) as client:
        get, head = await client.get(path), await client.head(path)
        assert get.status_code == head.status_code == 200
        assert get.headers["cache-control"] == head.headers["cache-control"] == "no-store"
        assert get.headers["content-length"] == head.headers["content-length"]
        assert head.content == b""
        assert "set-cookie" not in get.headers
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
            refused = await client.request(method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert (await client.get(path + "/")).status_code == 200


@pytest.mark.parametrize("path", [*PATHS, "/health/detailed/system", "/health/nonsense"])
async def test_the_answer_to_head_is_the_one_to_get_without_its_body(service: HealthService, path: str) -> None:
    """In the messages that the server gets: the same start with the body's length, then nothing."""
    routes = routes_for(service)

    async def ask(method: str) -> list[Message]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": [], "client": ("127.0.0.1", 1)}
        assert await routes.handle(scope, send)
        return sent

    get, head = await ask("GET"), await ask("HEAD")
    assert [message["type"] for message in head] == ["http.response.start", "http.response.body"]
    assert head[0] == get[0]
    assert head[1].get("body", b"") == b""
    assert not head[1].get("more_body", False)
    length = dict(get[0]["headers"])[b"content-length"]
    assert int(length) == len(get[1]["body"]) > 0


@pytest.mark.parametrize("mount", ["/health-ui", "/healthcare", "/ui", "/api/v1"])
async def test_below_another_applications_mount_every_path_is_found(service: HealthService, mount: str) -> None:
    """Whatever the mount is called; what is not about health is somebody else's."""
    routes = routes_for(service)
    for path, expected in (
        ("/health", True),
        ("/health/live", True),
        ("/health/detailed/system", True),
        ("/health/nonsense", True),
        ("/healthy", False),
        ("/", False),
    ):
        statuses: list[int] = []

        async def send(message: Message, statuses: list[int] = statuses) -> None:
            statuses.append(message.get("status", 0))

        scope = {"type": "http", "method": "GET", "path": mount + path, "root_path": mount, "headers": []}
        assert await routes.handle(scope, send) is expected, path
        assert statuses[:1] == ([404 if "nonsense" in path else 200] if expected else []), path


async def test_an_unknown_path_below_health_is_not_the_applications_page(service: HealthService) -> None:
    """A mistyped probe (`/health/readyz`) is 404, not Streamlit's page with 200."""
    async with client_for(routes_for(service)) as client:
        assert (await client.get("/health/readyz")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "peer", "listens", "full"),
    [
        ({}, "127.0.0.1", True, True),
        ({}, "::1", True, True),
        ({"host": "[::1]:8501"}, "127.0.0.1", True, True),
        ({}, "10.0.0.7", True, False),
        ({}, "127.0.0.1", False, False),
        ({}, "127.0.0.1", None, False),
        ({"host": "evil.example"}, "127.0.0.1", True, False),
        ({"host": "localhost.evil.example"}, "127.0.0.1", True, False),
        ({"x-forwarded-for": "127.0.0.1"}, "127.0.0.1", True, False),
        ({"forwarded": "for=1.2.3.4"}, "127.0.0.1", True, False),
        ({"x-real-ip": "1.2.3.4"}, "127.0.0.1", True, False),
        *(
            ({name: "1"}, "127.0.0.1", True, False)
            for name in (
                *("x-forwarded", "x-forwarded-ssl", "x-forwarded-client-cert", "x-forwarded-by", "x_forwarded_for"),
                *("x-original-host", "x-original-url", "x-original-forwarded-for", "via", "cdn-loop"),
                *("cf-connecting-ip", "cf-connecting-ipv6", "cf-ray", "true-client-ip", "x-client-ip"),
                *("x-envoy-external-address", "x-azure-clientip", "x-amzn-trace-id", "fastly-client-ip"),
            )
        ),
        ({"x-request-id": "1", "x-requested-with": "curl"}, "127.0.0.1", True, True),
        ({"sec-fetch-site": "cross-site"}, "127.0.0.1", True, False),
        ({"sec-fetch-site": " Cross-Site "}, "127.0.0.1", True, False),
        ({"sec-fetch-site": "none, cross-site"}, "127.0.0.1", True, False),
        ({"sec-fetch-site": " same-origin "}, "127.0.0.1", True, True),
        ({"sec-fetch-site": "none"}, "127.0.0.1", True, True),
        ({"x-original-host": "x", "authorization": "Bearer t0ken"}, "127.0.0.1", True, True),
        ({"authorization": "Bearer t0ken"}, "10.0.0.7", False, True),
        ({"authorization": "bearer t0ken", "x-forwarded-for": "1.2.3.4"}, "10.0.0.7", False, True),
        ({"authorization": "Bearer wrong"}, "127.0.0.1", True, False),
        ({"authorization": "Basic t0ken"}, "10.0.0.7", False, False),
    ],
)
async def test_who_sees_details(
    service: HealthService, headers: dict[str, str], peer: str, listens: bool | None, full: bool
) -> None:
    """Details are for the token, or for somebody at the machine itself; others get status and timestamp alone."""
    async with client_for(routes_for(service, listens=lambda: listens), (peer, 1)) as client:
        body = (await client.get("/health/detailed", headers=headers)).json()
        assert ("components" in body) is full
        if not full:
            assert set(body) == {"status", "timestamp"}
        component = (await client.get("/health/detailed/system", headers=headers)).json()
        assert "status" in component
        assert (await client.get("/health/detailed/nonsense", headers=headers)).status_code == 404


@pytest.mark.parametrize(
    ("audience", "by_loopback", "by_token", "by_stranger"),
    [("always", True, True, True), ("token", False, True, False), ("never", False, False, False)],
)
async def test_health_details_setting(
    service: HealthService, audience: str, by_loopback: bool, by_token: bool, by_stranger: bool
) -> None:
    """`always` opens details to all, `token` ends the loopback rule, `never` closes them to everybody."""
    token = {"authorization": "Bearer t0ken"}
    for peer, headers, full in (
        ("127.0.0.1", {}, by_loopback),
        ("10.0.0.7", token, by_token),
        ("10.0.0.7", {}, by_stranger),
    ):
        async with client_for(routes_for(service, audience=audience), (peer, 1)) as client:
            assert ("components" in (await client.get("/health/detailed", headers=headers)).json()) is full


async def test_prefixes_move_every_path(service: HealthService) -> None:
    """With a prefix the paths are below it and nowhere else."""
    async with client_for(routes_for(service, prefixes=("/ops", "/base/ops"))) as client:
        assert (await client.get("/ops/health/ready")).status_code == 200
        assert (await client.get("/base/ops/health/detailed/system")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 404


async def test_details_move_to_the_management_port(service: HealthService) -> None:
    """Once a management port has the details, the application's port answers 404 for them and still the probes."""
    async with client_for(routes_for(service, details=False)) as client:
        assert (await client.get("/health/detailed")).status_code == 404
        assert (await client.get("/health/detailed/system")).status_code == 404
        assert (await client.get("/health/ready")).status_code == 200


async def test_the_health_app_runs_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`uvicorn streamlit_extension.endpoints.health:app` serves the checks that need no application."""
    monkeypatch.setenv("STX_DATA_DIR", str(tmp_path))
    from streamlit_extension.endpoints import health

    app = health.app
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://x") as client,
    ):
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/health/live")).json()["alive"] is True
        assert set((await client.get("/health/detailed")).json()) == {"status", "timestamp"}
