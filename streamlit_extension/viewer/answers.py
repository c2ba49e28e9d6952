"""What the telemetry page says, before it is HTTP."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; security headers and the length are added at the door."""

    status: int
    body: bytes
    content_type: str = "text/html; charset=utf-8"
    headers: tuple[tuple[bytes, bytes], ...] = ()


def redirect(to: str, status: int = 303) -> Answer:
    """Go there instead; `to` is a path of ours, percent-encoded."""
    return Answer(status, b"", "text/plain; charset=utf-8", ((b"location", to.encode("ascii", "replace")),))
