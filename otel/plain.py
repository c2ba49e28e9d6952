"""Any value as plain data: what it is made of, or its text, whatever it does when it is asked."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

_SURROGATES: Final = re.compile("[\ud800-\udfff]")
#: Values of one record that are looked into.
MAX_VALUES: Final = 1000
#: A type whose text took longer than this, in seconds, is named instead from then on.
SLOW_S: Final = 0.02
#: Types whose text is known to be short and harmless to ask for are not timed.
_slow: weakref.WeakSet[type] = weakref.WeakSet()
_asking = threading.local()


class Budget:
    """What one record may cost: the number of values, and which containers are being looked into (a cycle is named)."""

    __slots__ = ("_inside", "_left")

    def __init__(self, values: int = MAX_VALUES) -> None:
        self._left = values
        self._inside: set[int] = set()

    def left(self) -> int:
        """Values that may still be looked at."""
        return self._left

    def spend(self, values: int) -> None:
        """Take some."""
        self._left = max(0, self._left - values)

    def enter(self, value: Any) -> bool:
        """Begin to look into a container; False when it is being looked into already."""
        if id(value) in self._inside or self._left <= 0:
            return False
        self._inside.add(id(value))
        return True

    def leave(self, value: Any) -> None:
        """Its end."""
        self._inside.discard(id(value))


def tidy(text: str) -> str:
    """`text` with lone surrogates, which no encoding takes, written as escapes."""
    return text if text.isascii() else _SURROGATES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def text_of(value: Any, budget: Budget | None = None) -> str:
    """A value's own text, or its type's name where that fails, where it calls itself, or where it has been slow."""
    kind = type(value)
    if budget is not None:
        budget.spend(1)
    depth = getattr(_asking, "depth", 0)
    if depth > 2 or kind in _slow or (budget is not None and budget.left() <= 0):
        return f"<{kind.__name__}>"
    _asking.depth = depth + 1
    began = time.perf_counter()
    try:
        return str.__str__(str(value))
    except Exception:
        return f"<{kind.__name__}>"
    finally:
        _asking.depth = depth
        if time.perf_counter() - began > SLOW_S and kind.__module__ != "builtins":
            _slow.add(kind)


def open_up(value: Any, budget: Budget) -> Mapping[Any, Any] | Sequence[Any] | str | float:
    """What a value is made of: a mapping, a sequence, a plain scalar, or its text."""
    try:
        return _open_up(value, budget)
    except Exception:
        return text_of(value, budget)


def _open_up(value: Any, budget: Budget) -> Mapping[Any, Any] | Sequence[Any] | str | float:
    kind = type(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value[:16_384]).decode("utf-8", "backslashreplace") + ("…" if len(value) > 16_384 else "")
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return dict(zip(kind._fields, value, strict=False))
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, BaseException):
        return f"{kind.__name__}: {text_of(value, budget)}"
    return _open_record(value, kind, budget)


def _open_record(value: Any, kind: type, budget: Budget) -> Mapping[Any, Any] | str:
    """Dataclasses, msgspec's structs, attrs and pydantic's models by their fields, anything else by its text."""
    names: Any = None
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif hasattr(kind, "__struct_fields__"):
        names = kind.__struct_fields__
    elif hasattr(kind, "__attrs_attrs__"):
        names = [each.name for each in kind.__attrs_attrs__]
    elif callable(getattr(kind, "model_dump", None)):
        found = value.model_dump()
        return found if isinstance(found, Mapping) else text_of(value, budget)
    if names is None:
        return text_of(value, budget)
    return {name: getattr(value, name, None) for name in names}
