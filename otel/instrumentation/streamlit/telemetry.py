"""Telemetry of Streamlit, on and off; `instrumentor.py` offers it as OpenTelemetry wants instrumentors to be."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter
from opentelemetry.trace import TracerProvider, get_tracer

from otel.instrumentation.streamlit.error_reference import show_error_reference
from otel.instrumentation.streamlit.memory import INTERVAL_S, MemorySample, MemorySampler
from otel.instrumentation.streamlit.process import WATCHER
from otel.instrumentation.streamlit.reading import cache_statistics, connected_sessions
from otel.instrumentation.streamlit.tracing import SCOPE, RunTelemetry
from otel.names import UNITS, Attribute, Metric

Observer = Callable[[CallbackOptions], Iterable[Observation]]


class StreamlitTelemetry:
    """One trace for each script run, with metrics of runs, sessions, caches and memory; one for the process.

    What needs a thread or changes threads waits for the first session, so that other processes of the same environment
    stay as they were.

    Streamlit collects all garbage after each run, at a price for each object that there is; telemetry's own modules
    would raise it by a third. So what was imported until now is taken out of the collector's sight (`gc.freeze`), which
    lowers it to less than it was without telemetry.
    """

    def __init__(self) -> None:
        self.on = False
        self.sampler: MemorySampler | None = None
        self._froze = False
        self._own_watch = False
        self._own_threads = False
        self._first_session: threading.Lock | None = None

    @property
    def memory(self) -> MemorySample:
        """The newest sample of where memory goes, with the largest sessions."""
        return self.sampler.sample if self.sampler is not None else MemorySample()

    def start(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        error_reference: bool = False,
        memory_interval_s: float = INTERVAL_S,
    ) -> None:
        """Begin; the arguments are those of `StreamlitInstrumentor.instrument`."""
        tracer = get_tracer(SCOPE, tracer_provider=tracer_provider)
        meter = get_meter(SCOPE, meter_provider=meter_provider)
        self.sampler = MemorySampler(memory_interval_s) if memory_interval_s > 0 else None
        self._first_session = threading.Lock()
        self._own_watch = not WATCHER.watching
        WATCHER.watch()
        WATCHER.on_session = self._on_session
        WATCHER.on_error_shown = show_error_reference if error_reference else None
        _Observers(meter, lambda: self.memory).create()
        WATCHER.tracer = RunTelemetry(tracer, meter, WATCHER.is_hidden)
        self._froze = gc.get_freeze_count() == 0
        if self._froze:
            gc.freeze()
        self.on = True

    def _on_session(self) -> None:
        """Begin what waits for the first session, once."""
        lock = self._first_session
        if lock is None or not lock.acquire(blocking=False):
            return
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor

        threads = ThreadingInstrumentor()
        self._own_threads = not threads.is_instrumented_by_opentelemetry
        if self._own_threads:
            threads.instrument()
        if self._froze:
            gc.freeze()  # what has been imported since
        if self.sampler is not None:
            self.sampler.start()

    def stop(self) -> None:
        """The exact inverse of `start`."""
        WATCHER.tracer = WATCHER.on_session = WATCHER.on_error_shown = None
        self._first_session = None
        if self._own_watch:
            WATCHER.unwatch()
        if self._own_threads:
            from opentelemetry.instrumentation.threading import ThreadingInstrumentor

            ThreadingInstrumentor().uninstrument()
        sampler, self.sampler = self.sampler, None
        if sampler is not None:
            sampler.stop()
        if self._froze:
            gc.unfreeze()
        self.on = self._own_watch = self._own_threads = self._froze = False


class _Observers:
    """Metrics that are read when they are collected; nothing is told once the instrumentor has gone."""

    def __init__(self, meter: Meter, memory: Callable[[], MemorySample]) -> None:
        self._meter = meter
        self._memory = memory

    def create(self) -> None:
        """Register all of them."""
        self._meter.create_observable_up_down_counter(
            Metric.RUN_ACTIVE,
            [_while_on(_runs_under_way)],
            unit=UNITS[Metric.RUN_ACTIVE],
            description="Script runs under way",
        )
        self._gauge(Metric.SESSION_ACTIVE, self._sessions, "Sessions with a connected browser")
        self._gauge(
            Metric.MEMORY_SESSION_STATE,
            self._bytes(lambda sample: sample.session_state),
            "Estimated size of all sessions' state and widgets",
        )
        self._gauge(
            Metric.MEMORY_CACHE,
            self._bytes(lambda sample: sample.cache),
            "Estimated size of what st.cache_data and st.cache_resource hold",
        )
        self._gauge(Metric.MEMORY_UPLOADS, self._bytes(lambda sample: sample.uploads), "Size of uploaded files")
        self._gauge(
            Metric.MEMORY_MEDIA,
            self._bytes(lambda sample: sample.media),
            "Size of the images, videos and downloads kept for browsers",
        )
        self._counter(Metric.CACHE_REQUESTS, _cache_requests, "Look-ups in st.cache_data and st.cache_resource")
        self._counter(Metric.CACHE_EVICTIONS, _cache_evictions, "Entries that Streamlit's caches gave up")

    def _gauge(self, name: Metric, observe: Observer, description: str) -> None:
        self._meter.create_observable_gauge(name, [_while_on(observe)], unit=UNITS[name], description=description)

    def _counter(self, name: Metric, observe: Observer, description: str) -> None:
        self._meter.create_observable_counter(name, [_while_on(observe)], unit=UNITS[name], description=description)

    def _bytes(self, read: Callable[[MemorySample], int | None]) -> Observer:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            value = read(self._memory())
            if value is not None:
                yield Observation(value)

        return observe

    def _sessions(self, _options: CallbackOptions) -> Iterable[Observation]:
        count = connected_sessions()
        if count is not None:
            yield Observation(max(0, count - WATCHER.hidden_sessions))


def _while_on(observe: Observer) -> Observer:
    """Observes while the instrumentor is on: an instrument can't be taken back from its meter."""

    def observe_if_on(options: CallbackOptions) -> Iterable[Observation]:
        return observe(options) if WATCHER.tracer is not None else ()

    return observe_if_on


def _runs_under_way(_options: CallbackOptions) -> Iterable[Observation]:
    tracer = WATCHER.tracer
    for run_type, count in tracer.under_way().items() if isinstance(tracer, RunTelemetry) else ():
        yield Observation(count, {Attribute.RUN_TYPE: run_type})


def _cache_requests(_options: CallbackOptions) -> Iterable[Observation]:
    found = cache_statistics()
    if found is not None and found.hits is not None and found.misses is not None:
        yield Observation(found.hits, {Attribute.CACHE_OUTCOME: "hit"})
        yield Observation(found.misses, {Attribute.CACHE_OUTCOME: "miss"})


def _cache_evictions(_options: CallbackOptions) -> Iterable[Observation]:
    found = cache_statistics()
    if found is not None and found.evictions is not None:
        yield Observation(found.evictions)


STREAMLIT = StreamlitTelemetry()
