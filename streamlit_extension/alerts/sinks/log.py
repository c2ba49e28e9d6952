"""Alerts as log events: one for each alert, `alert.fired`, `alert.repeated`, `alert.acknowledged`, `alert.resolved`."""

from __future__ import annotations

import logging
from typing import Final

from streamlit_extension.alerts.message import describe, moment
from streamlit_extension.alerts.model import Notice, NoticeKind, Severity

_LEVELS: Final = {
    Severity.CRITICAL: logging.CRITICAL,
    Severity.ERROR: logging.ERROR,
    Severity.WARNING: logging.WARNING,
    Severity.INFO: logging.INFO,
}


class LogSink:
    """Writes alerts to a logger; the example's trace id is the record's."""

    name = "log"
    is_remote = False

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("streamlit_extension.alerts")

    def send(self, notice: Notice, /) -> None:
        """Write one event for each alert."""
        message = describe(notice)
        for alert, text in zip(notice.alerts, message.alerts, strict=True):
            level = _LEVELS[alert.rule.severity]
            if notice.kind in (NoticeKind.RESOLVED, NoticeKind.ACKNOWLEDGED):
                level = logging.INFO
            fields: dict[str, object] = {
                "event": f"alert.{notice.kind}",
                "alert": alert.rule.name,
                "severity": str(alert.rule.severity),
                "value": alert.value,
                "threshold": alert.threshold,
                "unit": alert.rule.unit,
                "fired_at": moment(alert.fired_at),
            }
            fields |= {"cause": str(alert.cause)} if alert.cause is not None else {}
            fields |= {"silence": alert.silence.reason} if alert.silence is not None else {}
            fields |= {"test": True} if notice.test else {}
            fields |= {"example_trace_id": alert.trace_id} if alert.trace_id else {}
            self._logger.log(level, "%s%s", "[TEST] " if notice.test else "", text.headline, extra=fields)
