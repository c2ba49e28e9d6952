"""The health paths alone, as their users start them: `uvicorn streamlit_extension.endpoints.health:app`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.backends import free_port
from tests.support.server import Server, Start


def alone(serve: Start, *options: str, **env: str) -> Server:
    """The health application under uvicorn."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "streamlit_extension.endpoints.health:app",
        "--port",
        str(port),
        *options,
    ]
    return serve("health", command=command, port=port, env=env)


def test_it_has_the_token_of_the_data_folder_and_the_loopback_rule(serve: Start, tmp_path: Path) -> None:
    """On loopback its details are for this machine; behind a proxy or with `token` for who has the kept token."""
    server = alone(serve)
    assert "components" in server.get("/health/detailed").json
    assert "components" not in server.get("/health/detailed", x_forwarded_for="203.0.113.9").json
    token = (tmp_path / "data/token").read_text().strip()
    answer = server.get("/health/detailed", x_forwarded_for="203.0.113.9", authorization=f"Bearer {token}")
    assert "components" in answer.json
    assert server.stop() in (0, -15)
    assert "components" not in alone(serve, STX_HEALTH_DETAILS="token").get("/health/detailed").json


def test_bound_to_everywhere_it_shows_details_to_nobody_without_the_token(serve: Start) -> None:
    """Where it listens is read from its sockets."""
    server = alone(serve, "--host", "0.0.0.0")
    assert set(server.get("/health/detailed").json) == {"status", "timestamp"}


def test_maintenance_and_log_lines_are_those_of_the_whole_application(serve: Start, tmp_path: Path) -> None:
    """The command acts on it, and what it logs is JSON."""
    server = alone(serve)
    command = [sys.executable, "-m", "streamlit_extension", "maintenance", "on", "--reason", "upgrade", "--for", "5m"]
    environment = {"STX_DATA_DIR": str(tmp_path / "data"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer = server.wait_for("/health", lambda answer: answer.status == 503)
    assert answer.json["status"] == "maintenance"
    assert server.events("audit.maintenance_on")


def test_nothing_configured_is_healthy_and_imports_no_streamlit(serve: Start) -> None:
    """What is not configured never fails, and its first answers come without the host's start."""
    server = alone(serve)
    assert server.get("/health").json["status"] == "healthy"
    assert server.get("/health/detailed/cache").json["status"] == "not_configured"


def test_a_bad_setting_is_one_line(serve: Start) -> None:
    """Exit code 2, no traceback."""
    command = [sys.executable, "-m", "uvicorn", "streamlit_extension.endpoints.health:app"]
    server = serve("health", command=command, env={"STX_HEALTH__INTERVAL_S": "-1"}, ready=None)
    assert server.process.wait(60) == 2
    assert len(server.output.strip().splitlines()) == 1
    assert "STX_HEALTH__INTERVAL_S" in server.output
