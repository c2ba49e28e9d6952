#!/usr/bin/env python3
"""Asks a running application for its health; standard library only, Python 3.9 or newer.

Exit codes: 0 healthy, 1 degraded or in maintenance, 2 unhealthy (also: ready or live is false), 3 unknown (no answer,
no JSON, a wrong call). With --probe: 0 for healthy and degraded, 1 otherwise, for a container's HEALTHCHECK and an
exec probe. With --expect STATUS: 0 when the status is exactly that one. Of several answers the highest code counts.
No redirect is followed and no proxy is used. Certificates are verified; SSL_CERT_FILE names an authority of your own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import queue
import ssl
import sys
import threading
import time
from typing import Any, Dict, List, NoReturn, Optional, Tuple
from urllib.parse import urlsplit

#: What each endpoint asks; `all` is the four of the specification.
PATHS = {
    "health": "/health",
    "detailed": "/health/detailed",
    "ready": "/health/ready",
    "live": "/health/live",
    "startup": "/health/startup",
}
ALL = ("health", "detailed", "ready", "live")
#: The key of the endpoints that say yes or no.
FLAGS = {"ready": "ready", "live": "alive", "startup": "started"}
HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN = 0, 1, 2, 3
CODES = {"healthy": HEALTHY, "degraded": DEGRADED, "maintenance": DEGRADED, "unhealthy": UNHEALTHY}
#: What a 404 means, and what to do.
NO_DETAILS = (
    "answered 404: this port tells no details. With management_port set they are told there alone: give that port "
    "in --url (it answers all endpoints), or ask this one with --endpoint health, ready, live or startup"
)
NOT_THERE = (
    "answered 404: no health is told here. Give the application's own address in --url, with its base path "
    "(server.baseUrlPath) and path_prefix where they are set"
)
#: A longer answer is none of ours.
MAX_BYTES = 1024 * 1024


class Unknown(Exception):
    """Nothing can be said of the health; its text is why."""


class Parser(argparse.ArgumentParser):
    """Tells a wrong call in one line, with the exit code for "unknown": argparse's own 2 would mean unhealthy."""

    as_probe = False

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end."""
        print(f"health_check: {printable(message)}", file=sys.stderr)
        raise SystemExit(1 if self.as_probe else UNKNOWN)


def printable(text: str) -> str:
    """One line that can't steer a terminal, whoever wrote it."""
    return "".join(each if each.isprintable() else "?" for each in text[:200])


def positive(text: str) -> float:
    """A number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def count(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal() or int(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 1000")
    return int(text)


def arguments(words: Optional[List[str]] = None) -> argparse.Namespace:
    """The options of the call."""
    parser = Parser(prog="health_check.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8501", help="of the application, with its base path")
    parser.add_argument("--endpoint", choices=["all", *PATHS], default="all")
    parser.add_argument("--token-file", metavar="F", help="holds the token that entitles to details")
    parser.add_argument("--timeout", type=positive, default=5.0, metavar="S", help="total seconds for one answer")
    parser.add_argument("--retries", type=count, default=0, metavar="N", help="further tries while there is no answer")
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    parser.add_argument("--expect", choices=list(CODES), metavar="STATUS", help="exit 0 when the status is this one")
    parser.add_argument("--probe", action="store_true", help="exit 0 for healthy and degraded, 1 otherwise")
    parser.as_probe = "--probe" in (sys.argv[1:] if words is None else words)
    found = parser.parse_args(words)
    if not is_base(found.url):
        parser.error("--url must be http://HOST[:PORT][/BASE] or https://…, without user or query")
    if found.expect and found.probe:
        parser.error("--expect and --probe exclude each other")
    return found


def is_base(url: str) -> bool:
    """Whether it is the URL of an application; user-info is refused, as the URL is shown in the output."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    extra = parts.query or parts.fragment or "@" in parts.netloc
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and not extra


def read_token(path: Optional[str]) -> Optional[str]:
    """The token, or None without a file."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as stream:
            token = stream.read(4096).strip()
    except (OSError, UnicodeError) as error:
        raise Unknown(f"--token-file: can't read {path}: {getattr(error, 'strerror', None) or 'no text'}") from None
    if not token or not (token.isascii() and token.isprintable()):
        raise Unknown(f"--token-file: {path} holds no token")
    return token


def fetch(url: str, path: str, token: Optional[str], timeout_s: float) -> Tuple[int, Dict[str, Any]]:
    """Ask one path; all of it, from the name's look-up to the last byte, is over within `timeout_s` seconds.

    A socket's own time-out begins anew with each byte, and a look-up has none: so a thread asks, and is left alone
    when its time is over.
    """
    answers: "queue.SimpleQueue[Tuple[int, bytes, str]]" = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((*exchange(url, path, token, timeout_s), ""))
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = isinstance(error, TimeoutError) or type(error).__name__ == "timeout"  # socket.timeout before 3.10
            answers.put((0, b"", "late" if late else getattr(error, "strerror", None) or type(error).__name__))

    threading.Thread(target=work, name="health-check", daemon=True).start()
    try:
        status, body, problem = answers.get(timeout=timeout_s)
    except queue.Empty:
        problem = "late"
    if problem:
        raise Unknown(f"no answer within {timeout_s:g} s" if problem == "late" else f"no answer: {problem}")
    return status, parse(path, status, body)


def exchange(url: str, path: str, token: Optional[str], timeout_s: float) -> Tuple[int, bytes]:
    """One request on a connection of its own: the status and at most a little more of the body than is allowed."""
    parts = urlsplit(url)
    host = str(parts.hostname)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, parts.port or 443, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port or 80, timeout=timeout_s)
    headers = {"Accept": "application/json", "Connection": "close"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_BYTES + 1)
    finally:
        connection.close()


def parse(path: str, status: int, body: bytes) -> Dict[str, Any]:
    """The JSON object of an answer."""
    if len(body) > MAX_BYTES:
        raise Unknown(f"the answer is longer than {MAX_BYTES} bytes")
    if status == 404:
        raise Unknown(NO_DETAILS if path == PATHS["detailed"] else NOT_THERE)
    if status not in (200, 503):
        raise Unknown(f"answered {status}")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Unknown(f"answered {status} without JSON") from None
    if not isinstance(found, dict):
        raise Unknown(f"answered {status} without a JSON object")
    return found


def judge(endpoint: str, body: Dict[str, Any]) -> Tuple[str, int]:
    """The status in words and the exit code for one endpoint's answer."""
    if endpoint in FLAGS:
        value = body.get(FLAGS[endpoint])
        if not isinstance(value, bool):
            raise Unknown(f"the answer has no {FLAGS[endpoint]!r}")
        return ("healthy", HEALTHY) if value else ("unhealthy", UNHEALTHY)
    status = body.get("status")
    if not isinstance(status, str) or status not in CODES:
        raise Unknown("the answer has no known 'status'")
    return status, CODES[status]


def ask(options: argparse.Namespace, endpoint: str, token: Optional[str]) -> Dict[str, Any]:
    """One endpoint's result, tried again while there is no answer."""
    result: Dict[str, Any] = {}
    for attempt in range(options.retries + 1):
        if attempt:
            time.sleep(min(2.0, 0.2 * 2**attempt))
        began = time.monotonic()
        try:
            http_status, body = fetch(options.url, PATHS[endpoint], token, options.timeout)
            status, code = judge(endpoint, body)
        except Unknown as error:
            result = {"endpoint": endpoint, "status": "unknown", "code": UNKNOWN, "error": str(error)}
            continue
        took_ms = round(1000 * (time.monotonic() - began), 1)
        return {"endpoint": endpoint, "status": status, "code": code, "http": http_status, "ms": took_ms, "body": body}
    return result


def exit_code(options: argparse.Namespace, results: List[Dict[str, Any]]) -> Tuple[str, int]:
    """The status of all and the code to end with; where /health tells of maintenance, not being ready is part of it."""
    if any(result["status"] == "maintenance" for result in results):
        planned = [each for each in results if each["endpoint"] in FLAGS and each.get("body", {}).get("reason")]
        results = [each for each in results if each not in planned or each["body"]["reason"] != "maintenance"]
    worst = max(results, key=lambda result: int(result["code"]))
    status, code = str(worst["status"]), int(worst["code"])
    if options.expect is not None:
        if status == options.expect:
            return status, 0
        return status, code or DEGRADED
    if options.probe:
        return status, 0 if status in ("healthy", "degraded") else 1
    return status, code


def show(result: Dict[str, Any]) -> None:
    """One line for people."""
    if "error" in result:
        print(f"{result['endpoint']:9} unknown      {result['error']}")
        return
    body = result["body"]
    notes: List[str] = []
    parts = body.get("components")
    if isinstance(parts, dict):
        bad = ("degraded", "unhealthy", "skipped")
        states = {name: part.get("status") for name, part in parts.items() if isinstance(part, dict)}
        notes += [f"{name} {state}" for name, state in states.items() if state in bad]
    wanted = body.get("dependencies")
    if isinstance(wanted, dict):
        notes += [f"{name} {word}" for name, word in wanted.items()]
    reason = body.get("reason")
    if reason and not (isinstance(wanted, dict) and reason in wanted):  # a dependency is named with its word already
        notes.insert(0, str(reason))
    told = printable(", ".join(notes))
    print(f"{result['endpoint']:9} {result['status']:12} {result['ms']:7.1f} ms  {told}".rstrip())


def main(words: Optional[List[str]] = None) -> int:
    """Ask, tell, and return the exit code."""
    options = arguments(words)
    try:
        token = read_token(options.token_file)
    except Unknown as error:
        print(f"health_check: {error}", file=sys.stderr)
        return 1 if options.probe else UNKNOWN
    names = ALL if options.endpoint == "all" else (options.endpoint,)
    results = [ask(options, name, token) for name in names]
    status, code = exit_code(options, results)
    if options.json:
        print(json.dumps({"status": status, "exit_code": code, "url": options.url, "endpoints": results}))
    else:
        for result in results:
            show(result)
    return code


if __name__ == "__main__":
    sys.exit(main())
