"""The stack's ports: what a command line says of them, and which are free."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from scripts.stack_programs import PORTS

_LAST: Final = 65_535


class PortError(ValueError):
    """A port can't be had; the text says which, and why."""


def given(words: Sequence[str]) -> dict[str, int]:
    """Read `NAME=N`, each of a name in `PORTS`.

    Raises:
        PortError: there is no such name, it is no port, or two are the same.
    """
    found: dict[str, int] = {}
    for each in words:
        name, _, number = each.partition("=")
        if name not in PORTS:
            raise PortError(f"no port is named {name!r}; there are {', '.join(PORTS)}")
        if not (number.isascii() and number.isdecimal() and 0 < int(number) <= _LAST):
            raise PortError(f"--port {name}={number}: a number from 1 to {_LAST} is needed")
        if int(number) in found.values():
            raise PortError(f"port {number} was given twice")
        found[name] = int(number)
    return found


def chosen(wanted: Mapping[str, int]) -> dict[str, int]:
    """Return a port for each name of `PORTS`: what is wanted, else the default, or any where somebody has that.

    Raises:
        PortError: somebody has one that is wanted; it would answer in place of the program.
    """
    found = dict(wanted)
    with contextlib.ExitStack() as held:  # all at once, so that none is given twice
        for name, port in wanted.items():
            if _bound(port, held) is None:
                raise PortError(f"port {port} ({name}) is taken")
        for name, default in PORTS.items():
            if name not in found:
                found[name] = _free(default, held, set(found.values()))
    return found


def _free(default: int, held: contextlib.ExitStack, others: set[int]) -> int:
    """A port that nobody has: the default, else any."""
    for port in (default, 0, 0, 0):
        if port not in others and (bound := _bound(port, held)) is not None:
            return bound
    raise PortError("no port is free")


def _bound(port: int, held: contextlib.ExitStack) -> int | None:
    opened = held.enter_context(socket.socket())
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # who has just left is no obstacle
    with contextlib.suppress(OSError):
        opened.bind(("127.0.0.1", port))
        return int(opened.getsockname()[1])
    return None
