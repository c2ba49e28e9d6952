"""Faults of the real thing: its database, its threads, its event loop, its operators and its uninvited guests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from streamlit_extension.control import ControlFile, ControlState, MaintenanceOrder
from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import Postgres, free_port
from tests.support.server import ROOT, Answer, Server, Start

#: On a busy machine an answer may be slow, which is told; here it is no news.
QUICK = {
    "STX_HEALTH__INTERVAL_S": "0.2",
    "STX_HEALTH__TIMEOUT_S": "0.5",
    "STX_HEALTH__MAX_AGE_S": "2",
    "STX_HEALTH__SLOW_S": "30",
}
PAGE = "import streamlit as st\nst.title('hello')\n"
PATHS = ("/health", "/health/detailed", "/health/detailed/database", "/health/ready", "/health/live", "/health/startup")
#: A password that no answer and no line may show; the server trusts everybody and ignores it.
PASSWORD = "hunter2hunter2"


def with_password(postgres: Postgres) -> str:
    return postgres.url().replace("postgres@", f"postgres:{PASSWORD}@")


def database_script(postgres: Postgres) -> str:
    return f"""
import sqlalchemy, streamlit as st
@st.cache_resource
def engine():
    return sqlalchemy.create_engine({with_password(postgres)!r})
with engine().connect() as connection:
    st.write("rows", connection.execute(sqlalchemy.text("SELECT 1")).scalar())
"""


def changes(server: Server, check: str = "database") -> list[tuple[str, str]]:
    """The changes of one check's status that were logged."""
    return [(each["old"], each["new"]) for each in server.events("health.status_changed") if each["check"] == check]


def health_lines(server: Server) -> list[str]:
    """The events of health that were logged, and every line that names a health path."""
    told = [each["event"] for each in server.lines if str(each.get("event")).startswith("health.")]
    return told + [line for line in server.output.splitlines() if "/health/" in line]


def wait_until(accept: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not accept():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def let_it_run(server: Server, times: int) -> None:
    """Wait until the database was checked so many times more: each time its age begins anew."""
    last_s = 0.0

    def begins_anew() -> bool:
        nonlocal last_s
        before_s, last_s = last_s, server.get("/health/detailed").json["components"]["database"]["age"]
        return bool(last_s < before_s)

    for _ in range(times):
        wait_until(begins_anew)


def dependency(answer: Answer, name: str = "database") -> Any:
    return answer.json["dependencies"].get(name)


# -- the database ---------------------------------------------------------------------------------------------------


async def test_a_database_that_goes_and_comes_back(
    serve: Start, script: Callable[[str], Path], postgres: Postgres
) -> None:
    """Ready turns 503 only after as many failures as it takes, and 200 again; each change is one line, without secrets."""
    env = {**QUICK, "STX_HEALTH__INTERVAL_S": "1", "STX_HEALTH__FAILURES_TO_TRIP": "3"}
    server = serve(script(database_script(postgres)), env=env)
    async with StreamlitClient(server.url) as client:
        page = await client.wait_finished(1)
        assert page.exceptions == []
        server.wait_for("/health/ready", lambda answer: dependency(answer) == "connected")
        try:
            postgres.stop()
            seen = server.wait_for("/health/ready", lambda answer: dependency(answer) == "disconnected")
            assert (seen.status, seen.json["ready"]) == (200, True)  # one failure is none yet
            down = server.wait_for("/health/ready", lambda answer: answer.status == 503)
            assert down.json["reason"] == "database"
            detailed = server.get("/health/detailed")
            component = detailed.json["components"]["database"]
            assert (detailed.status, detailed.json["status"], component["status"]) == (503, "unhealthy", "unhealthy")
            assert component["last_error"].startswith("OperationalError")
            assert len(component["trace_id"]) == 32
            assert server.get("/health/live").status == 200
            lines = health_lines(server)
            await asyncio.to_thread(let_it_run, server, 3)  # they fail, and none of them is worth a line
            assert health_lines(server) == lines
        finally:
            postgres.start()
        server.wait_for("/health/ready", lambda answer: answer.status == 200)
        await client.rerun()
        await client.wait_finished(2)
    assert server.stop() == 0
    assert changes(server) == [("pending", "healthy"), ("healthy", "unhealthy"), ("unhealthy", "healthy")]
    assert PASSWORD not in server.output
    assert PASSWORD not in detailed.body.decode()


def test_a_database_that_hangs_is_a_time_out_and_holds_up_nobody(
    serve: Start, script: Callable[[str], Path], postgres: Postgres
) -> None:
    """Frozen, it is `timeout`; other checks go on, threads stay few, and a stop keeps its budget and exits 0."""
    env = {**QUICK, "STX_HEALTH__DATABASE__URL": with_password(postgres), "STX_SHUTDOWN_BUDGET_S": "5"}
    server = serve(script(PAGE), env=env)
    server.wait_for("/health/ready", lambda answer: dependency(answer) == "connected")
    tasks = Path(f"/proc/{server.process.pid}/task")
    before = len(list(tasks.iterdir()))
    with postgres.frozen():
        down = server.wait_for("/health/ready", lambda answer: answer.status == 503)
        assert (down.json["reason"], dependency(down)) == ("database", "timeout")
        for _ in range(10):
            found = server.get("/health/detailed").json["components"]
            assert (found["database"]["status"], found["database"]["reason"]) == ("unhealthy", "timeout")
            assert found["system"]["age"] < 2  # nobody waits for it
            time.sleep(0.1)
        assert len(list(tasks.iterdir())) <= before + 2
        assert server.stop() == 0
        assert server.ended_after_s < 5 + 5
    assert server.events("shutdown.forced") == []
    assert PASSWORD not in server.output


@contextlib.contextmanager
def every_statement_logged(postgres: Postgres) -> Iterator[Callable[[], int]]:
    """The server writes each statement that reaches it; gives how many there were."""
    with psycopg.connect(f"host=127.0.0.1 port={postgres.port} user=postgres dbname=postgres", autocommit=True) as link:
        link.execute("ALTER SYSTEM SET log_statement = 'all'")
        link.execute("SELECT pg_reload_conf()")
        log = postgres.folder / "log"

        def count() -> int:
            return sum("LOG:  statement:" in line or "LOG:  execute" in line for line in log.read_text().splitlines())

        try:
            yield count
        finally:
            link.execute("ALTER SYSTEM RESET log_statement")
            link.execute("SELECT pg_reload_conf()")


async def ask(port: int, path: str) -> int:
    """One probe on a connection of its own; returns the status code."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()
    assert b"set-cookie" not in answer.lower()
    return int(answer.split(b" ", 2)[1])


async def test_a_thousand_concurrent_probes_cost_no_statement_no_line_and_no_thread(
    serve: Start, script: Callable[[str], Path], postgres: Postgres
) -> None:
    """1,000 requests at once over every path are all answered, and the database hears of none of them."""
    quiet = {"STX_HEALTH__INTERVAL_S": "600", "STX_HEALTH__MAX_AGE_S": "3600"}
    with every_statement_logged(postgres) as count:
        server = serve(script(PAGE), env={**quiet, "STX_HEALTH__DATABASE__URL": postgres.url()})
        server.wait_for("/health/ready", lambda answer: dependency(answer) == "connected")
        statements = count()
        assert statements > 0  # the check's own: so the count counts
        lines = health_lines(server)
        tasks = Path(f"/proc/{server.process.pid}/task")
        threads = len(list(tasks.iterdir()))
        codes = await asyncio.gather(*(ask(server.port, PATHS[each % len(PATHS)]) for each in range(1000)))
        assert set(codes) == {200}
        assert count() == statements
        assert health_lines(server) == lines
        assert len(list(tasks.iterdir())) <= threads
    assert server.stop() == 0


# -- the process ----------------------------------------------------------------------------------------------------

LAUNCHER = """
import ctypes, threading, time
from pathlib import Path
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from streamlit.starlette import App
from streamlit_extension import create_app

def stuck_in_python():
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        time.sleep(0.01)

def stuck_in_c():
    ctypes.PyDLL(None).usleep(3_000_000)

class Killed(BaseException):
    pass

def kill_scheduler():
    for each in threading.enumerate():
        if each.name == "stx-health-scheduler":
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(each.ident), ctypes.py_object(Killed))

WORK = {"python": stuck_in_python, "c": stuck_in_c, "kill": kill_scheduler}

async def do(request):
    WORK[request.path_params["what"]]()
    return PlainTextResponse("done")

app = create_app(App(Path(__file__).with_name("page.py"), routes=[Route("/do/{what}", do)]))
"""


@pytest.fixture
def launcher(script: Callable[..., Path]) -> Path:
    """A launcher whose application does what no application should."""
    script(PAGE, "page.py")
    return script(LAUNCHER, "launcher.py")


def test_an_event_loop_that_is_blocked_is_named_in_the_log(serve: Start, launcher: Path) -> None:
    """Three seconds in Python and three in C with the lock held: the blocking frame is written, then the recovery."""
    server = serve(launcher)
    assert server.get("/do/python").body == b"done"
    wait_until(lambda: len(server.events("event_loop.recovered")) == 1)
    (stall,) = server.events("event_loop.stalled")
    assert any("launcher.py" in frame and "stuck_in_python" in frame for frame in stall["frames"][:2])
    assert "Timeout (" not in server.output  # one voice is enough
    assert server.get("/do/c").body == b"done"
    wait_until(lambda: len(server.events("event_loop.recovered")) == 2)
    dump = server.output.partition("Timeout (")[2]
    assert "stuck_in_c" in dump
    assert server.get("/health/live").status == 200
    assert server.stop() == 0


def test_a_dead_scheduler_makes_the_process_unready(serve: Start, launcher: Path) -> None:
    """Nothing is green on the word of a thread that is no more; what is critical is `stale`, and the process lives."""
    database = "sqlite:///" + str(launcher.with_name("x.db"))
    server = serve(launcher, env={**QUICK, "STX_HEALTH__DATABASE__URL": database})
    server.wait_for("/health/ready", lambda answer: answer.status == 200)
    assert server.get("/do/kill").body == b"done"
    down = server.wait_for("/health/ready", lambda answer: answer.status == 503)
    assert (down.json["reason"], dependency(down)) == ("database", "stale")
    found = server.get("/health/detailed")
    assert (found.status, found.json["components"]["database"]["reason"]) == (503, "stale")
    assert found.json["components"]["system"]["reason"] == "stale"
    assert server.get("/health/live").status == 200
    # `degraded` may have come first, when what is not critical turned stale a moment before.
    wait_until(lambda: server.events("health.service_status_changed")[-1:] != [])
    wait_until(lambda: server.events("health.service_status_changed")[-1]["new"] == "unhealthy")
    assert server.stop() == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_data_folder_that_hangs_delays_no_probe_and_no_stop(
    serve: Start, script: Callable[[str], Path], tmp_path: Path
) -> None:
    """Reading the operators' orders waits for ever; probes are answered, the loop moves, and a stop exits 0."""
    server = serve(script(PAGE), env={"STX_SHUTDOWN_BUDGET_S": "5"})
    orders = tmp_path / "data/control.json"
    os.mkfifo(orders)
    writer = wait_for_reader(orders)  # that writes nothing: whoever reads waits
    beats = {server.get("/health/live", timeout_s=30).json["last_heartbeat"]}
    wait_until(lambda: beats < (beats | {server.get("/health/live", timeout_s=30).json["last_heartbeat"]}))
    assert server.get("/health/ready").status == 200
    assert server.stop() == 0
    os.close(writer)
    assert server.events("event_loop.stalled") == []
    assert server.events("shutdown.forced") == []


def wait_for_reader(pipe: Path) -> int:
    """Open a named pipe for writing as soon as somebody reads it."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < deadline, "nobody reads it"
            time.sleep(0.05)


# -- its operators --------------------------------------------------------------------------------------------------


def command(*words: str, data_dir: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """One of the product's commands."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STX_", "STREAMLIT_"))}
    folder = {} if data_dir is None else {"STX_DATA_DIR": str(data_dir)}
    return subprocess.run(
        [sys.executable, *words],
        env={**clean, "PYTHONPATH": str(ROOT), **folder, **env},
        cwd=data_dir or ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def maintenance(data_dir: Path, *words: str) -> int:
    return command("-m", "streamlit_extension", "maintenance", *words, data_dir=data_dir).returncode


def standalone(server: Server, *words: str) -> int:
    return command(str(ROOT / "scripts/health_check.py"), "--url", server.url, *words).returncode


def test_maintenance_from_the_command_to_the_restart_and_its_end(
    serve: Start, script: Callable[[str], Path], tmp_path: Path
) -> None:
    """On by command with a reason, still on after a restart, off by command: each is audited, probes follow."""
    data_dir = tmp_path / "data"
    first = serve(script(PAGE))
    assert maintenance(data_dir, "on", "--reason", "new disks", "--for", "1h") == 0
    answer = first.wait_for("/health/ready", lambda answer: answer.status == 503)
    assert answer.json["reason"] == "maintenance"
    basic = first.get("/health")
    assert (basic.status, basic.json["status"]) == (503, "maintenance")
    assert basic.json["maintenance"]["reason"] == "new disks"
    assert [first.get(path).status for path in ("/health/live", "/health/startup")] == [200, 200]
    assert (standalone(first, "--endpoint", "health"), standalone(first, "--endpoint", "live")) == (1, 0)
    assert standalone(first, "--endpoint", "health", "--probe") == 1
    assert first.stop() == 0
    second = serve(script(PAGE))
    assert second.get("/health/ready").json["reason"] == "maintenance"
    assert maintenance(data_dir, "off") == 0
    second.wait_for("/health/ready", lambda answer: answer.status == 200)
    assert standalone(second, "--endpoint", "health", "--probe") == 0
    assert second.stop() == 0
    (on,) = first.events("audit.maintenance_on")
    assert (on["reason"], first.events("audit.maintenance_off")) == ("new disks", [])
    assert len(second.events("audit.maintenance_on")) == len(second.events("audit.maintenance_off")) == 1


def test_maintenance_ends_by_itself_on_a_running_server(
    serve: Start, script: Callable[[str], Path], tmp_path: Path
) -> None:
    """At its time readiness returns without anybody's doing, and its end is audited."""
    server = serve(script(PAGE))
    now = datetime.now(UTC)
    order = MaintenanceOrder("short", now + timedelta(seconds=8), now)
    ControlFile(tmp_path / "data").write(ControlState(maintenance=order))
    server.wait_for("/health/ready", lambda answer: answer.status == 503)
    server.wait_for("/health/ready", lambda answer: answer.status == 200)
    assert datetime.now(UTC) >= order.until
    wait_until(lambda: bool(server.events("audit.maintenance_off")))
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("DISK__DEPENDS_ON", '["databse"]', "databse"),
        ("DATABSE__CRITICAL", "false", "databse"),
        ("DISK__DEPENDS_ON", '["memory"]', "memory"),
        ("DISK__INTERVAL_S", "30", "max_age_s"),
    ],
)
def test_a_check_that_can_not_be_is_one_line_at_the_start(
    script: Callable[[str], Path], tmp_path: Path, name: str, value: str, named: str
) -> None:
    """An unknown check, an unknown dependency, one that leads back and an age that no run can keep: exit code 2."""
    path = script(PAGE)
    env = {f"STX_HEALTH__CHECKS__{name}": value, "STX_HEALTH__CHECKS__MEMORY__DEPENDS_ON": '["disk"]'}
    if named != "memory":
        del env["STX_HEALTH__CHECKS__MEMORY__DEPENDS_ON"]
    ended = command("-m", "streamlit_extension", "run", str(path), data_dir=tmp_path, **env)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert named in line
    assert "allowed: " in line
    assert "STX_HEALTH__CHECKS__" in line


# -- uninvited guests -----------------------------------------------------------------------------------------------

TOKEN: dict[str, Any] = {"Authorization": "Bearer t0ken-of-the-test"}


def sees(server: Server, **headers: Any) -> bool:
    """Whether this caller is told details; one who isn't gets nothing but the status and the time."""
    found = server.get("/health/detailed", **headers).json
    alone = server.get("/health/detailed/system", **headers).json
    if "components" not in found:
        assert set(found) == {"status", "timestamp"}
        assert set(alone) == {"status"}
        return False
    assert "age" in alone
    return True


def test_who_is_told_details_by_a_real_server(serve: Start, script: Callable[[str], Path]) -> None:
    """On loopback the one at the machine and the holder of the token; not what a proxy, a name or a page sends."""
    server = serve(script(PAGE), env={"STX_TOKEN": "t0ken-of-the-test"})
    assert sees(server)
    assert sees(server, **TOKEN)
    assert sees(server, Host="localhost:8501")
    assert sees(server, Sec_Fetch_Site="same-origin")
    strangers: list[dict[str, Any]] = [
        {"Host": "app.example.org"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "::1"},
        {"Via": "1.1 proxy"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
    ]
    for headers in strangers:
        assert not sees(server, **headers), headers
        if "Authorization" not in headers:
            assert sees(server, **headers, **TOKEN), headers
    assert "t0ken-of-the-test" not in server.output


def test_a_server_that_listens_to_the_world_trusts_no_loopback(serve: Start, script: Callable[[str], Path]) -> None:
    """Bound to every address, being at the machine is no proof: a proxy beside it would look the same."""
    server = serve(script(PAGE), "--server.address", "0.0.0.0", env={"STX_TOKEN": "t0ken-of-the-test"})
    assert not sees(server)
    assert not sees(server, Host="localhost")
    assert sees(server, **TOKEN)


@pytest.mark.parametrize(
    ("setting", "loopback", "token", "proxied"),
    [("always", True, True, True), ("token", False, True, False), ("never", False, False, False)],
)
def test_the_setting_decides_who_is_told_details(
    serve: Start, script: Callable[[str], Path], setting: str, loopback: bool, token: bool, proxied: bool
) -> None:
    """`always`, `token` and `never`, asked by each kind of caller."""
    server = serve(script(PAGE), env={"STX_TOKEN": "t0ken-of-the-test", "STX_HEALTH_DETAILS": setting})
    assert sees(server) is loopback
    assert sees(server, **TOKEN) is token
    assert sees(server, X_Forwarded_For="10.0.0.7") is proxied


def test_details_are_on_the_management_port_alone(serve: Start, script: Callable[[str], Path]) -> None:
    """The application's port answers 404 to everybody, the token's holder too; probes are on both."""
    port = free_port()
    env = {"STX_TOKEN": "t0ken-of-the-test", "STX_MANAGEMENT_PORT": str(port)}
    server = serve(script(PAGE), "--server.address", "0.0.0.0", env=env)
    nobody: dict[str, Any] = {}
    for headers in (nobody, TOKEN):
        assert server.get("/health/detailed", **headers).status == 404
        assert server.get("/health/detailed/system", **headers).status == 404
    management = Server(server.process, port, server.log)
    assert sees(management)  # this port is bound to loopback, whatever the other one is
    assert sees(management, **TOKEN)
    assert not sees(management, Host="app.example.org")
    for each in (server, management):
        for path in ("/health", "/health/ready", "/health/live", "/health/startup"):
            assert each.get(path).status == 200
    assert management.get("/").status == 404
    assert server.stop() == 0
