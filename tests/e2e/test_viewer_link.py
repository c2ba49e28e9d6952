"""Where the telemetry page is answered, and the link that opens it, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from otel.store.model import RunFilter
from otel.store.reader import StoreReader
from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port
from tests.support.server import ROOT, Start
from tests.support.viewing import printed_link, shop


def link(data: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command, as an operator calls it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STX_")}
    environment |= {"STX_DATA_DIR": str(data), "PYTHONPATH": str(ROOT), **settings}
    command = [sys.executable, "-m", "streamlit_extension", "link", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_printed_link_and_another_one_open_the_page_once(serve: Start, tmp_path: Path) -> None:
    """Below the prefix and the base path; the log and the token's file hold no code."""
    options = ["--server.baseUrlPath", "shop"]
    server = shop_below(serve, tmp_path, options)
    first = printed_link(server)
    made = link(tmp_path / "data", STX_PATH_PREFIX="/ops")
    assert made.returncode == 0, made.stderr
    for each in (first, made.stdout.strip()):
        assert urlsplit(each).path == "/ops/telemetry/enter"
        with httpx.Client() as client:
            assert client.get(each).status_code == 303
            assert client.get(each).status_code == 403
    code = urlsplit(first).query.removeprefix("code=")
    assert server.output.count(code) == 1
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        assert client.get("/shop/ops/telemetry/").status_code == 200
        assert client.get("/telemetry/").text.count("telemetry page") == 0
    assert server.stop() == 0


def shop_below(serve: Start, tmp_path: Path, options: list[str]):  # type: ignore[no-untyped-def]
    script = tmp_path / "app.py"
    script.write_text("import streamlit as st\nst.title('hello')\n")
    return serve(script, *options, env={"STX_PATH_PREFIX": "/ops"}, ready="/ops/health/startup")


def test_the_management_port_is_the_only_place(serve: Start, tmp_path: Path) -> None:
    """404 on the application's port, 200 on the other, where the printed link leads."""
    port = free_port()
    server = shop(serve, tmp_path, env={"STX_MANAGEMENT_PORT": str(port)})
    assert server.get("/telemetry/").status == 404
    assert server.get("/telemetry/enter?code=x").status == 404
    opening = printed_link(server)
    assert urlsplit(opening).port == port
    with httpx.Client() as client:
        assert client.get(opening).status_code == 303
        assert client.get(f"http://127.0.0.1:{port}/telemetry/").status_code == 200
        assert client.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    assert server.stop() == 0


async def test_looking_at_telemetry_makes_none(serve: Start, tmp_path: Path) -> None:
    """The page is never traced and writes no access line; it answers while a script holds its thread."""
    script = tmp_path / "slow.py"
    script.write_text("import streamlit as st, time\nst.title('slow')\ntime.sleep(4)\n")
    server = serve(script)
    async with StreamlitClient(server.url) as client:
        for path in ("", "runs", "logs", "metrics", "health", "memory", "statements"):
            assert server.get(f"/telemetry/{path}").status == 200
        await client.wait_finished(1)
    assert "GET /telemetry" not in server.output
    assert server.stop() == 0
    with StoreReader(tmp_path / "data" / "store") as reader:
        kinds = RunFilter(types=("full", "fragment", "request", "other"))
        names = [run.name for run in reader.runs(kinds, limit=200).items]
    assert any(name.startswith("script_run") for name in names)
    assert not any("telemetry" in name for name in names)


def test_link_says_what_it_needs(tmp_path: Path) -> None:
    """No process yet: one line that says what to do; a URL given is used; nonsense is refused."""
    nobody = link(tmp_path)
    assert nobody.returncode == 2
    assert "--url" in nobody.stderr
    assert nobody.stderr.count("\n") == 1
    given = link(tmp_path, "--url", "https://app.example.com/base")
    assert given.stdout.startswith("https://app.example.com/base/telemetry/enter?code=")
    assert link(tmp_path, "--url", "javascript:alert(1)").returncode == 2
