"""The collector accepts every file that is shipped, and the combinations that are documented."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.stack import ROOT
from tests.support.stack import built

LAYERS = sorted(path.stem for path in (ROOT / "deploy" / "collector").glob("*.yaml"))
LOGS = ("", *(name for name in LAYERS if name.startswith("logs-")))
METRICS = ("", *(name for name in LAYERS if name.startswith("prometheus-")))
TRACES = ("", "keep-every-trace")
WHERE = ("", "gateway", "gateway-kafka")
BASE = ROOT / "collector-config.yaml"


def validate(folder: Path, *files: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """What the collector says to a configuration."""
    command = [built("otelcol", "otelcol"), "validate", *(f"--config={each}" for each in files)]
    variables = {**os.environ, "COLLECTOR_QUEUE_DIR": str(folder), **environ}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "names", [tuple(filter(None, each)) for each in itertools.product(LOGS, METRICS, TRACES, WHERE)], ids="+".join
)
def test_every_combination_of_layers_is_accepted(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Each log store with each way to Prometheus, with and without sampling, as a gateway and as all there is."""
    done = validate(tmp_path, BASE, *(ROOT / "deploy" / "collector" / f"{name}.yaml" for name in names))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "names", [("agent",), ("agent", "agent-kafka"), ("agent", "agent-kafka", "kafka-sasl")], ids="+".join
)
def test_the_agent_is_a_whole_configuration(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Without the base; to a gateway or to Kafka."""
    (tmp_path / "sasl.yaml").write_text("mechanism: PLAIN\nusername: otel\npassword: a secret\n")
    files = (ROOT / "deploy" / "collector" / f"{name}.yaml" for name in names)
    done = validate(tmp_path, *files, COLLECTOR_KAFKA_SASL_FILE=str(tmp_path / "sasl.yaml"))
    assert done.returncode == 0, done.stderr


def test_a_gateway_may_ask_kafka_with_a_password(tmp_path: Path) -> None:
    """The layer with the password is for both sides."""
    (tmp_path / "sasl.yaml").write_text("mechanism: PLAIN\nusername: otel\npassword: a secret\n")
    files = (ROOT / "deploy" / "collector" / f"{name}.yaml" for name in ("gateway-kafka", "kafka-sasl"))
    done = validate(tmp_path, BASE, *files, COLLECTOR_KAFKA_SASL_FILE=str(tmp_path / "sasl.yaml"))
    assert done.returncode == 0, done.stderr


def test_a_bad_value_is_refused(tmp_path: Path) -> None:
    """Validation tells a configuration that can't work."""
    done = validate(tmp_path, BASE, COLLECTOR_KEEP_PERCENT="many")
    assert done.returncode != 0
    assert "sampling_percentage" in done.stderr


def test_the_header_names_every_layer_and_every_variable() -> None:
    """What the first comment says is all that there is."""
    text = BASE.read_text(encoding="utf-8")
    header = text.partition("\nreceivers:")[0]
    assert set(re.findall(r"([a-z-]+)\.yaml  ", header)) | {"agent", "agent-kafka"} == set(LAYERS)
    used = dict(re.findall(r"\$\{env:(\w+):-([^}]*)\}", text.partition("\nreceivers:")[2]))
    assert used == dict(re.findall(r"(COLLECTOR_\w+) \(([^)]+)\)", header))


def test_nothing_listens_beyond_loopback_by_itself() -> None:
    """Every address that is listened at or sent to has loopback as its default."""
    for path in (BASE, *(ROOT / "deploy" / "collector").glob("*.yaml")):
        for default in re.findall(r"\$\{env:\w+:-([^}]*:\d+[^}]*)\}", path.read_text(encoding="utf-8")):
            assert "127.0.0.1" in default, path


def test_the_agents_queue_is_kept_as_the_gateways() -> None:
    """On a node's disk, which gets back what an outage took."""
    ours, agents = (
        yaml.safe_load(path.read_text(encoding="utf-8"))["extensions"]["file_storage"]
        for path in (BASE, ROOT / "deploy" / "collector" / "agent.yaml")
    )
    assert ours == agents
    assert ours["compaction"]["on_rebound"] is True


def test_no_record_that_a_receiver_takes_is_too_long_for_a_batch() -> None:
    """One that were would go, with all that is behind it in its request, and be counted nowhere."""

    def taken(text: str) -> int:
        mib, plain = (
            re.findall(r"max_recv_msg_size_mib: (\d+)", text),
            re.findall(r"max_request_body_size: (\d+)", text),
        )
        return max(*(int(each) * 2**20 for each in mib), *(int(each) for each in plain))

    def sent(text: str) -> list[int]:
        return [int(each) for each in re.findall(r"max_size: (?:\$\{env:\w+:-)?(\d{6,})", text)]

    folder = ROOT / "deploy" / "collector"
    base, agent, kafka = (path.read_text() for path in (BASE, folder / "agent.yaml", folder / "agent-kafka.yaml"))
    assert taken(agent) < min(sent(agent)) < taken(base) < min(sent(base))
    assert taken(kafka) < min(sent(kafka)) < int(re.findall(r"BYTES:-(9\d+)", kafka)[0])
    for name in ("logs-loki", "logs-opensearch", "prometheus-remote-write"):
        assert taken(base) < min(sent((folder / f"{name}.yaml").read_text())), name


def test_every_exporter_that_can_keeps_its_queue_on_disk_and_never_gives_up() -> None:
    """The scrape has none; remote write tries once, and the exporter in front of it has both."""
    for path in (BASE, *(ROOT / "deploy" / "collector").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        exporters = text.partition("\nexporters:")[2].partition("\nextensions:")[0].partition("\nservice:")[0]
        for name, body in re.findall(r"^  ([\w/-]+):\n((?:    .*\n|\n)+)", f"{exporters}\n", re.MULTILINE):
            if name == "prometheus":
                continue
            if name == "prometheusremotewrite":
                assert body.count("enabled: false") == 2
                continue
            assert "max_elapsed_time: 0" in body or "*retry" in body, (path, name)
            assert "storage: file_storage" in body or "*queue" in body, (path, name)


def test_remote_write_makes_labels_of_what_prometheus_makes_labels_of() -> None:
    """The same attributes of a resource, so that a series has the same labels in both stores."""
    text = (ROOT / "deploy" / "collector" / "prometheus-remote-write.yaml").read_text(encoding="utf-8")
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    (kept,) = re.findall(r"keep_keys\(datapoint\.cache, \[([^]]*)\]\)", text)
    assert re.findall(r'"([^"]+)"', kept) == prometheus["otlp"]["promote_resource_attributes"]


def test_remote_write_takes_the_token_and_the_authority_that_it_shows(tmp_path: Path) -> None:
    """The layer in its comment."""
    layer = ROOT / "deploy" / "collector" / "prometheus-remote-write.yaml"
    shown = layer.read_text(encoding="utf-8").partition("is a further layer:\n")[2].partition("\n\n")[0]
    (tmp_path / "further.yaml").write_text(re.sub(r"^    #   ", "", shown, flags=re.MULTILINE))
    done = validate(tmp_path, BASE, layer, tmp_path / "further.yaml")
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load((tmp_path / "further.yaml").read_text())) == {"exporters", "extensions", "service"}


def test_promtool_accepts_remote_write_at_the_end_of_prometheus_file(tmp_path: Path) -> None:
    """Put together as its first lines say, with what they show as comments too."""
    folder = ROOT / "deploy" / "prometheus"
    fragment = (folder / "remote-write.yaml").read_text(encoding="utf-8")
    shown = re.sub(r"^    # (\w+: \{)", r"    \1", fragment, flags=re.MULTILINE)
    assert shown != fragment
    (tmp_path / "streamlit-extension.rules.yaml").write_text((folder / "streamlit-extension.rules.yaml").read_text())
    for name in re.findall(r"/etc/prometheus/([\w.-]+)", shown):
        (tmp_path / name).touch()
    for text in (fragment, shown.replace("/etc/prometheus", str(tmp_path))):
        (tmp_path / "both.yaml").write_text((folder / "prometheus.yaml").read_text() + text)
        command = [built("promtool", "promtool"), "check", "config", str(tmp_path / "both.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
