"""`run` and `demo`: Streamlit's own options as they are, then our server."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from streamlit_extension.cli import UserError, load_settings

_EXTENSIONS: Final = (".py", ".py3")  # what Streamlit takes for a script
_DEFAULT_SCRIPT: Final = "streamlit_app.py"
_DOWNLOAD_TIMEOUT_S: Final = 30.0


def streamlit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add every option of `streamlit run`; a Streamlit that moved them is used by its environment and config.toml."""
    try:
        from streamlit.web.cli import configurator_options
    except ImportError:
        return function
    return configurator_options(function)


def _refuse_workers(_: click.Context, __: click.Parameter, value: int | None) -> None:
    if value is not None and value > 1:
        raise UserError(
            f"{value} workers (--workers or WEB_CONCURRENCY) are not possible: Streamlit keeps sessions in the memory "
            "of one process; run replicas behind a load balancer with session affinity instead"
        )


# The prefix is Streamlit's, so that STREAMLIT_SERVER_PORT and STREAMLIT_RUN_TARGET mean what they mean there.
@click.command("run", context_settings={"auto_envvar_prefix": "STREAMLIT_RUN"})
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    envvar="WEB_CONCURRENCY",
    expose_value=False,
    callback=_refuse_workers,
    help="1; more than one is refused, as sessions live in one process's memory.",
)
@streamlit_options
@click.argument("target", default=_DEFAULT_SCRIPT, envvar="STREAMLIT_RUN_TARGET")
@click.argument("args", nargs=-1)
def run(target: str, args: tuple[str, ...], **flag_options: Any) -> int:
    """Run a Streamlit script, unchanged and observable.

    TARGET is a Python file, a folder that holds streamlit_app.py, or a URL of a Python file; the script's own
    arguments come after " -- ".
    """
    with local_script(target) as script:
        settings = load_settings()
        from streamlit_extension.runner import run_script
        from streamlit_extension.streamlit_options import RunError

        try:
            return run_script(str(script), list(args), flag_options, settings)
        except RunError as error:
            raise UserError(str(error)) from None


@contextlib.contextmanager
def local_script(target: str) -> Iterator[Path]:
    """Give the path of the script that TARGET names; raises UserError in one line where there is none."""
    if target.lower().startswith(("http://", "https://")):
        with tempfile.TemporaryDirectory(prefix="streamlit-extension-") as folder:
            yield _download(target, Path(folder))
        return
    path = Path(target)
    if path.is_dir():
        path /= _DEFAULT_SCRIPT
    _check_extension(path.name)
    if not path.exists():
        raise UserError(f"file does not exist: {path}")
    if not path.is_file() or not os.access(path, os.R_OK):
        raise UserError(f"file can't be read: {path}")
    yield path


def _check_extension(name: str) -> None:
    extension = Path(name).suffix
    if extension not in _EXTENSIONS:
        said = f"not {extension}" if extension else f"and {name!r} has no extension"
        raise UserError(f"Streamlit runs Python (.py) files, {said}")


def _download(url: str, folder: Path) -> Path:
    import requests

    from streamlit_extension.settings import redact_url

    name = urlsplit(url).path.strip("/").rsplit("/", 1)[-1]
    _check_extension(name)
    try:
        answer = requests.get(_raw_url(url), timeout=_DOWNLOAD_TIMEOUT_S)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise UserError(f"can't fetch {redact_url(url)}: {type(error).__name__}") from None
    script = folder / name
    script.write_bytes(answer.content)
    return script


def _raw_url(url: str) -> str:
    """Return the raw file's URL for a page of GitHub or Gist, as Streamlit does."""
    try:
        from streamlit.url_util import process_gitblob_url
    except ImportError:
        return url
    return str(process_gitblob_url(url) or url)


@click.command("demo", context_settings={"auto_envvar_prefix": "STREAMLIT_RUN"})
@click.option("--port", type=click.IntRange(0, 65535), help="The application's port; the same as --server.port.")
@click.option("--database-url", help="SQLAlchemy URL; default: a SQLite file.")
@click.option("--simulate", type=click.IntRange(0, 1000), default=0, help="Real sessions that click through the pages.")
@streamlit_options
@click.argument("args", nargs=-1)
def demo(port: int | None, database_url: str | None, simulate: int, args: tuple[str, ...], **flag_options: Any) -> int:
    """Run the sample: clients, projects and tasks on a real SQL database."""
    if port is not None:
        flag_options["server_port"] = port
    settings = load_settings()
    from streamlit_extension.streamlit_options import RunError

    try:
        from streamlit_extension.demo import launch
    except ImportError as error:
        raise UserError(f"the sample needs {error.name}: pip install 'streamlit-extension[demo]'") from None
    try:
        return int(launch(database_url, simulate, list(args), flag_options, settings))
    except RunError as error:
        raise UserError(str(error)) from None
