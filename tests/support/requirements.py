"""What a test needs from the machine: absent it is skipped with the reason, but in CI its absence is a failure."""

from __future__ import annotations

import os
import shutil

import pytest


def in_ci() -> bool:
    """Whether this run must skip nothing that CI can have."""
    return os.environ.get("CI", "").lower() in ("true", "1")


def require(present: object, what: str) -> None:
    """Go on when `present`; else skip here and fail in CI, naming what is missing."""
    if present:
        return
    if in_ci():
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"needs {what}")


def program(name: str, *more_places: str) -> str:
    """The path of a program, or a skip (a failure in CI) that names it."""
    found = shutil.which(name) or next((place for place in more_places if os.access(place, os.X_OK)), None)
    require(found, name)
    return str(found)
