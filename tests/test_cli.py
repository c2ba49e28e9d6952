"""The command line: one line for each mistake, real processes, nothing loaded that isn't needed."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from streamlit_extension.cli import COMMANDS, Duration, UserError, cli
from streamlit_extension.cli_run import local_script
from streamlit_extension.control import ControlFile


def call(cwd: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with a data folder in `cwd`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("STX_", "WEB_", "STREAMLIT_"))}
    env.update({"STX_DATA_DIR": str(cwd / "data"), **environ})
    command = [sys.executable, "-m", "streamlit_extension", *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("args", "environ", "said"),
    [
        (["nope"], {}, "nope"),
        (["--nope"], {}, "--nope"),
        (["run", "gone.py"], {}, "gone.py"),
        (["run"], {}, "streamlit_app.py"),
        (["run", "."], {}, "streamlit_app.py"),
        (["run", "notes.txt"], {}, ".txt"),
        (["run", "app.py", "--server.nope", "1"], {}, "--server.nope"),
        (["run", "app.py", "--server.port", "x"], {}, "--server.port"),
        (["run", "app.py", "--server.cookieSecret", "x"], {}, "STREAMLIT_SERVER_COOKIE_SECRET"),
        (["run", "app.py", "--workers", "2"], {}, "session affinity"),
        (["run", "app.py"], {"WEB_CONCURRENCY": "4"}, "session affinity"),
        (["run", "app.py"], {"STX_HEALTH__INTERVAL_S": "-3"}, "STX_HEALTH__INTERVAL_S: '-3'"),
        (["run", "app.py"], {"STX_TOKN": "hush"}, "STX_TOKEN"),
        (["run", "app.py"], {"STREAMLIT_SERVER_PORT": "x"}, "--server.port"),
        (["maintenance", "on"], {}, "--reason"),
        (["maintenance", "on", "--reason", "x", "--for", "3w"], {}, "3w"),
        (["maintenance", "on", "--reason", "x"], {"STX_DATA_DIR": "/dev/null/x"}, "/dev/null/x"),
        (["log-level", "LOUD"], {}, "LOUD"),
        (["doctor", "gone.py"], {}, "gone.py"),
    ],
)
def test_each_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, args: list[str], environ: dict[str, str], said: str
) -> None:
    """A user's mistake writes one line that begins with the program's name, and nothing on standard output."""
    (tmp_path / "app.py").write_text("import streamlit as st\n")
    done = call(tmp_path, *args, **environ)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("streamlit-extension: ") and done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr and "hush" not in done.stderr


def test_bad_file_is_one_line(tmp_path: Path) -> None:
    """A settings file that is no TOML stops a command with the file's name and line."""
    (tmp_path / "observability.toml").write_text("a = 1\nb = = 2\n")
    done = call(tmp_path, "maintenance", "status")
    assert done.returncode == 2 and "line 2" in done.stderr and done.stderr.count("\n") == 1


def test_help_and_maintenance_load_no_streamlit(tmp_path: Path) -> None:
    """The quick commands import neither Streamlit nor OpenTelemetry's SDK."""
    for args in (["--help"], ["maintenance", "status"], ["log-level", "INFO"], ["--version"]):
        code = (
            "import sys; from streamlit_extension.cli import cli\n"
            f"assert cli.main({args!r}, 'streamlit-extension', standalone_mode=False) == 0\n"
            "heavy = {'streamlit', 'pandas', 'sqlalchemy', 'opentelemetry.sdk', 'uvicorn'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        env = {**os.environ, "STX_DATA_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_help_lists_every_command() -> None:
    """The help names each command of the table; without a command it is shown too."""
    for args in (["--help"], []):
        shown = CliRunner().invoke(cli, args)
        assert shown.exit_code == 0 and all(name in shown.stdout for name in COMMANDS)


def test_run_has_every_option_of_streamlit() -> None:
    """Each option of `streamlit run` is an option of `run`, with the same variable."""
    from streamlit.web.cli import main_run

    ours = cli.get_command(click.Context(cli), "run")
    assert ours is not None
    known = {param.name: param for param in ours.params}
    for theirs in main_run.params:
        assert known[theirs.name].opts == theirs.opts and known[theirs.name].envvar == theirs.envvar


def test_run_hands_script_arguments_and_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's script, its arguments after --, an option and a variable arrive at the runner, whose code is the exit's."""
    from streamlit_extension import runner

    seen: list[object] = []

    def run_script(target: str, args: list[str], flag_options: dict[str, object], settings: object) -> int:
        seen.extend([target, args, flag_options["server_port"], flag_options["server_headless"]])
        return 7

    monkeypatch.setattr(runner, "run_script", run_script)
    (tmp_path / "streamlit_app.py").write_text("")
    command = ["run", str(tmp_path), "--server.port", "0", "--", "--mine", "1"]
    done = CliRunner().invoke(cli, command, env={"STREAMLIT_SERVER_HEADLESS": "true"})
    assert done.exit_code == 7, done.output
    assert seen == [str(tmp_path / "streamlit_app.py"), ["--mine", "1"], 0, True]


def test_runner_s_refusal_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the runner can't do, such as a taken port, is the same kind of line."""
    from streamlit_extension import runner
    from streamlit_extension.streamlit_options import RunError

    def run_script(*_: object) -> int:
        raise RunError("port 8501 is taken\nby another")

    monkeypatch.setattr(runner, "run_script", run_script)
    (tmp_path / "app.py").write_text("")
    done = CliRunner().invoke(cli, ["run", str(tmp_path / "app.py")])
    assert (done.exit_code, done.output) == (2, "streamlit-extension: port 8501 is taken by another\n")


def test_unreachable_url_is_one_line_without_its_secret() -> None:
    """A script by URL that can't be fetched says so without user-info or query."""
    with pytest.raises(UserError) as caught, local_script("http://me:hush@127.0.0.1:1/app.py?key=hush"):
        raise AssertionError("nothing was fetched")
    assert "127.0.0.1" in str(caught.value) and "hush" not in str(caught.value)


def test_maintenance_and_log_level_keep_each_other(tmp_path: Path) -> None:
    """Each command changes its own part of the control file, and `status` says what holds."""
    env = {"STX_DATA_DIR": str(tmp_path)}
    for args in (["maintenance", "on", "--reason", "new\ndisk", "--for", "2h"], ["log-level", "debug", "--for", "10m"]):
        assert CliRunner().invoke(cli, args, env=env).exit_code == 0
    state = ControlFile(tmp_path).read()
    assert state.maintenance is not None and state.log_level is not None
    assert state.maintenance.until - state.maintenance.set_at == timedelta(hours=2)
    assert state.log_level.level == "DEBUG"
    assert "new disk" in CliRunner().invoke(cli, ["maintenance", "status"], env=env).stdout
    assert CliRunner().invoke(cli, ["maintenance", "off"], env=env).exit_code == 0
    assert ControlFile(tmp_path).read().maintenance is None
    assert ControlFile(tmp_path).read().log_level == state.log_level
    assert CliRunner().invoke(cli, ["maintenance", "status"], env=env).stdout == "off\n"


@pytest.mark.parametrize(
    ("text", "time"),
    [("30s", timedelta(seconds=30)), ("10m", timedelta(minutes=10)), ("2h", timedelta(hours=2)), ("1d", timedelta(1))],
)
def test_durations(text: str, time: timedelta) -> None:
    """Seconds, minutes, hours and days."""
    assert Duration().convert(text, None, None) == time


@pytest.mark.parametrize("text", ["", "0s", "5", "-1m", "1.5h", "1w", "999999999d", "٣s", "30 s"])
def test_what_is_no_duration(text: str) -> None:
    """Nothing, zero, no unit, fractions, other units and more than a year are refused."""
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)
