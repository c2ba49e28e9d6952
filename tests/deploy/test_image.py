"""The image: what Docker's own parsers make of the Dockerfile, and its steps and commands run without an engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.support import ROOT, docker
from tests.support.backends import free_port
from tests.support.requirements import in_ci
from tests.support.server import Start
from tests.test_house import pins

SECRETS = (".env", "otel/.env.local", "id.key", "streamlit_extension/tls.pem", "demo.db", "token", ".git/config")


@pytest.fixture(scope="module")
def stages() -> list[dict[str, Any]]:
    """The stages of the Dockerfile."""
    found = docker("dockerfile", ROOT / "Dockerfile")
    assert found["warnings"] == []
    made: list[dict[str, Any]] = found["stages"]
    return made


def commands(stage: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The data of the instructions of one name."""
    return [each["Data"] for each in stage["Commands"] if each["Name"].lower() == name]


def environment(stage: dict[str, Any]) -> dict[str, str]:
    """What ENV sets."""
    return {each["Key"]: each["Value"] for one in commands(stage, "env") for each in one["Env"]}


def test_the_base_is_slim_and_of_one_exact_version(stages: list[dict[str, Any]]) -> None:
    """Both stages begin with the same Python image, named to the last digit and to the distribution."""
    bases = {stage["Base"] for stage in stages}
    assert len(stages) == 2 and len(bases) == 1
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-bookworm", base)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert tuple(map(int, base[7:11].split("."))) >= tuple(
        map(int, project["project"]["requires-python"].strip(">=").split("."))
    )


def test_the_container_is_run_by_nobody_special(stages: list[dict[str, Any]]) -> None:
    """A user by number, so that runAsNonRoot can tell; the signal, the port, the volume and the command are as told."""
    last = stages[-1]
    assert [each["User"] for each in commands(last, "user")] == ["10001:10001"]
    assert [each["Signal"] for each in commands(last, "stopsignal")] == ["SIGTERM"]
    assert [each["Ports"] for each in commands(last, "expose")] == [["8501"]]
    assert [each["Volumes"] for each in commands(last, "volume")] == [[environment(last)["STX_DATA_DIR"]]]
    assert [each["CmdLine"] for each in commands(last, "entrypoint")] == [["streamlit-extension"]]
    assert [each["CmdLine"] for each in commands(last, "cmd")] == [["demo"]]
    assert all(each["Name"].lower() != "add" for stage in stages for each in stage["Commands"])


def test_only_hashed_releases_are_installed(stages: list[dict[str, Any]]) -> None:
    """Every call of pip that fetches something wants hashes and wheels; the last one takes our own wheel alone."""
    lines = [
        line for one in commands(stages[0], "run") for line in one["CmdLine"][0].split("&&") if " install " in line
    ]
    assert len(lines) == 3
    for line in lines[:2]:
        assert "--require-hashes" in line and "--no-deps" in line and "--only-binary :all:" in line
    assert "--no-index" in lines[2]
    assert not [line for one in commands(stages[1], "run") for line in one["CmdLine"] if "pip" in line or "apt" in line]


@pytest.mark.parametrize(("lock", "extras"), [("image.txt", ("demo", "grpc")), ("build.txt", None)])
def test_the_image_holds_what_the_tests_run_with(lock: str, extras: tuple[str, ...] | None) -> None:
    """Its locks are parts of the tested one, complete for what the image is for, and without the tests' tools."""
    found, tested = pins(lock), pins("dev.txt")
    assert {name: version for name, version in found.items() if tested.get(name) != version} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if extras is None:
        asked = project["build-system"]["requires"]
    else:
        asked = [*project["project"]["dependencies"]]
        for extra in extras:
            asked += project["project"]["optional-dependencies"][extra]
    wanted = [Requirement(text) for text in asked]
    missing = [each.name for each in wanted if not each.marker or each.marker.evaluate()]
    assert [name for name in missing if canonicalize_name(name) not in found] == []
    assert {"pytest", "mypy", "playwright", "ruff"}.isdisjoint(found)


def test_the_build_context_is_what_is_copied_and_no_secret(stages: list[dict[str, Any]], tmp_path: Path) -> None:
    """Every source of a COPY is sent, and nothing else: no secret that lies about, no history, no test."""
    sent = set(docker("context", ROOT))
    copied = [path for one in commands(stages[0], "copy") for path in one["SourcePaths"]]
    copied += [path for one in commands(stages[1], "copy") if not one["From"] for path in one["SourcePaths"]]
    for path in copied:
        assert path in sent or any(each.startswith(f"{path}/") for each in sent), path
    assert [each for each in sent if not any(each == path or each.startswith(f"{path}/") for path in copied)] == []
    for name in (*SECRETS, "otel/fine.py", "streamlit_extension/demo/app/main.py", "tests/test_x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    assert docker("context", tmp_path) == ["otel/fine.py", "streamlit_extension/demo/app/main.py"]


def test_the_images_command_serves_and_its_health_check_tells(
    stages: list[dict[str, Any]], tmp_path: Path, serve: Start
) -> None:
    """With the image's variables the sample listens on all addresses; HEALTHCHECK passes, and fails once it is gone."""
    last = stages[-1]
    variables = {name: value for name, value in environment(last).items() if name != "PATH"}
    port = free_port()
    variables |= {"STX_DATA_DIR": str(tmp_path / "data"), "STREAMLIT_SERVER_PORT": str(port)}
    (entry,), (words,) = (commands(last, name) for name in ("entrypoint", "cmd"))
    program = str(Path(sys.executable).parent / entry["CmdLine"][0])
    server = serve("", command=[program, *words["CmdLine"]], env=variables, port=port)
    (health,) = commands(last, "healthcheck")
    kind, _, script, *options = health["Health"]["Test"]
    assert (kind, script) == ("CMD", "/opt/health_check.py")
    assert float(options[options.index("--timeout") + 1]) < health["Health"]["Timeout"] / 1e9
    check = [sys.executable, str(ROOT / "scripts/health_check.py"), *options, "--url"]
    assert subprocess.run([*check, server.url], check=False, capture_output=True).returncode == 0
    listening = Path(f"/proc/{server.process.pid}/net/tcp")
    if listening.exists():
        assert f"00000000:{port:04X}" in listening.read_text()
    assert server.stop() == 0
    assert subprocess.run([*check, server.url], check=False, capture_output=True).returncode == 1


def test_a_read_only_root_is_enough(stages: list[dict[str, Any]], tmp_path: Path, serve: Start) -> None:
    """Where nothing but the data folder and /tmp can be written, the sample starts, serves a session and ends."""
    unshare = shutil.which("unshare") or "unshare"
    freeze = 'mount --bind "$1" "$1" && mount -o remount,ro,bind / && shift && ! touch /frozen 2>/dev/null && exec "$@"'
    isolated = [unshare, "--mount", "--propagation", "private", "sh", "-c", freeze, "sh", str(tmp_path)]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("may make no mount namespace of its own")
    home = {"HOME": "/app", "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    variables = {name: value for name, value in environment(stages[-1]).items() if name.startswith("STREAMLIT_")}
    port = free_port()
    command = [*isolated, str(Path(sys.executable).parent / "streamlit-extension"), "demo", "--simulate", "1"]
    settings = {**variables, **home, "STREAMLIT_SERVER_PORT": str(port), "STX_DATA_DIR": str(tmp_path / "data")}
    server = serve("", command=command, env=settings, port=port)
    server.wait_for("/health/ready", lambda answer: answer.status == 200)
    assert (tmp_path / "data/demo.db").exists()
    assert server.stop() == 0
    assert [line for line in server.lines if line.get("level") == "ERROR"] == []


@pytest.mark.timeout(900)
@pytest.mark.skipif(
    not (in_ci() or os.environ.get("SOAK")), reason="installs 70 packages: in CI and by `make soak` alone"
)
def test_the_steps_build_what_the_image_holds(stages: list[dict[str, Any]], tmp_path: Path) -> None:
    """The first stage's COPY and RUN, with nothing but the build context, make an environment that has the command."""
    source, programs = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    sent = docker("context", ROOT)
    python = shutil.which(f"python{sys.version_info[0]}.{sys.version_info[1]}") or sys.executable
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON"))}
    for step in stages[0]["Commands"]:
        if step["Name"].lower() == "copy":
            wanted = step["Data"]["SourcePaths"]
            for each in sent:
                if any(each == path or each.startswith(f"{path}/") for path in wanted):
                    (source / each).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / each, source / each)
        elif step["Name"].lower() == "env":
            environ |= {each["Key"]: each["Value"] for each in step["Data"]["Env"]}
        elif step["Name"].lower() == "run":
            line = step["Data"]["CmdLine"][0].replace("/opt/", f"{programs}/")
            line = re.sub(r"(^|&& )python ", rf"\g<1>{python} ", line)
            done = subprocess.run(
                ["sh", "-ec", line], cwd=source, env=environ, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
    told = subprocess.run(
        [str(programs / "app/bin/streamlit-extension"), "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert told.stdout.startswith("streamlit-extension ")
    assert not (programs / "app/bin/pip").exists()
