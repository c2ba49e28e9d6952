"""Links for a browser: each carries a code that opens the telemetry page once, within ten minutes.

A code is kept as its hash alone, as the name of an empty file (0600) in the data folder, so that one process makes it
(`streamlit-extension link`) and any process that shares the folder takes it. Taking it is deleting the file, which
only one of them can do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_log = logging.getLogger("streamlit_extension.viewer")

FOLDER: Final = "viewer-links"
ADDRESS_FILE: Final = "address.json"
#: How long a code is good for, in seconds.
LIFETIME_S: Final = 600.0
#: Where a link leads, below the telemetry page's path; the code is its query.
ENTER: Final = "enter"
_CODE_BYTES: Final = 32
#: So many codes may wait at a time; a new one pushes out the oldest.
_MOST_CODES: Final = 64
_MOST_BYTES: Final = 4096


class LinkBox:
    """Makes codes and takes them back.

    Arguments:
        data_dir: the data folder; without one (None) codes live in this process alone.
        wall: seconds since the Unix epoch.
    """

    def __init__(self, data_dir: Path | None, *, wall: Callable[[], float] = time.time) -> None:
        self._folder = None if data_dir is None else data_dir / FOLDER
        self._wall = wall
        self._lock = threading.Lock()
        self._in_memory: dict[str, float] = {}

    def make(self) -> str:
        """Return a new code. Raises OSError where the folder can't be written."""
        code = secrets.token_urlsafe(_CODE_BYTES)
        until = self._wall() + LIFETIME_S
        if self._folder is None:
            with self._lock:
                self._in_memory[_hash(code)] = until
            return code
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._prune(self._folder)
        name = f"{_hash(code)}.{int(until)}"
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.close(descriptor)
        return code

    def take(self, code: str) -> bool:
        """Whether this code opens the page: it was made, is not too old, and nobody has taken it before."""
        if not code or len(code) > 4 * _CODE_BYTES or not code.isascii():
            return False
        digest = _hash(code)
        if self._folder is None:
            with self._lock:
                until = self._in_memory.pop(digest, 0.0)
            return self._wall() < until
        try:
            found = [name for name in _names(self._folder) if secrets.compare_digest(name[:64], digest)]
            for name in found:
                (self._folder / name).unlink()  # fails for all but the first
        except OSError:
            return False
        now = self._wall()
        return any(now < _until(name) <= now + LIFETIME_S + 1 for name in found)

    def _prune(self, folder: Path) -> None:
        names = sorted((name for name in _names(folder) if name != ADDRESS_FILE), key=_until)
        old = [name for name in names if _until(name) <= self._wall()]
        extra = names[len(old) : max(len(old), len(names) - _MOST_CODES + 1)]
        for name in (*old, *extra):
            with contextlib.suppress(OSError):
                (folder / name).unlink()

    # -- where the page is ----------------------------------------------------------------------------------------

    def publish(self, url: str) -> None:
        """Tell other processes where the telemetry page is (`http://127.0.0.1:8501/telemetry/`); never raises."""
        if self._folder is None:
            return
        draft = self._folder / f".{secrets.token_hex(8)}.0"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                json.dump({"url": url}, opened)
            draft.replace(self._folder / ADDRESS_FILE)
        except OSError as error:
            fields = {"event": "viewer.address_not_kept", "error_type": type(error).__name__}
            _log.warning("where the telemetry page is can't be kept in the data folder", extra=fields)

    def address(self) -> str | None:
        """Where the process that started last said the page is; None when none did."""
        if self._folder is None:
            return None
        try:
            with (self._folder / ADDRESS_FILE).open("rb") as opened:
                url = json.loads(opened.read(_MOST_BYTES))["url"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        good = isinstance(url, str) and url.isprintable() and url.startswith(("http://", "https://"))
        return url if good else None


def link_of(page_url: str, code: str) -> str:
    """The address that opens the page at `page_url` (which ends in a slash) once."""
    return f"{page_url}{ENTER}?code={code}"


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8")).hexdigest()


def _until(name: str) -> float:
    """The end of a code's time, from its file's name; 0 for a file that is none."""
    last = name.rpartition(".")[2]
    return float(last) if last.isdecimal() and len(last) < 16 else 0.0
