"""What all tests share."""

from __future__ import annotations

pytest_plugins = [
    "tests.support.backends",
    "tests.support.browser",
    "tests.support.cgroup",
    "tests.support.otlp",
    "tests.support.server",
    "tests.support.stack",
    "tests.support.telemetry",
]
