"""Slack by its Web API, with a bot's token: what follows an alert is a reply to its message.

The channel sees a resolve too. Which message was whose is known to this process alone: after a restart a resolve is a
message of its own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from streamlit_extension.alerts.delivery import FailureReason, SinkError
from streamlit_extension.alerts.message import Links, describe
from streamlit_extension.alerts.model import Alert, Notice, NoticeKind
from streamlit_extension.alerts.sinks._http import post_json
from streamlit_extension.alerts.sinks.slack import payload

API_URL: Final = "https://slack.com/api"
#: Messages that are remembered; of more, the newest.
_MOST: Final = 1000
#: What Slack says of itself, and what it means (https://docs.slack.dev/reference/methods/chat.postMessage); all else is
#: a refusal.
_REASONS: Final[Mapping[str, FailureReason]] = {
    "ratelimited": FailureReason.RATE_LIMITED,
    "rate_limited": FailureReason.RATE_LIMITED,
    "internal_error": FailureReason.SERVER_ERROR,
    "fatal_error": FailureReason.SERVER_ERROR,
    "service_unavailable": FailureReason.SERVER_ERROR,
    "request_timeout": FailureReason.TIMEOUT,
    "invalid_auth": FailureReason.AUTHENTICATION,
    "not_authed": FailureReason.AUTHENTICATION,
    "token_expired": FailureReason.AUTHENTICATION,
    "token_revoked": FailureReason.AUTHENTICATION,
    "account_inactive": FailureReason.AUTHENTICATION,
}


class SlackApiSink:
    """Posts to a channel, and replies there.

    Arguments:
        token: returns the bot's token, which may `chat:write`; asked for each message, so that a changed file counts.
        channel: its id or name.
        links: bases of the links.
        api_url: where the methods are.
        timeout_s: of one attempt.
    """

    name = "slack"
    is_remote = True

    def __init__(
        self,
        token: Callable[[], str],
        channel: str,
        links: Links | None = None,
        *,
        api_url: str = API_URL,
        timeout_s: float = 10.0,
    ) -> None:
        self._token = token
        self._channel = channel
        self._links = links or Links()
        self._url = f"{str(api_url).rstrip('/')}/chat.postMessage"
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        #: Alert → the time stamp of the message that told of it, which is a message's name.
        self._messages: dict[tuple[str, float], str] = {}
        self._under_way: Notice | None = None
        self._done: set[str] = set()

    def send(self, notice: Notice, /) -> None:
        """Post a notice; its alerts that belong to different messages are told below each of these.

        Sent again after a failure, what has arrived is left out.
        """
        if notice != self._under_way:
            self._under_way, self._done = notice, set()
        for thread, alerts in self._by_thread(notice).items():
            if thread in self._done:
                continue
            part = replace(notice, alerts=tuple(alerts))
            stamp = self._post(payload(part, describe(part, self._links)), thread, notice.kind)
            self._done.add(thread)
            self._remember(part, thread or stamp)

    def _by_thread(self, notice: Notice) -> dict[str, list[Alert]]:
        found: dict[str, list[Alert]] = {}
        with self._lock:
            for alert in notice.alerts:
                thread = "" if notice.kind is NoticeKind.FIRED else self._messages.get(_key(alert), "")
                found.setdefault(thread, []).append(alert)
        return found

    def _remember(self, notice: Notice, stamp: str) -> None:
        with self._lock:
            for alert in notice.alerts:
                self._messages.pop(_key(alert), None)
                self._messages[_key(alert)] = stamp
            while len(self._messages) > _MOST:
                del self._messages[next(iter(self._messages))]

    def _post(self, body: Mapping[str, Any], thread: str, kind: NoticeKind) -> str:
        """Post one message and return its time stamp."""
        sent: dict[str, Any] = {"channel": self._channel, **body}
        if thread:
            sent |= {"thread_ts": thread, "reply_broadcast": kind is NoticeKind.RESOLVED}
        headers = {"Authorization": f"Bearer {self._token()}"}
        raw = post_json(self._url, sent, timeout_s=self._timeout_s, headers=headers)
        try:
            answer = json.loads(raw)
            if answer["ok"]:
                return str(answer["ts"])
            error = str(answer.get("error", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SinkError(FailureReason.SERVER_ERROR, "the answer is not understood") from None
        known = error if error.isidentifier() and len(error) < 60 else "unknown"
        raise SinkError(_REASONS.get(error, FailureReason.REFUSED), known)


def _key(alert: Alert) -> tuple[str, float]:
    return alert.key, alert.fired_at
