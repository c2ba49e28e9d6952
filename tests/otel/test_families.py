"""From the SDK's metric data to Prometheus's formats: names, values, exemplars, and what can't be written."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from otel.families import Family, Sample, families_of, family_name, merge, power_of_two_buckets
from otel.scrape import Format, Scraper, format_for, render
from tests.support.exposition import parse_openmetrics, parse_text


def provider(*views: View) -> tuple[MeterProvider, Callable[[], list[Family]]]:
    """A real provider, and what reads its families."""
    reader = InMemoryMetricReader()
    made = MeterProvider([reader], resource=Resource({"service.name": "shop"}), views=views, shutdown_on_exit=False)
    return made, lambda: families_of(reader.get_metrics_data())


def parsed(families: list[Family]) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sample name → labels → value, the same in both formats."""
    text, openmetrics = render(families, Format.TEXT).decode(), render(families, Format.OPENMETRICS).decode()
    found: list[dict[str, dict[tuple[tuple[str, str], ...], float]]] = []
    for parse, written in ((parse_text, text), (parse_openmetrics, openmetrics)):
        values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in parse(written):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                assert labels not in values.setdefault(sample.name, {})
                values[sample.name][labels] = sample.value
        found.append(values)
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.request.duration", "s", "histogram", "http_server_request_duration_seconds"),
        ("system.cpu.utilization", "1", "gauge", "system_cpu_utilization_ratio"),
        ("business.events", "{event}", "counter", "business_events"),
        ("process.memory.usage", "By", "gauge", "process_memory_usage_bytes"),
        ("streamlit.memory.growth", "By/s", "gauge", "streamlit_memory_growth_bytes_per_second"),
        ("a.total", "1", "counter", "a"),
        ("wait_seconds", "s", "gauge", "wait_seconds"),
        ("2nd-try..ms", "ms", "gauge", "_2nd_try_ms_milliseconds"),
        ("load", "{run}/s", "gauge", "load_per_second"),
        ("ä", "", "gauge", "_"),
    ],
)
def test_names_are_those_of_prometheus_otlp_endpoint(name: str, unit: str, kind: str, expected: str) -> None:
    """Dots become underscores and the unit stands at the end."""
    assert family_name(name, unit, kind)[0] == expected


def test_every_kind_of_instrument_arrives_in_both_formats() -> None:
    """With labels, units and values; prometheus_client's own parsers read it."""
    meters, read = provider()
    meter = meters.get_meter("shop")
    meter.create_counter("orders", "{order}").add(3, {"paid": True, "who.is": 'a "b"\n\\'})
    meter.create_up_down_counter("open", "{order}").add(-2)
    meter.create_histogram("took", "s", explicit_bucket_boundaries_advisory=[0.1, 1.0]).record(0.5, {"page": "x"})
    meter.create_observable_gauge("level", [lambda _: [Observation(0.5)]], "1")
    found = parsed(read())
    assert found["orders_total"] == {(("paid", "true"), ("who_is", 'a "b"\n\\')): 3}
    assert found["open"] == {(): -2}
    assert found["level_ratio"] == {(): 0.5}
    assert [found["took_seconds_bucket"][("le", le), ("page", "x")] for le in ("0.1", "1.0", "+Inf")] == [0, 1, 1]
    assert found["took_seconds_sum"] == {(("page", "x"),): 0.5}
    assert found["target_info"] == {(("service_name", "shop"),): 1}


def test_exemplars_stand_at_the_bucket_that_they_are_in() -> None:
    """In OpenMetrics: the trace of a sampled span, its value and its time; in the text format there are none."""
    meters, read = provider()
    histogram = meters.get_meter("a").create_histogram("took", "s", explicit_bucket_boundaries_advisory=[0.1, 1.0])
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("a")
    traces = {}
    for value in (0.05, 0.5, 5.0):
        with tracer.start_as_current_span("run") as span:
            traces[value] = format(span.get_span_context().trace_id, "032x")
            histogram.record(value)
    families = read()
    assert " # " not in render(families, Format.TEXT).decode()
    text = render(families, Format.OPENMETRICS).decode()
    buckets = [s for f in parse_openmetrics(text) for s in f.samples if s.name == "took_seconds_bucket"]
    examples = [each.exemplar for each in buckets if each.exemplar is not None]
    assert [each.labels["trace_id"] for each in examples] == list(traces.values())
    assert [each.value for each in examples] == list(traces)


def test_an_exponential_histogram_does_not_break_the_scrape() -> None:
    """Its counts arrive in buckets at powers of two, the other metrics as they are."""
    view = View(instrument_type=Histogram, aggregation=ExponentialBucketHistogramAggregation())
    meters, read = provider(view)
    histogram = meters.get_meter("a").create_histogram("took", "s")
    for value in (0.0, 0.3, 0.5, 0.6, 3.0):
        histogram.record(value)
    meters.get_meter("a").create_counter("other").add(1)
    found = parsed(read())
    buckets = {dict(labels)["le"]: value for labels, value in found["took_seconds_bucket"].items()}
    assert buckets == {"0.0": 1, "0.25": 1, "0.5": 3, "1.0": 4, "2.0": 4, "4.0": 5, "+Inf": 5}
    assert found["took_seconds_count"] == {(): 5}
    assert found["other_total"] == {(): 1}


@given(
    scale=st.integers(-4, 12),
    offset=st.integers(-3000, 3000),
    counts=st.lists(st.integers(0, 5), max_size=160),
    zero=st.integers(0, 5),
)
def test_buckets_at_powers_of_two_lose_no_count(scale: int, offset: int, counts: list[int], zero: int) -> None:
    """At any scale, and each lies below a bound that it may lie below."""
    bounds, found = power_of_two_buckets(scale, zero, offset, counts)
    assert sum(found) == zero + sum(counts)
    assert len(found) == len(bounds) + 1
    assert bounds == sorted(set(bounds))
    so_far = zero
    for index, count in enumerate(counts, offset + 1):
        so_far += count
        upper = index / 2.0**scale  # of this bucket, as a power of two
        if count and -1073 <= upper <= 1023:
            bound = 2.0 ** math.ceil(upper)
            assert sum(number for each, number in zip(bounds, found, strict=False) if each <= bound) >= so_far


def test_what_can_not_be_written_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """Two kinds of instrument under one name: the first is there, and so is all else."""
    meters, read = provider()
    meters.get_meter("a").create_counter("x.y").add(1)
    meters.get_meter("b").create_histogram("x_y").record(1)
    meters.get_meter("b").create_counter("other").add(1)
    found = parsed(read())
    assert found["x_y_total"] == {(): 1}
    assert "x_y_count" not in found
    assert "other_total" in found
    assert "two kinds of instrument have one name" in caplog.text


def test_two_scopes_with_one_series_are_told_apart() -> None:
    """No scrape holds a series twice, which Prometheus would refuse."""
    meters, read = provider()
    for scope in ("one", "two"):
        meters.get_meter(scope).create_counter("made").add(1)
    assert parsed(read())["made_total"] == {(): 1, (("otel_scope_name", "two"),): 1}


def test_nothing_is_an_empty_scrape() -> None:
    """Where telemetry is off, both formats are valid."""
    assert families_of(None) == []
    assert render([], Format.TEXT) == b""
    assert render([], Format.OPENMETRICS) == b"# EOF\n"


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("application/json", Format.TEXT),
        ("application/openmetrics-text", Format.OPENMETRICS),
        (PROMETHEUS, Format.OPENMETRICS),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.1", Format.TEXT),
        ("application/openmetrics-text;q=0", Format.TEXT),
        ("application/openmetrics-text;q=x", Format.TEXT),
        ("application/openmetrics-text;version=2.0.0", Format.TEXT),
    ],
)
def test_the_format_is_negotiated(accept: str, expected: Format) -> None:
    """As Prometheus asks, as a browser does, and as nobody should."""
    assert format_for(accept) is expected


def test_concurrent_scrapes_share_a_reading_and_all_answer() -> None:
    """Many callers at once, real instruments: each gets a whole scrape."""
    meters, read = provider()
    counter = meters.get_meter("a").create_counter("made")
    scraper = Scraper(read)
    counter.add(1)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: scraper.scrape(list(Format)[number % 2], 20.0), range(64)))
    for number, answer in enumerate(answers):
        parse: Any = (parse_text, parse_openmetrics)[number % 2]
        assert [family.name.removesuffix("_info") for family in parse(answer.decode())] == ["made", "target"]


def test_a_callback_that_hangs_holds_up_one_thread_alone() -> None:
    """Callers are told in time, no second thread is started behind it, and it works again afterwards."""
    import threading

    meters, read = provider()
    go_on = Event()

    def hang(_options: CallbackOptions) -> list[Observation]:
        go_on.wait(30)
        return [Observation(1)]

    meters.get_meter("a").create_observable_gauge("hangs", [hang])
    scraper = Scraper(read)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            scraper.scrape(Format.TEXT, 0.05)
    assert [each.name for each in threading.enumerate()].count("stx-scrape") == 1
    go_on.set()
    assert b"hangs 1.0" in scraper.scrape(Format.TEXT, 20.0)


def test_a_reading_that_fails_is_told_and_the_next_one_works(caplog: pytest.LogCaptureFixture) -> None:
    """The error reaches the caller; nothing stays stuck."""
    broken = True

    def read() -> list[Family]:
        if broken:
            raise RuntimeError("secret")
        return []

    scraper = Scraper(read)
    with pytest.raises(RuntimeError):
        scraper.scrape(timeout_s=20.0)
    assert "could not be scraped: RuntimeError" in caplog.text
    assert "secret" not in caplog.text
    broken = False
    assert scraper.scrape(timeout_s=20.0) == b""


def sample(value: float, suffix: str = "", **labels: str) -> Sample:
    return Sample(suffix, labels, value)


def test_workers_of_one_server_are_one_scrape() -> None:
    """The machine is told once, what can be added is, all else keeps its process; both formats are valid."""

    def of(value: float) -> list[Family]:
        return [
            Family("db_count", "gauge", "", "d", (sample(value, state="used"),), additive=True),
            Family("runs", "counter", "", "d", (sample(value, "_total"),)),
            Family("system_cpu", "gauge", "", "d", (sample(value),)),
            Family("target", "info", "", "d", (sample(1, "_info", service_name="shop"),)),
        ]

    found = parsed(merge(of(1), {"7": of(2), "8": [*of(4), Family("only", "gauge", "", "d", (sample(9),))]}, "5"))
    assert found == {
        "db_count": {(("state", "used"),): 7},
        "only": {(("process_pid", "8"),): 9},
        "runs_total": {(("process_pid", "5"),): 1, (("process_pid", "7"),): 2, (("process_pid", "8"),): 4},
        "system_cpu": {(): 1},
        "target_info": {(("service_name", "shop"),): 1},
    }
