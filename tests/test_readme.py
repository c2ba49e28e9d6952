"""Everything that the README says is run: commands start and answer, examples work, settings load, links lead."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from streamlit_extension.demo.client import StreamlitClient
from streamlit_extension.settings import Settings
from tests.support.backends import free_port
from tests.support.server import Server, Start

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
BIN = Path(sys.executable).parent
PORT = "8501"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str


def blocks(name: str = "README.md", language: str = "") -> list[Block]:
    """The fenced blocks of a document, those of one language when it is given."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(*each) for each in found if language in ("", each[0])]


def commands(first: str) -> Iterator[str]:
    """The lines of the shell blocks that begin with a program."""
    for document in DOCUMENTS:
        for block in blocks(document, "sh"):
            yield from (line for line in block.text.splitlines() if line.split()[0] == first)


#: Commands that need an application which has kept telemetry.
KEPT = {"link", "logs", "traces"}

#: Every program that the documents call; each has a test below that runs it.
PROGRAMS = {"make", "pip", "streamlit-extension", "curl", "python", "uvicorn", "docker"}


def run(line: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a line as it stands, with the programs of this environment."""
    words = shlex.split(line)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("STX_", "STREAMLIT_", "OTEL_"))},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "STX_DATA_DIR": str(cwd / "data"),
        **environ,
    }
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder with the smallest example as `app.py`."""
    (tmp_path / "app.py").write_text(blocks(language="python")[0].text)
    return tmp_path


def test_every_block_and_every_command_has_a_test() -> None:
    """A block in another language, or a call of another program, would be a claim that nothing runs."""
    found = {block.language for name in DOCUMENTS for block in blocks(name)}
    assert found == {"sh", "python", "toml", "yaml", "json"}
    lines = [line for name in DOCUMENTS for block in blocks(name, "sh") for line in block.text.splitlines()]
    assert {line.split()[0] for line in lines} == PROGRAMS
    fences = README.read_text(encoding="utf-8").count("```")
    assert fences == 2 * len(blocks())


def test_the_sections_stand_in_their_order() -> None:
    """One sentence, a picture, the two commands, the smallest example, what you get, configuration, production, map."""
    text = README.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "The smallest example",
        "What you get",
        "Configuration",
        "Production",
        "The whole pipeline",
        "Folder map",
    ]
    head = text.partition("\n## ")[0]
    assert head.index("![") < head.index("```sh\nmake run\nmake test\n```")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    """Each linked or pictured path exists, and so does each path that a code span names."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("https://")]
    spans = re.findall(r"`((?:scripts|tests|requirements|otel|streamlit_extension)/[\w./-]+)`", text)
    assert [path for path in [*links, *spans] if not (ROOT / path).exists()] == []


def test_every_make_target_is_there() -> None:
    """Each `make` line, in a block or in a sentence, names a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS)
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE))
    assert {"run", "test", "check"} <= named
    assert named <= targets


def test_what_make_run_starts_is_what_the_readme_says(tmp_path: Path, serve: Start) -> None:
    """The line that `make run` ends with starts the sample, on the given port, with simulated users, and answers."""
    port = free_port()
    # As if called by hand: a make that runs these tests hands its own options down.
    told = run(f'make -n run ARGS="--port {port} --simulate 1" VENV=.venv', ROOT, MAKEFLAGS="", MAKELEVEL="0")
    assert told.returncode == 0, told.stderr
    words = shlex.split(told.stdout.strip().splitlines()[-1])
    assert words[0] == "exec"
    assert Path(words[1]).name == "streamlit-extension"
    command = [str(BIN / "streamlit-extension"), *words[2:]]
    server = serve("", command=command, port=port, cwd=tmp_path)
    found = server.wait_for(
        "/health/detailed", lambda answer: answer.json["components"]["database"]["status"] == "healthy"
    )
    assert found.status == 200
    assert server.stop() == 0


def test_the_package_installs_as_the_readme_says(tmp_path: Path) -> None:
    """`pip install .` is given a project that builds into a wheel with both packages and the command."""
    assert list(commands("pip")) == ["pip install ."]
    done = run(f"{sys.executable} -m pip wheel -q --no-deps --no-build-isolation -w {tmp_path} .", ROOT)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "streamlit-extension = streamlit_extension.cli:main" in archive.read(entry_points).decode()
    wanted = {"otel/py.typed", "streamlit_extension/py.typed", "streamlit_extension/demo/app/main.py"}
    assert wanted <= set(names)


def test_the_smallest_example_starts_and_every_path_answers(example: Path, serve: Start) -> None:
    """`run app.py` is healthy; curl, the probe script, the probes and the table of paths find what they are told."""
    started = [line for line in commands("streamlit-extension") if " run " in line]
    assert started == ["streamlit-extension run app.py"]
    server = serve("", command=[str(BIN / "streamlit-extension"), *started[0].split()[1:]], cwd=example)

    for line in commands("curl"):
        url = line.split()[1]
        assert url.startswith(f"http://127.0.0.1:{PORT}/")
        told = tomllib.loads("body = " + blocks(language="json")[0].text.replace('": ', '" = '))["body"]
        assert server.get(url.partition(PORT)[2]).json.keys() == told.keys()

    text = README.read_text(encoding="utf-8")
    paths = set(re.findall(r"`(/health[\w/]*)`", text)) | set(re.findall(r"path: (\S+?),", text))
    assert {"/health", "/health/detailed", "/health/ready", "/health/live", "/health/startup"} < paths
    assert {path: server.get(path).status for path in paths} == dict.fromkeys(paths, 200)
    table = re.search(r"every component: ([^;]*);", text)
    assert table is not None
    assert set(re.findall(r"`(\w+)`", table[1])) <= server.get("/health/detailed").json["components"].keys()

    lines = [line for line in commands("python") if "health_check" in line]
    assert len(lines) > 2
    for line in lines:
        assert run(f"{line} --url {server.url}", ROOT).returncode == 0, line
    assert server.stop() == 0


def test_the_smallest_example_is_a_page(example: Path) -> None:
    """The script runs in Streamlit without an error and shows its title."""
    page = AppTest.from_file(str(example / "app.py")).run(timeout=30)
    assert list(page.exception) == []
    assert page.title[0].value == "Hello"


@pytest.mark.parametrize("block", blocks(language="python")[1:], ids=lambda block: block.text.split("\n")[0])
def test_each_further_python_example_runs(block: Block, example: Path) -> None:
    """Each block runs as it stands, in a folder that holds `app.py`, without a warning or an error."""
    (example / "block.py").write_text(block.text.replace("__main__", "never"))
    done = run(f"{sys.executable} -W error block.py", example)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_the_launcher_serves(example: Path, serve: Start) -> None:
    """The second example works in the four ways that the sentence before it names."""
    launcher = next(block for block in blocks(language="python") if "create_app(app)" in block.text)
    (example / "launcher.py").write_text(launcher.text)
    config = example / ".streamlit/config.toml"
    config.parent.mkdir()
    for command in (
        [sys.executable, "launcher.py"],
        [str(BIN / "streamlit-extension"), "run", "launcher.py"],
        [str(BIN / "streamlit"), "run", "launcher.py"],
        [str(BIN / "uvicorn"), "launcher:app", "--port", "{port}"],
    ):
        port = free_port()
        # By file, as `python launcher.py` reads no port from the environment, in Streamlit's own `App.run` neither.
        config.write_text(f"[server]\nport = {port}\n")
        words = [word.format(port=port) for word in command]
        server = serve("", command=words, port=port, cwd=example)
        assert server.get("/health/live").json["alive"] is True
        server.stop()


def test_the_mounted_example_serves(example: Path, serve: Start) -> None:
    """The example with FastAPI serves Streamlit and its health below the mount."""
    mounted = next(block for block in blocks(language="python") if "api.mount" in block.text)
    (example / "mounted.py").write_text(mounted.text)
    port = free_port()
    command = [str(BIN / "uvicorn"), "mounted:api", "--port", str(port)]
    server: Server = serve("", command=command, port=port, cwd=example, ready="/ui/health/startup")
    assert server.get("/ui/health/ready").status == 200
    assert server.get("/ui/").status == 200
    assert server.get("/openapi.json").status == 200
    assert server.stop() == 0


def test_the_stop_alone_cleans_up(example: Path) -> None:
    """The example's callback runs at the block's end."""
    alone = next(block for block in blocks(language="python") if "GracefulShutdownHandler" in block.text)
    (example / "alone.py").write_text(alone.text)
    done = run(f"{sys.executable} alone.py", example)
    assert done.stdout.splitlines()[-2:] == ["at work", "connections are closed"]


def test_the_health_application_serves_alone(tmp_path: Path, serve: Start) -> None:
    """`uvicorn streamlit_extension.endpoints.health:app` answers every health path without Streamlit."""
    lines = list(commands("uvicorn"))
    assert len(lines) == 1
    port = free_port()
    server: Server = serve(
        "", command=[str(BIN / "uvicorn"), *lines[0].split()[1:], "--port", str(port)], port=port, cwd=tmp_path
    )
    assert server.get("/health/ready").status == 200
    server.stop()


def test_each_other_command_does_what_it_says(example: Path) -> None:
    """Doctor finds no problem here, the others end with exit code 0, and maintenance says what was ordered."""
    lines = [line for line in commands("streamlit-extension") if " run " not in line and line.split()[1] not in KEPT]
    assert len(lines) > 5
    said = {}
    for line in lines:
        # doctor calls a port in use a problem, and 8501 may be.
        done = run(line, example, STREAMLIT_SERVER_PORT=str(free_port()))
        problems = [each for each in done.stdout.splitlines() if each.startswith("problem: ")]
        # The oldest Streamlit keeps no cache counters: the one thing that `doctor` may find missing.
        assert [each for each in problems if "cache counters: missing" not in each] == []
        assert (done.returncode, done.stderr) == (1 if problems else 0, ""), (line, done.stdout)
        said[line] = done.stdout
    assert "database upgrade" in said["streamlit-extension maintenance status"]


async def test_the_commands_of_kept_telemetry_answer(example: Path, serve: Start) -> None:
    """While the smallest example runs, `link`, `logs` and `traces` answer as they stand, but for the trace's id."""
    lines = [line for line in commands("streamlit-extension") if line.split()[1] in KEPT]
    assert {line.split()[1] for line in lines} == KEPT
    saved = "\nfrom streamlit_extension import StructuredLogger\nStructuredLogger().log_with_correlation('INFO', 'client saved')\n"
    (example / "app.py").write_text(blocks(language="python")[0].text + saved)
    command = [str(BIN / "streamlit-extension"), "run", "app.py"]
    server = serve("", command=command, cwd=example, env={"STX_DATA_DIR": str(example / "data")})
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
    found: dict[str, str] = {}
    deadline = time.monotonic() + 30
    while "client saved" not in found.get("logs", "") or "app" not in found.get("traces", ""):
        assert time.monotonic() < deadline, found
        for word in ("logs", "traces"):
            found[word] = run(next(line for line in lines if line.split()[1] == word), example).stdout
    runs = run("streamlit-extension traces --json", example).stdout.splitlines()
    reference = json.loads(runs[0])["trace_id"][:8]
    for line in lines:
        done = run(line.replace("742e693e", reference), example)
        assert done.returncode == 0, (line, done.stderr)
    assert server.stop() == 0


def test_the_stack_is_called_as_its_tests_do() -> None:
    """Each call of the stack's script is one that its parser takes; tests/stack makes them, tests/deploy reads Compose."""
    lines = [line for line in commands("python") if "health_check" not in line]
    assert {line.rpartition(" ")[0] for line in lines} == {"python scripts/stack.py"}
    assert {line.split()[-1] for line in lines} == {"up", "status", "down"}
    assert list(commands("docker")) == ["docker compose up"]
    told = run(f"{sys.executable} scripts/stack.py --help", ROOT).stdout
    assert all(line.split()[-1] in told for line in lines)
    named = re.findall(r"kubectl apply -k (\S+?)`", README.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path / "kustomization.yaml").exists()] == []


def defaults() -> dict[str, Any]:
    """The values of the block that gives the defaults, by dotted name."""
    tables = tomllib.loads(blocks(language="toml")[0].text)
    health = tables.pop("health")
    return {**tables, **{f"health.{name}": value for name, value in health.items()}}


def test_the_defaults_are_the_real_ones() -> None:
    """The first block of settings changes nothing."""
    real = Settings().dump()
    assert {name: real[name] for name in defaults()} == defaults()


@pytest.mark.parametrize("block", blocks(language="toml"), ids=lambda block: block.text.split(" ")[0])
def test_each_block_of_settings_loads(block: Block, tmp_path: Path) -> None:
    """Each block loads as `observability.toml` of the working folder, and every name in it has come from there."""
    (tmp_path / "observability.toml").write_text(block.text)
    (tmp_path / "token").write_text("a-token-of-some-length")
    settings = Settings.load({}, tmp_path)
    assert settings.config_path == tmp_path / "observability.toml"
    named = {name for name, value in tomllib.loads(block.text).items() if not isinstance(value, dict)}
    assert all(settings.origin(name).kind.value != "default" for name in named)


def test_the_environment_is_written_as_the_readme_says(tmp_path: Path) -> None:
    """Each `STX_NAME=value` in a sentence is a setting that loads."""
    pairs = dict(re.findall(r"`(STX_\w+)=([^`]+)`", README.read_text(encoding="utf-8")))
    assert "STX_HEALTH__INTERVAL_S" in pairs
    assert Settings.load(pairs, tmp_path).health.interval_s == 5
