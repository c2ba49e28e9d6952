"""Methods wrapped in place, and put back exactly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def patch_method(
    owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[[], None]:
    """Replace `owner.name` by what `make` makes of it; returns what puts it back.

    Where somebody has wrapped ours meanwhile, theirs stays: taking it away is not ours to do. So what `make` returns
    must do nothing but call the original once its instrumentation has ended.

    Raises:
        AttributeError: the class has no such method of its own.
    """
    try:
        original = vars(owner)[name]
    except KeyError:
        raise AttributeError(f"{owner.__name__} has no {name} of its own") from None
    replacement = functools.wraps(original)(make(original))
    setattr(owner, name, replacement)

    def undo() -> None:
        if vars(owner).get(name) is replacement:
            setattr(owner, name, original)

    return undo
