"""Methods wrapped in place, and put back exactly."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from otel.containment import contained

Wrapper = TypeVar("Wrapper", bound=Callable[..., Any])


def unseen(wrapper: Wrapper) -> Wrapper:
    """Let a wrapper's frames, below which the user's code runs or fails, count as Streamlit's own.

    Streamlit leaves its own frames out of the stacks that it shows to users, and tells them by their files' folder.
    """
    with contained("a wrapper's frames could not be hidden"):
        streamlit = sys.modules.get("streamlit")
        code = getattr(wrapper, "__code__", None)
        if streamlit is not None and code is not None:
            inside = Path(str(streamlit.__file__)).with_name(f"observed by {wrapper.__module__}")
            wrapper.__code__ = code.replace(co_filename=str(inside))
    return wrapper


def replace_attribute(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute; returns what puts the former one back, unless somebody has wrapped ours meanwhile."""
    inherited = name not in vars(owner)
    previous = getattr(owner, name)
    setattr(owner, name, value)

    def undo() -> None:
        if vars(owner).get(name) is not value:
            return  # somebody has wrapped ours, which passes everything on while nobody watches
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, previous)

    return undo


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
    replacement = functools.wraps(original)(unseen(make(original)))
    setattr(owner, name, replacement)

    def undo() -> None:
        if vars(owner).get(name) is replacement:
            setattr(owner, name, original)

    return undo
