"""SQLAlchemy's statements and pools as spans and metrics, under the stable names of the semantic conventions.

Of our own making: the contributed instrumentation skips SQLAlchemy 2.1, imports the asynchronous seam (and with it
greenlet) into every application, exports inline literals and texts of errors, and has neither durations nor the stable
metrics of pools.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any

import wrapt
from opentelemetry import metrics, trace
from opentelemetry.metrics import Histogram, MeterProvider
from opentelemetry.trace import TracerProvider

from otel.instrumentation.sqlalchemy import discovering, install_engine_discovery, uninstall_engine_discovery
from otel.names import DB_BUCKETS, DESCRIPTIONS, SCHEMA_URL, UNITS, Metric

_SCOPE = "otel.instrumentation.sqlalchemy"
_CONTRIBUTED = "opentelemetry.instrumentation.sqlalchemy"


class _Instruments:
    """The instruments of one meter provider, made once: an observable one can't be taken back."""

    def __init__(self, provider: MeterProvider) -> None:
        from otel.instrumentation.sqlalchemy_pool import PoolInstruments

        meter = metrics.get_meter(_SCOPE, meter_provider=provider, schema_url=SCHEMA_URL)
        self.duration: Histogram = meter.create_histogram(
            Metric.DB_OPERATION_DURATION,
            unit=UNITS[Metric.DB_OPERATION_DURATION],
            description=DESCRIPTIONS[Metric.DB_OPERATION_DURATION],
            explicit_bucket_boundaries_advisory=DB_BUCKETS,
        )
        self.pools = PoolInstruments(meter)


_instruments: weakref.WeakKeyDictionary[MeterProvider, _Instruments] = weakref.WeakKeyDictionary()


class SQLAlchemyInstrumentor:
    """Instruments every engine of the process: those that are there, and those that come.

    SQLAlchemy is touched once the application imports it, and not before. Where the contributed instrumentation is
    active already, spans are left to it, and metrics are made here.
    """

    def __init__(self) -> None:
        self._wanted = False
        self._hooked = False
        self._own_discovery = False
        self._providers: tuple[TracerProvider | None, MeterProvider | None] = (None, None)
        self._undoes: list[Callable[[], None]] = []

    @property
    def is_instrumented_by_opentelemetry(self) -> bool:
        """Whether it is on, by the name that every instrumentor has for it."""
        return self._wanted

    def instrument(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        **_others: object,
    ) -> None:
        """Instrument from now on; again changes nothing.

        Arguments:
            tracer_provider, meter_provider: by default the API's global ones.
            _others: what other instrumentors take (`skip_dep_check=True`) says nothing here.
        """
        if self._wanted:
            return
        self._wanted = True
        self._providers = tracer_provider, meter_provider
        self._own_discovery = not discovering()
        install_engine_discovery()
        if "sqlalchemy" in sys.modules and hasattr(sys.modules["sqlalchemy"], "create_engine"):
            self._install(None)
        elif not self._hooked:
            self._hooked = True
            wrapt.register_post_import_hook(self._install, "sqlalchemy")

    def uninstrument(self) -> None:
        """Put SQLAlchemy back as it was found."""
        if not self._wanted:
            return
        self._wanted = False
        while self._undoes:
            self._undoes.pop()()
        if self._own_discovery:
            uninstall_engine_discovery()

    def _install(self, _module: Any) -> None:
        if not self._wanted or self._undoes:
            return
        # Not before: an application without a database has no use for them.
        from otel.instrumentation.sqlalchemy_database import Databases, note_failure
        from otel.instrumentation.sqlalchemy_pool import PoolWatch
        from otel.instrumentation.sqlalchemy_statements import StatementWatch

        try:
            tracer_provider, meter_provider = self._providers
            instruments = _instruments_of(meter_provider or metrics.get_meter_provider())
            tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider, schema_url=SCHEMA_URL)
            databases = Databases()
            statements = StatementWatch(databases, None if _contributed_is_active() else tracer, instruments.duration)
            self._undoes.append(statements.install())
            self._undoes.append(PoolWatch(databases, instruments.pools).install())
        except Exception as error:
            note_failure(error)


def _instruments_of(provider: MeterProvider) -> _Instruments:
    found = _instruments.get(provider)
    if found is None:
        found = _instruments[provider] = _Instruments(provider)
    return found


def _contributed_is_active() -> bool:
    module = sys.modules.get(_CONTRIBUTED)
    return module is not None and bool(module.SQLAlchemyInstrumentor().is_instrumented_by_opentelemetry)


SQLALCHEMY = SQLAlchemyInstrumentor()
