"""A scrape: the metrics of this process as text, on a thread of its own, in bounded time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as context_api

from otel.families import Family
from otel.quiet import OncePerMinute
from otel.trace_context import suppressed_context

if TYPE_CHECKING:
    from prometheus_client import Metric

_logger = logging.getLogger("otel.export.scrape")
_logger.addFilter(OncePerMinute())

THREAD_NAME: Final = "stx-scrape"


class Format(StrEnum):
    """How a scrape is written: the value of its Content-Type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def format_for(accept: str) -> Format:
    """Return the format that a caller's `Accept` prefers; text where it names neither (RFC 9110, section 12.5.1)."""
    best: dict[Format, float] = {}
    for part in accept.split(","):
        kind, *parameters = (each.strip().lower() for each in part.split(";"))
        quality, version = 1.0, ""
        for each in parameters:
            name, _, value = each.partition("=")
            if name.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
            elif name.strip() == "version":
                version = value.strip()
        if kind == "application/openmetrics-text" and version in ("", "1.0.0", "0.0.1"):
            best[Format.OPENMETRICS] = max(quality, best.get(Format.OPENMETRICS, 0.0))
        elif kind in ("text/plain", "text/*", "*/*"):
            best[Format.TEXT] = max(quality, best.get(Format.TEXT, 0.0))
    wanted = best.get(Format.OPENMETRICS, 0.0)
    return Format.OPENMETRICS if wanted > 0 and wanted >= best.get(Format.TEXT, 0.0) else Format.TEXT


class _Families:
    """What `prometheus_client` calls a registry."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Give every family as `prometheus_client`'s."""
        from prometheus_client import Metric
        from prometheus_client.samples import Exemplar

        for family in self._families:
            metric = Metric(family.name, family.documentation, family.kind, family.unit)
            for each in family.samples:
                example = each.exemplar
                metric.add_sample(
                    metric.name + each.suffix,
                    each.labels,
                    each.value,
                    exemplar=None if example is None else Exemplar(example.labels, example.value, example.at_s),
                )
            yield metric


def render(families: Iterable[Family], form: Format) -> bytes:
    """Write families in one of the formats."""
    from prometheus_client import exposition
    from prometheus_client.openmetrics import exposition as openmetrics

    write: Any = openmetrics.generate_latest if form is Format.OPENMETRICS else exposition.generate_latest
    written: bytes = write(_Families(families))
    return written


class Scraper:
    """Reads and writes on a thread of its own; callers that come meanwhile share one reading.

    A callback of an instrument that hangs holds up that thread alone, and no second one is started behind it.

    Arguments:
        read: returns what there is to tell.
    """

    def __init__(self, read: Callable[[], Sequence[Family]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._under_way: dict[Format, Future[bytes]] = {}

    def submit(self, form: Format = Format.TEXT) -> Future[bytes]:
        """Begin a scrape, or join the one under way."""
        with self._lock:
            found = self._under_way.get(form)
            if found is not None:
                return found
            future = self._under_way[form] = Future()
            future.set_running_or_notify_cancel()  # so that a caller who gives up cancels nobody else's
        threading.Thread(target=self._run, args=(form, future), name=THREAD_NAME, daemon=True).start()
        return future

    def scrape(self, form: Format = Format.TEXT, timeout_s: float = 10.0) -> bytes:
        """Scrape now.

        Raises:
            TimeoutError: it took longer than `timeout_s` seconds.
        """
        return self.submit(form).result(timeout_s)

    def _run(self, form: Format, future: Future[bytes]) -> None:
        context_api.attach(suppressed_context())
        try:
            written = render(self._read(), form)
        except Exception as error:
            fields = {"event": "telemetry.internal_error"}
            _logger.warning("metrics could not be scraped: %s", type(error).__name__, extra=fields)
            self._end(form)
            future.set_exception(error)
        else:
            self._end(form)
            future.set_result(written)

    def _end(self, form: Format) -> None:
        with self._lock:
            self._under_way.pop(form, None)
