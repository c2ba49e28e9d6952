"""The exported rules in a real Prometheus with a real Alertmanager: a breach becomes a notification, and so does its end."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.support import eventually
from tests.e2e.test_alerts import metric
from tests.e2e.test_prometheus import Prometheus
from tests.support.backends import free_port
from tests.support.cgroup import CONTAINED, ControlGroup
from tests.support.server import Start
from tests.support.stack import built
from tests.test_cli_alerts import command

TOKEN = "a-token-that-prometheus-has"


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver of Alertmanager's: its URL, and what it was told."""
    told: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="webhook")
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    thread.join()
    server.server_close()


Launch = Callable[..., Path]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts a program; returns its log."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> Path:
        log = tmp_path / f"{Path(words[0]).name}.log"
        with log.open("wb") as stream:
            processes.append(subprocess.Popen(words, stdout=stream, stderr=stream, cwd=tmp_path))
        return log

    yield start
    for each in processes:
        each.send_signal(signal.SIGTERM)
    for each in processes:
        each.wait(30)


def start_fleet(launch: Launch, folder: Path, rules: Path, target: int, receiver: str) -> Prometheus:
    """Prometheus with the rules, which scrapes the target, and Alertmanager, which tells the receiver."""
    port, manager = free_port(), free_port()
    (folder / "token").write_text(TOKEN)
    alerting = {
        "route": {
            "receiver": "hook",
            "group_by": ["alertname", "job"],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        },
        "receivers": [{"name": "hook", "webhook_configs": [{"url": receiver, "send_resolved": True}]}],
    }
    scraping = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{manager}"]}]}]},
        "scrape_configs": [
            {
                "job_name": "shop",
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "authorization": {"credentials_file": str(folder / "token")},
                "static_configs": [{"targets": [f"127.0.0.1:{target}"]}],
            }
        ],
    }
    (folder / "alertmanager.yml").write_text(json.dumps(alerting))  # JSON is YAML
    (folder / "prometheus.yml").write_text(json.dumps(scraping))
    launch(
        built("alertmanager", "alertmanager"), f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}", f"--web.listen-address=127.0.0.1:{manager}",
        "--cluster.listen-address=",
    )  # fmt: skip
    log = launch(
        built("prometheus", "prometheus"), f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}",
    )  # fmt: skip
    return Prometheus(f"http://127.0.0.1:{port}", log)


def test_a_cpu_breach_reaches_a_webhook_by_prometheus_and_alertmanager(
    serve: Start,
    script: Callable[[str], Path],
    control_group: ControlGroup,
    launch: Launch,
    webhook: tuple[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    """Pending, firing, told once with labels and runbook; then resolved and told once more."""
    url, told = webhook
    env = {"STX_ALERTS__FOR_S": "2", "STX_ALERTS__INTERVAL_S": "1", "STX_TOKEN": TOKEN}
    rules = tmp_path / "rules.yaml"
    assert command(tmp_path, "rules", "--output", str(rules), env=env).returncode == 0
    port = free_port()
    words = [sys.executable, "-c", CONTAINED, str(control_group.root), "run", str(script("import streamlit\n"))]
    server = serve(words[-1], command=words, port=port, env=env)
    prometheus = start_fleet(launch, tmp_path, rules, port, url)

    def firing() -> Any:
        return prometheus.query('ALERTS{alertname="StreamlitCpuUsage", alertstate="firing"}')

    assert prometheus.wait_for(lambda: prometheus.query("instance:stx_cpu_usage:current < 20"))
    assert firing() == []
    control_group.use_cpu(busy=True)
    (series,) = prometheus.wait_for(firing)
    assert series["metric"]["job"] == "shop" and series["metric"]["instance"] == f"127.0.0.1:{port}"
    # The application's own alerting sees the same breach: one set of thresholds, two who watch them.
    eventually(lambda: metric(server, 'alert_active{alert_rule_name="cpu_usage"') == 1, 60)

    def heard(status: str) -> list[dict[str, Any]]:
        return [
            alert
            for message in list(told)
            for alert in message["alerts"]
            if alert["labels"]["alertname"] == "StreamlitCpuUsage" and alert["status"] == status
        ]

    eventually(lambda: len(heard("firing")) == 1, 60)
    (alert,) = heard("firing")
    assert alert["labels"] | {"severity": "critical", "stx_rule": "cpu_usage", "job": "shop"} == alert["labels"]
    assert alert["annotations"]["summary"].startswith(f"CPU usage of shop (127.0.0.1:{port}) is 100%")
    assert alert["annotations"]["runbook"]
    control_group.use_cpu(busy=False)
    eventually(lambda: len(heard("resolved")) == 1, 60)
    assert len(heard("firing")) == 1
    assert prometheus.wait_for(lambda: not firing())
    eventually(lambda: metric(server, 'alert_active{alert_rule_name="cpu_usage"') == 0, 60)
    server.stop()
