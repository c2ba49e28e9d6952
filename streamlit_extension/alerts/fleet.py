"""The same rules for a fleet: Prometheus evaluates them, and one Alertmanager speaks for all replicas.

Metric names are those that Prometheus' OTLP endpoint makes of ours (dots to underscores, unit and `_total` at the end);
`job` is the service, `instance` one process of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from otel.names import RUN_BUCKETS
from streamlit_extension.alerts.model import AlertRule, Metric
from streamlit_extension.alerts.rules import MIN_SAMPLES

RUNS: Final = "streamlit_script_run_duration_seconds"
REQUESTS: Final = "http_server_request_duration_seconds"
FAILED_RUNS: Final = 'streamlit_run_outcome=~"error|compile_error"'
FAILED_REQUESTS: Final = 'http_response_status_code=~"5.."'
#: A metric that every process has from its first export on; its absence means that telemetry stopped.
ALWAYS_THERE: Final = "system_cpu_utilization_ratio"
_WINDOW: Final = "5m"


@dataclass(frozen=True, slots=True)
class Objectives:
    """What users are promised, over 30 days.

    `availability_percent` of runs and requests do not fail; `latency_percent` of reruns take at most `latency_s`, which
    is a bound of the histogram's buckets.
    """

    availability_percent: float = 99.9
    latency_percent: float = 95.0
    latency_s: float = 5.0

    def __post_init__(self) -> None:
        if self.latency_s not in RUN_BUCKETS:  # a rule that asks for another one has no data and never fires
            allowed = ", ".join(_number(bound) for bound in RUN_BUCKETS)
            raise ValueError(f"{self.latency_s:g} s is no bound of the histogram of reruns; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class BurnWindow:
    """One pair of windows: it alerts while the budget burns `factor` times too fast in both."""

    long: str
    short: str
    factor: float
    severity: str
    for_: str


#: Google's SRE Workbook, chapter 5, table 5-8: 2 % of a 30-day budget in an hour, 5 % in six hours, 10 % in a day and
#: in three days.
BURN_WINDOWS: Final = (
    BurnWindow("1h", "5m", 14.4, "critical", "2m"),
    BurnWindow("6h", "30m", 6.0, "critical", "15m"),
    BurnWindow("1d", "2h", 3.0, "warning", "1h"),
    BurnWindow("3d", "6h", 1.0, "warning", "3h"),
)
_WINDOWS: Final = tuple(dict.fromkeys(window for pair in BURN_WINDOWS for window in (pair.short, pair.long)))


@dataclass(frozen=True, slots=True)
class Group:
    """A rule group as Prometheus reads it."""

    name: str
    rules: tuple[Mapping[str, object], ...]


def groups(rules: Iterable[AlertRule], objectives: Objectives | None = None) -> tuple[Group, ...]:
    """Return the groups for some rules: recordings, thresholds, error budgets, and absent data."""
    objectives = objectives or Objectives()
    held = [rule for rule in rules if rule.metric in _EXPRESSIONS]
    return (
        Group("streamlit-extension-recordings", tuple(_recordings(held))),
        Group("streamlit-extension-thresholds", tuple(_threshold(rule) for rule in held)),
        Group("streamlit-extension-budget-recordings", tuple(_budget_recordings(objectives))),
        Group("streamlit-extension-budgets", tuple(_budgets(objectives))),
        Group("streamlit-extension-absence", tuple(_absence())),
    )


# -- thresholds -----------------------------------------------------------------------------------------------------


def _of_both(function: str, window: str, runs: str = "", requests: str = "") -> str:
    """Return the sum over runs and requests, whose labels differ, so that `or` leaves none out."""
    return (
        f"sum by (job) ({function}({RUNS}_count{runs}[{window}]) or {function}({REQUESTS}_count{requests}[{window}]))"
    )


def error_ratio(window: str) -> str:
    """Return the share of failed runs and requests, from 0 to 1; no value while there is nothing to be a share of."""
    failed = _of_both("rate", window, f"{{{FAILED_RUNS}}}", f"{{{FAILED_REQUESTS}}}")
    total = _of_both("rate", window)
    return f"({failed}\nor 0 * {total})\n/ ({total} > 0)"


#: Metric → its expression in the units of the thresholds.
_EXPRESSIONS: Final[Mapping[str, str]] = {
    # Ours is one number; where an agent writes the same metric by mode, its idle share is no use of the machine.
    Metric.CPU_USAGE: '100 * max by (job, instance) (system_cpu_utilization_ratio{cpu_mode=""})',
    Metric.MEMORY_USAGE: '100 * max by (job, instance) (system_memory_utilization_ratio{system_memory_state="used"})',
    Metric.DISK_USAGE: (
        '100 * max by (job, instance) (system_filesystem_utilization_ratio{system_filesystem_state="used"})'
    ),
    Metric.ERROR_RATE: f"100 * {error_ratio(_WINDOW)}\nand {_of_both('increase', _WINDOW)} >= {MIN_SAMPLES}",
    Metric.RESPONSE_TIME: (
        f"1000 * histogram_quantile(0.95, sum by (job, le) (rate({RUNS}_bucket[{_WINDOW}])))\n"
        f"and sum by (job) (increase({RUNS}_count[{_WINDOW}])) >= {MIN_SAMPLES}"
    ),
    Metric.MEMORY_GROWTH: (
        "100 * 3600 * sum by (job, instance) (streamlit_memory_growth_bytes_per_second)\n"
        "/ max by (job, instance) (system_memory_limit_bytes)"
    ),
    Metric.DATABASE_CONNECTIONS: (
        "sum by (job, instance, db_client_connection_pool_name) "
        '(db_client_connection_count{db_client_connection_state="used"})'
    ),
}
_POOL_MAXIMUM: Final = "max by (job, instance, db_client_connection_pool_name) (db_client_connection_max)"


def recorded(metric: str) -> str:
    """Return the name of a metric's recording rule."""
    per = "job" if metric in (Metric.ERROR_RATE, Metric.RESPONSE_TIME) else "instance"
    return f"{per}:stx_{metric}:current"


def _recordings(rules: Iterable[AlertRule]) -> Iterator[Mapping[str, object]]:
    for metric in dict.fromkeys(rule.metric for rule in rules):
        yield {"record": recorded(metric), "expr": _EXPRESSIONS[metric]}


def _threshold(rule: AlertRule) -> Mapping[str, object]:
    name = recorded(rule.metric)
    unit = rule.unit if rule.unit in ("", "%") else f" {rule.unit}"
    if rule.share_of_limit is not None:
        # A share of the pool's own maximum where it has one, the number where it has none.
        expression = (
            f"{name} >= {_number(rule.share_of_limit)} * {_POOL_MAXIMUM}\n"
            f"or ({name} unless {_POOL_MAXIMUM}) >= {_number(rule.threshold)}"
        )
        limit = f"{_number(100 * rule.share_of_limit)} % of the pool"
    else:
        expression = f"{name} >= {_number(rule.threshold)}"
        limit = f"{_number(rule.threshold)}{unit}"
    where = "{{ $labels.job }}" + ("" if name.startswith("job:") else " ({{ $labels.instance }})")
    return {
        "alert": "Streamlit" + "".join(part.capitalize() for part in rule.name.split("_")),
        "expr": expression,
        "for": _duration(rule.for_s),
        "labels": {"severity": str(rule.severity), "stx_rule": rule.name},
        "annotations": {
            "summary": f"{rule.title or rule.name} of {where} is " + '{{ printf "%.4g" $value }}' + unit,
            "description": f"It has been at or above {limit} for {_duration(rule.for_s)}.",
            "runbook": rule.runbook,
        },
    }


# -- error budgets --------------------------------------------------------------------------------------------------


def _latency_bucket(objectives: Objectives) -> str:
    # The OTLP endpoint writes a whole bound as "5", a scrape as "5.0".
    bound = _number(objectives.latency_s)
    return f'le=~"{bound}|{bound}[.]0"' if bound.isdigit() else f'le="{bound}"'


def slow_ratio(window: str, objectives: Objectives) -> str:
    """Return the share of reruns that took too long, from 0 to 1."""
    bucket = f"{RUNS}_bucket{{{_latency_bucket(objectives)}}}"
    return f"1 - (\nsum by (job) (rate({bucket}[{window}]))\n/ (sum by (job) (rate({RUNS}_count[{window}])) > 0)\n)"


def _budget_recordings(objectives: Objectives) -> Iterator[Mapping[str, object]]:
    for window in _WINDOWS:
        yield {"record": f"job:stx_errors:ratio_rate{window}", "expr": error_ratio(window)}
        yield {"record": f"job:stx_slow_runs:ratio_rate{window}", "expr": slow_ratio(window, objectives)}


def _budgets(objectives: Objectives) -> Iterator[Mapping[str, object]]:
    promises = (
        ("Availability", "errors", objectives.availability_percent, "runs and requests fail"),
        (
            "Latency",
            "slow_runs",
            objectives.latency_percent,
            f"reruns take longer than {_number(objectives.latency_s)} s",
        ),
    )
    for title, series, percent, what in promises:
        allowed = f"(1 - {_number(percent)} / 100)"
        for pair in BURN_WINDOWS:
            limit = f"{_number(pair.factor)} * {allowed}"
            name = f"job:stx_{series}:ratio_rate"
            yield {
                "alert": f"Streamlit{title}BudgetBurn",
                "expr": f"{name}{pair.long} > {limit}\nand {name}{pair.short} > {limit}",
                "for": pair.for_,
                "labels": {"severity": pair.severity, "long_window": pair.long, "short_window": pair.short},
                "annotations": {
                    "summary": "{{ $labels.job }}: " + f"too many {what}; the error budget burns "
                    f"{_number(pair.factor)} times too fast",
                    "description": "{{ $value | humanizePercentage }}" + f" over {pair.long}; the objective allows "
                    f"{_number(100 - percent)} % over 30 days.",
                },
            }


def _absence() -> Iterator[Mapping[str, object]]:
    yield {
        "alert": "StreamlitTelemetryAbsent",
        # Per service: it was there an hour ago and is not any more. And for all: there is none at all.
        "expr": (
            f"group by (job) ({ALWAYS_THERE} offset 1h) unless group by (job) ({ALWAYS_THERE})\n"
            f"or absent_over_time({ALWAYS_THERE}[10m])"
        ),
        "for": "5m",
        "labels": {"severity": "warning"},
        "annotations": {
            "summary": "No telemetry of {{ if $labels.job }}{{ $labels.job }}{{ else }}any service{{ end }} arrives",
            "description": "Rules that find no data can't fire. Look at the processes, the collector and the network.",
        },
    }


# -- writing --------------------------------------------------------------------------------------------------------


def render(held: Iterable[Group]) -> str:
    """Return the groups as a Prometheus rule file."""
    lines = ["# Written by `streamlit-extension rules`; change the settings and write it again.", "groups:"]
    for group in held:
        lines += [f"  - name: {group.name}", "    rules:"]
        for rule in group.rules:
            lines += _rule_lines(rule)
    return "\n".join(lines) + "\n"


def _rule_lines(rule: Mapping[str, object]) -> Iterator[str]:
    mark = "      - "
    for key, value in rule.items():
        if isinstance(value, Mapping):
            yield f"{mark}{key}:"
            yield from (f"          {name}: {_quoted(str(text))}" for name, text in value.items() if text)
        elif key == "expr":
            yield f"{mark}{key}: |-"
            yield from (f"          {line}" for line in str(value).splitlines())
        else:
            yield f"{mark}{key}: {value}"
        mark = "        "


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _duration(seconds: float) -> str:
    return f"{round(seconds)}s" if seconds == round(seconds) else f"{round(seconds * 1000)}ms"
