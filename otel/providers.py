"""The only place that builds SDK providers, processors and readers, and puts the pipeline behind them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry import metrics, trace

from otel import api_globals, installed
from otel.collector import Collector
from otel.config import TelemetryConfig
from otel.destinations import Closable, Flushable, ForkAware, destination_of
from otel.ledger import Ledger
from otel.pipeline import Pipeline
from otel.records import Destination, LogSink, Signal
from otel.resource import process_identity, resource_of_this_process

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import ExemplarFilter
    from opentelemetry.sdk.resources import Resource

    from otel.encoding import OtlpEncoder
    from otel.sdk import OwnMeterProvider, OwnTracerProvider, ScrapeReader, SpanTap

_logger = logging.getLogger("otel.export.providers")

#: Share of a flush's time that one last collection of metrics may take; a callback that hangs costs no more.
COLLECT_SHARE = 0.4


class Telemetry(msgspec.Struct, eq=False):
    """What `install` has put in place.

    `tracer_provider` and `meter_provider` are what instruments are given: ours, or those that were already there.
    `log_sink` takes log records, None where they go nowhere. `ledger` counts what passes our pipeline.
    """

    tracer_provider: trace.TracerProvider
    meter_provider: metrics.MeterProvider
    log_sink: LogSink | None
    ledger: Ledger
    pipeline: Pipeline | None = None
    destination: Destination | None = None
    _collector: Collector | None = None
    _own: _Own | None = None
    _scrape: ScrapeReader | None = None
    _undo: ExitStack = msgspec.field(default_factory=ExitStack)
    _ended: bool = False

    def flush(self, timeout_s: float) -> bool:
        """Collect metrics once more and commit all that was made before; False when `timeout_s` seconds passed first.

        A destination that holds records back is told to send them, in the time that is left.
        """
        deadline_s = time.monotonic() + timeout_s
        collected = self._collector is None or self._collector.collect_now(COLLECT_SHARE * timeout_s)
        committed = self.pipeline is None or self.pipeline.flush(_left(deadline_s))
        sent = True
        if committed and isinstance(self.destination, Flushable):
            sent = self.destination.flush(_left(deadline_s))
        return collected and committed and sent

    def read_metrics(self, timeout_s: float) -> Any:
        """Collect for a scrape: the SDK's `MetricsData`, redacted; None where there is nothing or nobody can read."""
        if self._scrape is None:
            return None
        from otel.cleaning import clean_metrics

        data = self._scrape.read(timeout_s)
        return None if data is None else clean_metrics(data)

    def shutdown(self, timeout_s: float) -> bool:
        """Commit what is left and end every thread, in `timeout_s` seconds; False when something had not ended by then.

        A second call does nothing more.
        """
        deadline_s = time.monotonic() + timeout_s
        stopped = self._collector is None or self._collector.stop(COLLECT_SHARE * timeout_s)
        committed = self.pipeline is None or self.pipeline.shutdown(_left(deadline_s))
        if isinstance(self.destination, Closable) and not self._ended:
            self._ended = True
            self.destination.close(_left(deadline_s))
        return stopped and committed

    def uninstall(self) -> None:
        """Put the process-wide providers back as they were before `install`; `shutdown` comes first."""
        if installed.current() is self:
            installed.put(None)
        self._undo.close()

    def begin_in_child(self) -> None:
        """In a forked child: empty accounts and queues, threads and an instance id of its own."""
        self.ledger.reset()
        if self._own is not None:
            self._own.begin_in_child()
        if self.pipeline is not None:
            self.pipeline.begin_in_child()
        if isinstance(self.destination, ForkAware):
            self.destination.begin_in_child()
        if self._scrape is not None:
            self._scrape.begin_in_child()
        if self._collector is not None:
            self._collector.begin_in_child()


class _Own(msgspec.Struct, eq=False):
    """Those of our own parts that know the resource."""

    resource: Resource
    encoder: OtlpEncoder | None
    tracers: OwnTracerProvider | None = None
    meters: OwnMeterProvider | None = None
    tap: SpanTap | None = None

    def begin_in_child(self) -> None:
        """Give all of them the child's resource."""
        from otel.sdk import QuickResource

        inherited, self.resource = self.resource, QuickResource({**self.resource.attributes, **process_identity()})
        if self.encoder is not None:
            self.encoder.resource = self.resource
        if self.tracers is not None:
            self.tracers.begin_in_child(self.resource)
        if self.meters is not None:
            self.meters.begin_in_child(self.resource)
        if self.tap is not None:
            self.tap.begin_in_child(inherited)


def install(
    config: TelemetryConfig, destination: Destination | None = None, *, ledger: Ledger | None = None
) -> Telemetry:
    """Make telemetry real for this process.

    Arguments:
        config: what is wanted.
        destination: takes the batches of every signal, whatever `config` says about exporters; by default what
            `destination_of` makes of `config`.
        ledger: counts the records, and is the one that `destination` counts with; by default a new one.

    A provider that somebody else has set (`opentelemetry-instrument`, Logfire, the application) is respected: it is
    what the result holds, and our pipeline is not built for its signal. Nothing is built where `config` is disabled.
    """
    ledger = ledger or Ledger()
    if config.disabled:
        return Telemetry(trace.NoOpTracerProvider(), metrics.NoOpMeterProvider(), None, ledger)
    if destination is None:
        destination = destination_of(config, ledger)
    wanted: frozenset[Signal] = getattr(destination, "signals", frozenset(Signal))
    telemetry = Telemetry(trace.get_tracer_provider(), metrics.get_meter_provider(), None, ledger, None, destination)
    _build(config, telemetry, wanted)
    if installed.current() is not None:
        _logger.warning("telemetry was installed twice in this process", extra={"event": "telemetry.installed_twice"})
    installed.put(telemetry)
    return telemetry


def _build(config: TelemetryConfig, telemetry: Telemetry, wanted: frozenset[Signal]) -> None:
    """Build, for each signal that nobody else provides, what it takes."""
    foreign_tracers = api_globals.TRACES.foreign()
    foreign_meters = api_globals.METRICS.foreign()
    foreign_loggers = api_globals.LOGS.foreign()
    ours = {
        signal
        for signal, foreign in (
            (Signal.TRACES, foreign_tracers),
            (Signal.METRICS, foreign_meters),
            (Signal.LOGS, foreign_loggers),
        )
        if foreign is None
    }
    resource = make_resource(config)
    own = telemetry._own = _Own(resource, None)
    if ours & wanted:
        from otel.encoding import OtlpEncoder

        own.encoder = OtlpEncoder(
            resource,
            log_attribute_length=config.limits.log_attribute_length,
            log_attributes=config.limits.log_attributes,
            encoded=getattr(telemetry.destination, "encoded", frozenset(Signal)),
        )
        assert telemetry.destination is not None
        telemetry.pipeline = Pipeline(
            telemetry.ledger,
            telemetry.destination,
            own.encoder,
            max_bytes=config.queue_bytes,
            batch_records=config.batch_records,
            delay_s=config.commit_delay_s,
        )
    pipeline = telemetry.pipeline
    if foreign_tracers is None:
        put_span = pipeline.put_span if pipeline is not None and Signal.TRACES in wanted else None
        own.tracers, own.tap = make_tracer_provider(config, resource, put_span)
        telemetry.tracer_provider = own.tracers
        telemetry._undo.callback(api_globals.TRACES.take(own.tracers))
    else:
        telemetry.tracer_provider = foreign_tracers
    if foreign_meters is None:
        put_metrics = pipeline.put_metrics if pipeline is not None and Signal.METRICS in wanted else None
        own.meters, telemetry._collector = make_meter_provider(config, resource, put_metrics)
        telemetry.meter_provider = own.meters
        telemetry._undo.callback(api_globals.METRICS.take(own.meters))
    else:
        telemetry.meter_provider = foreign_meters
    _attach_scrape(telemetry)
    telemetry.ledger.observe(telemetry.meter_provider.get_meter("streamlit-extension"))
    if telemetry._collector is not None:
        telemetry._collector.start()
    _build_logs(telemetry, foreign_loggers, pipeline if Signal.LOGS in wanted else None)


def _attach_scrape(telemetry: Telemetry) -> None:
    from otel.sdk import ScrapeReader, attach_reader

    reader = ScrapeReader()
    detach = attach_reader(telemetry.meter_provider, reader)
    if detach is not None:
        telemetry._scrape = reader
        telemetry._undo.callback(detach)


def _build_logs(telemetry: Telemetry, foreign: Any | None, pipeline: Pipeline | None) -> None:
    from otel.log_bridge import FactLoggerProvider, sink_into

    if foreign is not None:
        telemetry.log_sink = sink_into(foreign)
    elif pipeline is not None:
        telemetry.log_sink = pipeline.put_log
        telemetry._undo.callback(api_globals.LOGS.take(FactLoggerProvider(pipeline.put_log)))


def make_scraped_meters(config: TelemetryConfig) -> tuple[metrics.MeterProvider, Callable[[float], Any]]:
    """A meter provider of its own that nobody but the caller reads, and what reads it (seconds → `MetricsData`)."""
    from otel.sdk import ScrapeReader, attach_reader

    provider, _ = make_meter_provider(config, make_resource(config), None)
    reader = ScrapeReader()
    attach_reader(provider, reader)
    return provider, reader.read


# -- the SDK's parts ------------------------------------------------------------------------------------------------


def make_resource(config: TelemetryConfig) -> Resource:
    """The resource of this process, without secrets in its values."""
    from otel.cleaning import clean_attributes
    from otel.sdk import QuickResource

    found = resource_of_this_process(
        config.service_name, config.service_version, config.resource_attributes, os.environ
    )
    sdk = {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": _sdk_version(),
    }
    return QuickResource(clean_attributes({**sdk, **found}) or {})


def _sdk_version() -> str:
    from opentelemetry.sdk.version import __version__

    return __version__


def make_tracer_provider(
    config: TelemetryConfig, resource: Resource, put: Callable[[Any], None] | None
) -> tuple[OwnTracerProvider, SpanTap]:
    """A tracer provider whose finished spans go to `put`; with None they only have ids."""
    from otel.sdk import OwnTracerProvider, SpanTap, make_limits, make_sampler

    provider = OwnTracerProvider(
        sampler=make_sampler(config.sampler, config.sampler_ratio),
        resource=resource,
        shutdown_on_exit=False,
        span_limits=make_limits(config.limits),
    )
    tap = SpanTap(put)
    provider.add_span_processor(tap)
    return provider, tap


def make_meter_provider(
    config: TelemetryConfig, resource: Resource, put: Callable[[Any, int], None] | None
) -> tuple[OwnMeterProvider, Collector | None]:
    """A meter provider, and the clock that collects from it for `put`; without `put` other readers may still ask."""
    from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, AlwaysOnExemplarFilter, TraceBasedExemplarFilter

    from otel.sdk import OwnMeterProvider, PipelineReader

    filters: dict[str, Callable[[], ExemplarFilter]] = {
        "always_on": AlwaysOnExemplarFilter,
        "always_off": AlwaysOffExemplarFilter,
        "trace_based": TraceBasedExemplarFilter,
    }
    reader = PipelineReader(put, config.temporality, config.histogram_aggregation) if put is not None else None
    provider = OwnMeterProvider(
        [reader] if reader is not None else [],
        resource=resource,
        exemplar_filter=filters[config.exemplar_filter](),
        shutdown_on_exit=False,
    )
    if reader is None:
        return provider, None
    collect = Collector(
        lambda timeout_s: reader.collect(timeout_millis=1000 * timeout_s),
        interval_s=config.metric_interval_s,
        timeout_s=config.metric_timeout_s,
        first_s=config.metric_first_s,
    )
    return provider, collect


def _left(deadline_s: float) -> float:
    return max(0.0, deadline_s - time.monotonic())
