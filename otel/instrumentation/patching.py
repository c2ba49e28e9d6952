"""Methods wrapped in place, and put back exactly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def patch_method(owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[], None]:
    """Replace `owner.name` by what `make` makes of it; returns what puts it back.

    Where somebody has wrapped ours meanwhile, theirs stays: taking it away is not ours to do, so ours falls silent and
    calls the original alone.

    Raises:
        AttributeError: the class has no such method of its own.
    """
    try:
        original = vars(owner)[name]
    except KeyError:
        raise AttributeError(f"{owner.__name__} has no {name} of its own") from None
    replacement = make(original)
    active = True

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        return replacement(*args, **kwargs) if active else original(*args, **kwargs)

    setattr(owner, name, method)

    def undo() -> None:
        nonlocal active
        active = False
        if vars(owner).get(name) is method:
            setattr(owner, name, original)

    return undo
