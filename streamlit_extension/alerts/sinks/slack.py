"""Slack by an incoming webhook: Block Kit in a coloured attachment.

An incoming webhook can't change a message that it has sent, and doesn't tell its id, so a resolve is a message of its
own, in green, that names when the alert fired. With a bot's token it is a reply: see `slack_api.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streamlit_extension.alerts.message import AlertText, Links, Message, describe
from streamlit_extension.alerts.model import Notice, NoticeKind, Severity
from streamlit_extension.alerts.sinks._http import post_json

# Limits of Block Kit: https://docs.slack.dev/reference/block-kit/blocks
_HEADER: Final = 150
_SECTION: Final = 3000
_FIELD: Final = 2000
_FIELDS: Final = 10
_BLOCKS: Final = 50

_COLOURS: Final = {
    Severity.CRITICAL: "#B3261E",
    Severity.ERROR: "#B3261E",
    Severity.WARNING: "#C77700",
    Severity.INFO: "#2F6FDE",
}
_RESOLVED: Final = "#2E7D32"
_SILENCED: Final = "#757575"


class SlackSink:
    """Posts to a channel.

    Arguments:
        webhook_url: returns the secret URL; asked for each message, so that a changed file counts.
        links: bases of the links.
        timeout_s: of one attempt.
    """

    name = "slack"
    is_remote = True

    def __init__(self, webhook_url: Callable[[], str], links: Links | None = None, *, timeout_s: float = 10.0) -> None:
        self._webhook_url = webhook_url
        self._links = links or Links()
        self._timeout_s = timeout_s

    def send(self, notice: Notice, /) -> None:
        """Post one message for a notice."""
        post_json(self._webhook_url(), payload(notice, describe(notice, self._links)), timeout_s=self._timeout_s)


def payload(notice: Notice, message: Message) -> dict[str, Any]:
    """Return the webhook's JSON for a notice."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(message.title, _HEADER), "emoji": False}}
    ]
    for alert in message.alerts:
        blocks += _alert_blocks(alert)
    if message.test:
        blocks.append(_context("This is a test: nothing is wrong and nothing needs to be done."))
    colour = _COLOURS[notice.severity]
    if notice.kind is NoticeKind.RESOLVED:
        colour = _RESOLVED
    elif notice.kind is NoticeKind.ACKNOWLEDGED:
        colour = _SILENCED
    # `text` is what notifications and screen readers show.
    return {"text": escape(message.title), "attachments": [{"color": colour, "blocks": blocks[:_BLOCKS]}]}


def _alert_blocks(alert: AlertText) -> list[dict[str, Any]]:
    fields = [
        {"type": "mrkdwn", "text": _cut(f"*{escape(name)}*\n{escape(value)}", _FIELD)} for name, value in alert.facts
    ]
    section: dict[str, Any] = {
        "type": "section",
        "text": {"type": "mrkdwn", "text": _cut(f"*{escape(alert.headline)}*", _SECTION)},
        "fields": fields[:_FIELDS],
    }
    blocks = [section]
    if alert.runbook:
        text = {"type": "mrkdwn", "text": _cut(escape(alert.runbook), _SECTION)}
        blocks.append({"type": "section", "text": text})
    if alert.links:
        blocks.append(_context("  ·  ".join(f"<{_in_link(link.url)}|{escape(link.text)}>" for link in alert.links)))
    return blocks


def _context(text: str) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text}]}


def escape(text: str) -> str:
    """Escape what Slack's markup would read as its own: nobody is mentioned by what a message quotes."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _in_link(url: str) -> str:
    return escape(url).replace("|", "%7C")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
