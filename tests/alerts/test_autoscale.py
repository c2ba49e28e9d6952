"""Auto-scale on a real API server: bounds, cool-down, compare-and-set, no autoscaler beside it; decisions as values."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streamlit_extension.alerts.autoscale import (
    ANNOTATION,
    HELPS,
    AutoScaler,
    Outcome,
    autoscaler_from,
    decide,
)
from streamlit_extension.alerts.kube import KubeAccess, KubeClient, KubeError, in_cluster
from streamlit_extension.alerts.rules import default_rules
from streamlit_extension.settings import Autoscale
from tests.alerts.support import eventually, threads
from tests.support.stack import Kubernetes

SETTINGS = Autoscale(namespace="default", deployment="app", min_replicas=2, max_replicas=4, cooldown_s=300.0)
NOW = 1_700_000_000.0
RULES = {rule.name: rule for rule in default_rules()}


def deployment(replicas: int | None = 2, last: str | None = None) -> dict[str, Any]:
    annotations = {ANNOTATION: last} if last is not None else None
    spec = {} if replicas is None else {"replicas": replicas}
    return {"metadata": {"name": "app", "annotations": annotations, "resourceVersion": "1"}, "spec": spec}


def autoscaler(kind: str = "Deployment", name: str = "app") -> dict[str, Any]:
    return {"spec": {"scaleTargetRef": {"kind": kind, "name": name}}}


@pytest.mark.parametrize(
    ("found", "autoscalers", "outcome", "after"),
    [
        (deployment(2), [], Outcome.SCALED, 3),
        (deployment(None), [], Outcome.SCALED, 2),
        (deployment(1), [], Outcome.SCALED, 2),
        (deployment(4), [], Outcome.AT_MAXIMUM, None),
        (deployment(9), [], Outcome.AT_MAXIMUM, None),
        (deployment(0), [], Outcome.SUSPENDED, None),
        (deployment(2), [autoscaler()], Outcome.HAS_AUTOSCALER, None),
        (deployment(2), [autoscaler(name="other"), autoscaler(kind="StatefulSet")], Outcome.SCALED, 3),
        (deployment(2, "2023-11-14T22:08:21+00:00"), [], Outcome.COOLING_DOWN, None),
        (deployment(2, "2023-11-14T22:08:20+00:00"), [], Outcome.SCALED, 3),
        (deployment(2, "2099-01-01T00:00:00+00:00"), [], Outcome.COOLING_DOWN, None),
        (deployment(2, "yesterday"), [], Outcome.SCALED, 3),
        (deployment(2, "2023-11-14T22:13:00"), [], Outcome.SCALED, 3),
    ],
)
def test_decision(
    found: dict[str, Any], autoscalers: list[Mapping[str, Any]], outcome: Outcome, after: int | None
) -> None:
    """One more within the bounds, at least the minimum, unless it cools down, is suspended, or an autoscaler has it."""
    decided = decide(found, autoscalers, SETTINGS, NOW)
    assert (decided.outcome, decided.after) == (outcome, after)


def test_connections_errors_and_disks_are_not_helped_by_replicas() -> None:
    """What more replicas would make worse or leave as it is never scales."""
    assert HELPS.isdisjoint({"database_connections", "error_rate", "disk_usage"})


def test_off_unless_configured(caplog: pytest.LogCaptureFixture) -> None:
    """Without a deployment there is no auto-scale; outside a cluster it says that it can't."""
    assert autoscaler_from(Autoscale()) is None and caplog.records == []
    assert autoscaler_from(SETTINGS) is None
    assert [getattr(record, "event", "") for record in caplog.records] == ["alerts.autoscale_unavailable"]


def test_credentials_of_a_pod(tmp_path: Path) -> None:
    """Address and token come from where Kubernetes puts them, and the token is read again each time."""
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert in_cluster(environ, tmp_path) is None
    (tmp_path / "token").write_text("first\n")
    access = in_cluster(environ, tmp_path)
    assert access is not None and (access.url, access.token()) == ("https://10.0.0.1:6443", "first")
    (tmp_path / "token").write_text("second")
    assert access.token() == "second" and access.ca_file == tmp_path / "ca.crt"
    six = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1"}, tmp_path)
    assert six is not None and six.url == "https://[fd00::1]:443"
    assert in_cluster({}, tmp_path) is None


def test_an_api_server_that_is_not_there_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No connection, no token and no CA are failures that are said once, and break nothing."""
    scaler = AutoScaler(KubeClient(KubeAccess("http://127.0.0.1:1", lambda: "s3cr3t"), "default"), SETTINGS)
    attempts = [scaler.attempt(["cpu_usage"]) for _ in range(3)]
    assert {attempt.outcome for attempt in attempts} == {Outcome.FAILED}
    gone = KubeAccess("https://127.0.0.1:1", lambda: (tmp_path / "token").read_text(), tmp_path / "ca.crt")
    with pytest.raises(KubeError, match="CA can't be read"):
        KubeClient(gone, "default").deployment("app")
    assert [getattr(record, "event", "") for record in caplog.records] == ["audit.not_scaled"]
    assert "s3cr3t" not in caplog.text


# -- on a real API server ---------------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """A namespace with a deployment on the real API server."""

    server: Kubernetes
    namespace: str

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        headers = {"Authorization": f"Bearer {self.server.token}", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server.url + path, data=data, headers=headers, method=method)
        context = ssl.create_default_context(cafile=str(self.server.ca_file))
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return json.loads(answer.read())

    @property
    def path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments"

    def create(self, replicas: int) -> None:
        labels = {"app": "app"}
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "app", "image": "app:1"}]},
            },
        }
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"}, "spec": spec}
        self.ask("POST", self.path, body)

    @property
    def found(self) -> Any:
        return self.ask("GET", f"{self.path}/app")

    @property
    def replicas(self) -> int:
        return int(self.found["spec"]["replicas"])

    def scaler(self, **changes: Any) -> AutoScaler:
        given = {"namespace": self.namespace, "deployment": "app", "max_replicas": 4, "cooldown_s": 300.0}
        settings = Autoscale(**{**given, **changes})
        return AutoScaler(KubeClient(self.server.access(), self.namespace), settings)

    def forget_cooldown(self) -> None:
        patch = {"metadata": {"annotations": {ANNOTATION: None}}}
        self.ask("PATCH", f"{self.path}/app", patch, "application/merge-patch+json")


@pytest.fixture
def cluster(kubernetes: Kubernetes, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    namespace = "t" + str(abs(hash(request.node.name)) % 10**9)
    made = Cluster(kubernetes, namespace)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    made.ask("POST", "/api/v1/namespaces", body)
    made.create(2)
    yield made
    made.ask("DELETE", f"{made.path}/app")


def test_a_replica_is_added_once_in_a_cool_down(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """The scale grows by one with an audit event; until the cool-down is over nothing more happens; the bound holds."""
    caplog.set_level(logging.INFO)
    scaler = cluster.scaler()
    first = scaler.attempt(["cpu_usage"])
    assert (first.outcome, first.before, first.after, cluster.replicas) == (Outcome.SCALED, 2, 3, 3)
    second = scaler.attempt(["cpu_usage"])
    assert second.outcome is Outcome.COOLING_DOWN and 200 < second.wait_s <= 300 and cluster.replicas == 3
    cluster.forget_cooldown()
    assert scaler.attempt().outcome is Outcome.SCALED
    cluster.forget_cooldown()
    assert scaler.attempt().outcome is Outcome.AT_MAXIMUM and cluster.replicas == 4
    events = [record for record in caplog.records if getattr(record, "event", "") == "audit.scaled"]
    told = [(vars(each)["replicas_before"], vars(each)["replicas_after"], vars(each)["alerts"]) for each in events]
    assert told == [(2, 3, ["cpu_usage"]), (3, 4, [])]


def test_of_many_replicas_one_scales(cluster: Cluster) -> None:
    """Eight replicas that try at the same time add one together."""
    outcomes: list[Outcome] = []
    barrier = threading.Barrier(8, timeout=60)

    def attempt() -> None:
        scaler = cluster.scaler()
        barrier.wait()
        outcomes.append(scaler.attempt().outcome)

    racing = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in racing:
        thread.start()
    for thread in racing:
        thread.join(120)
    assert outcomes.count(Outcome.SCALED) == 1 and cluster.replicas == 3
    assert set(outcomes) <= {Outcome.SCALED, Outcome.LOST_RACE, Outcome.COOLING_DOWN}


def intrude(scaler: AutoScaler, method: str, before: Callable[[], object]) -> None:
    """Let something happen right before one of the client's requests, the first time."""
    client, pending = scaler._client, [before]
    original = getattr(client, method)

    def asked(*args: Any) -> Any:
        if pending:
            pending.pop()()
        return original(*args)

    setattr(client, method, asked)


def test_what_changed_since_it_was_read_is_not_overwritten(cluster: Cluster) -> None:
    """A change between reading and claiming, and a scale by somebody else after the claim, both win over ours."""

    def label() -> None:
        patch = {"metadata": {"labels": {"touched": "yes"}}}
        cluster.ask("PATCH", f"{cluster.path}/app", patch, "application/merge-patch+json")

    def scale_by_hand() -> None:
        patch = {"spec": {"replicas": 1}}
        cluster.ask("PATCH", f"{cluster.path}/app/scale", patch, "application/merge-patch+json")

    early, late, harmless = cluster.scaler(), cluster.scaler(), cluster.scaler()
    intrude(early, "annotate", label)
    assert early.attempt().outcome is Outcome.LOST_RACE and cluster.replicas == 2
    intrude(late, "set_scale", scale_by_hand)
    assert late.attempt().outcome is Outcome.LOST_RACE and cluster.replicas == 1
    cluster.forget_cooldown()
    cluster.ask(
        "PATCH", f"{cluster.path}/app", {"metadata": {"labels": {"touched": None}}}, "application/merge-patch+json"
    )
    intrude(harmless, "set_scale", label)
    assert harmless.attempt().outcome is Outcome.SCALED and cluster.replicas == 2


def test_nothing_is_done_beside_an_autoscaler(cluster: Cluster) -> None:
    """A HorizontalPodAutoscaler that targets the deployment has it for itself."""
    spec = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "app"}, "maxReplicas": 9}
    body = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "app"},
        "spec": spec,
    }
    path = f"/apis/autoscaling/v2/namespaces/{cluster.namespace}/horizontalpodautoscalers"
    cluster.ask("POST", path, body)
    assert cluster.scaler().attempt().outcome is Outcome.HAS_AUTOSCALER
    assert cluster.replicas == 2 and ANNOTATION not in (cluster.found["metadata"].get("annotations") or {})


def test_a_stranger_may_not(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """A token without rights is a failure that is told without the token."""
    client = KubeClient(cluster.server.access("no-such-token"), cluster.namespace)
    attempt = AutoScaler(client, Autoscale(namespace=cluster.namespace, deployment="app")).attempt()
    assert attempt.outcome is Outcome.FAILED and attempt.detail.startswith("401")
    assert "no-such-token" not in caplog.text and cluster.replicas == 2


def test_the_rights_that_are_needed(cluster: Cluster) -> None:
    """A role of four lines is enough, and without it nothing is done."""
    rules = [
        {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["app"], "verbs": ["get", "patch"]},
        {
            "apiGroups": ["apps"],
            "resources": ["deployments/scale"],
            "resourceNames": ["app"],
            "verbs": ["get", "update"],
        },
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"]},
    ]
    client = KubeClient(cluster.server.access(cluster.server.pod_token), cluster.namespace)
    scaler = AutoScaler(client, Autoscale(namespace=cluster.namespace, deployment="app"))
    assert scaler.attempt().detail.startswith("403")
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{cluster.namespace}"
    version = "rbac.authorization.k8s.io/v1"
    role = {"apiVersion": version, "kind": "Role", "metadata": {"name": "scaler"}, "rules": rules}
    binding = {
        "apiVersion": version,
        "kind": "RoleBinding",
        "metadata": {"name": "scaler"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "scaler"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "pod"}],
    }
    cluster.ask("POST", f"{path}/roles", role)
    cluster.ask("POST", f"{path}/rolebindings", binding)
    # The server takes note of new roles a moment later.
    eventually(lambda: scaler.attempt().outcome is Outcome.SCALED, 30)
    assert cluster.replicas == 3


def test_the_thread_acts_while_an_alert_fires_and_ends(cluster: Cluster) -> None:
    """An alert that replicas help scales on a thread of its own; others don't; its stop is bounded."""
    scaler = cluster.scaler()
    scaler.consider([RULES["database_connections"]], [RULES["database_connections"]])
    assert threads("stx-autoscale") == []
    scaler.consider([RULES["cpu_usage"]], [RULES["cpu_usage"]])
    eventually(lambda: cluster.replicas == 3, 60)
    assert scaler.stop(20) and threads("stx-autoscale") == []
    scaler.consider([RULES["cpu_usage"]], [])
    assert threads("stx-autoscale") == []
