"""What this process is: service, process, host, container and Kubernetes pod, as far as it can be known."""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from otel.patterns import lazy

#: Attribute → environment variables that may hold it: the conventions' own, then those that manifests commonly use.
DOWNWARD: Final[dict[str, tuple[str, ...]]] = {
    "k8s.pod.name": ("K8S_POD_NAME", "POD_NAME"),
    "k8s.pod.uid": ("K8S_POD_UID", "POD_UID"),
    "k8s.namespace.name": ("K8S_NAMESPACE_NAME", "POD_NAMESPACE"),
    "k8s.node.name": ("K8S_NODE_NAME", "NODE_NAME"),
    "k8s.container.name": ("K8S_CONTAINER_NAME", "CONTAINER_NAME"),
}
_CONTAINER_ID: Final = lazy(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?:/|$)", re.MULTILINE)
_POD_UID: Final = lazy(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def process_identity() -> dict[str, str | int]:
    """What differs between a process and its forked child."""
    return {"service.instance.id": str(uuid.uuid4()), "process.pid": os.getpid()}


def resource_of_this_process(
    service_name: str, service_version: str, extra: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, str | int]:
    """The resource's attributes; `extra`, what the operator has set, wins over what was found out.

    The command line is left out: it may hold secrets.
    """
    return {
        **process_identity(),
        "process.executable.name": Path(sys.executable or "python").name,
        "process.executable.path": sys.executable or "python",
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": platform.python_version(),
        "process.runtime.description": sys.version.replace("\n", " "),
        "host.name": socket.gethostname(),
        "host.arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine().lower()),
        "os.type": platform.system().lower(),
        **container_attributes(_read("/proc/self/cgroup"), _read("/proc/self/mountinfo")),
        **pod_attributes(environ),
        **extra,
        "service.name": service_name,
        "service.version": service_version,
    }


def container_attributes(cgroup: str, mountinfo: str) -> dict[str, str]:
    """Container id and pod uid out of the kernel's files; empty outside a container.

    Under cgroup v1 the path of the group names the container. Under v2, inside a namespace of its own, the path is `/`,
    but the container engine mounts `hostname` or `resolv.conf` from a folder that is named like it.
    """
    found = {}
    mounts = "\n".join(line for line in mountinfo.splitlines() if "/hostname" in line or "/resolv.conf" in line)
    matched = _CONTAINER_ID.search(cgroup) or _CONTAINER_ID.search(mounts)
    if matched:
        found["container.id"] = matched[1]
    pod = _POD_UID.search(cgroup) or _POD_UID.search(mountinfo)
    if pod:
        found["k8s.pod.uid"] = pod[1].replace("_", "-")
    return found


def pod_attributes(environ: Mapping[str, str], namespace_file: Path = _NAMESPACE_FILE) -> dict[str, str]:
    """What the downward API tells, and what a pod knows without it; empty outside Kubernetes."""
    found = {
        name: value
        for name, variables in DOWNWARD.items()
        if (value := next((environ[each] for each in variables if environ.get(each)), None))
    }
    if not environ.get("KUBERNETES_SERVICE_HOST"):
        # Names such as NODE_NAME mean something else elsewhere, unless they are written as the conventions' own.
        return {name: value for name, value in found.items() if environ.get(DOWNWARD[name][0])}
    if hostname := environ.get("HOSTNAME"):
        found.setdefault("k8s.pod.name", hostname)
    if namespace := _read(namespace_file).strip():
        found.setdefault("k8s.namespace.name", namespace)
    return found


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
