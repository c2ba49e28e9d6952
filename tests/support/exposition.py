"""Prometheus's two text formats, read by `prometheus_client`'s own parsers."""

from __future__ import annotations

from typing import Any

from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

_untyped: Any = openmetrics


def parse_text(text: str) -> list[Metric]:
    """The families of a scrape in the text format."""
    return list(text_string_to_metric_families(text))


def parse_openmetrics(text: str) -> list[Metric]:
    """The families of a scrape in the OpenMetrics format, which is checked strictly."""
    return list(_untyped.text_string_to_metric_families(text))
