"""Every public name is safe in a script that runs again and again: a thousand reruns leave nothing behind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from otel.instrumentation.sqlalchemy import install_engine_discovery, uninstall_engine_discovery
from streamlit_extension.health.default import DEFAULT_SERVICE

RERUNS = 1_000
#: What a script may do in each of its runs, by the public name that it uses.
BODIES = {
    "HealthCheckEndpoint": """
endpoint = HealthCheckEndpoint()
for ask in (endpoint.basic_health, endpoint.detailed_health, endpoint.readiness_check, endpoint.liveness_check):
    ask()
endpoint.startup_check()
endpoint.component_health("system")
""",
    "ComponentChecker": """
checker = ComponentChecker()
checker.check_database()
checker.check_memory_usage()
""",
    "StructuredLogger": """
logger = StructuredLogger(name="rerun")
logger.log_with_correlation("DEBUG", "hello")
logger.log_performance("work", 1.5)
logger.log_security_event("authn_login_fail")
""",
    "GracefulShutdownHandler": """
handler = GracefulShutdownHandler(budget_s=5)
handler.add_cleanup(lambda: None)
handler.register_signal_handlers()
handler.shutdown_sequence()
""",
    "create_app": """
try:
    create_app("app.py")
except RuntimeError as error:
    assert "create_app() was called from inside a Streamlit script" in str(error)
    assert len(str(error).splitlines()) == 1
else:
    raise AssertionError("not refused")
""",
    "current_trace_id": "current_trace_id()",
    "telemetry_badge": "telemetry_badge()",
    "MetricsCollector": """
collector = MetricsCollector()
collector.cpu_usage()
collector.memory_usage()
""",
    "SystemMonitor": """
monitor = SystemMonitor()
monitor.check_performance()
""",
    "track": """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)

track(Thing, created="thing.created")
""",
    "AlertManager": """
manager = AlertManager()
manager.define_thresholds()
""",
    "circuit_breaker": """
with circuit_breaker("billing"):
    pass
""",
    "protect_engine": """
engine = sqlalchemy.create_engine("sqlite://")
protect_engine(protect_engine(engine, circuit_breaker("database")), circuit_breaker("database"))
with engine.connect():
    pass
engine.dispose()
""",
}
SCRIPT = """
import gc, json, logging, os, signal, threading
import sqlalchemy, streamlit as st
from otel.instrumentation.sqlalchemy import ENGINES
from streamlit_extension import *

logging.disable(logging.CRITICAL)

def rerun():
    sqlalchemy.create_engine("sqlite:///rerun.db")
    {body}

def held():
    gc.collect()
    ENGINES.sweep()
    threads = [each.name for each in threading.enumerate() if not each.name.startswith("stx-check-")]
    loggers = [logging.getLogger(), *map(logging.getLogger, sorted(logging.root.manager.loggerDict))]
    return dict(
        threads=sorted(threads),
        handlers=sum(len(each.handlers) + len(each.filters) for each in loggers),
        loggers=len(loggers),
        engines=sum(len(each.all_living()) for each in ENGINES.entries),
        subscribers=len(ENGINES._subscribers),
        signals=[repr(signal.getsignal(each)) for each in (signal.SIGTERM, signal.SIGINT)],
        checking=threading.active_count() - len(threads) > 8,
        descriptors=len(os.listdir("/proc/self/fd")),
    )

try:
    rerun()
    before = held()
    for _ in range({count}):
        rerun()
    st.session_state.found = json.dumps([before, held()])
finally:
    logging.disable(logging.NOTSET)
"""


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No settings of the machine; engines are discovered, and what was started is stopped."""
    for name in [name for name in os.environ if name.startswith("STX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STX_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    install_engine_discovery()
    yield
    uninstall_engine_discovery()
    DEFAULT_SERVICE.get().stop()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads open descriptors where Linux shows them")
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", BODIES)
def test_a_thousand_reruns_leave_nothing_behind(name: str) -> None:
    """Threads, handlers, loggers, engines, subscribers, signal handlers and descriptors are as after the first one."""
    body = "\n    ".join(BODIES[name].strip().splitlines())
    script = AppTest.from_string(SCRIPT.format(body=body, count=RERUNS), default_timeout=250).run()
    assert [each.value for each in script.exception] == []
    before, after = json.loads(script.session_state.found)
    # A thousand would be a leak; a few may be somebody else's, who works in this process at the same time.
    assert after.pop("descriptors") <= before.pop("descriptors") + 5
    # A database whose engines are gone is forgotten when somebody next asks, at whatever moment, so living engines are
    # counted; a check may be looking at the last one just now.
    assert after.pop("engines") <= before.pop("engines") + 1
    assert after == before


def test_every_public_class_and_function_is_tried() -> None:
    """A name that is added to the package gets a body above; values and enumerations need none."""
    import streamlit_extension

    values = {"HealthResponse", "HealthStatus", "LogFormat", "LogLevel", "ShutdownPhase", "THRESHOLDS"}
    assert {*BODIES, *values} == set(streamlit_extension.__all__)
