"""Telemetry as text that a person can read and no terminal, browser or eye is tricked by. Pure functions."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final

#: Characters of one value that are shown before the reader asks for all, and then.
SHOWN_CHARS, ALL_CHARS = 2_000, 200_000

#: Signs that change how what follows is read: of direction (Unicode TR 9), of format, without width.
_INVISIBLE: Final = re.compile(
    "[\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
    "|[\U000e0000-\U000e007f]"
)
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def clean(text: object, most: int = SHOWN_CHARS) -> str:
    """Text with what is invisible made visible, at most `most` characters of it and a mark where it was cut."""
    given = text if isinstance(text, str) else str(text)
    kept = given[:most]
    kept = _SURROGATE.sub("\ufffd", kept.replace("\r\n", "\n"))
    kept = _CONTROL.sub(_picture, kept)
    kept = _INVISIBLE.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", kept)
    return kept if len(given) <= most else kept + "…"


def one_line(text: object, most: int = 300) -> str:
    """The same on one line."""
    return " ".join(clean(text, most).split())


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"


def duration(seconds: float | None) -> str:
    """`840 µs`, `12.3 ms`, `1.24 s`, `2 min 05 s`, `3 h 04 min`, `2 d 3 h`."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    sign, rest = ("−", -seconds) if seconds < 0 else ("", seconds)
    return sign + _duration(rest)


def _duration(seconds: float) -> str:
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{_three(seconds * 1e3)} ms"
    if seconds < 59.95:
        return f"{_three(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400:,} d {whole % 86_400 // 3600} h"


def _three(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def size(count: float | None) -> str:
    """Bytes as `12.3 MiB`."""
    if count is None or not math.isfinite(count):
        return "–"
    value, number = float(count), 0
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    while abs(value) >= 1023.95 and number < len(units) - 1:
        value, number = value / 1024, number + 1
    return f"{value:.0f} {units[0]}" if number == 0 else f"{value:.1f} {units[number]}"


def number(value: float | None) -> str:
    """A number in a table: whole ones with separators, others with three digits that count."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.3g}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """A share from 0 to 1 as `12.3 %`."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.0995 else f"{100 * share:.1f} %"


def with_unit(value: float | None, unit: str) -> str:
    """A metric's value in its UCUM unit, as people write it."""
    if unit == "s":
        return duration(value)
    if unit == "By":
        return size(value)
    if unit == "By/s":
        return "–" if value is None else f"{size(value)}/s"
    if unit == "1":
        return percent(value)
    said = unit.strip("{}") if unit.startswith("{") else unit
    return f"{number(value)} {one_line(said, 40)}".rstrip()


def moment(ns: float | None) -> datetime | None:
    """A time in ns since the epoch as a moment in UTC; None for one that no calendar has."""
    if not ns or not math.isfinite(ns):
        return None
    try:
        return datetime.fromtimestamp(int(ns) // 1_000_000_000, UTC).replace(microsecond=int(ns) // 1000 % 1_000_000)
    except (OverflowError, ValueError, OSError):
        return None


def ago(seconds: float) -> str:
    """`just now`, `40 s ago`, `3 min ago`, `2 h ago`, `5 d ago`; the future is `just now`."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            return "just now" if seconds < 2 else f"{int(seconds // unit)} {name} ago"
    return f"{int(seconds // 86_400):,} d ago"


_TIME: Final = re.compile(r"(\d{1,6})(s|m|h|d)")
_LAST_NS: Final = (1 << 63) - 1
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def since_ns(text: str, now_ns: int) -> int | None:
    """`15m`, `6h`, `7d` (ago) or an ISO time (UTC unless it says otherwise) in ns since the epoch; None for neither.

    What lies before 1970, or beyond the calendar of 64 bits (2262), is the first or the last moment that there is.
    """
    match = _TIME.fullmatch(text.strip())
    if match is not None:
        return _within(now_ns - int(match[1]) * _SECONDS[match[2]] * 1_000_000_000)
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    try:
        return _within(int(found.timestamp() * 1_000_000) * 1000)
    except (OverflowError, ValueError, OSError):
        return None


def _within(ns: int) -> int:
    return min(max(ns, 0), _LAST_NS)
