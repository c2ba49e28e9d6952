"""What an answer to an export means. Pure: status, headers and body in, outcome out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from otel.export import payload
from otel.records import Signal

#: A receiver that asks to be left alone for longer is asked again after this, in seconds.
MOST_RETRY_AFTER_S: Final = 300.0
# https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes, and 408: nothing was taken.
_RETRYABLE: Final = frozenset({408, 429, 502, 503, 504})
_TOO_LARGE: Final = 413
# https://opentelemetry.io/docs/specs/otlp/#failures, by number as on the wire.
_GRPC_RETRYABLE: Final = frozenset(
    {1, 4, 10, 11, 14, 15}
)  # cancelled, deadline, aborted, out of range, unavailable, loss
_GRPC_EXHAUSTED: Final = 8
_GRPC_SERVER_ERRORS: Final = frozenset({2, 13})  # unknown, internal: also what a proxy's reset looks like


class Kind(StrEnum):
    """What follows from an attempt."""

    TAKEN = "taken"  # all of it, or all but `rejected`
    REFUSED = "refused"  # the receiver will never take it
    TOO_LARGE = "too_large"  # split it and send it again
    LATER = "later"  # send it again, without limit
    FAILED = "failed"  # the receiver failed on it: a few times, then it is refused


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of one attempt to send one request.

    `rejected` is the number of records that a partial success left out. `retry_after_s` is how long the receiver asked
    to be left alone. `reason` is a short static text for the log; `unreachable` tells that nobody answered.
    """

    kind: Kind
    reason: str = ""
    rejected: int = 0
    retry_after_s: float | None = None
    unreachable: bool = False


def of_http(
    signal: Signal, status: int, headers: Mapping[str, str], body: bytes, *, count: int, now_s: float
) -> Outcome:
    """The outcome of an HTTP answer.

    Arguments:
        headers: by lower-case name.
        count: the number of records that were sent; no answer rejects more.
        now_s: wall time in seconds since the Unix epoch, for a `Retry-After` that is a date.
    """
    if 200 <= status < 300:
        is_json = headers.get("content-type", "").partition(";")[0].strip() == "application/json"
        return of_success(_rejected_json(body) if is_json else payload.rejected(signal, body), count)
    reason = f"HTTP {status}"
    if status == _TOO_LARGE:
        return Outcome(Kind.TOO_LARGE, reason)
    wait_s = retry_after_s(headers.get("retry-after"), now_s)
    if status in _RETRYABLE:
        return Outcome(Kind.LATER, reason, retry_after_s=wait_s)
    if 400 <= status < 500:
        return Outcome(Kind.REFUSED, reason)
    # Other 5xx, and what should not come at all: a redirect is not followed, for it may lead the headers astray.
    return Outcome(Kind.FAILED, reason, retry_after_s=wait_s)


def of_grpc(code: int, details: str, retry_info_s: float | None) -> Outcome:
    """The outcome of a gRPC status other than OK.

    Arguments:
        retry_info_s: the delay of a `RetryInfo` in the status' details, None without one.
    """
    reason = f"gRPC status {code}"
    wait_s = None if retry_info_s is None else _bounded(retry_info_s)
    if code in _GRPC_RETRYABLE:
        return Outcome(Kind.LATER, reason, retry_after_s=wait_s, unreachable=code == 14)
    if code == _GRPC_EXHAUSTED:
        if retry_info_s is not None:
            return Outcome(Kind.LATER, reason, retry_after_s=wait_s)
        # The libraries say "Received message larger than max" with this very code.
        return Outcome(Kind.TOO_LARGE if "larger than max" in details.lower() else Kind.REFUSED, reason)
    return Outcome(Kind.FAILED if code in _GRPC_SERVER_ERRORS else Kind.REFUSED, reason, retry_after_s=wait_s)


def of_success(rejected: int, count: int) -> Outcome:
    """The outcome when the receiver took all but `rejected`."""
    return Outcome(Kind.TAKEN, "partial success" if rejected > 0 else "", rejected=min(max(rejected, 0), count))


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """The seconds that a `Retry-After` asks for (RFC 9110, 10.2.3: seconds or a date), None without a valid one."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return _bounded(float(value[:12]))
    try:
        return _bounded(parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, OverflowError, OSError):
        return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_S) if math.isfinite(seconds) else MOST_RETRY_AFTER_S


def _rejected_json(body: bytes) -> int:
    try:
        partial: Any = json.loads(body).get("partialSuccess") or {}
        return max(int(value) for key, value in partial.items() if key.startswith("rejected"))
    except (ValueError, AttributeError, TypeError):
        return 0
