"""What an expression of Prometheus asks for: its series, and the labels that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from otel.families import family_name, label_name
from otel.names import METRIC_ATTRIBUTES, UNITS, Metric

_WORDS = {"and", "or", "unless", "offset", "bool", "inf", "nan", "by", "without", "on", "ignoring", "Inf", "NaN"}
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SERIES = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
#: What a scrape adds to every series, and the bound of a bucket.
EVERYWHERE = {"job", "instance", "le"}


def asked(expression: str) -> tuple[set[str], set[str]]:
    """The names of series and of labels in an expression; `label=""` asks for series that do not have it."""
    text = re.sub(r'\w+\s*=\s*""', " ", expression)
    text = re.sub(r'"(\\.|[^"\\])*"', '""', text)
    labels: set[str] = set()
    for _, inside in _GROUPING.findall(text):
        labels |= {each.strip() for each in inside.split(",") if each.strip()}
    text = _GROUPING.sub(" ", text)
    for inside in re.findall(r"\{([^}]*)\}", text):
        labels |= set(re.findall(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)", inside))
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\boffset\s+\w+|\b\d[\w.]*", " ", text)
    names = {
        found.group()
        for found in _SERIES.finditer(text)
        if found.group() not in _WORDS and not text[found.end() :].lstrip().startswith("(")
    }
    return names, labels


def written(metric: Metric, kind: str) -> Iterator[str]:
    """The names that a metric has in Prometheus; `kind` is gauge, counter or histogram."""
    name, _ = family_name(metric.value, UNITS[metric], kind)
    yield from {
        "counter": [f"{name}_total"],
        "histogram": [f"{name}_bucket", f"{name}_count", f"{name}_sum"],
    }.get(kind, [name])


def labels_of(metric: Metric) -> set[str]:
    """The labels that a metric's series may have."""
    return {label_name(each.value) for each in METRIC_ATTRIBUTES.get(metric, ())} | EVERYWHERE


def kind_of(metric: Any) -> str:
    """What an exported OTLP metric is in Prometheus: a sum that may fall is a gauge."""
    data = metric.WhichOneof("data")
    if data == "sum":
        return "counter" if metric.sum.is_monotonic else "gauge"
    return "gauge" if data == "gauge" else "histogram"


def problems(expression: str, known: Mapping[str, set[str]], recorded: set[str]) -> list[str]:
    """What an expression asks for and nobody emits. `known`: series → labels; `recorded`: what rules write."""
    names, labels = asked(expression)
    found = [f"{name} is not emitted" for name in sorted(names - known.keys() - recorded)]
    measured = [known[name] for name in names if name in known]
    if measured and not names & recorded:
        allowed = set().union(*measured)
        found += [f"{label} is no label of {', '.join(sorted(names))}" for label in sorted(labels - allowed)]
    return found


def dashboard_expressions(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where it stands and what is asked, of every panel and variable, with Grafana's own variables filled in."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], _filled(target["expr"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            inside = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert inside is not None, variable
            yield f"variable {variable['name']}", f"sum by ({inside[2]}) ({_filled(inside[1])})"


def _filled(expression: str) -> str:
    return expression.replace("$__rate_interval", "5m").replace("$job", "x").replace("$instance", "y")


def rule_expressions(rules: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and expression of every rule of a file."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]


def as_rules(expressions: Iterator[tuple[str, str]], file: Path) -> Path:
    """Write expressions as recording rules, so that `promtool check rules` reads them."""
    import yaml

    rules = [{"record": f"check:{number}", "expr": each} for number, (_, each) in enumerate(expressions)]
    file.write_text(yaml.safe_dump({"groups": [{"name": "checked", "rules": rules}]}))
    return file
