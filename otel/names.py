"""Every span, metric, attribute and event name that is emitted, with unit and allowed values."""

from __future__ import annotations

from enum import StrEnum


class Attribute(StrEnum):
    """Attribute names; semantic conventions where they have one."""

    HEALTH_CHECK_NAME = "health.check.name"
    HEALTH_STATUS_OLD = "health.status.old"
    HEALTH_STATUS_NEW = "health.status.new"


class SpanName(StrEnum):
    """Names of spans; those with a variable part say so in their comment."""

    HEALTH_STATUS_CHANGE = "health.status_change"
