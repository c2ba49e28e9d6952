"""The real API server takes every manifest, by server-side dry run and for good, and refuses what it should."""

from __future__ import annotations

import copy
import json
import re
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamlit_extension.alerts.autoscale import AutoScaler, Outcome
from streamlit_extension.alerts.kube import KubeClient
from streamlit_extension.settings import Autoscale
from tests.deploy.support import COMPONENTS, ROOTS, changed, combined, find, manifests, pods
from tests.support.requirements import require
from tests.support.stack import Kubernetes

OPERATOR = Path(__file__).parent / "operator"
CRDS = ("servicemonitors", "prometheusrules")
NAMESPACED_LESS = ("Namespace", "CustomResourceDefinition")


@dataclass
class Refused(Exception):
    """The server's answer, when it is an error."""

    status: int
    message: str


@dataclass
class Api:
    """Applies manifests; what the server warns of is kept."""

    server: Kubernetes
    warnings: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """One request; an error is raised as Refused."""
        headers = {"Authorization": f"Bearer {self.server.token}", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server.url + path, data=data, headers=headers, method=method)
        context = ssl.create_default_context(cafile=str(self.server.ca_file))
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                self.warnings += answer.headers.get_all("Warning") or []
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            raise Refused(error.code, json.loads(text)["message"] if text.startswith("{") else text) from None

    def path(self, manifest: dict[str, Any]) -> str:
        """Where an object's kind lives."""
        version, kind = manifest["apiVersion"], manifest["kind"]
        plural = (
            kind.lower()[:-1] + "ies" if kind.endswith("y") else kind.lower() + ("es" if kind.endswith("ss") else "s")
        )
        place = "" if kind in NAMESPACED_LESS else f"/namespaces/{manifest['metadata']['namespace']}"
        return f"/{'apis' if '/' in version else 'api'}/{version}{place}/{plural}"

    def apply(self, manifest: dict[str, Any], *, dry_run: bool) -> Any:
        """Server-side apply, strict about fields."""
        query = "fieldManager=test&force=true&fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        path = f"{self.path(manifest)}/{manifest['metadata']['name']}?{query}"
        return self.ask("PATCH", path, manifest, "application/apply-patch+yaml")


def definitions() -> list[dict[str, Any]]:
    """The operator's CustomResourceDefinitions, out of its Go module at the version that is locked."""
    go = shutil.which("go")
    require(go, "Go, to fetch the Prometheus operator's definitions")
    command = [str(go), "mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator"]
    done = subprocess.run(command, cwd=OPERATOR, capture_output=True, text=True, timeout=170, check=False)
    require(done.returncode == 0, f"the Prometheus operator's module: {done.stderr or done.stdout}"[:300])
    folder = Path(json.loads(done.stdout)["Dir"]) / "example/prometheus-operator-crd"
    return [yaml.safe_load((folder / f"monitoring.coreos.com_{name}.yaml").read_text()) for name in CRDS]


@pytest.fixture(scope="module")
def server(kubernetes: Kubernetes) -> Api:
    """The API server with the manifests' namespaces and the operator's definitions."""
    api = Api(kubernetes)
    for each in [*definitions(), *(each for each in manifests("base") if each["kind"] == "Namespace")]:
        api.apply(each, dry_run=False)
    deadline = time.monotonic() + 60
    served: set[str] = set()
    while not set(CRDS) <= served:
        assert time.monotonic() < deadline, "the definitions are not served"
        try:
            served = {each["name"] for each in api.ask("GET", "/apis/monitoring.coreos.com/v1")["resources"]}
        except Refused:  # not yet
            time.sleep(0.1)
    return api


@pytest.fixture
def api(server: Api) -> Api:
    """The same, before any warning."""
    return Api(server.server)


@pytest.mark.parametrize("root", ROOTS)
def test_every_manifest_is_accepted(root: str, api: Api) -> None:
    """Server-side dry run of the base and each overlay: strict about fields, without a warning."""
    found = manifests(root)
    assert len(found) > 15
    for each in found:
        taken = api.apply(each, dry_run=True)
        assert (taken["kind"], taken["metadata"]["name"]) == (each["kind"], each["metadata"]["name"])
    assert api.warnings == []


def test_all_components_at_once_are_accepted(api: Api, tmp_path: Path) -> None:
    """The base with every component that goes together."""
    chosen = [each for each in COMPONENTS if each != "statefulset"]
    for each in combined(tmp_path, *chosen):
        api.apply(each, dry_run=True)
    assert api.warnings == []


@pytest.mark.parametrize("root", ROOTS)
def test_the_pods_are_admitted(root: str, api: Api) -> None:
    """Pods as the controllers would make them pass the namespace's Pod Security Standard, `restricted` for the page."""
    for owner, template in pods(manifests(root)):
        body = pod_of(owner, template)
        api.ask("POST", f"/api/v1/namespaces/{owner['metadata']['namespace']}/pods?dryRun=All", body)
    assert api.warnings == []


def pod_of(owner: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """A pod of an owner, with its claims."""
    body = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
    body["metadata"]["name"] = f"{owner['metadata']['name']}-0"
    for claim in owner["spec"].get("volumeClaimTemplates", ()):
        name = claim["metadata"]["name"]
        volume = {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{body['metadata']['name']}"}}
        body["spec"].setdefault("volumes", []).append(volume)
    return body


WRONG = [
    ("spec/template/spec/containers/0/livenessProbe/httpGet/pfad", "/x", "unknown field|field not declared"),
    ("spec/template/spec/containers/0/readinessProbe/periodSeconds", -1, "periodSeconds"),
    ("spec/template/spec/containers/0/volumeMounts/0/name", "nothing", "nothing"),
    ("spec/template/spec/terminationGracePeriodSeconds", "long", "terminationGracePeriodSeconds"),
    ("spec/selector/matchLabels", {"app": "other"}, "selector"),
]


@pytest.mark.parametrize(("path", "value", "complaint"), WRONG)
def test_what_is_wrong_is_refused(path: str, value: Any, complaint: str, api: Api) -> None:
    """The dry run above can fail: one wrong field, and the server says which."""
    wrong = find(changed(manifests("base"), "Deployment", "streamlit", path, value), "Deployment", "streamlit")
    with pytest.raises(Refused) as refused:
        api.apply(wrong, dry_run=True)
    assert refused.value.status in (400, 422, 500)
    assert re.search(complaint, refused.value.message)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/template/spec/containers/0/securityContext/allowPrivilegeEscalation", True),
        ("spec/template/spec/securityContext/runAsNonRoot", False),
        ("spec/template/spec/securityContext/seccompProfile", ...),
        ("spec/template/spec/volumes/0", {"name": "data", "hostPath": {"path": "/var"}}),
    ],
)
def test_a_pod_that_may_more_is_not_admitted(path: str, value: Any, api: Api) -> None:
    """The namespace enforces `restricted`: each thing that the manifests give up is one that it asks for."""
    owner = find(changed(manifests("base"), "Deployment", "streamlit", path, value), "Deployment", "streamlit")
    with pytest.raises(Refused) as refused:
        api.ask("POST", "/api/v1/namespaces/streamlit/pods?dryRun=All", pod_of(owner, owner["spec"]["template"]))
    assert refused.value.status == 403 and "PodSecurity" in refused.value.message


def test_auto_scale_has_the_rights_that_it_needs_and_no_more(api: Api) -> None:
    """With the overlay's role its service account adds a replica; it can't read Secrets or touch another deployment."""
    found = manifests("overlays/autoscale")
    kinds = ("ServiceAccount", "Role", "RoleBinding", "Deployment")
    applied = [each for each in found if each["kind"] in kinds and each["metadata"].get("namespace") == "streamlit"]
    assert [each["kind"] for each in applied].count("Role") == 1
    for each in applied:
        api.apply(each, dry_run=False)
    try:
        path = "/api/v1/namespaces/streamlit/serviceaccounts/streamlit/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
        token = api.ask("POST", path, asked)["status"]["token"]
        settings = Autoscale(namespace="streamlit", deployment="streamlit", min_replicas=2, max_replicas=10)
        client = KubeClient(api.server.access(token), "streamlit")
        attempt = AutoScaler(client, settings).attempt(["cpu_usage"])
        assert (attempt.outcome, attempt.before, attempt.after) == (Outcome.SCALED, 1, 2), attempt.detail
        assert AutoScaler(client, settings).attempt(["cpu_usage"]).outcome is Outcome.COOLING_DOWN
        pod = Api(Kubernetes(api.server.url, token, token, api.server.ca_file))
        for method, place in (
            ("GET", "/api/v1/namespaces/streamlit/secrets"),
            ("GET", "/apis/apps/v1/namespaces/streamlit/deployments/another"),
            ("DELETE", "/apis/apps/v1/namespaces/streamlit/deployments/streamlit"),
            ("GET", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"),
        ):
            with pytest.raises(Refused) as refused:
                pod.ask(method, place)
            assert refused.value.status == 403
    finally:
        api.ask("DELETE", "/apis/apps/v1/namespaces/streamlit/deployments/streamlit")


def test_an_apply_leaves_the_replicas_to_who_has_them(api: Api) -> None:
    """The manifests name no number, so that applying them again does not take back what was scaled."""
    deployment = find(manifests("base"), "Deployment", "streamlit")
    api.apply(deployment, dry_run=False)
    scale = "/apis/apps/v1/namespaces/streamlit/deployments/streamlit/scale"
    try:
        api.ask("PATCH", scale, {"spec": {"replicas": 5}}, "application/merge-patch+json")
        api.apply(deployment, dry_run=False)
        assert api.ask("GET", scale)["spec"]["replicas"] == 5
    finally:
        api.ask("DELETE", "/apis/apps/v1/namespaces/streamlit/deployments/streamlit")
