"""What a start refuses in one line, what it warns of, and which launchers it respects."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.support.backends import free_port
from tests.support.server import Start

HELLO = "import streamlit as st\nst.title('Hello')\n"
LAUNCHER = "import streamlit as st\nfrom streamlit_extension import create_app\napp = st.App('app.py')\napp = create_app(app)\n"


def refused(serve: Start, script: Path, *options: str, **settings: object) -> str:
    """The one line of a start that is refused with exit code 2."""
    server = serve(script, *options, ready=None, **settings)
    assert server.process.wait(60) == 2, server.output
    lines = server.output.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('port = "x"', "server.port is 'x'; allowed is a whole number from 0 to 65535"),
        ("port = 99999", "server.port is 99999; allowed is a whole number from 0 to 65535"),
        ("port = -5", "server.port is -5; allowed is a whole number from 0 to 65535"),
        ("port = true", "server.port is True; allowed is a whole number from 0 to 65535"),
        ("port = 0\naddress = 5", "server.address is 5; allowed is an IP address or a host name"),
    ],
)
def test_a_bad_option_in_the_configuration_file_is_one_line(
    serve: Start, script: Callable[..., Path], tmp_path: Path, config: str, said: str
) -> None:
    """It names the option, the value and what is allowed; `doctor` says the same."""
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit/config.toml").write_text(f"[server]\n{config}\n")
    bare = {"STREAMLIT_SERVER_PORT": ""} if "port = 0" not in config else {}
    command = [sys.executable, "-c", "import os; os.environ.pop('STREAMLIT_SERVER_PORT', None); "]
    command[2] += "from streamlit_extension.cli import main; main()"
    line = refused(serve, script(HELLO), command=[*command, "run", "app.py"], env=bare)
    assert said in line
    doctor = serve("doctor", command=[*command, "doctor"], ready=None, env=bare)
    assert doctor.process.wait(60) == 1
    assert said in doctor.output


def test_a_port_out_of_range_and_a_taken_one_are_one_line(serve: Start, script: Callable[..., Path]) -> None:
    """On the command line too, and the management port is named by its setting."""
    assert "from 0 to 65535" in refused(serve, script(HELLO), "--server.port", "99999")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(serve, script(HELLO), "--server.port", str(port))
        assert f"port {port}" in line and "choose another server.port" in line
        line = refused(serve, script(HELLO), env={"STX_MANAGEMENT_PORT": str(port)})
        assert f"port {port}" in line and "choose another management_port" in line


async def test_a_script_with_a_create_app_of_its_own_is_a_script(serve: Start, script: Callable[..., Path]) -> None:
    """A function of that name that is not ours makes no launcher."""
    script("def create_app():\n    return lambda *a: None\n", "flaskish.py")
    server = serve(
        script("import streamlit as st\nfrom flaskish import create_app\napp = create_app()\nst.title('x')\n")
    )
    async with StreamlitClient(server.url) as client:
        assert (await client.wait_finished(1)).exceptions == []
    assert server.stop() == 0


@pytest.mark.parametrize("name", ["my.launcher.py", "queue.py"])
async def test_a_launcher_may_have_any_file_name(
    serve: Start, script: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    """`run` respects it whatever it is called."""
    (tmp_path / "site").mkdir()
    script(HELLO, "site/app.py")
    server = serve(script(LAUNCHER, f"site/{name}"))
    async with StreamlitClient(server.url) as client:
        page = await client.wait_finished(1)
        assert page.exceptions == []
        assert "Hello" in page.texts
    assert server.stop() == 0


def test_a_page_that_our_paths_hide_is_told_at_the_start(
    serve: Start, script: Callable[..., Path], tmp_path: Path
) -> None:
    """One warning a page, with its remedy; with a `path_prefix` there is none."""
    (tmp_path / "pages").mkdir()
    script(HELLO, "pages/health.py")
    server = serve(script(HELLO))
    (told,) = server.events("app.page_hidden")
    assert "pages/health.py" in told["message"] and "path_prefix" in told["message"]
    assert told["level"] == "WARNING"
    server.stop()
    moved = serve(script(HELLO), env={"STX_PATH_PREFIX": "/ops"}, ready="/ops/health/startup")
    assert moved.events("app.page_hidden") == []
    moved.stop()


@pytest.mark.parametrize(
    "command",
    [
        ["{python}", "launcher.py"],
        ["{python}", "-m", "uvicorn", "launcher:app", "--port", "{port}"],
        ["{python}", "-m", "streamlit", "run", "launcher.py"],
        ["{python}", "-m", "streamlit_extension", "run", "launcher.py"],
    ],
    ids=["python", "uvicorn", "streamlit", "run"],
)
def test_a_bad_setting_ends_every_launcher_in_one_line(
    serve: Start, script: Callable[..., Path], command: list[str]
) -> None:
    """Exit code 2 and no traceback, whichever server has imported the launcher."""
    script(HELLO)
    script(LAUNCHER + "if __name__ == '__main__':\n    app.run()\n", "launcher.py")
    words = [each.format(python=sys.executable, port=free_port()) for each in command]
    server = serve("launcher.py", command=words, env={"STX_LOG_LEVEL": "LOUD"}, ready=None)
    assert server.process.wait(60) == 2, server.output
    assert "Traceback" not in server.output
    (line,) = [line for line in server.output.splitlines() if "STX_LOG_LEVEL" in line]
    assert "LOUD" in line and "WARNING" in line
