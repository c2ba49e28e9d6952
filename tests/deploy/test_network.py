"""Network policies as a cluster applies them: what has to get through does, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.deploy.support import ROOTS, find, manifests, pods, variables


class Pod(NamedTuple):
    """A pod, or a node or somebody outside the cluster where there is no namespace."""

    namespace: str
    labels: dict[str, str]


OUTSIDE = Pod("", {})


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """A selector of labels."""
    assert {each["operator"] for each in selector.get("matchExpressions", ())} <= {"In"}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ())
    )


def chosen(peer: dict[str, Any], pod: Pod, here: str) -> bool:
    """Whether a peer of a policy in the namespace `here` is that pod."""
    assert set(peer) <= {"namespaceSelector", "podSelector"}
    if not pod.namespace:
        return False
    if "namespaceSelector" not in peer:
        return pod.namespace == here and matches(peer["podSelector"], pod.labels)
    names = {"kubernetes.io/metadata.name": pod.namespace}
    return matches(peer["namespaceSelector"], names) and matches(peer.get("podSelector", {}), pod.labels)


def side(found: list[dict[str, Any]], direction: str, pod: Pod, other: Pod, port: int, protocol: str) -> bool:
    """Whether the policies of one pod let a connection with another one through."""
    policies = [
        each["spec"]
        for each in found
        if each["kind"] == "NetworkPolicy"
        and each["metadata"]["namespace"] == pod.namespace
        and matches(each["spec"]["podSelector"], pod.labels)
        and direction in each["spec"]["policyTypes"]
    ]
    peers = "from" if direction == "Ingress" else "to"
    rules = [rule for policy in policies for rule in policy.get(direction.lower(), ())]
    return not policies or any(
        ("ports" not in rule or any(_is(each, port, protocol) for each in rule["ports"]))
        and (peers not in rule or any(chosen(peer, other, pod.namespace) for peer in rule[peers]))
        for rule in rules
    )


def _is(wanted: dict[str, Any], port: int, protocol: str) -> bool:
    return int(wanted["port"]) == port and wanted.get("protocol", "TCP") == protocol


def through(found: list[dict[str, Any]], source: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection comes to be."""
    leaves = side(found, "Egress", source, target, port, protocol)
    return leaves and side(found, "Ingress", target, source, port, protocol)


def pod_of(found: list[dict[str, Any]], name: str) -> Pod:
    """A pod of an owner of that name."""
    return next(
        Pod(owner["metadata"]["namespace"], template["metadata"]["labels"])
        for owner, template in pods(found)
        if owner["metadata"]["name"] == name
    )


def back_ends(found: list[dict[str, Any]]) -> Iterator[tuple[Pod, int]]:
    """Where the gateway is told to send: a pod of the namespace that the name has, and its port."""
    for name, place in find(found, "ConfigMap", "collector-backends")["data"].items():
        if name.endswith("_ENDPOINT"):
            parts = urlsplit(place if "://" in place else f"//{place}")
            assert parts.hostname and parts.port
            yield Pod(parts.hostname.split(".")[1], {"app": "back end"}), parts.port


@pytest.mark.parametrize("root", ROOTS)
def test_what_has_to_get_through_does(root: str) -> None:
    """Users, telemetry along its whole way, names, scrapes, databases; with auto-scale the API server."""
    found = manifests(root)
    app, agent, gateway = (pod_of(found, each) for each in ("streamlit", "collector-agent", "collector-gateway"))
    ingress = Pod("ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx"})
    names = Pod("kube-system", {"k8s-app": "kube-dns"})
    for source, target, port in (
        (ingress, app, 8501),
        (OUTSIDE, app, 8501),
        (app, agent, 4317),
        (app, agent, 4318),
        (agent, gateway, 4317),
        (app, Pod("databases", {}), 5432),
        (app, OUTSIDE, 443),
    ):
        assert through(found, source, target, port), (source, target, port)
    for each in (app, agent, gateway):
        assert through(found, each, names, 53, "UDP") and through(found, each, names, 53)
    for place in ("monitoring", "streamlit-telemetry"):
        prometheus = Pod(place, {"app.kubernetes.io/name": "prometheus"})
        assert through(found, prometheus, app, 9090), place
        assert through(found, prometheus, agent, 8888) and through(found, prometheus, gateway, 8888), place
    assert len(list(back_ends(found))) == 3
    for target, port in back_ends(found):
        assert through(found, gateway, target, port), (target, port)
    assert through(found, app, OUTSIDE, 6443) == (root == "overlays/autoscale")


@pytest.mark.parametrize("root", ROOTS)
def test_nothing_else_does(root: str) -> None:
    """Strangers get neither details nor telemetry in, and collectors get nowhere else."""
    found = manifests(root)
    app, agent, gateway = (pod_of(found, each) for each in ("streamlit", "collector-agent", "collector-gateway"))
    stranger = Pod("default", {"app": "stranger"})
    posing = Pod("default", agent.labels)
    for source, target, port in (
        (stranger, app, 9090),
        (OUTSIDE, app, 9090),
        (stranger, agent, 4318),
        (stranger, gateway, 4317),
        (posing, gateway, 4317),
        (app, gateway, 4317),
        (stranger, gateway, 8888),
        (app, OUTSIDE, 22),
        (app, stranger, 4318),
        (agent, OUTSIDE, 443),
        (agent, stranger, 4317),
        (gateway, OUTSIDE, 443),
        (gateway, stranger, 22),
        (gateway, app, 8501),
        (agent, app, 9090),
    ):
        assert not through(found, source, target, port), (source, target, port)
    given = variables(find(found, "DaemonSet", "collector-agent")["spec"]["template"]["spec"]["containers"][0])
    assert given["COLLECTOR_GATEWAY_ENDPOINT"].endswith(":4317")
