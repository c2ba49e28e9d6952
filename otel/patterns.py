"""Regular expressions that are compiled at their first use: compiling all of them takes a twentieth of a start."""

from __future__ import annotations

import re
from typing import Any, cast

_METHODS = ("search", "match", "fullmatch", "sub", "split", "finditer")


class _Lazy:
    """Becomes the pattern at its first use; two threads that use it at once compile it twice, to the same effect."""

    def __init__(self, text: str, flags: int) -> None:
        self._made_of = text, flags

    def __getattr__(self, name: str) -> Any:
        compiled = re.compile(*self._made_of)
        self.__dict__.update({each: getattr(compiled, each) for each in _METHODS})
        return getattr(compiled, name)


def lazy(text: str, flags: int = 0) -> re.Pattern[str]:
    """What `re.compile` gives, compiled later; one that can't be compiled says so at its first use."""
    return cast("re.Pattern[str]", _Lazy(text, flags))
