"""docker-compose.yml as Docker's own loader reads it: schema, mounts, addresses, versions and times."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamlit_extension.settings import Settings
from tests.deploy.support import ROOT, collector_variables, docker
from tests.support.stack import built

COMPOSE = ROOT / "docker-compose.yml"
#: A tag that says one release.
EXACT = re.compile(r"(?:v?\d+\.\d+\.\d+|15\.\d+)(?:-[a-z0-9.]+)?")
#: What the tests talk to: the service's tag → the module of tests/stack that has that version.
TESTED = {
    "alertmanager": "alertmanager",
    "collector": "otelcol",
    "prometheus": "prometheus",
    "victorialogs": "victorialogs",
}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The project: interpolated, with absolute paths."""
    found: dict[str, Any] = docker("compose", COMPOSE)
    return found


@pytest.fixture(scope="module")
def services(project: dict[str, Any]) -> dict[str, Any]:
    """Its services."""
    found: dict[str, Any] = project["services"]
    return found


def seconds(text: str) -> float:
    """A duration such as `1m35s`."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", text))


def test_all_of_it_is_there(services: dict[str, Any]) -> None:
    """The application, its database and cache, and everything that watches it."""
    assert set(services) == {
        *("app", "postgres", "redis", "collector", "prometheus", "alertmanager", "jaeger", "victorialogs", "grafana"),
    }


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    """The loader that the other tests use says what is wrong: an unknown key, a service that isn't there."""
    program = built("containers", "containers")
    text = COMPOSE.read_text()
    for wrong, complaint in (
        (text.replace("stop_grace_period", "stop_grace"), "stop_grace"),
        (text.replace("postgres: { condition", "nobody: { condition"), "nobody"),
        (text.replace("grafana-data:/var", "elsewhere:/var"), "elsewhere"),
    ):
        (tmp_path / "docker-compose.yml").write_text(wrong)
        done = subprocess.run(
            [program, "compose", str(tmp_path / "docker-compose.yml")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and complaint in done.stderr


def test_images_are_of_one_version(services: dict[str, Any]) -> None:
    """Every image but the one that is built is named to the last digit."""
    tags = {name: each["image"].rpartition(":")[2] for name, each in services.items()}
    assert {name: tag for name, tag in tags.items() if not EXACT.fullmatch(tag)} == {}
    assert services["app"]["build"]["context"] == str(ROOT)
    assert [name for name, each in services.items() if "build" in each] == ["app"]


@pytest.mark.parametrize("service", TESTED)
def test_the_versions_are_those_that_are_tested(service: str, services: dict[str, Any]) -> None:
    """What the tests build from source is the release that the image holds."""
    module = ROOT / "tests/stack" / TESTED[service] / "go.mod"
    tag = services[service]["image"].rpartition(":")[2].lstrip("v")
    major, minor, patch = tag.split(".")
    # Prometheus' module v0.316.0 is its release 3.16.0; a pseudo-version goes on from the release before.
    spelled = {tag, f"0.{major}{minor:0>2}.{patch}", f"{major}.{minor}.{int(patch) + 1}-0"}
    text = module.read_text()
    assert any(re.search(rf"v{re.escape(each)}\b", text) for each in spelled), spelled


def test_only_this_machine_reaches_it(services: dict[str, Any]) -> None:
    """Every published port is on loopback, and no two services want the same one."""
    published = [(port["host_ip"], port["published"]) for each in services.values() for port in each.get("ports", ())]
    assert {address for address, _ in published} == {"127.0.0.1"}
    assert len(published) == len(set(published)) >= 7


def test_every_mounted_file_is_in_the_repository(services: dict[str, Any]) -> None:
    """What is bound exists and can't be changed from inside; what is to stay is a volume that is declared."""
    bound = [each for one in services.values() for each in one.get("volumes", ()) if each["type"] == "bind"]
    assert len(bound) >= 7
    assert [each["source"] for each in bound if not Path(each["source"]).exists()] == []
    assert [each["source"] for each in bound if not each.get("read_only")] == []


def test_the_stop_is_not_cut_short(services: dict[str, Any]) -> None:
    """The grace is longer than the budget that the container's own variables set; the signal is the one we handle."""
    app = services["app"]
    settings = Settings.load(
        {name: value for name, value in app["environment"].items() if name.startswith("STX_")}, ROOT / "docs"
    )
    assert seconds(app["stop_grace_period"]) >= settings.shutdown_budget_s + 5
    assert app["stop_signal"] == "SIGTERM"
    assert "app-data" in {each["source"] for each in app["volumes"]}, "the spool outlives the container"


def test_the_collectors_variables_are_its_configurations(services: dict[str, Any]) -> None:
    """Each COLLECTOR_ and JAEGER_ variable is one that the mounted configuration reads."""
    for service, files in (("collector", ["collector-config.yaml"]), ("jaeger", ["deploy/jaeger/config.yaml"])):
        given = {name for name in services[service]["environment"] if not name.startswith("OTEL_")}
        assert given - collector_variables(*files) == set()
    environ = services["collector"]["environment"]
    assert int(environ["COLLECTOR_MEMORY_MIB"]) * 2**20 < int(services["collector"]["mem_limit"])


def test_who_is_spoken_to_is_there(services: dict[str, Any]) -> None:
    """Every host and port that a variable or a mounted file names is a service that listens there."""
    places = [
        *(str(value) for each in services.values() for value in (each.get("environment") or {}).values()),
        *(path.read_text() for path in sorted((ROOT / "deploy/compose").rglob("*.yaml"))),
    ]
    asked = {pair for text in places for pair in re.findall(r"(?://|targets: \[|^)(?:\S+@)?([a-z]+)(?::(\d+)|/)", text)}
    listening = {
        *(("collector", port) for port in ("4318", "8888")),
        *(("jaeger", port) for port in ("4317", "16686")),
        *(
            ("postgres", ""),
            ("redis", "6379"),
            ("prometheus", "9090"),
            ("alertmanager", "9093"),
            ("victorialogs", "9428"),
        ),
    }
    assert asked == listening


def test_the_samples_options_are_options(services: dict[str, Any]) -> None:
    """Each STREAMLIT_RUN_ variable is an option of the command that the image starts."""
    from streamlit_extension.cli_run import demo

    options = {f"STREAMLIT_RUN_{each.name}".upper() for each in demo.params}
    given = {name for name in services["app"]["environment"] if name.startswith("STREAMLIT_RUN_")}
    assert given and given <= options


def test_prometheus_is_configured_as_elsewhere() -> None:
    """Its file is deploy/prometheus/prometheus.yaml with an Alertmanager and the collector's own metrics."""
    ours = yaml.safe_load((ROOT / "deploy/compose/prometheus.yaml").read_text())
    shared = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
    own = {"alerting", "scrape_configs"}
    assert {name: ours[name] for name in ours if name not in own} == {
        name: shared[name] for name in shared if name not in own
    }
    assert own <= set(ours)


def test_promtool_accepts_prometheus_file(tmp_path: Path) -> None:
    """With the rules beside it, as they are mounted, Prometheus' own tool has no complaint."""
    for path in ("deploy/compose/prometheus.yaml", "deploy/prometheus/streamlit-extension.rules.yaml"):
        (tmp_path / Path(path).name).write_text((ROOT / path).read_text())
    command = [built("promtool", "promtool"), "check", "config", str(tmp_path / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_what_it_is_given(services: dict[str, Any]) -> None:
    """The dashboard's folder is the provider's; data sources refer to one another by identifiers that exist."""
    grafana = services["grafana"]
    targets = {each["target"]: each["source"] for each in grafana["volumes"]}
    (provider,) = yaml.safe_load((ROOT / "deploy/compose/grafana/dashboards.yaml").read_text())["providers"]
    folder = Path(targets[provider["options"]["path"]])
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert json.loads((folder / Path(home).name).read_text())["title"]
    sources = yaml.safe_load((ROOT / "deploy/compose/grafana/datasources.yaml").read_text())["datasources"]
    named = re.findall(r"datasourceUid: (\w+)", (ROOT / "deploy/compose/grafana/datasources.yaml").read_text())
    assert named and set(named) <= {each["uid"] for each in sources}


def test_the_collector_starts_with_its_variables(services: dict[str, Any], tmp_path: Path) -> None:
    """The real collector accepts the mounted file with the variables of its container."""
    command = [built("otelcol", "otelcol"), "validate", "--config", str(ROOT / "collector-config.yaml")]
    environ = {**services["collector"]["environment"], "COLLECTOR_QUEUE_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
