"""The collectors of the manifests: what their pods mount is what their arguments name, with and without Kafka."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.support import collector_variables, find, manifests, variables
from tests.support.stack import built


@pytest.mark.parametrize("name", ["collector-agent", "collector-gateway"])
@pytest.mark.parametrize("root", ["base", "overlays/kafka"])
def test_the_collector_accepts_what_its_pods_mount(root: str, name: str, tmp_path: Path) -> None:
    """The files that its arguments name are in its ConfigMaps, and together they are a configuration."""
    found = manifests(root)
    template = find(found, "DaemonSet" if name == "collector-agent" else "StatefulSet", name)["spec"]["template"][
        "spec"
    ]
    (container,) = template["containers"]
    maps = {each["name"]: each["configMap"]["name"] for each in template["volumes"] if "configMap" in each}
    mounts = {each["mountPath"]: maps.get(each["name"]) for each in container["volumeMounts"]}
    command = [built("otelcol", "otelcol"), "validate"]
    for number, argument in enumerate(container["args"]):
        path = Path(argument.removeprefix("--config="))
        config = find(found, "ConfigMap", str(mounts[str(path.parent)]))
        (tmp_path / f"{number}.yaml").write_text(config["data"][path.name])
        command.append(f"--config={tmp_path / f'{number}.yaml'}")
    (tmp_path / "sasl.yaml").write_text("mechanism: PLAIN\nusername: otel\npassword: a secret\n")
    environ = {"COLLECTOR_QUEUE_DIR": str(tmp_path / "queue"), "COLLECTOR_KAFKA_SASL_FILE": str(tmp_path / "sasl.yaml")}
    done = subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_several_gateways_share_what_kafka_has() -> None:
    """Each under the name of its pod, with the brokers and the secret that the agents have."""
    found = manifests("overlays/kafka")
    gateway, agents = find(found, "StatefulSet", "collector-gateway"), find(found, "DaemonSet", "collector-agent")
    assert gateway["spec"]["replicas"] > 1
    settings = find(found, "ConfigMap", "collector-kafka")
    read = collector_variables(
        *(f"deploy/collector/{each}.yaml" for each in ("agent-kafka", "gateway-kafka", "kafka-sasl"))
    )
    assert set(settings["data"]) < read
    for owner in (gateway, agents):
        template = owner["spec"]["template"]["spec"]
        (container,) = template["containers"]
        assert {"configMapRef": {"name": settings["metadata"]["name"]}} in container["envFrom"]
        mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        secrets = {each["name"]: each["secret"]["secretName"] for each in template["volumes"] if "secret" in each}
        assert secrets["kafka"] == "collector-kafka"
        for name in ("COLLECTOR_KAFKA_CA", "COLLECTOR_KAFKA_SASL_FILE"):
            assert Path(settings["data"][name]).parent == Path(mounted["kafka"])
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    assert variables(container)["COLLECTOR_KAFKA_INSTANCE"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    port = int(settings["data"]["COLLECTOR_KAFKA_BROKERS"].rpartition(":")[2])
    for name in ("collector-agent", "collector-gateway"):
        assert {"ports": [{"port": port}]} in find(found, "NetworkPolicy", name)["spec"]["egress"]
