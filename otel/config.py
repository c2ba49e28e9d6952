"""What the substrate needs, as one frozen value: read from the standard `OTEL_*` variables and what is handed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from otel.environment import ConfigError, Environment, resource_attributes, sends_elsewhere
from otel.records import Signal

__all__ = [
    "Compression",
    "ConfigError",
    "Destinations",
    "HistogramAggregation",
    "Limits",
    "OtlpTarget",
    "Protocol",
    "Sampler",
    "TelemetryConfig",
    "Temporality",
]


#: What the spool may hold, in bytes and in seconds of age, unless something else is asked for.
SPOOL_MAX_BYTES: Final = 512 * 1024 * 1024
SPOOL_MAX_AGE_S: Final = 72 * 3600.0
#: What the embedded store keeps, in bytes and in seconds of age.
STORE_MAX_BYTES: Final = 512 * 1024 * 1024
STORE_MAX_AGE_S: Final = 7 * 86400.0


class Protocol(StrEnum):
    """How OTLP is spoken."""

    HTTP = "http/protobuf"
    GRPC = "grpc"


class Compression(StrEnum):
    """How requests are compressed."""

    NONE = "none"
    GZIP = "gzip"


class Temporality(StrEnum):
    """What counters and histograms count since: the start, or the collection before."""

    CUMULATIVE = "cumulative"
    DELTA = "delta"
    LOW_MEMORY = "lowmemory"


class HistogramAggregation(StrEnum):
    """How histograms keep their values."""

    EXPLICIT = "explicit_bucket_histogram"
    EXPONENTIAL = "base2_exponential_bucket_histogram"


class Sampler(StrEnum):
    """Which traces are kept, decided at their root; metrics and logs are never thinned."""

    ALWAYS_ON = "always_on"
    ALWAYS_OFF = "always_off"
    RATIO = "traceidratio"
    PARENT_ALWAYS_ON = "parentbased_always_on"
    PARENT_ALWAYS_OFF = "parentbased_always_off"
    PARENT_RATIO = "parentbased_traceidratio"


class ExemplarFilter(StrEnum):
    """Which measurements may become exemplars."""

    ALWAYS_ON = "always_on"
    ALWAYS_OFF = "always_off"
    TRACE_BASED = "trace_based"


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """Where one signal is sent and how.

    `endpoint` is the whole URL of HTTP (`…/v1/traces`), or scheme, host and port of gRPC. `headers` may hold secrets
    and are left out of the repr. Certificates are paths of PEM files. `insecure` concerns gRPC alone, `proxy` (a URL)
    HTTP alone: gRPC's own library reads the same variables.
    """

    endpoint: str
    protocol: Protocol = Protocol.HTTP
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 10.0
    compression: Compression = Compression.NONE
    certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    insecure: bool = False
    proxy: str | None = field(default=None, repr=False)


class Destinations(msgspec.Struct, frozen=True):
    """Where one signal goes: a collector, the console, or neither."""

    otlp: OtlpTarget | None = None
    console: bool = False


class Limits(msgspec.Struct, frozen=True):
    """Bounds of what one record may carry; None: none. Lengths are in characters."""

    attribute_length: int | None = None
    span_attribute_length: int | None = None
    span_attributes: int | None = 128
    span_events: int | None = 128
    span_links: int | None = 128
    event_attributes: int | None = 128
    link_attributes: int | None = 128
    log_attribute_length: int | None = None
    log_attributes: int | None = 128


class TelemetryConfig(msgspec.Struct, frozen=True):
    """Everything that the providers and the pipeline need to know.

    Arguments:
        service_name, service_version: of the resource; they win over `resource_attributes`.
        resource_attributes: those of OTEL_RESOURCE_ATTRIBUTES.
        data_dir: where the spool and the store are; None: nothing is written to disk.
        store: whether the embedded store is a destination.
        disabled: no spans, metrics or log records are made (OTEL_SDK_DISABLED).
        sampler_ratio: share of traces that is kept, 0 to 1, for the samplers that have one.
        metric_interval_s, metric_timeout_s: how often metrics are collected, and how long a collection may take.
        metric_first_s: how often they are collected in the first ten minutes, None for no difference; with the store
            alone and no interval given it is 10, so that a person who has just started sees their charts.
        batch_records: most records of one signal in one request.
        commit_delay_s: longest time between a record and its commit, at most 0.5.
        queue_bytes: bound of what waits in memory.
        spool_max_bytes, spool_max_age_s: bounds of what waits on disk; above them the oldest records are given up.
        store_max_bytes, store_max_age_s: bounds of what the store keeps; above them its oldest files are removed.
    """

    service_name: str = "streamlit-app"
    service_version: str = "0"
    resource_attributes: Mapping[str, str] = msgspec.field(default_factory=dict)
    data_dir: Path | None = None
    store: bool = True
    disabled: bool = False
    traces: Destinations = Destinations()
    logs: Destinations = Destinations()
    metrics: Destinations = Destinations()
    sampler: Sampler = Sampler.PARENT_ALWAYS_ON
    sampler_ratio: float = 1.0
    limits: Limits = Limits()
    metric_interval_s: float = 60.0
    metric_first_s: float | None = 10.0
    metric_timeout_s: float = 30.0
    temporality: Temporality = Temporality.CUMULATIVE
    histogram_aggregation: HistogramAggregation = HistogramAggregation.EXPLICIT
    exemplar_filter: ExemplarFilter = ExemplarFilter.TRACE_BASED
    batch_records: int = 512
    commit_delay_s: float = 0.25
    queue_bytes: int = 64 * 2**20
    spool_max_bytes: int = SPOOL_MAX_BYTES
    spool_max_age_s: float = SPOOL_MAX_AGE_S
    store_max_bytes: int = STORE_MAX_BYTES
    store_max_age_s: float = STORE_MAX_AGE_S

    def destinations(self, signal: Signal) -> Destinations:
        """Where a signal goes, besides the store."""
        return {Signal.TRACES: self.traces, Signal.LOGS: self.logs, Signal.METRICS: self.metrics}[signal]

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str],
        *,
        service_name: str = "streamlit-app",
        service_version: str = "0",
        data_dir: Path | None = None,
        store: bool | None = None,
    ) -> TelemetryConfig:
        """Read the `OTEL_*` variables of `environ`; an empty one counts as not set.

        `store`: None for on exactly when nothing says where telemetry should go.

        Raises:
            ConfigError: one line that names the variable, its value (never a secret's) and what is allowed.
        """
        env = Environment(environ)
        elsewhere = sends_elsewhere(environ)
        disabled = env.flag("OTEL_SDK_DISABLED", False)
        env.check_installed("OTEL_PROPAGATORS", "opentelemetry_propagator")
        sampler, ratio = _sampler(env)
        delays_s = [env.milliseconds(f"OTEL_{each}_SCHEDULE_DELAY", _DEFAULT_DELAY_S) for each in _BATCHERS]
        sizes = [env.count(f"OTEL_{each}_MAX_EXPORT_BATCH_SIZE", 512, least=1) for each in _BATCHERS]
        return cls(
            service_name=service_name,
            service_version=service_version,
            resource_attributes=resource_attributes(environ),
            data_dir=data_dir,
            store=(not elsewhere and not disabled) if store is None else store,
            disabled=disabled,
            traces=_destinations(env, Signal.TRACES, elsewhere),
            logs=_destinations(env, Signal.LOGS, elsewhere),
            metrics=_destinations(env, Signal.METRICS, elsewhere),
            sampler=sampler,
            sampler_ratio=ratio,
            limits=_limits(env),
            metric_interval_s=env.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", 60.0),
            metric_first_s=None if elsewhere or env.has("OTEL_METRIC_EXPORT_INTERVAL") else 10.0,
            metric_timeout_s=env.milliseconds("OTEL_METRIC_EXPORT_TIMEOUT", 30.0),
            temporality=env.choice(
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", Temporality, Temporality.CUMULATIVE
            ),
            histogram_aggregation=env.choice(
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
                HistogramAggregation,
                HistogramAggregation.EXPLICIT,
            ),
            exemplar_filter=env.choice("OTEL_METRICS_EXEMPLAR_FILTER", ExemplarFilter, ExemplarFilter.TRACE_BASED),
            batch_records=min(sizes),
            commit_delay_s=min(*delays_s, _DEFAULT_DELAY_S),
        )


#: The SDK's batch processors of spans and of log records, whose variables set our one pipeline.
_BATCHERS: Final = ("BSP", "BLRP")
#: Half of the 500 ms after which a record has to be committed: the rest is for encoding and committing.
_DEFAULT_DELAY_S: Final = 0.25
#: Exporter names; the last two are the Python SDK's names for OTLP by one protocol.
_EXPORTERS: Final = {
    "otlp": None,
    "console": None,
    "none": None,
    "otlp_proto_http": Protocol.HTTP,
    "otlp_proto_grpc": Protocol.GRPC,
}
_ALLOWED_EXPORTERS: Final = "a list of otlp, console, or none alone (Prometheus scrapes /metrics)"


def _destinations(env: Environment, signal: Signal, elsewhere: bool) -> Destinations:
    """What OTEL_*_EXPORTER says; its default is otlp, but nothing at all where nothing says where to send."""
    name = f"OTEL_{signal.upper()}_EXPORTER"
    listed = [word.strip().lower() for word in env.text(name, "otlp" if elsewhere else "none").split(",")]
    if any(word not in _EXPORTERS for word in listed) or (len(listed) > 1 and "none" in listed):
        raise env.error(name, _ALLOWED_EXPORTERS)
    spoken = next((word for word in listed if word.startswith("otlp")), "none")
    target = _target(env, signal, _EXPORTERS[spoken])  # also where it is not used: a bad value is told at once
    return Destinations(target if spoken != "none" else None, "console" in listed)


def _target(env: Environment, signal: Signal, forced: Protocol | None) -> OtlpTarget:
    """The OTLP exporter's variables: each signal's own first, then the common one (specification: OTLP exporter)."""
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_"

    def name(suffix: str) -> str:
        return own + suffix if env.has(own + suffix) else f"OTEL_EXPORTER_OTLP_{suffix}"

    protocol = forced or env.choice(name("PROTOCOL"), Protocol, Protocol.HTTP)
    insecure = env.flag(name("INSECURE"), False)
    if protocol is Protocol.GRPC:
        endpoint = env.url(name("ENDPOINT"), "http://localhost:4317", bare="http" if insecure else "https")
    elif env.has(own + "ENDPOINT"):
        endpoint = env.url(own + "ENDPOINT", "")  # as it is, whatever its path
    else:
        endpoint = env.url("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318").rstrip("/") + f"/v1/{signal}"
    return OtlpTarget(
        endpoint=endpoint,
        protocol=protocol,
        headers=env.headers(name("HEADERS")),
        timeout_s=env.milliseconds(name("TIMEOUT"), 10.0),
        compression=env.choice(name("COMPRESSION"), Compression, Compression.NONE),
        certificate=env.file(name("CERTIFICATE")),
        client_certificate=env.file(name("CLIENT_CERTIFICATE")),
        client_key=env.file(name("CLIENT_KEY")),
        insecure=insecure or endpoint.startswith("http://"),
        proxy=None if protocol is Protocol.GRPC else env.proxy(endpoint),
    )


def _sampler(env: Environment) -> tuple[Sampler, float]:
    """The sampler and its share; without a share the ratio samplers keep everything."""
    sampler = env.choice("OTEL_TRACES_SAMPLER", Sampler, Sampler.PARENT_ALWAYS_ON)
    if sampler not in (Sampler.RATIO, Sampler.PARENT_RATIO):
        return sampler, 1.0
    return sampler, env.ratio("OTEL_TRACES_SAMPLER_ARG", 1.0)


def _limits(env: Environment) -> Limits:
    """Attribute limits: the common ones where a kind has none of its own."""
    count = env.limit("OTEL_ATTRIBUTE_COUNT_LIMIT", 128)
    length = env.limit("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", None)
    return Limits(
        attribute_length=length,
        span_attribute_length=env.limit("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", length),
        span_attributes=env.limit("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", count),
        span_events=env.limit("OTEL_SPAN_EVENT_COUNT_LIMIT", 128),
        span_links=env.limit("OTEL_SPAN_LINK_COUNT_LIMIT", 128),
        event_attributes=env.limit("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", count),
        link_attributes=env.limit("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", count),
        log_attribute_length=env.limit("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", length),
        log_attributes=env.limit("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", count),
    )
