"""The manifests as kustomize builds them: the specification's probes, what pods may do, and what is generated."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import manifests as generator
from scripts.manifest_check import contradictions, quantity
from tests.deploy.support import (
    COMPONENTS,
    KUBERNETES,
    ROOT,
    ROOTS,
    collector_variables,
    combined,
    find,
    manifests,
    pods,
    variables,
)
from tests.support.backends import free_port
from tests.support.server import Server, Start
from tests.support.stack import built

#: spec.md, "Kubernetes probes".
SPECIFIED = yaml.safe_load("""
livenessProbe:
  httpGet: { path: /health/live, port: 8501 }
  initialDelaySeconds: 30
  periodSeconds: 10
readinessProbe:
  httpGet: { path: /health/ready, port: 8501 }
  initialDelaySeconds: 5
  periodSeconds: 5
""")


def application(root: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The owner of the application's pods, and its container."""
    found = manifests(root)
    kind = "StatefulSet" if root in ("overlays/statefulset", "overlays/production") else "Deployment"
    owner = find(found, kind, "streamlit")
    (container,) = owner["spec"]["template"]["spec"]["containers"]
    return owner, container


@pytest.mark.parametrize("root", ROOTS)
def test_the_probes_are_the_specifications_to_the_letter(root: str) -> None:
    """Each field of the specification is there as written; beside them stand time-out and threshold alone."""
    _, container = application(root)
    for kind, specified in SPECIFIED.items():
        beside = {"timeoutSeconds", "failureThreshold"}
        assert {name: value for name, value in container[kind].items() if name not in beside} == specified
        assert beside <= set(container[kind])
    assert container["startupProbe"]["httpGet"] == {"path": "/health/startup", "port": 8501}


@pytest.mark.parametrize("root", ROOTS)
def test_times_and_places_agree_with_the_settings(root: str) -> None:
    """Nothing contradicts: grace and budget, probes and drain, volume and spool, addresses, auto-scale."""
    assert contradictions(manifests(root)) == []


@pytest.mark.parametrize("chosen", [("ingress", "monitoring"), ("autoscale", "ingress", "monitoring")])
def test_components_go_together(chosen: tuple[str, ...], tmp_path: Path) -> None:
    """The base takes components in combinations that no overlay shows, and nothing contradicts."""
    assert set(chosen) <= set(COMPONENTS)
    found = combined(tmp_path, *chosen)
    assert contradictions(found) == []
    kinds = {each["kind"] for each in found}
    assert {"Ingress", "ServiceMonitor", "PrometheusRule"} <= kinds
    assert ("HorizontalPodAutoscaler" in kinds) == ("autoscale" not in chosen)


@pytest.mark.parametrize("root", ROOTS)
def test_pods_may_do_little(root: str) -> None:
    """Every container: not root, nothing gained, no capability, read-only root, bounded memory; no token for nothing."""
    for owner, template in pods(manifests(root)):
        pod, name = template["spec"], owner["metadata"]["name"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        needs_token = root == "overlays/autoscale" and name == "streamlit"
        assert pod["automountServiceAccountToken"] is needs_token, name
        assert pod["enableServiceLinks"] is False, name
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert {**pod["securityContext"], **own}["runAsNonRoot"] is True
            assert {**pod["securityContext"], **own}["runAsUser"] >= 10000
            assert "memory" in container["resources"]["limits"] and "cpu" in container["resources"]["requests"]
        for container in pod.get("initContainers", ()):
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("root", ROOTS)
def test_images_are_of_one_version(root: str) -> None:
    """Every image has a tag of three numbers; the collector's is the one of docker-compose.yml."""
    for _, template in pods(manifests(root)):
        for container in [*template["spec"]["containers"], *template["spec"].get("initContainers", ())]:
            tag = container["image"].rpartition(":")[2]
            assert [part.isdigit() for part in tag.split(".")] == [True] * 3, container["image"]
            if "opentelemetry" in container["image"]:
                assert container["image"] in (ROOT / "docker-compose.yml").read_text()


@pytest.mark.parametrize("root", ROOTS)
def test_selectors_select(root: str) -> None:
    """Each Service, budget, policy, monitor and autoscaler finds pods, Services or an owner that are there."""
    found = manifests(root)
    owners = {(owner["kind"], owner["metadata"]["name"]) for owner, _ in pods(found)}
    labels = [(o["metadata"]["namespace"], template["metadata"]["labels"]) for o, template in pods(found)]
    services = [(each["metadata"]["namespace"], each) for each in found if each["kind"] == "Service"]
    ports = {
        (owner["metadata"]["namespace"], port["name"])
        for owner, template in pods(found)
        for container in template["spec"]["containers"]
        for port in container["ports"]
    }

    def some(namespace: str, wanted: dict[str, str]) -> bool:
        return any(place == namespace and wanted.items() <= has.items() for place, has in labels)

    for each in found:
        spec, place = each.get("spec", {}), each["metadata"].get("namespace", "")
        if each["kind"] == "Service":
            assert spec["selector"] and some(place, spec["selector"])
            assert {(place, port["targetPort"]) for port in spec["ports"]} <= ports
        elif each["kind"] == "PodDisruptionBudget":
            assert spec["selector"]["matchLabels"] and some(place, spec["selector"]["matchLabels"])
        elif each["kind"] == "NetworkPolicy":
            assert some(place, spec["podSelector"].get("matchLabels", {}))
        elif each["kind"] == "HorizontalPodAutoscaler":
            assert (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]) in owners
        elif each["kind"] == "ServiceMonitor":
            chosen = [
                s
                for where, s in services
                if where == place and _chooses(spec["selector"], s["metadata"].get("labels", {}))
            ]
            names = {port["name"] for service in chosen for port in service["spec"]["ports"]}
            assert chosen and {endpoint["port"] for endpoint in spec["endpoints"]} <= names
            assert all(spec["jobLabel"] in service["metadata"]["labels"] for service in chosen)


def _chooses(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ())
    )


def test_what_the_page_needs_is_sticky() -> None:
    """The Ingress sets a cookie, takes uploads as large as Streamlit does, and leaves a silent WebSocket alone."""
    ingress = find(manifests("overlays/production"), "Ingress", "streamlit")
    notes = {name.partition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert (notes["affinity"], notes["affinity-mode"]) == ("cookie", "persistent")
    assert notes["proxy-body-size"] == "200m" and int(notes["proxy-read-timeout"]) >= 600
    assert find(manifests("base"), "Service", "streamlit")["spec"]["sessionAffinity"] == "ClientIP"


def test_generated_files_are_up_to_date(tmp_path: Path) -> None:
    """`make manifests` would change nothing, and tells of a file that is old."""
    assert generator.old() == []
    for path, text in generator.generated().items():
        copied = tmp_path / path.relative_to(ROOT)
        copied.parent.mkdir(parents=True)
        copied.write_text(text)
    for name in (generator.CONFIG, generator.RULES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    assert generator.old(tmp_path) == []
    with (tmp_path / generator.CONFIG).open("a") as opened:
        opened.write("# changed\n")
    assert [path.name for path in generator.old(tmp_path)] == [generator.CONFIG]


def test_the_operators_rules_are_the_exported_ones() -> None:
    """The PrometheusRule holds the same groups as the file for Prometheus itself."""
    rule = find(manifests("overlays/monitoring"), "PrometheusRule", "streamlit-extension")
    assert rule["spec"] == yaml.safe_load((ROOT / generator.RULES).read_text())


@pytest.mark.parametrize(
    ("kind", "name", "maps"),
    [
        ("DaemonSet", "collector-agent", {"collector-agent": "deploy/collector/agent.yaml"}),
        (
            "StatefulSet",
            "collector-gateway",
            {"collector-config": "collector-config.yaml", "collector-gateway": "deploy/collector/gateway.yaml"},
        ),
    ],
)
def test_the_collectors_run_the_repositorys_files(kind: str, name: str, maps: dict[str, str]) -> None:
    """ConfigMaps hold them whole, arguments name them where they are mounted, and each variable is one they read."""
    found = manifests("base")
    pod = find(found, kind, name)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    volumes = {each["configMap"]["name"]: mounted[each["name"]] for each in pod["volumes"] if "configMap" in each}
    paths = []
    for prefix, file in maps.items():
        made = find(found, "ConfigMap", prefix)
        assert made["data"] == {each: (ROOT / file).with_name(each).read_text() for each in made["data"]}
        paths.append(f"{volumes[made['metadata']['name']]}/{Path(file).name}")
    assert container["args"] == [f"--config={path}" for path in paths]
    given = variables(container)
    for each in container.get("envFrom", ()):
        given |= find(found, "ConfigMap", each["configMapRef"]["name"].rpartition("-")[0])["data"]
    assert {each for each in given if each.startswith("COLLECTOR_")} <= collector_variables(*maps.values())
    for variable in ("COLLECTOR_TOKEN_FILE", "COLLECTOR_QUEUE_DIR", "COLLECTOR_GATEWAY_CA", "COLLECTOR_TLS_CERT"):
        if variable in given:
            assert any(Path(given[variable]).is_relative_to(place) for place in mounted.values()), variable
    limit = quantity(container["resources"]["limits"]["memory"])
    assert int(given["COLLECTOR_MEMORY_MIB"]) * 2**20 < quantity(given["GOMEMLIMIT"].removesuffix("B")) * 1.2 < limit


@pytest.mark.parametrize(("kind", "name"), [("DaemonSet", "collector-agent"), ("StatefulSet", "collector-gateway")])
def test_the_real_collector_accepts_them(kind: str, name: str, tmp_path: Path) -> None:
    """`otelcol validate` with the ConfigMaps' files and a pod's variables; a variable that makes no sense is refused."""
    found = manifests("base")
    (container,) = find(found, kind, name)["spec"]["template"]["spec"]["containers"]
    files = {each["metadata"]["name"]: each["data"] for each in found if each["kind"] == "ConfigMap"}
    for data in files.values():
        for file, text in data.items():
            (tmp_path / file).write_text(text)
    arguments = [f"--config={tmp_path / each.rpartition('/')[2]}" for each in container["args"]]
    environ = {
        key: value.replace("$(POD_IP)", "10.0.0.7")
        for key, value in variables(container).items()
        if isinstance(value, str)
    }
    for each in container.get("envFrom", ()):
        environ |= find(found, "ConfigMap", each["configMapRef"]["name"].rpartition("-")[0])["data"]
    environ["COLLECTOR_QUEUE_DIR"] = str(tmp_path)
    command = [built("otelcol", "otelcol"), "validate", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wrong = {**environ, "COLLECTOR_MEMORY_MIB": "plenty"}
    assert subprocess.run(command, env=wrong, capture_output=True, check=False).returncode != 0


def test_telemetry_finds_its_way() -> None:
    """The application speaks to its node's agent, the agent to the gateway: Services and policies are there for it."""
    found = manifests("base")
    (container,) = find(found, "Deployment", "streamlit")["spec"]["template"]["spec"]["containers"]
    (agent,) = find(found, "DaemonSet", "collector-agent")["spec"]["template"]["spec"]["containers"]
    for url, name, scheme in (
        (variables(container)["OTEL_EXPORTER_OTLP_ENDPOINT"], "collector-agent", "http://"),
        (variables(agent)["COLLECTOR_GATEWAY_ENDPOINT"], "collector-gateway", ""),
    ):
        service = find(found, "Service", name)
        port = int(url.rpartition(":")[2])
        assert url == f"{scheme}{name}.{service['metadata']['namespace']}.svc:{port}"
        assert port in {each["port"] for each in service["spec"]["ports"]}
        policy = find(found, "NetworkPolicy", name)
        assert port in {each["port"] for rule in policy["spec"]["ingress"] for each in rule["ports"]}
    assert find(found, "Service", "collector-agent")["spec"]["internalTrafficPolicy"] == "Local"
    volumes = find(found, "DaemonSet", "collector-agent")["spec"]["template"]["spec"]["volumes"]
    assert [each["hostPath"]["type"] for each in volumes if "hostPath" in each] == ["DirectoryOrCreate"]


def test_every_manifest_is_used() -> None:
    """No file lies in the folder that no kustomization names."""
    for folder in [path.parent for path in KUBERNETES.rglob("kustomization.yaml")]:
        text = (folder / "kustomization.yaml").read_text()
        files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert {name for name in files if name not in text} == set(), folder


def test_the_secrets_are_the_documented_ones() -> None:
    """Each Secret that a manifest names is in the README's table, and the other way round; links lead somewhere."""
    text = (KUBERNETES / "README.md").read_text()
    told = set(re.findall(r"^\| `([a-z-]+)`, `([a-z-]+)` \|", text, re.MULTILINE))
    found = set()
    for root in ROOTS:
        for each in manifests(root):
            names = re.findall(
                r"'(?:secretName|secretKeyRef|credentials)': (?:\{[^}]*?'name': )?'([a-z-]+)'", str(each)
            )
            found |= {(name, each["metadata"]["namespace"]) for name in names}
    assert found == told
    assert [link for link in re.findall(r"\]\(([^)]+)\)", text) if not (KUBERNETES / link).exists()] == []


def test_the_documented_times_are_the_manifests() -> None:
    """The README's sentence about times has the numbers of the Deployment."""
    owner, container = application("base")
    given, probe = variables(container), container["readinessProbe"]
    grace_s = owner["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    sentence = (
        f"`terminationGracePeriodSeconds` {grace_s} > `shutdown_budget_s` {given['STX_SHUTDOWN_BUDGET_S']} > `pre_drain_s` "
        f"{given['STX_PRE_DRAIN_S']} > what the readiness probe takes ({probe['failureThreshold']} times {probe['periodSeconds']} "
        f"s and a time-out of {probe['timeoutSeconds']} s)"
    )
    assert sentence in " ".join((KUBERNETES / "README.md").read_text().split())


def test_the_application_runs_with_the_manifests_variables(serve: Start, tmp_path: Path) -> None:
    """With a container's own variables and arguments it starts, its probes pass, and /metrics is for the token alone."""
    owner, container = application("overlays/monitoring")
    (tmp_path / "token").write_text("of-the-secret-0123456789abcdef\n")
    port, management = free_port(), free_port()
    given = {name: value for name, value in variables(container).items() if isinstance(value, str)}
    given |= {
        "STX_DATA_DIR": str(tmp_path / "data"),
        "STX_TOKEN_FILE": str(tmp_path / "token"),
        "STX_MANAGEMENT_PORT": str(management),
        "STX_PRE_DRAIN_S": "0",  # so that the test need not wait for a load balancer
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",  # nobody: telemetry waits in the spool
    }
    given = {name: value.replace("$(", "").replace(")", "") for name, value in given.items()}
    program = str(Path(sys.executable).parent / "streamlit-extension")
    server = serve("", command=[program, *container["args"]], env=given, port=port)
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        server.wait_for(container[kind]["httpGet"]["path"], lambda answer: answer.status == 200)
    assert server.get("/metrics").status == 404
    other = Server(server.process, management, server.log)
    assert other.get("/metrics").status == 401
    scraped = other.get("/metrics", Authorization="Bearer of-the-secret-0123456789abcdef")
    assert scraped.status == 200 and b"streamlit_session_active" in scraped.body
    assert server.stop() == 0
    assert server.ended_after_s < owner["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
