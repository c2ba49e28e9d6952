"""PagerDuty, Events API v2: trigger, acknowledge and resolve of one alert share its dedup key.

https://developer.pagerduty.com/docs/events-api-v2-overview
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streamlit_extension.alerts.message import AlertText, Links, describe, moment, plain
from streamlit_extension.alerts.model import Alert, Notice, NoticeKind
from streamlit_extension.alerts.sinks._http import post_json

EVENTS_URL: Final = "https://events.pagerduty.com/v2/enqueue"
_SUMMARY: Final = 1024
_KEY: Final = 255
_ACTIONS: Final = {
    NoticeKind.FIRED: "trigger",
    NoticeKind.REPEATED: "trigger",
    NoticeKind.ACKNOWLEDGED: "acknowledge",
    NoticeKind.RESOLVED: "resolve",
}


class PagerDutySink:
    """Sends one event for each alert; an event that is sent again changes nothing, thanks to its key.

    Arguments:
        routing_key: returns the secret integration key; asked for each event, so that a changed file counts.
        links: bases of the links.
        events_url: where events go.
        timeout_s: of one attempt.
    """

    name = "pagerduty"
    is_remote = True

    def __init__(
        self,
        routing_key: Callable[[], str],
        links: Links | None = None,
        *,
        events_url: str = EVENTS_URL,
        timeout_s: float = 10.0,
    ) -> None:
        self._routing_key = routing_key
        self._links = links or Links()
        self._events_url = str(events_url)
        self._timeout_s = timeout_s

    def send(self, notice: Notice, /) -> None:
        """Send the events of a notice."""
        message = describe(notice, self._links)
        for alert, text in zip(notice.alerts, message.alerts, strict=True):
            body = event(notice, alert, text, self._routing_key())
            post_json(self._events_url, body, timeout_s=self._timeout_s)


def event(notice: Notice, alert: Alert, text: AlertText, routing_key: str) -> dict[str, Any]:
    """Return the event for one alert."""
    action = _ACTIONS[notice.kind]
    body: dict[str, Any] = {"routing_key": routing_key, "event_action": action, "dedup_key": dedup_key(alert.key)}
    if action != "trigger":
        return body
    service = plain(notice.service)
    mark = "[TEST] " if notice.test else ""
    details: dict[str, Any] = {
        "value": alert.value,
        "threshold": alert.threshold,
        "unit": alert.rule.unit,
        "fired_at": moment(alert.fired_at),
        "runbook": plain(alert.rule.runbook),
    }
    details |= {"trace_id": alert.trace_id} if alert.trace_id else {}
    details |= {"test": True} if notice.test else {}
    body["payload"] = {
        "summary": f"{mark}{service}: {text.headline}"[:_SUMMARY],
        "source": plain(notice.instance) or service or "streamlit-extension",
        "severity": str(alert.rule.severity),
        "timestamp": moment(alert.fired_at),
        "component": service,
        "class": alert.rule.name,
        "custom_details": details,
    }
    body["client"] = "streamlit-extension"
    if text.links:
        body["client_url"] = text.links[0].url
        body["links"] = [{"href": link.url, "text": link.text} for link in text.links]
    return body


def dedup_key(key: str) -> str:
    """Return a key of at most 255 characters; a longer one is told apart by its hash."""
    if len(key) <= _KEY:
        return key
    import hashlib

    return key[: _KEY - 65] + "#" + hashlib.sha256(key.encode()).hexdigest()
