"""One command and no collector: the telemetry of an application's runs is kept, and the commands find it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.support.server import ROOT, Server, Start

Script = Callable[..., Path]
APP = """
import logging, sqlite3
import streamlit as st
from sqlalchemy import create_engine, text
from streamlit_extension import telemetry_badge

@st.cache_resource
def engine():
    return create_engine("sqlite://")

with engine().connect() as connection:
    for number in range(6):
        connection.execute(text("SELECT :n AS answer"), {"n": number})
logging.getLogger("shop").warning("order \\x1b[31m paid", extra={"customer": "ann"})
show = st.html
st.html = st.text  # the simulated browser reads texts
telemetry_badge()
st.html = show
st.button("Press")
if st.button("Fail"):
    with engine().connect() as connection:
        connection.execute(text("SELECT broken FROM nowhere"))
"""


def call(server_data: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("STX_", "OTEL_"))}
    env |= {"STX_DATA_DIR": str(server_data), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-m", "streamlit_extension", *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def until(server: Server, data: Path, args: tuple[str, ...], condition: Callable[[str], bool]) -> str:
    """A command's output as soon as it is as wanted."""
    pause = threading.Event()
    for _ in range(40):
        done = call(data, *args)
        if condition(done.stdout):
            return done.stdout
        pause.wait(0.2)
    raise AssertionError((done.stdout, done.stderr, server.output))


async def test_runs_are_kept_and_found_while_the_application_runs_and_after(
    serve: Start, script: Script, tmp_path: Path
) -> None:
    """From an error's reference to the failing statement; log lines by word, level and trace; nothing is lost by SIGKILL."""
    data = tmp_path / "data"
    server = serve(script(APP))
    async with StreamlitClient(server.url) as client:
        page = await client.wait_finished(1)
        badge = next(each for each in page.texts if "stx-badge" in each)
        assert "6 queries" in badge
        await client.click("Press")
        await client.wait_finished(2)
        await client.click("Fail")
        await client.wait_finished(3)
    found = re.search(r'href="/telemetry/traces/([0-9a-f]{32})"', badge)
    assert found is not None
    first = found[1]

    listed = until(server, data, ("traces", "--json"), lambda out: len(out.splitlines()) == 3)
    failed, pressed, connected = (json.loads(line) for line in listed.splitlines())
    assert (connected["trace_id"], connected["trigger"], connected["queries"]) == (first, "connect", 6)
    assert (pressed["trigger"], pressed["outcome"]) == ("widget", "success")
    assert (failed["outcome"], failed["error_type"]) == ("error", "OperationalError")

    reference = failed["trace_id"][:8]  # what the user is shown
    tree = call(data, "traces", reference)
    assert tree.returncode == 0, tree.stderr
    assert "OperationalError" in tree.stdout and "no such table" in tree.stdout
    assert "6 \N{MULTIPLICATION SIGN} SELECT" in call(data, "traces", first).stdout

    lines = call(data, "logs", "--query", "customer:ann order", "--trace-id", first[:12], "--level", "warning")
    [line] = lines.stdout.splitlines()
    assert "shop: order \\x1b[31m paid" in line and f"[{first[:8]}]" in line
    assert "\x1b" not in lines.stdout

    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    assert call(data, "traces", "--json").stdout == listed
    assert json.loads(call(data, "logs", "--trace-id", first, "--json").stdout.splitlines()[-1])["trace_id"] == first


async def test_logs_are_followed(serve: Start, script: Script, tmp_path: Path) -> None:
    """`logs --follow` shows each new record once, until it is ended."""
    server = serve(script(APP))
    env = {**os.environ, "STX_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        until(server, tmp_path / "data", ("logs", "--query", "paid"), lambda out: len(out.splitlines()) == 1)
        command = [sys.executable, "-m", "streamlit_extension", "logs", "--query", "paid", "--follow", "--json"]
        # Tests that run in the background inherit that Ctrl+C is ignored; a user's terminal does not do that.
        process = subprocess.Popen(
            command,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            assert process.stdout is not None
            seen = [json.loads(process.stdout.readline())["trace_id"]]
            for number in range(2, 5):
                await client.click("Press")
                await client.wait_finished(number)
                seen.append(json.loads(process.stdout.readline())["trace_id"])
            assert len(set(seen)) == 4
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) in (0, 130)
            if process.stdout is not None:
                process.stdout.close()


def test_plain_streamlit_shows_no_badge(serve: Start, script: Script) -> None:
    """Without telemetry `telemetry_badge()` draws nothing and raises nothing."""
    code = (
        "from streamlit.testing.v1 import AppTest\n"
        "app = AppTest.from_string('from streamlit_extension import telemetry_badge\\ntelemetry_badge()').run()\n"
        "assert not app.exception and len(app.main.children) == 0, app\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("args", [("logs",), ("traces",)])
def test_without_a_store_the_commands_say_what_to_do(tmp_path: Path, args: tuple[str, ...]) -> None:
    """One line on standard error, exit code 2."""
    done = call(tmp_path / "nowhere", *args)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "STX_STORE=on" in line


@pytest.mark.parametrize(
    "args", [("traces", "zz"), ("logs", "--trace-id", "xyz"), ("traces", "00ff"), ("logs", "--since", "soon")]
)
def test_mistakes_are_one_line(tmp_path: Path, args: tuple[str, ...]) -> None:
    """What can't be meant is said in one line, exit code 2."""
    (tmp_path / "store").mkdir()
    done = call(tmp_path, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
