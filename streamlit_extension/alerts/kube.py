"""The few requests to Kubernetes that auto-scaling needs, with the credentials that a pod is given."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MOST_BYTES: Final = 8 * 1024 * 1024


class KubeError(Exception):
    """The API server refused, or could not be asked. `status` is HTTP's, 0 where there was no answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}" if status else reason)
        self.status = status


class KubeAccess(msgspec.Struct, frozen=True):
    """Where the API server is and how it is asked.

    `token` is called for each request: Kubernetes replaces a pod's token while it runs. `ca_file` holds the authority
    that signed the server's certificate.
    """

    url: str
    token: Callable[[], str]
    ca_file: Path | None = None
    timeout_s: float = 10.0


def in_cluster(
    environ: Mapping[str, str] = os.environ, folder: Path = SERVICE_ACCOUNT, *, timeout_s: float = 10.0
) -> KubeAccess | None:
    """Return the access that a pod has, None outside a cluster or without a mounted service account."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    token = folder / "token"
    if not host or not token.is_file():
        return None
    name = f"[{host}]" if ":" in host else host

    def read() -> str:
        return token.read_text("ascii").strip()

    return KubeAccess(f"https://{name}:{port}", read, folder / "ca.crt", timeout_s)


class Answer(msgspec.Struct, frozen=True):
    """An answer of the API server: its object, and the server's own time in seconds since the epoch, if it told it."""

    body: Mapping[str, Any]
    server_time: float | None


class KubeClient:
    """Asks for one deployment, its scale and the autoscalers beside it."""

    def __init__(self, access: KubeAccess, namespace: str) -> None:
        self._access = access
        self._namespace = quote(namespace, safe="")

    def deployment(self, name: str) -> Answer:
        """Return a deployment."""
        return self._ask("GET", f"{self._apps()}/deployments/{quote(name, safe='')}")

    def annotate(self, name: str, annotations: Mapping[str, str], version: str) -> Answer:
        """Set annotations of a deployment; raises KubeError 409 when it is not at that resource version any more."""
        patch = {"metadata": {"annotations": dict(annotations), "resourceVersion": version}}
        path = f"{self._apps()}/deployments/{quote(name, safe='')}"
        return self._ask("PATCH", path, patch, "application/merge-patch+json")

    def scale(self, name: str) -> Answer:
        """Return a deployment's scale."""
        return self._ask("GET", f"{self._apps()}/deployments/{quote(name, safe='')}/scale")

    def set_scale(self, name: str, replicas: int, version: str) -> Answer:
        """Set the number of replicas; raises KubeError 409 when it is not at that resource version any more."""
        body = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": name, "namespace": self._namespace, "resourceVersion": version},
            "spec": {"replicas": replicas},
        }
        return self._ask("PUT", f"{self._apps()}/deployments/{quote(name, safe='')}/scale", body)

    def autoscalers(self) -> Answer:
        """Return the horizontal pod autoscalers of the namespace."""
        return self._ask("GET", f"/apis/autoscaling/v2/namespaces/{self._namespace}/horizontalpodautoscalers")

    def _apps(self) -> str:
        return f"/apis/apps/v1/namespaces/{self._namespace}"

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, kind: str = "application/json"
    ) -> Answer:
        connection = self._connect()
        try:
            headers = {"Authorization": f"Bearer {self._access.token()}", "Accept": "application/json"}
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, path, content, headers | ({"Content-Type": kind} if content else {}))
            answer = connection.getresponse()
            raw = answer.read(_MOST_BYTES)
            if answer.status >= 300:
                raise KubeError(answer.status, answer.reason or "refused")
            return Answer(json.loads(raw), _time_of(answer.getheader("Date")))
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise KubeError(0, type(error).__name__) from None
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._access.url)
        host, timeout_s = parts.hostname or "", self._access.timeout_s
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
        authority = self._access.ca_file
        try:
            context = ssl.create_default_context(cafile=str(authority) if authority is not None else None)
        except (OSError, ssl.SSLError) as error:
            raise KubeError(0, f"the cluster's CA can't be read ({type(error).__name__})") from None
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)


def _time_of(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError):
        return None
