"""Patterns that are compiled at their first use."""

from __future__ import annotations

import re

import pytest

from otel.patterns import lazy


def test_it_answers_as_a_compiled_one_does() -> None:
    """Every way of asking, flags included, gives what `re.compile` gives, the first time and again."""
    pattern, compiled = lazy(r"b(\d+)", re.IGNORECASE), re.compile(r"b(\d+)", re.IGNORECASE)
    text = "a B12 b3"
    for _ in range(2):
        assert pattern.sub("x", text) == compiled.sub("x", text) == "a x x"
        assert [each[1] for each in pattern.finditer(text)] == ["12", "3"]
        assert pattern.split(text) == compiled.split(text)
        assert pattern.search("none") is None
        found = pattern.fullmatch("B7")
        assert found is not None
        assert found[1] == "7"
    assert pattern.pattern == compiled.pattern


def test_a_wrong_one_says_so_when_it_is_asked() -> None:
    """Nothing is compiled before that."""
    pattern = lazy("(")
    with pytest.raises(re.error):
        pattern.search("")
