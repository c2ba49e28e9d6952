"""Rules for Prometheus: the committed file is what the command writes, and promtool accepts and tests it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from streamlit_extension.alerts.fleet import BURN_WINDOWS, Objectives, groups, render
from streamlit_extension.alerts.model import AlertRule
from streamlit_extension.alerts.rules import THRESHOLDS, default_rules, rules_from
from streamlit_extension.settings import Settings
from tests.support.promql import as_rules, dashboard_expressions
from tests.support.server import ROOT
from tests.support.stack import built
from tests.test_cli_alerts import command

RULES = ROOT / "deploy/prometheus/streamlit-extension.rules.yaml"
UNIT_TESTS = ROOT / "deploy/prometheus/streamlit-extension.test.yaml"


@pytest.fixture(scope="module")
def promtool() -> str:
    return built("promtool", "promtool")


def test_the_committed_rules_are_up_to_date(tmp_path: Path) -> None:
    """`streamlit-extension rules` without any configuration writes the committed file, also to a file."""
    assert command(tmp_path, "rules").stdout == RULES.read_text()
    done = command(tmp_path, "rules", "--output", str(tmp_path / "out.yaml"))
    assert done.stdout == f"written to {tmp_path / 'out.yaml'}\n"
    assert (tmp_path / "out.yaml").read_text() == RULES.read_text()


def test_promtool_accepts_the_rules(promtool: str) -> None:
    """`promtool check rules` finds nothing to complain about, lint included."""
    done = subprocess.run(
        [promtool, "check", "rules", "--lint-fatal", str(RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_understands_the_dashboard(promtool: str, tmp_path: Path) -> None:
    """Every expression of the Grafana dashboard parses; panels have titles and ids of their own, and don't overlap."""
    dashboard = json.loads((ROOT / "deploy/grafana/streamlit-extension.json").read_text())
    file = as_rules(dashboard_expressions(dashboard), tmp_path / "dashboard.yaml")
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 25
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken) and max(x for x, _ in taken) < 24


def test_promtools_unit_tests_pass(promtool: str) -> None:
    """The committed unit tests fire and resolve what they should, by Prometheus' own evaluation."""
    done = subprocess.run([promtool, "test", "rules", str(UNIT_TESTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_other_settings_and_objectives_are_accepted_too(promtool: str, tmp_path: Path) -> None:
    """Thresholds, `for`, a number of connections and objectives go into the rules, which stay valid."""
    env = {
        "STX_ALERTS__THRESHOLDS__CPU_USAGE": "70.5",
        "STX_ALERTS__THRESHOLDS__DATABASE_CONNECTIONS": "12",
        "STX_ALERTS__FOR_S": "0.5",
    }
    done = command(tmp_path, "rules", "--availability", "99.95", "--latency", "99", "--latency-s", "0.25", env=env)
    text = done.stdout
    assert "instance:stx_cpu_usage:current >= 70.5" in text and "for: 500ms" in text
    assert "instance:stx_database_connections:current >= 12" in text and "db_client_connection_max" not in text
    assert "(1 - 99.95 / 100)" in text and "(1 - 99 / 100)" in text and 'le="0.25"' in text
    (tmp_path / "rules.yaml").write_text(text)
    checked = subprocess.run(
        [promtool, "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_every_threshold_is_an_alert_of_the_same_number() -> None:
    """The exported alerts are the thresholds of the specification, with their severity and what to do."""
    exported = {
        rule["labels"]["stx_rule"]: rule
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if "stx_rule" in rule.get("labels", {})
    }
    assert exported.keys() - THRESHOLDS.keys() == {"memory_growth"}
    assert exported["memory_growth"]["labels"]["severity"] == "warning"
    for name, value in THRESHOLDS.items():
        assert re.search(rf">= {value}\b", exported[name]["expr"]), name
        assert exported[name]["labels"]["severity"] == "critical" and exported[name]["annotations"]["runbook"]


@pytest.mark.parametrize("seconds", ["3.3", "nan", "inf", "6"])
def test_a_latency_without_a_bucket_is_refused(tmp_path: Path, seconds: str) -> None:
    """Rules on a bound that the histogram doesn't have would never fire: one line names those that it has."""
    done = command(tmp_path, "rules", "--latency-s", seconds)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert f"--latency-s: {seconds} s is no bound" in done.stderr and "allowed: 0.005, " in done.stderr


def test_burn_rates_are_those_of_the_workbook() -> None:
    """Each pair's factor spends its share of a 30-day budget within the long window."""
    hours = {"1h": 1, "6h": 6, "1d": 24, "3d": 72}
    spent = [round(pair.factor * hours[pair.long] / (30 * 24), 3) for pair in BURN_WINDOWS]
    assert spent == [0.02, 0.05, 0.1, 0.1]
    twelfth = {"1h": "5m", "6h": "30m", "1d": "2h", "3d": "6h"}
    assert all(twelfth[pair.long] == pair.short for pair in BURN_WINDOWS)


def test_texts_of_any_kind_stay_texts() -> None:
    """Quotes, colons and line ends in a rule's own words don't change the file's structure."""
    rule = AlertRule(name="cpu_usage", metric="cpu_usage", threshold=1.0, title='it\'s: "x" # y', runbook="- a: 'b'")
    loaded = yaml.safe_load(render(groups([rule])))
    (alert,) = loaded["groups"][1]["rules"]
    assert alert["annotations"]["runbook"] == "- a: 'b'" and 'it\'s: "x" # y' in alert["annotations"]["summary"]


def test_a_metric_without_an_expression_is_left_out() -> None:
    """A rule of the process alone has no counterpart in Prometheus and breaks nothing."""
    own = AlertRule(name="mine", metric="mine", threshold=1.0)
    assert render(groups([own, *default_rules()])) == render(groups(default_rules(), Objectives()))
    *critical, leak = rules_from(Settings().alerts)
    assert tuple(critical) == default_rules() and (leak.name, leak.threshold) == ("memory_growth", 1.0)
