"""What the standard variables mean, and what is said of a bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel.config import (
    Compression,
    ConfigError,
    Destinations,
    ExemplarFilter,
    HistogramAggregation,
    Limits,
    OtlpTarget,
    Protocol,
    Sampler,
    TelemetryConfig,
    Temporality,
)
from otel.records import Signal


def read(**environ: str) -> TelemetryConfig:
    """The configuration of an environment."""
    return TelemetryConfig.from_environment(environ)


def target(config: TelemetryConfig, signal: str = "traces") -> OtlpTarget:
    """Where a signal is sent."""
    found = config.destinations(Signal(signal)).otlp
    assert found is not None
    return found


def test_without_an_endpoint_and_an_exporter_all_stays_in_the_store() -> None:
    """The one exception to the specification: nothing leaves the machine unasked."""
    config = read()
    assert (config.store, config.traces, config.logs, config.metrics) == (True, *[Destinations()] * 3)
    assert config == TelemetryConfig()


@pytest.mark.parametrize(
    "environ", [{"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {"OTEL_TRACES_EXPORTER": " "}, {"OTEL_TRACES_SAMPLER": ""}]
)
def test_an_empty_variable_is_not_set(environ: dict[str, str]) -> None:
    """Empty means unset, as the specification says."""
    assert read(**environ) == TelemetryConfig()


def test_one_endpoint_serves_every_signal_at_its_own_path() -> None:
    """The common endpoint gets /v1/SIGNAL, also below a path and after a slash."""
    for endpoint in ("http://c:4318/base", "http://c:4318/base/"):
        config = read(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        assert {signal: target(config, signal).endpoint for signal in Signal} == {
            signal: f"http://c:4318/base/v1/{signal}" for signal in Signal
        }
        assert not config.store


def test_a_signals_own_endpoint_is_taken_as_it_is() -> None:
    """No path is added to it; the other signals go where the specification's default is."""
    config = read(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="https://traces:1/x")
    assert target(config).endpoint == "https://traces:1/x"
    assert target(config, "logs").endpoint == "http://localhost:4318/v1/logs"


@pytest.mark.parametrize(
    ("environ", "endpoint", "insecure"),
    [
        ({}, "http://localhost:4317", True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:4317"}, "https://c:4317", False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317"}, "https://c:4317", False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317", "OTEL_EXPORTER_OTLP_INSECURE": "True"}, "http://c:4317", True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://own:1"}, "http://own:1", True),
    ],
)
def test_grpc_endpoints(environ: dict[str, str], endpoint: str, insecure: bool) -> None:
    """By gRPC there is no path; a bare host and port is secure unless it is said to be insecure."""
    found = target(read(OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_TRACES_EXPORTER="otlp", **environ))
    assert (found.protocol, found.endpoint, found.insecure) == (Protocol.GRPC, endpoint, insecure)


def test_a_signals_own_variables_win(tmp_path: Path) -> None:
    """Headers, time-out, compression and certificates, each by its own variable first."""
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text("pem")
    config = read(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4318",
        OTEL_EXPORTER_OTLP_HEADERS="a=1",
        OTEL_EXPORTER_OTLP_TIMEOUT="2500",
        OTEL_EXPORTER_OTLP_LOGS_HEADERS="Authorization=Basic%20eDp5,tenant=t",
        OTEL_EXPORTER_OTLP_LOGS_TIMEOUT="1000",
        OTEL_EXPORTER_OTLP_LOGS_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE=str(tmp_path / "ca"),
        OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE=str(tmp_path / "cert"),
        OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY=str(tmp_path / "key"),
    )
    assert target(config) == OtlpTarget("http://c:4318/v1/traces", headers={"a": "1"}, timeout_s=2.5, insecure=True)
    assert target(config, "logs") == OtlpTarget(
        "http://c:4318/v1/logs",
        headers={"authorization": "Basic eDp5", "tenant": "t"},
        timeout_s=1.0,
        compression=Compression.GZIP,
        certificate=tmp_path / "ca",
        client_certificate=tmp_path / "cert",
        client_key=tmp_path / "key",
        insecure=True,
    )
    assert "eDp5" not in repr(config)


@pytest.mark.parametrize(
    ("value", "console", "otlp"),
    [("otlp", False, True), ("console", True, False), ("Console, otlp", True, True), ("none", False, False)],
)
def test_exporters_are_a_list_for_each_signal(value: str, console: bool, otlp: bool) -> None:
    """`none` switches one signal off; the others keep the default, OTLP."""
    config = read(OTEL_LOGS_EXPORTER=value)
    assert (config.logs.console, config.logs.otlp is not None) == (console, otlp)
    assert config.traces.otlp is not None
    assert not config.store


def test_the_python_sdks_names_of_otlp_fix_the_protocol() -> None:
    """Deployments under `opentelemetry-instrument` often spell it so."""
    config = read(OTEL_TRACES_EXPORTER="otlp_proto_grpc", OTEL_LOGS_EXPORTER="otlp_proto_http")
    assert (target(config).protocol, target(config, "logs").protocol) == (Protocol.GRPC, Protocol.HTTP)


def test_everything_else_that_is_read() -> None:
    """Sampler, limits, metrics, batches and the switch that disables it all."""
    config = read(
        OTEL_SDK_DISABLED="TRUE",
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.25",
        OTEL_ATTRIBUTE_COUNT_LIMIT="10",
        OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="100",
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="11",
        OTEL_SPAN_EVENT_COUNT_LIMIT="12",
        OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT="50",
        OTEL_METRIC_EXPORT_INTERVAL="1500",
        OTEL_METRIC_EXPORT_TIMEOUT="500",
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="Delta",
        OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION="base2_exponential_bucket_histogram",
        OTEL_METRICS_EXEMPLAR_FILTER="always_on",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="100",
        OTEL_BLRP_SCHEDULE_DELAY="50",
        OTEL_RESOURCE_ATTRIBUTES="a=b%20c,deployment.environment.name=prod",
    )
    assert config.disabled and not config.store
    assert (config.sampler, config.sampler_ratio) == (Sampler.PARENT_RATIO, 0.25)
    assert config.limits == Limits(100, 100, 11, 12, 128, 10, 10, 50, 10)
    assert (config.metric_interval_s, config.metric_timeout_s) == (1.5, 0.5)
    assert config.temporality is Temporality.DELTA
    assert config.histogram_aggregation is HistogramAggregation.EXPONENTIAL
    assert config.exemplar_filter is ExemplarFilter.ALWAYS_ON
    assert (config.batch_records, config.commit_delay_s) == (100, 0.05)
    assert config.resource_attributes == {"a": "b c", "deployment.environment.name": "prod"}


def test_a_commit_is_never_delayed_beyond_our_own_promise() -> None:
    """The batch processors' delay can only be made shorter: what is made is committed within 500 ms."""
    assert read(OTEL_BSP_SCHEDULE_DELAY="5000").commit_delay_s == TelemetryConfig().commit_delay_s < 0.5


BAD: list[tuple[str, str, str]] = [
    ("OTEL_SDK_DISABLED", "yes", "true or false"),
    ("OTEL_TRACES_EXPORTER", "zipkin", "otlp"),
    ("OTEL_METRICS_EXPORTER", "prometheus", "/metrics"),
    ("OTEL_LOGS_EXPORTER", "none,otlp", "none alone"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "http/protobuf, grpc"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318", "http://"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:port", "http://"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1", "milliseconds"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli", "none, gzip"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem", "PEM"),
    ("OTEL_EXPORTER_OTLP_INSECURE", "maybe", "true or false"),
    ("OTEL_TRACES_SAMPLER", "sometimes", "traceidratio"),
    ("OTEL_SPAN_EVENT_COUNT_LIMIT", "many", "whole number"),
    ("OTEL_PROPAGATORS", "tracecontext,smoke", "baggage, none, tracecontext"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "0", "milliseconds"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "nan", "milliseconds"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "some", "trace_based"),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "x", "cumulative"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_a_bad_value_is_one_line_with_name_value_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    """The start stops with a line that needs no manual, whether or not the value would be used."""
    with pytest.raises(ConfigError) as caught:
        TelemetryConfig.from_environment({name: value})
    text = str(caught.value)
    assert text.startswith(f"{name}: {value!r} is not allowed; allowed: ")
    assert allowed in text
    assert "\n" not in text


@pytest.mark.parametrize("value", ["tracecontext", "tracecontext, baggage", "None", ""])
def test_propagators_that_are_installed_are_the_api_s_to_read(value: str) -> None:
    """They change nothing here."""
    assert read(OTEL_PROPAGATORS=value) == TelemetryConfig()


def test_a_bad_ratio_names_its_variable() -> None:
    """The sampler's argument is only read for a sampler that has one."""
    with pytest.raises(
        ConfigError, match=r"^OTEL_TRACES_SAMPLER_ARG: '2' is not allowed; allowed: a number from 0 to 1"
    ):
        read(OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="2")
    assert read(OTEL_TRACES_SAMPLER="always_off", OTEL_TRACES_SAMPLER_ARG="2").sampler is Sampler.ALWAYS_OFF


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_HEADERS": "authorization: Bearer hunter2"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "a b=hunter2"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "a=x%0D%0Ahunter2"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://user:hunter2@c"},
    ],
)
def test_no_error_repeats_a_secret(environ: dict[str, str]) -> None:
    """Header values and user-info stay out of the one line."""
    with pytest.raises(ConfigError) as caught:
        read(OTEL_TRACES_EXPORTER="otlp", **environ)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).startswith(next(iter(environ)))


NAMES = sorted({name for name, _, _ in BAD} | {"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_TRACES_SAMPLER_ARG"})


@given(
    environ=st.dictionaries(
        st.sampled_from(NAMES), st.text(st.characters(exclude_characters="\0"), max_size=40), max_size=4
    )
)
def test_whatever_is_set_gives_a_configuration_or_one_line(environ: dict[str, Any]) -> None:
    """No value makes anything but a `TelemetryConfig` or a `ConfigError` of one line."""
    try:
        assert isinstance(TelemetryConfig.from_environment(environ), TelemetryConfig)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1


def test_the_store_alone_has_points_soon() -> None:
    """Metrics are collected more often at first where only the store gets them and nobody has said how often."""
    here = TelemetryConfig.from_environment({})
    assert (here.metric_first_s, here.metric_interval_s) == (10.0, 60.0)
    for environ in (
        {"OTEL_METRIC_EXPORT_INTERVAL": "60000"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
        {"OTEL_METRICS_EXPORTER": "none"},
    ):
        assert TelemetryConfig.from_environment(environ).metric_first_s is None
