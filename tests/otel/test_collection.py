"""Garbage collection is off for a while, and then as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from otel.collection import no_collection


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    was_on = gc.isenabled()
    yield
    (gc.enable if was_on else gc.disable)()


@pytest.mark.parametrize("on", [True, False])
def test_it_is_off_inside_and_as_before_afterwards(on: bool) -> None:
    """Also after an error, and where it was off already."""
    (gc.enable if on else gc.disable)()
    seen = []

    def fail() -> None:
        with no_collection():
            seen.append(gc.isenabled())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [False]
    assert gc.isenabled() is on
