"""Attributes as bytes: JSON, bounded, whatever they hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

#: Longest text of one value, in characters; what is cut off is told at its end.
MAX_TEXT: Final = 32 * 1024
#: Most attributes of a record, and most bytes of all of them.
MAX_ATTRIBUTES: Final = 1024
MAX_BYTES: Final = 256 * 1024
#: Name of what tells how many attributes were left out.
LEFT_OUT: Final = "telemetry.store.left_out"

_MAX_DEPTH: Final = 8
_MAX_ITEMS: Final = 1024
_INT64: Final = 1 << 63
_encode: Final = msgspec.json.Encoder().encode


def to_json(attributes: Mapping[str, Any] | None) -> bytes | None:
    """Attributes as JSON, None for none; never raises."""
    if not attributes:
        return None
    try:
        if len(attributes) <= MAX_ATTRIBUTES:
            data = _encode(attributes)
            if len(data) <= MAX_TEXT:
                return data
    except Exception:
        return _bounded(attributes)
    return _bounded(attributes)


def _bounded(attributes: Mapping[str, Any]) -> bytes:
    """The long way: value by value, until the bound is reached."""
    parts: list[bytes] = []
    size = 0
    for key, value in attributes.items():
        try:
            part = _encode({text(str(key), 256): simple(value)})[1:-1]
        except Exception:
            part = _encode({text(str(key), 256): f"({type(value).__name__})"})[1:-1]
        if len(parts) >= MAX_ATTRIBUTES or size + len(part) > MAX_BYTES:
            break
        parts.append(part)
        size += len(part)
    left = len(attributes) - len(parts)
    if left:
        parts.append(_encode({LEFT_OUT: left})[1:-1])
    return b"{" + b",".join(parts) + b"}"


def simple(value: Any, depth: int = 0) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else str(value)[:64]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        items = list(value.items())[:_MAX_ITEMS]
        return {text(str(key), 256): simple(each, depth + 1) for key, each in items}
    if depth < _MAX_DEPTH and isinstance(value, (list, tuple, set, frozenset)):
        return [simple(each, depth + 1) for each in list(value)[:_MAX_ITEMS]]
    if isinstance(value, (bytes, bytearray)):
        return text(bytes(value[:MAX_TEXT]).decode("utf-8", "replace"))
    try:
        return text(str(value))
    except Exception:
        return f"({type(value).__name__})"


def text(value: str, most: int = MAX_TEXT) -> str:
    """A text as UTF-8 can hold it, cut where it is too long."""
    if len(value) > most:
        value = f"{value[:most]}… ({len(value):,} characters)"
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace").decode()
    return value


_decode: Final = msgspec.json.Decoder().decode


def from_json(data: bytes | str | None) -> Any:
    """What `to_json` wrote, {} for nothing and for what can't be read."""
    if not data:
        return {}
    try:
        return _decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}
