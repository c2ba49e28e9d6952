"""Telemetry of real processes: by our runner, by uvicorn, under `streamlit run`, under `opentelemetry-instrument`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port
from tests.support.otlp import OtlpReceiver, Reply
from tests.support.server import Server, Start

SCRIPT = """
import time
import streamlit as st
from opentelemetry import metrics, trace
with trace.get_tracer("app").start_as_current_span("draw"):
    metrics.get_meter("app").create_counter("draws").add(1)
    st.title("hello")
"""
LAUNCHER = """
import streamlit as st
from streamlit_extension import create_app
app = st.App("script.py")
app = create_app(app)
"""


def environment(receiver: OtlpReceiver) -> dict[str, str]:
    """What sends a process's telemetry to a receiver."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol,
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
    }


async def visit(server: Server) -> None:
    """One session that runs the script."""
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)


def command_of(way: str, port: int) -> list[str]:
    """How each kind of operator starts the two-line launcher or the script."""
    python = sys.executable
    return {
        "run": [python, "-m", "streamlit_extension", "run", "script.py"],
        "uvicorn": [python, "-m", "uvicorn", "launcher:app", "--port", str(port), "--lifespan", "on"],
        "streamlit run": [python, "-m", "streamlit", "run", "launcher.py"],
    }[way]


@pytest.mark.parametrize("way", ["run", "uvicorn", "streamlit run"])
async def test_all_that_was_made_has_left_when_the_process_has_ended(
    serve: Start, tmp_path: Path, otlp: OtlpReceiver, way: str
) -> None:
    """A stop flushes spans, metrics and logs, whoever serves; metrics due in an hour and living sessions' too."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    port = free_port()
    server = serve("script.py", command=command_of(way, port), env=environment(otlp), port=port)
    await visit(server)
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await asyncio.to_thread(server.stop)
    [sessions] = [each for each in otlp.metrics if each.name == "streamlit.session.duration"]
    [point] = sessions.histogram.data_points
    assert point.count == 2, "one browser has gone, one is still there"
    assert "draw" in [span.name for span in otlp.spans], server.output
    assert "draws" in [metric.name for metric in otlp.metrics]
    assert "telemetry.emitted" in [metric.name for metric in otlp.metrics]
    assert {each["service.name"] for each in otlp.resources("traces")} == {"shop"}
    phases = [line["phase"] for line in server.events("shutdown.phase")]
    assert phases == ["stop_accepting_requests", "drain_connections", "cleanup_resources", "final_shutdown"]
    assert server.events("shutdown.phase")[-1]["cancelled"] == []


async def test_by_grpc(serve: Start, tmp_path: Path, otlp_grpc: OtlpReceiver) -> None:
    """OTEL_EXPORTER_OTLP_PROTOCOL=grpc is all that it takes."""
    (tmp_path / "script.py").write_text(SCRIPT)
    server = serve("script.py", env=environment(otlp_grpc))
    await visit(server)
    assert server.stop() == 0
    assert "draw" in [span.name for span in otlp_grpc.spans], server.output


@pytest.mark.parametrize("trouble", ["silent", "absent"])
async def test_a_stop_stays_within_its_budget_whatever_the_collector_does(
    serve: Start, tmp_path: Path, trouble: str
) -> None:
    """A collector that never answers, or is not there, delays no stop beyond its budget."""
    (tmp_path / "script.py").write_text(SCRIPT)
    with OtlpReceiver() as receiver:
        receiver.otherwise = Reply(delay_s=3600)
        env = environment(receiver) | {"STX_SHUTDOWN_BUDGET_S": "5"}
        if trouble == "absent":
            env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
        server = serve("script.py", env=env)
        await visit(server)
        assert server.stop() == 0
        assert server.ended_after_s < 8
        if trouble == "silent":
            assert server.events("shutdown.phase")[-1]["cancelled"] == ["the last flush of telemetry"]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "one of http/protobuf, grpc"),
        ("OTEL_PROPAGATORS", "smoke", "a list of "),  # the API itself fails on it as soon as it is imported
    ],
)
def test_a_bad_variable_stops_the_start_with_one_line(
    serve: Start, tmp_path: Path, name: str, value: str, allowed: str
) -> None:
    """The line names the variable, its value and what is allowed."""
    (tmp_path / "script.py").write_text(SCRIPT)
    server = serve("script.py", env={name: value}, ready=None)
    assert server.process.wait(60) == 2
    line = f"{name}: {value!r} is not allowed; allowed: {allowed}"
    assert server.output.count("\n") == 1
    assert line in server.output


async def test_under_opentelemetry_instrument(serve: Start, tmp_path: Path, otlp: OtlpReceiver) -> None:
    """With a launcher of ours the distribution's providers are respected, and each span arrives once."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    tool = Path(sys.executable).with_name("opentelemetry-instrument")
    server = serve("script.py", command=[str(tool), *command_of("streamlit run", 0)], env=environment(otlp))
    await visit(server)
    server.stop()
    assert [span.name for span in otlp.spans].count("draw") == 1, server.output


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_opentelemetry_instrument_alone_traces_runs(serve: Start, tmp_path: Path, protocol: str) -> None:
    """`opentelemetry-instrument streamlit run script.py`: nothing of ours is called, and runs reach the receiver.

    The SDK is the distribution's, set up by the standard variables; the names are the stable ones.
    """
    (tmp_path / "script.py").write_text(
        SCRIPT + '\nimport os\nst.button("Press")\nst.text(os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"])\n'
    )
    tool = Path(sys.executable).with_name("opentelemetry-instrument")
    command = [str(tool), sys.executable, "-m", "streamlit", "run", "script.py"]
    with OtlpReceiver(protocol) as receiver:
        settings = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "300"}
        env = environment(receiver) | settings
        server = serve("script.py", command=command, env=env, ready="/_stcore/health")
        async with StreamlitClient(server.url) as client:
            page = await client.wait_finished(1)
            assert "http,database" in page.texts
            await client.click("Press")
            await client.wait_finished(2)

        def found() -> list[Any]:
            return [span for span in receiver.spans if span.name == "script_run script"]

        assert receiver.wait_for(lambda: len(found()) == 2, 30), server.output
        first, second = sorted(found(), key=lambda span: int(span.start_time_unix_nano))
        assert first.trace_id != second.trace_id
        assert [link.trace_id for link in second.links] == [first.trace_id]
        assert receiver.wait_for(
            lambda: (
                {(span.trace_id, span.parent_span_id) for span in receiver.spans if span.name == "draw"}
                == {(first.trace_id, first.span_id), (second.trace_id, second.span_id)}
            ),
            30,
        )
        assert receiver.wait_for(
            lambda: {"streamlit.script_run.duration", "draws"} <= {metric.name for metric in receiver.metrics}, 30
        )
        assert {each["service.name"] for each in receiver.resources("traces")} == {"shop"}
        assert {each["telemetry.auto.version"] for each in receiver.resources("traces")}
        assert {span.name for span in receiver.spans} == {"script_run script", "draw"}


OWN_PROVIDERS = """
import streamlit as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from streamlit_extension import create_app
provider = TracerProvider(resource=Resource.create({"made.by": "the application"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
app = st.App("script.py")
app = create_app(app)
"""


async def test_a_provider_that_the_application_has_set_is_respected(
    serve: Start, tmp_path: Path, otlp: OtlpReceiver
) -> None:
    """As a distribution, Logfire or the application does: spans leave by that one alone, metrics still by us."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "launcher.py").write_text(OWN_PROVIDERS)
    server = serve("script.py", command=command_of("streamlit run", 0), env=environment(otlp))
    await visit(server)
    server.stop()
    assert [span.name for span in otlp.spans].count("draw") == 1, server.output
    assert {each.get("made.by") for each in otlp.resources("traces")} == {"the application"}
    assert "draws" in [metric.name for metric in otlp.metrics]
    assert {each.get("made.by") for each in otlp.resources("metrics")} == {None}


async def test_log_lines_and_runs_arrive_with_the_same_trace(serve: Start, tmp_path: Path, otlp: OtlpReceiver) -> None:
    """A line that a script logs is an OTLP record too, once, in the trace of its own run; the pipeline's are not."""
    (tmp_path / "script.py").write_text(
        SCRIPT + '\nimport logging\nlogging.getLogger("mine").warning("from the script")\n'
    )
    server = serve("script.py", env=environment(otlp))
    await visit(server)
    assert server.stop() == 0
    [record] = [each for each in otlp.logs if each.body.string_value == "from the script"]
    [draw] = [span for span in otlp.spans if span.name == "draw"]
    [run] = [span for span in otlp.spans if span.name.startswith("script_run")]
    assert record.trace_id == draw.trace_id == run.trace_id
    assert draw.parent_span_id == run.span_id
    assert "session.id" in [pair.key for pair in run.attributes]
    assert "shutdown.phase" in [each.event_name for each in otlp.logs]
