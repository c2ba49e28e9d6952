"""Real backends built from their modules: an absent Go or Maven skips with the reason, but in CI it is a failure."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from scripts import stack_build
from streamlit_extension.alerts.kube import KubeAccess
from tests.support.backends import free_port
from tests.support.requirements import in_ci, require


def built(name: str, program: str) -> str:
    """The path of a program of a module under tests/stack; CI builds what is missing, others are told how to."""
    folder = stack_build.folder_of(name)
    if not folder.is_dir():
        for tool in stack_build.tools_of(name):
            require(shutil.which(tool), f"{tool}, to build {program}")
        require(in_ci(), f"{program}: `make stack` builds it, which takes minutes, once")
    return str(stack_build.build(name) / program)


@dataclass
class Kubernetes:
    """A kube-apiserver with its etcd: no controllers, no nodes.

    `token` may do everything, `pod_token`, of the user `pod`, nothing that no role allows.
    """

    url: str
    token: str
    pod_token: str
    ca_file: Path

    def access(self, token: str | None = None) -> KubeAccess:
        """How a pod would ask it."""
        return KubeAccess(self.url, lambda: token or self.token, self.ca_file)


def _private_key() -> bytes:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    plain = serialization.NoEncryption()
    return made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_ready(url: str, token: str, ca_file: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        request = urllib.request.Request(f"{url}/readyz", headers={"Authorization": f"Bearer {token}"})
        with contextlib.suppress(OSError, urllib.error.HTTPError):
            context = ssl.create_default_context(cafile=str(ca_file))
            with urllib.request.urlopen(request, timeout=5, context=context):
                return
        time.sleep(0.2)
    raise AssertionError(f"kube-apiserver is not ready:\n{log.read_text(errors='replace')[-3000:]}")


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """A running API server."""
    etcd, server = built("etcd", "etcd"), built("kube", "kube-apiserver")
    folder = tmp_path_factory.mktemp("kube")
    client, peer, port = free_port(), free_port(), free_port()
    key = folder / "accounts.key"
    key.write_bytes(_private_key())
    token, pod_token = secrets.token_hex(16), secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n{pod_token},pod,pod\n')
    authority, ca_file = trustme.CA(), folder / "ca.crt"
    authority.cert_pem.write_to_path(str(ca_file))
    served = authority.issue_cert("127.0.0.1")
    served.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
    served.private_key_pem.write_to_path(str(folder / "tls.key"))
    url, log = f"https://127.0.0.1:{port}", folder / "log"
    etcd_command = [
        etcd, "--name", "default", "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync",
        "--listen-client-urls", f"http://127.0.0.1:{client}", "--advertise-client-urls", f"http://127.0.0.1:{client}",
        "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
        "--initial-cluster", f"default=http://127.0.0.1:{peer}",
    ]  # fmt: skip
    command = [
        server, "--etcd-servers", f"http://127.0.0.1:{client}", "--bind-address", "127.0.0.1",
        "--advertise-address", "127.0.0.1", "--secure-port", str(port), "--endpoint-reconciler-type", "none",
        "--tls-cert-file", str(folder / "tls.crt"), "--tls-private-key-file", str(folder / "tls.key"),
        "--service-account-issuer", url, "--service-account-key-file", str(key),
        "--service-account-signing-key-file", str(key), "--token-auth-file", str(folder / "tokens.csv"),
        "--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount",
        "--service-cluster-ip-range", "10.0.0.0/24",
    ]  # fmt: skip
    with log.open("wb") as stream:
        store = subprocess.Popen(etcd_command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        api = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=folder, env=dict(os.environ))
    try:
        _wait_ready(url, token, ca_file, api, log)
        yield Kubernetes(url, token, pod_token, ca_file)
    finally:
        _end(api)
        _end(store)
