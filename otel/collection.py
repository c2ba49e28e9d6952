"""Garbage collection left off while much is made that stays."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Inside, nobody looks for garbage: what an import makes is none, and looking for some takes a tenth of a start."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def without_collection(function: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
    """The same for all that a coroutine function does."""

    @functools.wraps(function)
    async def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with no_collection():
            return await function(*args, **kwargs)

    return wrapped
