"""`StreamlitInstrumentor`: an OpenTelemetry instrumentor, also by entry point (`opentelemetry-instrument`).

Its base class brings a requirements parser and a hundred other things, so an application's start uses `STREAMLIT` of
`telemetry.py` itself; both are one and the same thing on one process.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from otel.instrumentation.streamlit.memory import INTERVAL_S, MemorySample, MemorySampler
from otel.instrumentation.streamlit.telemetry import STREAMLIT


class StreamlitInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """One trace for each script run, with metrics of runs, sessions, caches and memory.

    `uninstrument()` is the exact inverse of `instrument()`, which takes:

    - `tracer_provider`, `meter_provider`: by default the global ones.
    - `error_reference`: whether the user sees the reference of an uncaught error; by default not.
    - `memory_interval_s`: seconds between two looks at where memory goes, 30 by default; 0 never looks.

    Threads and executors that a script starts keep its trace.
    """

    @property
    def _is_instrumented_by_opentelemetry(self) -> bool:
        """Also where an application has begun it without this class."""
        return STREAMLIT.on

    @_is_instrumented_by_opentelemetry.setter
    def _is_instrumented_by_opentelemetry(self, _value: bool) -> None:
        """`STREAMLIT` knows."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """The Streamlit that this knows."""
        return ("streamlit >= 1.57",)

    @property
    def memory(self) -> MemorySample:
        """The newest sample of where memory goes, with the largest sessions."""
        return STREAMLIT.memory

    @property
    def _sampler(self) -> MemorySampler | None:
        return STREAMLIT.sampler

    def _instrument(self, **kwargs: Any) -> None:
        STREAMLIT.start(
            tracer_provider=kwargs.get("tracer_provider"),
            meter_provider=kwargs.get("meter_provider"),
            error_reference=bool(kwargs.get("error_reference")),
            memory_interval_s=float(kwargs.get("memory_interval_s", INTERVAL_S)),
        )

    def _uninstrument(self, **_kwargs: Any) -> None:
        STREAMLIT.stop()
