"""The data folder: made private, refused where it can't hold data safely, and home of the token."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from streamlit_extension.settings import Settings

_log = logging.getLogger("streamlit_extension.settings")

TOKEN_FILE: Final = "token"
_TOKEN_BYTES: Final = 32


class DataFolder(msgspec.Struct, frozen=True):
    """The outcome of `make_data_folder`: `path` of the folder, or None with the `reason` in one line."""

    path: Path | None
    reason: str = ""


def prepare_data_dir(settings: Settings) -> Path | None:
    """Make the data folder and return it; where it can't be used log why and return None: the application runs."""
    folder = make_data_folder(settings)
    if folder.path is None:
        fields = {"event": "settings.data_dir_unusable", "folder": str(settings.data_dir)}
        _log.warning(folder.reason, extra=fields)
    return folder.path


def make_data_folder(settings: Settings) -> DataFolder:
    """Make the data folder (0700) and try to write in it. Never raises.

    A folder that is there keeps its mode (a mounted volume has the group that Kubernetes gave it).
    """
    folder = settings.data_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return DataFolder(None, f"data folder {folder} can't be used: {reason}")
    return DataFolder(folder)


def load_or_make_token(settings: Settings, data_dir: Path | None) -> str:
    """Return the token that entitles: the configured one, else the kept one, else a new one, kept (0600).

    Processes that start together agree on one token: it is written in full to a file of its own and then linked to its
    name, which only the first can do. Without a folder the token lives as long as the process. It is never printed.
    """
    configured = settings.token_value()
    if configured is not None:
        return configured
    if data_dir is None:
        return secrets.token_urlsafe(_TOKEN_BYTES)
    file = data_dir / TOKEN_FILE
    try:
        return _read_token(file) or _make_token(file)
    except OSError as error:
        fields = {"event": "settings.token_not_kept", "error_type": type(error).__name__}
        _log.warning("the token can't be kept in the data folder; it ends with this process", extra=fields)
        return secrets.token_urlsafe(_TOKEN_BYTES)


def _read_token(file: Path) -> str | None:
    """Return the kept token, None when there is none; one that strangers may read is replaced, as is a damaged one."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        file.unlink(missing_ok=True)  # a symbolic link is not ours
        return None
    with os.fdopen(descriptor, "rb") as opened:
        mode = os.fstat(descriptor).st_mode
        text = opened.read(1024).decode("ascii", "replace").strip()
    private = sys.platform == "win32" or not mode & stat.S_IRWXO  # fsGroup of Kubernetes gives a volume to a group
    if private and len(text) >= _TOKEN_BYTES and text.isprintable() and text.isascii():
        return text
    file.unlink(missing_ok=True)
    return None


def _make_token(file: Path) -> str:
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(token + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        try:
            os.link(draft, file)
        except FileExistsError:
            return _read_token(file) or token
        except OSError:  # a file system without hard links
            return _make_token_exclusively(file, token)
        return token
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _make_token_exclusively(file: Path, token: str) -> str:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_token(file) or token
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(token + "\n")
    return token
