"""The sample application: clients, projects and tasks on a real SQL database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamlit_extension.settings import Settings

MAIN_SCRIPT = Path(__file__).parent / "app" / "main.py"


def launch(
    database_url: str | None, simulate: int, args: list[str], flag_options: Mapping[str, Any], settings: Settings
) -> int:
    """Prepare the database and serve the sample until stopped.

    Arguments:
        database_url: SQLAlchemy URL; by default SQLite in the data folder.
        simulate: how many users are simulated, as real WebSocket sessions of a process of their own.
        args: further arguments of the script.
        flag_options: Streamlit's options.
        settings: ours.

    Returns:
        The exit code.

    Raises:
        RunError: the database can't be used, or the extra `demo` is not installed.
    """
    from streamlit_extension.runner import run_script

    url = database_url or _default_url(settings)
    _prepare(url)
    users: subprocess.Popen[bytes] | None = None

    def start_users(root: str) -> None:
        nonlocal users
        command = [sys.executable, "-m", "streamlit_extension.demo.simulate", root, str(simulate)]
        users = subprocess.Popen(command, stdin=subprocess.PIPE)

    try:
        return run_script(
            str(MAIN_SCRIPT), [url, *args], flag_options, settings, on_listening=start_users if simulate else None
        )
    finally:
        if users is not None:
            users.terminate()
            users.wait(5)


def _default_url(settings: Settings) -> str:
    from streamlit_extension.streamlit_options import RunError

    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise RunError(f"the data folder {settings.data_dir} can't be used: {error.strerror}") from error
    return f"sqlite:///{settings.data_dir / 'demo.db'}"


def _prepare(url: str) -> None:
    from streamlit_extension.streamlit_options import RunError

    try:
        from sqlalchemy.exc import ArgumentError, SQLAlchemyError

        from streamlit_extension.demo import database
    except ImportError as error:
        raise RunError(f"the sample needs {error.name}: pip install 'streamlit-extension[demo]'") from error
    from otel.guard import redact_text, redact_url

    print("Preparing the sample's database …", flush=True)
    try:
        database.prepare(url)
    except ArgumentError as error:
        raise RunError("--database-url is no SQLAlchemy URL such as postgresql+psycopg://user@host/name") from error
    except ImportError as error:
        raise RunError(f"--database-url needs the driver {error.name}, which is not installed") from error
    except (SQLAlchemyError, OSError) as error:
        cause = redact_text(str(getattr(error, "orig", error)).strip().partition("\n")[0])
        raise RunError(f"the database {redact_url(url)} can't be used: {cause}") from error
