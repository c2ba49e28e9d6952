"""Slack and PagerDuty on loopback: they take what the real ones take, by their published rules, and answer as they do."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import jsonschema
from slack_sdk.models.blocks import Block

#: What PagerDuty's Events API v2 takes, from its reference (https://developer.pagerduty.com/api-reference, "Send an event
#: to PagerDuty") with the limits that its documentation names; further fields are refused, so that a slip is seen.
PAGERDUTY_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["routing_key", "event_action"],
    "additionalProperties": False,
    "properties": {
        "routing_key": {"type": "string", "pattern": "^[0-9a-zA-Z]{32}$"},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "minLength": 1, "maxLength": 255},
        "client": {"type": "string"},
        "client_url": {"type": "string", "pattern": "^https?://"},
        "links": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["href"],
                "additionalProperties": False,
                "properties": {"href": {"type": "string", "pattern": "^https?://"}, "text": {"type": "string"}},
            },
        },
        "payload": {
            "type": "object",
            "required": ["summary", "severity", "source"],
            "additionalProperties": False,
            "properties": {
                "summary": {"type": "string", "minLength": 1, "maxLength": 1024},
                "source": {"type": "string", "minLength": 1},
                "severity": {"enum": ["critical", "error", "warning", "info"]},
                "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
                "component": {"type": "string"},
                "group": {"type": "string"},
                "class": {"type": "string"},
                "custom_details": {"type": "object"},
            },
        },
    },
    "allOf": [
        {
            "if": {"properties": {"event_action": {"const": "trigger"}}},
            "then": {"required": ["payload"]},
            "else": {"required": ["dedup_key"]},
        }
    ],
}


@dataclass
class Service:
    """A running fake: what it took, and what it answers next."""

    url: str = ""
    taken: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    #: Status and headers of the next answers, before it behaves again.
    trouble: list[tuple[int, dict[str, str]]] = field(default_factory=list)


def check_pagerduty(body: dict[str, Any]) -> str | None:
    """Why PagerDuty would refuse an event, None when it takes it."""
    try:
        jsonschema.validate(body, PAGERDUTY_EVENT)
    except jsonschema.ValidationError as error:
        return str(error.message)
    return None


def check_slack(body: dict[str, Any]) -> str | None:
    """Why Slack would refuse a message: its SDK's own models read the blocks and hold them against their limits."""
    if set(body) != {"text", "attachments"} or not 0 < len(body["text"]) <= 40_000:
        return "no_text"
    for attachment in body["attachments"]:
        if set(attachment) != {"color", "blocks"} or len(attachment["blocks"]) > 50:
            return "invalid_attachments"
        parsed = Block.parse_all(attachment["blocks"])
        for given, block in zip(attachment["blocks"], parsed, strict=True):
            try:
                known = block.to_dict()  # validates
            except Exception as error:
                return f"invalid_blocks: {error}"
            if known != given:
                return f"invalid_blocks: {given} is read as {known}"
    return None


@contextmanager
def running(
    check: Callable[[dict[str, Any]], str | None],
    path: str,
    answer: tuple[int, bytes | Callable[[Service, Any], bytes]],
) -> Iterator[Service]:
    """A service that takes JSON by POST at one path."""
    service = Service()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if service.trouble:
                status, headers = service.trouble.pop(0)
                return self._answer(status, b"trouble", headers)
            problem = "not found" if self.path != path else check(body)
            if self.headers["Content-Type"] != "application/json":
                problem = "content type"
            if problem is not None:
                service.refused.append(problem)
                return self._answer(400, problem.encode(), {})
            service.taken.append(body)
            status, content = answer
            return self._answer(status, content(service, self.headers) if callable(content) else content, {})

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="fake-service")
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}{path}"
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def dripping(head: bytes, drip: bytes) -> Iterator[int]:
    """A port whose server sends `head` at once and then `drip` again and again, until its caller hangs up."""
    ended = threading.Event()

    def talk(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(head)
            while not ended.wait(0.05):
                connection.sendall(drip)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)

        def accept() -> None:
            with suppress(OSError):
                talk(listener.accept()[0])

        thread = threading.Thread(target=accept, name="fake-dripping")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def slack() -> Any:
    """Slack's incoming webhook."""
    return running(check_slack, "/services/T000/B000/s3cr3t", (200, b"ok"))


def slack_api() -> Any:
    """Slack's `chat.postMessage`, to a bot with the token `xoxb-s3cr3t`."""

    def check(body: dict[str, Any]) -> str | None:
        further = {"channel", "thread_ts", "reply_broadcast"}
        if not body.get("channel") or not re.fullmatch(r"\d{10}\.\d{6}", body.get("thread_ts", "1700000000.000100")):
            return "invalid_arguments"
        return check_slack({name: value for name, value in body.items() if name not in further})

    def answer(service: Service, headers: Any) -> bytes:
        if headers["Authorization"] != "Bearer xoxb-s3cr3t":
            return b'{"ok":false,"error":"invalid_auth"}'
        stamp = f"1700000000.{len(service.taken):06}"
        return json.dumps({"ok": True, "channel": "C0000000000", "ts": stamp}).encode()

    return running(check, "/api/chat.postMessage", (200, answer))


def pagerduty() -> Any:
    """PagerDuty's Events API v2."""
    return running(check_pagerduty, "/v2/enqueue", (202, b'{"status":"success","message":"Event processed"}'))
