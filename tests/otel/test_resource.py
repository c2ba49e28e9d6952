"""What a process knows of itself: by the kernel's files of real containers, and by Kubernetes' variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otel.resource import container_attributes, pod_attributes, process_identity, resource_of_this_process

ID = "3f" * 32
POD = "0f5a1c3e-1d2b-4c3d-8e9f-001122334455"


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "expected"),
    [
        ("", "", {}),
        ("0::/user.slice/user-1000.slice/session-2.scope\n", "", {}),
        (f"12:pids:/docker/{ID}\n11:cpu:/docker/{ID}\n", "", {"container.id": ID}),
        (f"4:memory:/kubepods/burstable/pod{POD}/{ID}\n", "", {"container.id": ID, "k8s.pod.uid": POD}),
        (
            f"0::/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-containerd-{ID}.scope\n",
            "",
            {"container.id": ID, "k8s.pod.uid": POD},
        ),
        (
            "0::/\n",
            (
                f"679 669 254:1 /docker/containers/{ID}/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda1 rw\n"
                f"680 669 254:1 /docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n"
            ),
            {"container.id": ID},
        ),
        (
            "0::/\n",
            (
                f"1 2 8:1 /var/lib/kubelet/pods/{POD}/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw\n"
                f"1 2 0:9 / /sys/fs/overlay/{'ab' * 32} rw - overlay overlay rw\n"
            ),
            {},
        ),
    ],
)
def test_containers_are_known_by_the_kernels_files(cgroup: str, mountinfo: str, expected: dict[str, str]) -> None:
    """Cgroup v1 and v2, Docker and Kubernetes; layers of an overlay are not taken for a container."""
    found = container_attributes(cgroup, mountinfo)
    assert expected.items() <= found.items()
    assert found.get("container.id") == expected.get("container.id")


def test_a_pod_is_known_by_the_downward_api(tmp_path: Path) -> None:
    """Variables win; without them the host's name is the pod's, and the namespace is in the account's folder."""
    namespace = tmp_path / "namespace"
    namespace.write_text("shop\n")
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "web-7"}
    assert pod_attributes(inside, namespace) == {"k8s.pod.name": "web-7", "k8s.namespace.name": "shop"}
    told = {**inside, "POD_NAME": "web-8", "POD_NAMESPACE": "other", "NODE_NAME": "n1", "POD_UID": POD}
    assert pod_attributes(told, namespace) == {
        "k8s.pod.name": "web-8",
        "k8s.namespace.name": "other",
        "k8s.node.name": "n1",
        "k8s.pod.uid": POD,
    }


def test_outside_kubernetes_common_names_mean_something_else(tmp_path: Path) -> None:
    """NODE_NAME on a build machine makes no pod; the conventions' own names do everywhere."""
    environ = {"NODE_NAME": "builder", "HOSTNAME": "laptop", "K8S_NODE_NAME": "n2"}
    assert pod_attributes(environ, tmp_path / "none") == {"k8s.node.name": "n2"}


def test_the_resource_of_this_process() -> None:
    """Service, process, host; what the operator set wins, but for the service's name; no command line."""
    found = resource_of_this_process("shop", "1.2", {"host.name": "mine", "service.name": "lost", "team": "a"}, {})
    assert (found["service.name"], found["service.version"], found["host.name"]) == ("shop", "1.2", "mine")
    assert (found["process.pid"], found["team"]) == (os.getpid(), "a")
    assert not [name for name in found if name.startswith("process.command")]


def test_each_identity_is_another() -> None:
    """Two processes of a service are told apart."""
    assert process_identity()["service.instance.id"] != process_identity()["service.instance.id"]
