"""What the README says of alerts, metrics and fleets is so; what it shows is run here or by `test_readme.py`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import create_engine, text

from otel.names import Metric
from streamlit_extension.alerts.autoscale import HELPS, autoscaler_from
from streamlit_extension.alerts.engine_breaker import release_engine
from streamlit_extension.alerts.evaluation import HYSTERESIS
from streamlit_extension.alerts.rules import POOL_SHARE, rules_from
from streamlit_extension.alerts.sinks import links_from, sinks_from
from streamlit_extension.settings import Settings
from tests.support.stack import built
from tests.test_readme import README, ROOT, blocks, run

TEXT = README.read_text(encoding="utf-8")


def block(language: str, part: str) -> str:
    """The one block that holds some text."""
    (found,) = [each.text for each in blocks(language=language) if part in each.text]
    return found


def flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tables.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def test_the_defaults_of_alerts_are_the_real_ones() -> None:
    """The block changes nothing, and what the sentences around it say is what the rules hold."""
    told, real = flat(tomllib.loads(block("toml", "[alerts.thresholds]"))), Settings().dump()
    assert told == {name: real[name] for name in told}
    assert {name for name in real if name.startswith("alerts.")} <= told.keys()
    rules = rules_from(Settings().alerts)
    assert "Seven rules" in TEXT and len(rules) == 7
    assert [rule.name for rule in rules if rule.severity != "critical"] == ["memory_growth"]
    assert f"{HYSTERESIS:.0%}" == "5%" and POOL_SHARE == 0.9
    assert {str(each) for each in HELPS} == {"cpu_usage", "memory_usage", "response_time"}


def test_what_is_configured_is_told(tmp_path: Path) -> None:
    """The block makes each of the named sinks, its links, and what is done; without it there is the log alone."""
    (tmp_path / "observability.toml").write_text(block("toml", "[notify]"))
    settings = Settings.load({}, tmp_path)
    assert [sink.name for sink in sinks_from(settings)] == ["log", "email", "slack", "pagerduty", "url1-ntfy"]
    assert len(links_from(settings).for_trace("a" * 32)) == 2
    assert settings.breaker.on_alerts == ("database_connections",) and settings.autoscale.max_replicas == 6
    assert [sink.name for sink in sinks_from(Settings())] == ["log"] and autoscaler_from(Settings().autoscale) is None


def test_metrics_in_sentences_are_emitted() -> None:
    """Each name of a metric that a sentence spells is in the registry."""
    spelt = set(re.findall(r"`((?:alert|circuit_breaker|telemetry|streamlit\.memory|db\.client)\.[a-z_.]+)`", TEXT))
    assert {"alert.notification.finished", "circuit_breaker.active", "telemetry.dropped"} <= spelt
    assert sorted(spelt - set(Metric)) == []


def test_prometheus_takes_the_scrape_configuration(tmp_path: Path) -> None:
    """`promtool check config` accepts the block; the token comes from a file."""
    config = yaml.safe_load(block("yaml", "scrape_configs"))
    (scrape,) = config["scrape_configs"]
    assert "metrics_path" not in scrape  # ours is the usual one
    token = tmp_path / "token"
    token.write_text("secret")
    assert scrape["authorization"] == {"credentials_file": "/etc/prometheus/shop-token"}
    scrape["authorization"]["credentials_file"] = str(token)
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    words = [built("promtool", "promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_print_what_they_count(tmp_path: Path) -> None:
    """The committed task is one, the rolled back one is none; the circuit lets the call pass; nothing is breached."""
    (tmp_path / "tracked.py").write_text(block("python", "track(Task"))
    done = run(f"{sys.executable} tracked.py", tmp_path)
    assert done.stdout.startswith("1 "), done
    (tmp_path / "circuit.py").write_text(block("python", 'circuit_breaker("billing"'))
    assert run(f"{sys.executable} circuit.py", tmp_path).stdout == "['one', 'two']\n"


def test_the_guard_of_an_engine_is_one_call() -> None:
    """The sentence's call works as it stands."""
    from streamlit_extension import circuit_breaker, protect_engine

    call = 'protect_engine(engine, circuit_breaker("database"))'
    assert f"`{call}`" in TEXT
    engine = create_engine("sqlite://")
    eval(call, {"protect_engine": protect_engine, "circuit_breaker": circuit_breaker, "engine": engine})
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    assert circuit_breaker("database").snapshot().calls > 0
    release_engine(engine)
    engine.dispose()


def test_the_rules_of_the_readme_are_written(tmp_path: Path) -> None:
    """The command writes what is committed; the dashboard is where the link leads."""
    line = next(line for each in blocks(language="sh") for line in each.text.splitlines() if " rules " in line)
    assert run(line, tmp_path).returncode == 0
    committed = ROOT / "deploy/prometheus/streamlit-extension.rules.yaml"
    assert (tmp_path / "streamlit.rules.yaml").read_text() == committed.read_text()
    assert json.loads((ROOT / "deploy/grafana/streamlit-extension.json").read_text())["title"] == "Streamlit"
