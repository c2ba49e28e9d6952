"""What all tests share."""

from __future__ import annotations

import pytest

pytest_plugins = [
    "tests.support.backends",
    "tests.support.browser",
    "tests.support.cgroup",
    "tests.support.otlp",
    "tests.support.server",
    "tests.support.stack",
    "tests.support.telemetry",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What talks to programs that are built is marked, and comes last: they may still be building."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & {"kubernetes", "start_stack"} or hasattr(getattr(item, "module", None), "built"):
            item.add_marker(pytest.mark.stack)
    items.sort(key=lambda item: item.get_closest_marker("stack") is not None)
