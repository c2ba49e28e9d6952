"""A real Kafka broker that is its own controller."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import serialization
from trustme import CA

from scripts.stack import ROOT
from tests.stack.programs import end, until_healthy
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
CLIENT = """
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="{user}" password="{password}";
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.crt
"""
TOPICS = ("otlp_spans", "otlp_metrics", "otlp_logs")
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
        written = PROPERTIES.format(port=self._port, controller=free_port(), protocol=protocol, folder=folder)
        self._command = [built("kafka", "kafka"), str(folder / "server.properties")]
        if guarded:
            written += GUARDED.format(user=USER, password=PASSWORD, folder=folder)
            (folder / "client.properties").write_text(CLIENT.format(user=USER, password=PASSWORD, folder=folder))
            self._certify()
            self._command += ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
        (folder / "server.properties").write_text(written)

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.end(signal.SIGKILL)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.end()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        path = self._folder / "kafka.log"
        with path.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until_healthy(self._process, self._answers, path)

    def make(self, *topics: str) -> None:
        """Make topics as deploy/collector/agent-kafka.yaml says; a broker alone has no replicas."""
        text = (ROOT / "deploy" / "collector" / "agent-kafka.yaml").read_text(encoding="utf-8")
        (told,) = re.findall(r"^# +(kafka-topics.sh .*\n# +--config .*)$", text, re.MULTILINE)
        words = told.replace("\n#", "").split()[1:]
        chosen = {"--partitions": str(PARTITIONS), "--replication-factor": "1"}
        words = [chosen.get(before, word) for before, word in pairwise(["", *words])]
        words[words.index("min.insync.replicas=2")] = "min.insync.replicas=1"
        command = [built("kafka", "kafka-topics"), "--bootstrap-server", self.address, *words]
        if (self._folder / "client.properties").exists():
            command += ["--command-config", str(self._folder / "client.properties")]
        name = command.index("otlp_spans")
        with (self._folder / "topics.log").open("ab") as log:
            made = [
                subprocess.Popen([*command[:name], topic, *command[name + 1 :]], stdout=log, stderr=log)
                for topic in topics
            ]
            ended = [each.wait() for each in made]
        assert not any(ended), (self._folder / "topics.log").read_text()

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait, if it runs."""
        if self._process is not None:
            end(self._process, how)
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
