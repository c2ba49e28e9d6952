"""The programs of docker-compose.yml, with its commands, variables and mounted files, and no engine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.alerts.support import eventually
from tests.deploy.support import ROOT, docker
from tests.support.backends import free_port
from tests.support.server import Start
from tests.support.stack import built

#: Service → the program of tests/stack that its image holds, and what says where it listens when no variable does.
PROGRAMS = {
    "victorialogs": ("victorialogs", "victoria-logs", ["-httpListenAddr={9428}"]),
    "jaeger": ("jaeger", "jaeger", []),
    "alertmanager": ("alertmanager", "alertmanager", ["--web.listen-address={9093}", "--cluster.listen-address="]),
    "prometheus": ("prometheus", "prometheus", ["--web.listen-address={9090}"]),
    "collector": ("otelcol", "otelcol", []),
}
#: The ports inside each container.
PORTS = {
    "victorialogs": ("9428",),
    "jaeger": ("4317", "16686", "16685", "14133"),
    "alertmanager": ("9093",),
    "prometheus": ("9090",),
    "collector": ("4317", "4318", "13133", "8888"),
}


@dataclass
class Composed:
    """What runs, and where: a host and port inside the project's network is a port of loopback here."""

    services: dict[str, Any]
    folder: Path
    ports: dict[tuple[str, str], int] = field(default_factory=dict)

    def outside(self, text: str) -> str:
        """A text with the addresses of services as they are here."""
        for (service, port), here in self.ports.items():
            text = re.sub(rf"\b{service}:{port}\b", f"127.0.0.1:{here}", text)
        return text

    def own(self, service: str, text: str) -> str:
        """A text of a service's own: where it listens, and its files and volumes."""
        for port in PORTS[service]:
            text = re.sub(
                rf"(0\.0\.0\.0|127\.0\.0\.1):{port}\b|\{{{port}\}}", f"127.0.0.1:{self.ports[service, port]}", text
            )
        mounts = {each["target"]: each for each in self.services[service].get("volumes", ())}
        if not mounts:
            return text
        targets = "|".join(re.escape(target) for target in mounts)
        return re.sub(
            rf"(?<![\w/])({targets})(?![\w.-])", lambda found: str(self.place(service, mounts[found[1]])), text
        )

    def place(self, service: str, volume: dict[str, Any]) -> Path:
        """Where a mount is: a volume is a folder, a file a copy beside the others, with the addresses of here."""
        if volume["type"] == "volume":
            return self.folder / str(volume["source"])
        return self.folder / service / Path(str(volume["target"])).name

    def command(self, service: str) -> tuple[list[str], dict[str, str]]:
        """The words and the variables that start a service."""
        one = self.services[service]
        for each in one.get("volumes", ()):
            place = self.place(service, each)
            if each["type"] == "bind":
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(self.outside(Path(each["source"]).read_text()))
            else:
                place.mkdir()
        module, program, more = PROGRAMS[service]
        words = [built(module, program), *(self.own(service, each) for each in [*one["command"], *more])]
        environ = {
            name: self.own(service, self.outside(value)) for name, value in (one.get("environment") or {}).items()
        }
        if service == "collector":
            environ["COLLECTOR_METRICS_HOST"] = "127.0.0.1"
            environ["COLLECTOR_METRICS_PORT"] = str(self.ports["collector", "8888"])
        return words, environ

    def ask(self, place: str, port: str, path: str, **query: str) -> Any:
        """An answer as text."""
        url = f"http://127.0.0.1:{self.ports[place, port]}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()

    def answers(self, place: str, port: str, path: str, pattern: str, **query: str) -> bool:
        """Whether an answer is there and holds a pattern."""
        try:
            return re.search(pattern, self.ask(place, port, path, **query)) is not None
        except OSError:
            return False


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    """The running programs."""
    ports = {(service, port): free_port() for service, all_of_it in PORTS.items() for port in all_of_it}
    made = Composed(docker("compose", ROOT / "docker-compose.yml")["services"], tmp_path / "composed", ports)
    made.folder.mkdir()
    processes: list[subprocess.Popen[bytes]] = []
    started = [(service, *made.command(service)) for service in PROGRAMS]
    try:
        for service, words, environ in started:
            with (tmp_path / f"{service}.log").open("wb") as log:
                variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environ}
                processes.append(subprocess.Popen(words, stdout=log, stderr=log, env=variables, cwd=made.folder))
        eventually(lambda: made.answers("collector", "13133", "/", "available"), 60)
        eventually(lambda: made.answers("prometheus", "9090", "/-/ready", "Ready"), 60)
        yield made
    finally:
        for each in reversed(processes):  # who sends ends first, as Compose does it
            each.send_signal(signal.SIGTERM)
            each.wait(60)


async def test_a_session_is_found_again_in_every_back_end(composed: Composed, tmp_path: Path, serve: Start) -> None:
    """The sample with its container's variables: a run's trace, its lines and its metrics arrive; alerts have a place."""
    app = composed.services["app"]["environment"]
    kept = {name: composed.outside(value) for name, value in app.items() if name.startswith(("OTEL_", "STX_SHUTDOWN"))}
    program = str(Path(sys.executable).parent / "streamlit-extension")
    quick = {"OTEL_METRIC_EXPORT_INTERVAL": "1000"}
    server = serve("", command=[program, "demo"], env={**kept, **quick})
    async with StreamlitClient(server.url):
        await asyncio.to_thread(eventually, lambda: "script_run" in _traces(composed), 60)
    eventually(
        lambda: composed.answers("victorialogs", "9428", "/select/logsql/query", "streamlit", query="*", limit="5"), 60
    )
    eventually(
        lambda: composed.answers(
            "prometheus", "9090", "/api/v1/query", '"streamlit-demo"', query="streamlit_session_active"
        ),
        60,
    )
    eventually(lambda: composed.answers("prometheus", "9090", "/api/v1/alertmanagers", r'"url":"http'), 60)
    rules = json.loads(composed.ask("prometheus", "9090", "/api/v1/rules"))["data"]["groups"]
    assert {"streamlit-extension-recordings", "streamlit-extension-thresholds"} <= {each["name"] for each in rules}
    eventually(
        lambda: composed.answers(
            "prometheus", "9090", "/api/v1/query", r'"value":\[[\d.]+,"1"\]', query='up{job="collector"}'
        ),
        60,
    )
    assert composed.answers("alertmanager", "9093", "/api/v2/status", "nobody")
    assert json.loads(composed.ask("jaeger", "16686", "/api/services"))["data"] == ["streamlit-demo"], (
        "and none of its own"
    )
    assert server.stop() == 0


def _traces(composed: Composed) -> str:
    try:
        return str(composed.ask("jaeger", "16686", "/api/traces", service="streamlit-demo", limit="20"))
    except OSError:
        return ""
