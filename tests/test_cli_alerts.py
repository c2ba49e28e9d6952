"""`alerts` and `rules` on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from streamlit_extension.alerts.state import SilenceFile
from tests.alerts.fakes import pagerduty, slack
from tests.support.backends import free_port

KEY = "0123456789abcdef0123456789abcdef"


def command(tmp_path: Path, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STX_")}
    environment |= {"STX_DATA_DIR": str(tmp_path / "data"), **(env or {})}
    line = [sys.executable, "-m", "streamlit_extension", *words]
    return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)


def test_a_test_message_reaches_every_sink_and_each_is_reported(tmp_path: Path) -> None:
    """Each configured sink is told of a marked test and of its end, and a line says that it worked; exit code 0."""
    with slack() as chat, pagerduty() as pager:
        env = {
            "STX_NOTIFY__SLACK__WEBHOOK_URL": chat.url,
            "STX_NOTIFY__PAGERDUTY__ROUTING_KEY": KEY,
            "STX_NOTIFY__PAGERDUTY__EVENTS_URL": pager.url,
            "STX_NOTIFY__PUBLIC_URL": "https://shop.example.com",
            "OTEL_SERVICE_NAME": "shop",
        }
        done = command(tmp_path, "alerts", "test", env=env)
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines() if "TEST" not in line] == [
        ["log", "ok"],
        ["slack", "ok"],
        ["pagerduty", "ok"],
    ]
    assert [body["text"].split("]")[0] for body in chat.taken] == ["[TEST", "[TEST"]
    assert [body["event_action"] for body in pager.taken] == ["trigger", "resolve"]
    assert pager.taken[0]["client_url"] == "https://shop.example.com/telemetry/"


def test_a_sink_that_fails_is_named_with_its_reason_and_the_exit_code_is_1(tmp_path: Path) -> None:
    """One that is away and one that works: both are reported, and no secret is."""
    with slack() as chat:
        env = {
            "STX_NOTIFY__SLACK__WEBHOOK_URL": chat.url,
            "STX_NOTIFY__URLS": f'["json://user:s3cr3t@127.0.0.1:{free_port()}/s3cr3t"]',
        }
        done = command(tmp_path, "alerts", "test", env=env)
    assert done.returncode == 1
    assert "slack      ok" in done.stdout and "url1-json  failed: server_error: " in done.stdout
    assert "s3cr3t" not in done.stdout + done.stderr


def test_without_a_sink_it_says_how_to_have_one(tmp_path: Path) -> None:
    """The log alone is tested, and a line names the tables."""
    done = command(tmp_path, "alerts", "test")
    assert done.returncode == 0 and "only the log is configured" in done.stdout


def test_silences_are_set_listed_and_ended(tmp_path: Path) -> None:
    """A silence has a reason and an end, is listed while it holds, and is ended by name or all at once."""
    made = command(tmp_path, "alerts", "silence", "cpu_usage", "--reason", "load test", "--for", "2h")
    assert made.returncode == 0 and "cpu_usage is silenced until " in made.stdout
    assert command(tmp_path, "alerts", "silence", "--reason", "moving").returncode == 0
    held = {each.rule: each for each in SilenceFile(tmp_path / "data").current(time.time())}
    assert held.keys() == {"*", "cpu_usage"} and held["cpu_usage"].reason == "load test"
    assert held["cpu_usage"].until - held["cpu_usage"].set_at == 7200
    listed = command(tmp_path, "alerts", "silences").stdout
    assert "cpu_usage  until " in listed and "load test" in listed
    assert command(tmp_path, "alerts", "unsilence", "cpu_usage").stdout == "1 silence ended\n"
    assert command(tmp_path, "alerts", "unsilence").stdout == "1 silence ended\n"
    assert command(tmp_path, "alerts", "unsilence").stdout == "all alerts are not silenced\n"
    assert command(tmp_path, "alerts", "silences").stdout == "none\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("alerts", "silence", "cpu", "--reason", "x"), "there is no rule 'cpu'; allowed: *, cpu_usage"),
        (("alerts", "silence", "--reason", " "), "--reason is empty"),
        (("rules", "--availability", "100"), "--availability"),
        (("rules", "--output", "no/such/folder/x.yaml"), "can't be written"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: tuple[str, ...], problem: str) -> None:
    """What can't be is refused in one line with exit code 2."""
    done = command(tmp_path, *words)
    assert done.returncode == 2 and problem in done.stderr and len(done.stderr.splitlines()) == 1
