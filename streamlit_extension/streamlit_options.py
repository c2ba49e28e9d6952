"""Streamlit's options that our server needs, read from its configuration and checked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

#: Where `run` listens until `server.address` says otherwise.
DEFAULT_ADDRESS = "127.0.0.1"

#: Whether Streamlit itself prints uncaught errors, in colours and over many lines, where `rich` is installed.
_RICH = "logger.enableRich"
_DEFAULT, _OURS = "<default>", "streamlit-extension"


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


def prefixes_below_base(prefix: str) -> tuple[str, ...]:
    """Where paths of ours are answered: below `prefix`, and below `server.baseUrlPath` too."""
    base = (option("server.baseUrlPath") or "").strip("/")
    return (prefix, f"/{base}{prefix}") if base else (prefix,)


def log_errors_as_records() -> Callable[[], None]:
    """Let Streamlit log uncaught errors instead of printing them by `rich`, unless the user has asked for that.

    Streamlit reads its options anew when a file of them changes, so this is said again then. Returns what puts it back.
    """
    from streamlit import config

    replaced: list[Any] = []

    def set_off() -> None:
        options = config.get_config_options()
        option = options[_RICH]
        if option.where_defined == _DEFAULT:  # its value is not asked for: that would import `rich`
            replaced[:] = [option]
            options[_RICH] = copy.copy(option)
            options[_RICH].set_value(False, _OURS)

    try:
        set_off()
        disconnect = config.on_config_parsed(set_off, force_connect=True)
    except (AttributeError, KeyError, RuntimeError):  # this Streamlit has no such option
        return lambda: None

    def undo() -> None:
        disconnect()
        options = config.get_config_options()
        if replaced and options[_RICH].where_defined == _OURS:
            options[_RICH] = replaced[0]

    return undo
