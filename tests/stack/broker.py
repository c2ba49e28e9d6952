"""A real Kafka broker that is its own controller."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from trustme import CA

from tests.stack.backends import until
from tests.support.backends import free_port
from tests.support.stack import built

PROPERTIES = """
process.roles=broker,controller
node.id=1
listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=BROKER://127.0.0.1:{port}
listener.security.protocol.map=BROKER:{protocol},CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
log.dirs={folder}/kafka
num.partitions={partitions}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""
GUARDED = """
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.broker.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\
  username="{user}" password="{password}";
listener.name.broker.ssl.keystore.type=PEM
listener.name.broker.ssl.keystore.location={folder}/keystore.pem
listener.name.broker.ssl.truststore.type=PEM
listener.name.broker.ssl.truststore.location={folder}/ca.crt
"""
#: Of each topic.
PARTITIONS = 8
USER, PASSWORD = "otel", "a password of agents"


class Broker:
    """One broker, which can be stopped and started again on its port.

    Arguments:
        folder: for its data and its log.
        guarded: over TLS (`ca.crt` in the folder) and with the user above.
    """

    def __init__(self, folder: Path, *, guarded: bool = False) -> None:
        folder.mkdir()
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        protocol = "SASL_SSL" if guarded else "PLAINTEXT"
        written = PROPERTIES.format(
            port=self._port, controller=free_port(), protocol=protocol, folder=folder, partitions=PARTITIONS
        )
        self._command = [built("kafka", "kafka"), str(folder / "server.properties")]
        if guarded:
            written += GUARDED.format(user=USER, password=PASSWORD, folder=folder)
            self._certify()
            self._command += ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
        (folder / "server.properties").write_text(written)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self._folder / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until(self._answers, bool)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self._port), 5):
            return True

    def _certify(self) -> None:
        authority = CA()
        served = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(str(self._folder / "ca.crt"))
        key = serialization.load_pem_private_key(served.private_key_pem.bytes(), None)
        plain = serialization.NoEncryption()
        parts = [key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)]
        parts += [each.bytes() for each in served.cert_chain_pems]
        (self._folder / "keystore.pem").write_bytes(b"".join(parts))
