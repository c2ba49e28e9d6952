"""The cache check against a real Redis, and on Streamlit's own caches."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from otel.instrumentation.streamlit import CacheStatistics
from streamlit_extension import ComponentChecker
from streamlit_extension.demo.client import StreamlitClient
from streamlit_extension.health.checks.cache import CacheCheck
from streamlit_extension.health.checks.system import memory_limit_bytes
from streamlit_extension.health.model import Outcome
from tests.support.backends import Redis, free_port
from tests.support.server import Answer, Start

CYCLES = 10_000 if os.environ.get("SOAK") else 1_000


def eventually(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "never held"
        time.sleep(0.02)


@pytest.fixture
def client(redis_server: Redis) -> Iterator[Any]:
    """A client past the product."""
    with contextlib.closing(redis.Redis.from_url(redis_server.url)) as own:
        yield own


@pytest.fixture
def check() -> Iterator[Callable[..., CacheCheck]]:
    """Makes checks of a URL, with no caches of Streamlit's; closed with the test."""
    made: list[CacheCheck] = []

    def make(url: str | None, **options: Any) -> CacheCheck:
        made.append(CacheCheck(lambda: url, **{"statistics": lambda: None, **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


Check = Callable[..., CacheCheck]


# -- Redis ----------------------------------------------------------------------------------------------------------


def test_a_redis_that_stops_and_starts_is_failed_and_well_again(redis_server: Redis, check: Check) -> None:
    """Each run tells how Redis is now; the first one after a restart, on a dead connection, is no false alarm."""
    one = check(redis_server.url)
    assert one().outcome is Outcome.OK
    redis_server.stop()
    try:
        for _ in range(3):
            down = one()
            assert down.outcome is Outcome.FAILED
            assert "refused" in str(down.error)
    finally:
        redis_server.start()
    assert one().outcome is Outcome.OK
    redis_server.stop()
    redis_server.start()
    assert one().outcome is Outcome.OK


def test_a_connection_killed_by_redis_is_no_alarm(redis_server: Redis, check: Check, client: Any) -> None:
    """`CLIENT KILL` on the kept connection, as an idle time-out does it, fails no run."""
    one = check(redis_server.url)
    for _ in range(3):
        assert one().outcome is Outcome.OK
        assert client.client_kill_filter(_type="normal", skipme=True) >= 1


def test_a_frozen_redis_is_a_failure_and_its_thread_comes_free(redis_server: Redis) -> None:
    """A Redis that hangs is reported on time, keeps one thread at most, and none at the end."""
    checker = ComponentChecker(cache_url=redis_server.url, timeout_s=0.3)
    assert checker.check_cache().outcome is Outcome.OK
    assert redis_server.process is not None
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            assert checker.check_cache().outcome in (Outcome.TIMEOUT, Outcome.FAILED)
        eventually(lambda: not [each for each in threading.enumerate() if each.name == "stx-check-cache"])
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    eventually(lambda: checker.check_cache().outcome is Outcome.OK)
    checker.close()


@pytest.fixture
def with_password(client: Any) -> Iterator[None]:
    """A Redis that wants a password from everybody, and has a user who may not ask for INFO."""
    client.acl_setuser("guarded", enabled=True, passwords=["+the-right-one"], categories=["+@all"], commands=["-info"])
    client.config_set("requirepass", "the-right-one")
    client.auth("the-right-one")
    yield
    client.auth("the-right-one")
    client.config_set("requirepass", "")
    client.acl_deluser("guarded")


@pytest.mark.parametrize("login", [":hunter2hunter2", "guarded:hunter2hunter2", "nobody:hunter2hunter2"])
def test_a_wrong_password_is_told_without_the_password(
    redis_server: Redis, with_password: None, check: Check, login: str
) -> None:
    """Redis's refusal comes through in one line, and the password does not."""
    found = check(f"redis://{login}@127.0.0.1:{redis_server.port}/0")()
    assert found.outcome is Outcome.FAILED
    assert "invalid" in str(found.error)
    assert "\n" not in str(found.error)
    assert "hunter2" not in str(found)


def test_a_missing_password_fails_and_the_right_one_does_not(
    redis_server: Redis, with_password: None, check: Check
) -> None:
    """Redis answers without a password too, but serves nobody."""
    missing = check(redis_server.url)()
    assert missing.outcome is Outcome.FAILED
    assert "Authentication required" in str(missing.error)
    right = check(f"redis://:the-right-one@127.0.0.1:{redis_server.port}/0")()
    assert right.outcome is Outcome.OK
    assert "memory_usage_percent" in right.detail


def test_a_redis_that_refuses_info_is_well_without_figures(
    redis_server: Redis, with_password: None, check: Check
) -> None:
    """Hosted ones refuse INFO: that it answers is known, and nothing else is invented."""
    found = check(f"redis://guarded:the-right-one@127.0.0.1:{redis_server.port}/0")()
    assert found.outcome is Outcome.OK
    assert dict(found.detail) == {}


def test_the_hit_rate_is_absent_before_the_first_look_up(redis_server: Redis, check: Check, client: Any) -> None:
    """No look-up is neither 0 % nor 100 %; the check's own questions are no look-ups."""
    client.config_resetstat()
    one = check(redis_server.url)
    for _ in range(3):
        assert "hit_rate_percent" not in one().detail
    client.get("absent")
    assert one().detail["hit_rate_percent"] == 0.0
    client.set("present", "x")
    for _ in range(3):
        client.get("present")
    assert one().detail["hit_rate_percent"] == 75.0
    client.delete("present")


def test_memory_is_a_share_of_maxmemory_else_of_what_may_be_used(
    redis_server: Redis, check: Check, client: Any
) -> None:
    """With `maxmemory` the share is of it, never above 100; without, of this process's own limit."""
    one = check(redis_server.url)
    try:
        used = int(client.info("memory")["used_memory"])
        share = one().detail["memory_usage_percent"]
        assert share == pytest.approx(100 * used / (64 << 20), rel=0.2)
        client.config_set("maxmemory", used * 2)
        assert one().detail["memory_usage_percent"] == pytest.approx(50, rel=0.2)
        client.config_set("maxmemory", 1)
        assert one().detail["memory_usage_percent"] == 100.0
        client.config_set("maxmemory", 0)
        assert one().detail["memory_usage_percent"] == pytest.approx(100 * used / memory_limit_bytes(), rel=0.2)
    finally:
        client.config_set("maxmemory", 64 << 20)


# redis 5.0, the oldest that is allowed, leaves the socket of a refused Unix connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@127.0.0.1/",
        "127.0.0.1:6379",
        "",
        "redis",
        "postgresql://me:hunter2@127.0.0.1/",
        "redis://me:hunter2#hunter2@127.0.0.1:6379/0",
        "redis://me:hunter2/hunter2@127.0.0.1:6379/0",
        "redis://me:hunter2@127.0.0.1:hunter2/0",
        "redis://me:hunter2@[::1/0",
        "redis://127.0.0.1:{port}/0?socket_timeout=hunter2",
        "redis://127.0.0.1:{port}/0?nonsense=hunter2",
        "redis://me:hunter2@127.0.0.1:{closed}/0",
        "rediss://me:hunter2@127.0.0.1:{port}/0",
        "redis://me:hunter2@no-such-host.invalid/0",
        "redis://me:hunter2@hunter2@no-such-host.invalid/0",
        "unix://me:hunter2@/no/such/socket?db=0",
        "redis://127.0.0.1:{port}/99999",
    ],
)
def test_a_wrong_url_fails_in_one_line_without_its_secrets(redis_server: Redis, check: Check, url: str) -> None:
    """TLS where there is none, another scheme, a password that breaks the URL: one line that repeats no secret."""
    found = check(url.format(port=redis_server.port, closed=free_port()), timeout_s=1.0)()
    assert found.outcome is Outcome.FAILED
    assert found.error
    assert "\n" not in found.error
    assert "hunter2" not in str(found)
    if not url.startswith(("redis:", "rediss:", "unix:")):
        assert "redis://" in found.error
        assert "rediss://" in found.error


def test_a_url_that_changes_is_asked_from_then_on(redis_server: Redis) -> None:
    """A secret file that is read again moves the check to another Redis, and the old connection is closed."""
    urls = [f"redis://127.0.0.1:{free_port()}/0"]
    check = CacheCheck(lambda: urls[-1], statistics=lambda: None)
    assert check().outcome is Outcome.FAILED
    urls.append(redis_server.url)
    assert check().outcome is Outcome.OK
    check.close()


@pytest.mark.timeout(600 if os.environ.get("SOAK") else 180)
def test_thousands_of_checks_leave_connections_threads_and_descriptors_where_they_were(
    redis_server: Redis, client: Any
) -> None:
    """One connection serves them all, and closing gives it back."""

    def counts() -> tuple[int, int, int]:
        return int(client.info("clients")["connected_clients"]), threading.active_count(), psutil.Process().num_fds()

    checker = ComponentChecker(cache_url=redis_server.url, timeout_s=30.0)
    eventually(lambda: counts()[0] == 1)  # `client` itself; what tests before this one had may still be closing
    at_first = counts()
    assert checker.check_cache().outcome is Outcome.OK
    eventually(lambda: counts()[1] == at_first[1])
    before = counts()
    assert before[0] == at_first[0] + 1
    for _ in range(CYCLES):
        assert checker.check_cache().outcome is Outcome.OK
    eventually(lambda: counts() == before)
    checker.close()
    eventually(lambda: counts() == at_first)


def test_cycles_without_a_redis_leave_nothing_behind(check: Check) -> None:
    """Failures keep no socket."""
    one = check(f"redis://127.0.0.1:{free_port()}/0")
    one()
    before = psutil.Process().num_fds()
    for _ in range(100):
        assert one().outcome is Outcome.FAILED
    assert psutil.Process().num_fds() == before


# -- Streamlit's own ------------------------------------------------------------------------------------------------


def test_without_redis_and_without_cached_functions_it_is_not_configured(check: Check) -> None:
    """What is neither configured nor found is no failure."""
    assert check(None)().outcome is Outcome.NOT_CONFIGURED


@pytest.mark.parametrize(
    ("found", "detail"),
    [
        (CacheStatistics(0, 0, 0, None, None, 1), {}),
        (CacheStatistics(None, None, None, None, None, 1), {}),
        (CacheStatistics(3, 1, 0, 50, 200, 2), {"hit_rate_percent": 75.0, "memory_usage_percent": 25.0}),
        (CacheStatistics(0, 4, 0, 500, 200, 2), {"hit_rate_percent": 0.0, "memory_usage_percent": 100.0}),
    ],
)
def test_streamlits_figures_become_percentages(check: Check, found: CacheStatistics, detail: dict[str, float]) -> None:
    """Rates only from look-ups that there were; memory as a share of the budget, never above 100."""
    result = check(None, statistics=lambda: found)()
    assert (result.outcome, dict(result.detail)) == (Outcome.OK, detail)


def test_beside_redis_streamlits_figures_are_told_apart(redis_server: Redis, check: Check) -> None:
    """Redis's own figures stay the component's, Streamlit's are in `streamlit`."""
    found = check(redis_server.url, statistics=lambda: CacheStatistics(3, 1, 0, 50, 200, 2))()
    assert found.outcome is Outcome.OK
    assert found.detail["streamlit"] == {"hit_rate_percent": 75.0, "memory_usage_percent": 25.0}


UNLOADED = """
import sys
from streamlit_extension.health.checks.cache import CacheCheck
found = CacheCheck()()
print(found.outcome.value, [name for name in sys.modules if name.partition(".")[0] in ("streamlit", "redis")])
"""


def test_streamlit_is_not_imported_to_look_at_its_caches() -> None:
    """Where the application has not loaded Streamlit's caches there are none, and nothing is imported to say so."""
    done = subprocess.run([sys.executable, "-c", UNLOADED], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "not_configured []\n"


PREPARED = """
import sys
from streamlit_extension import ComponentChecker
from streamlit_extension.health.checks.cache import CacheCheck
from streamlit_extension.health.model import CheckSpec
from streamlit_extension.health.scheduler import Scheduler

class Late:
    # An import that takes longer than the check may.
    def find_spec(self, name, path=None, target=None):
        if name == "redis":
            import time
            time.sleep(1.0)

sys.meta_path.insert(0, Late())
checker = ComponentChecker(cache_url=sys.argv[1], timeout_s=0.9)
scheduler = Scheduler(publish=lambda name, result: None, blocked_by=lambda spec: None)
spec = CheckSpec("cache", CacheCheck(lambda: sys.argv[1], timeout_s=30), timeout_s=0.9)
asked = scheduler.run_now(spec) if len(sys.argv) == 2 else checker.check_cache()
print(asked.outcome.value)
"""


@pytest.mark.parametrize("words", [[], ["ComponentChecker"]])
def test_a_slow_import_of_the_client_is_no_failure_of_the_redis(redis_server: Redis, words: list[str]) -> None:
    """In a process that has just begun, the client's import takes longer than the time-out and the check is well."""
    command = [sys.executable, "-c", PREPARED, redis_server.url, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "ok\n"


def test_bytes_are_found_where_look_ups_are_not_counted(check: Check) -> None:
    """A Streamlit that counts no look-ups still tells how much its caches hold."""
    found = CacheStatistics(None, None, None, memory_limit_bytes() // 4, None, 0)
    result = check(None, statistics=lambda: found)()
    assert result.outcome is Outcome.OK
    assert result.detail.keys() == {"memory_usage_percent"}
    assert result.detail["memory_usage_percent"] == pytest.approx(25, abs=0.1)


CACHING = """
import streamlit as st

@st.cache_data
def square(number):
    return number * number

@st.cache_resource
def thing():
    return object()

number = st.number_input("Number", value=0, step=1)
if number:
    thing()
    st.write(f"square is {square(number)}")
"""


async def test_a_real_session_shows_streamlits_own_hit_rate(serve: Start, script: Callable[[str], Path]) -> None:
    """Before the first look-up there is no rate; one miss and three hits of either cache make 75 %."""
    pytest.importorskip("streamlit.runtime.caching.cache_metrics", reason="needs a Streamlit that counts look-ups")
    server = serve(script(CACHING), env={"STX_HEALTH__INTERVAL_S": "0.2"})
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        first = server.get("/health/detailed").json["components"]["cache"]
        assert "hit_rate" not in first
        await client.set("Number", 7)
        page = await client.wait_finished(2)
        assert "square is 49" in page.texts
        for each in range(3):
            await client.rerun()
            await client.wait_finished(3 + each)
        answer = server.wait_for(
            "/health/detailed", lambda answer: answer.json["components"]["cache"].get("hit_rate") == "75%"
        )
    assert answer.json["components"]["cache"]["status"] == "healthy"


LARGE = """
import streamlit as st

@st.cache_data
def table(number):
    return b"x" * 50_000_000

if st.number_input("Number", value=0, step=1):
    table(7)
    st.write("cached")
"""


@pytest.mark.parametrize("budget", [None, "100MB"])
async def test_a_real_session_shows_how_much_is_cached(
    serve: Start, script: Callable[[str], Path], budget: str | None
) -> None:
    """50 MB in `st.cache_data` are a share of the budget where there is one, else of the memory that may be used."""
    env = {"STX_HEALTH__INTERVAL_S": "0.2"}
    if budget is not None:
        pytest.importorskip("streamlit.runtime.caching.global_cache_budget", reason="needs a Streamlit with a budget")
        env["STREAMLIT_SERVER_MAX_CACHE_DATA_SIZE"] = budget
    server = serve(script(LARGE), env=env)
    share = f"{100 * 50_000_000 / memory_limit_bytes():.0f}%" if budget is None else "48%"  # of 100 MiB

    def cache(answer: Answer) -> dict[str, Any]:
        found: dict[str, Any] = answer.json["components"]["cache"]
        return found

    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        assert "memory_usage" not in cache(server.get("/health/detailed")) or budget is not None
        await client.set("Number", 7)
        assert "cached" in (await client.wait_finished(2)).texts
        answer = server.wait_for("/health/detailed", lambda answer: cache(answer).get("memory_usage") == share)
    assert cache(answer)["status"] == "healthy"
