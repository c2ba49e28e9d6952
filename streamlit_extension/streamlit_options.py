"""Streamlit's options that our server needs, read from its configuration and checked."""

from __future__ import annotations

from typing import Any

#: Where `run` listens until `server.address` says otherwise.
DEFAULT_ADDRESS = "127.0.0.1"


class RunError(Exception):
    """A start that can't be: its text is the one line that the user sees."""


def option(name: str) -> Any:
    """The value of one of Streamlit's options, by its dotted name."""
    from streamlit import get_option

    return get_option(name)


def application_socket() -> tuple[str, int]:
    """`server.address` (default: loopback) and `server.port` as Streamlit's configuration has them.

    Raises:
        RunError: one of them is no address or no port.
    """
    address, port = option("server.address") or DEFAULT_ADDRESS, option("server.port")
    if not isinstance(address, str) or not address.strip() or address.startswith("unix://"):
        raise RunError(f"server.address is {address!r}; allowed is an IP address or a host name")
    try:
        number = int(port)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number <= 65535 or isinstance(port, bool):
        raise RunError(f"server.port is {port!r}; allowed is a whole number from 0 to 65535")
    return address, number
