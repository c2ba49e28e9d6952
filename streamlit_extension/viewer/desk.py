"""Behind the door: which page answers a path, how it is rendered, and what a form does. Runs on the page's threads."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from otel.store.reader import StoreReader
from streamlit_extension.viewer import text
from streamlit_extension.viewer.answers import Answer
from streamlit_extension.viewer.front import Ask
from streamlit_extension.viewer.sources import Sources

_HERE: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
#: Times that a reader chooses from, and the one they begin with.
RANGES: Final = ("15m", "1h", "6h", "24h", "7d")
DEFAULT_RANGE: Final = "1h"

#: The parts of the page: path, name, icon.
PARTS: Final = (
    ("", "Overview"),
    ("sessions", "Sessions"),
    ("runs", "Runs"),
    ("logs", "Logs"),
    ("metrics", "Metrics"),
    ("health", "Health"),
    ("statements", "Queries"),
    ("memory", "Memory"),
)


class StoreIsOff(Exception):
    """The page needs the embedded store, and there is none."""


class NotFound(Exception):
    """There is nothing under this address; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of time that the reader has chosen: `label` is how it stands in the address."""

    label: str
    since_ns: int
    until_ns: int


class Room:
    """One question on its way to an answer."""

    def __init__(self, ask: Ask, sources: Sources, now_ns: int, environment: Environment) -> None:
        self.ask = ask
        self.sources = sources
        self.now_ns = now_ns
        self._environment = environment

    @property
    def reader(self) -> StoreReader:
        """The store; raises StoreIsOff where there is none."""
        if self.sources.reader is None:
            raise StoreIsOff
        return self.sources.reader

    @property
    def range(self) -> Range:
        """The time that is looked at: the last hour unless the address says otherwise."""
        asked = self.ask.get("since", DEFAULT_RANGE)
        since = text.since_ns(asked, self.now_ns)
        until = text.since_ns(self.ask.get("until"), self.now_ns) or self.now_ns
        if since is None or since >= until:
            asked = DEFAULT_RANGE
            since, until = text.since_ns(asked, self.now_ns) or 0, self.now_ns
        return Range(asked, since, until)

    def href(self, path: str = "", **query: Any) -> str:
        """The address of a page; parameters that are empty are left out."""
        return href(self.ask.base, path, query)

    def same(self, **changes: Any) -> str:
        """This very address with other parameters."""
        return href(self.ask.base, self.ask.path, {**dict(self.ask.query), **changes})

    def page(self, template: str, *, status: int = 200, **values: Any) -> Answer:
        """Render a template."""
        body = self._environment.get_template(template).render(
            room=self, ask=self.ask, sources=self.sources, now_ns=self.now_ns, parts=PARTS, version=_version(), **values
        )
        return Answer(status, body.encode("utf-8", "replace"))


def href(base: str, path: str, query: Mapping[str, Any]) -> str:
    """An address below `base`."""
    given = [(name, value) for name, value in query.items() if value not in (None, "", False)]
    words = [(name, "1" if value is True else str(value).encode("utf-8", "replace")) for name, value in given]
    return base + quote(path, safe="/:", errors="replace") + ("?" + urlencode(words) if words else "")


View = Callable[..., Answer]


class Desk:
    """Answers questions from the sources.

    Arguments:
        now_ns: the time, ns since the epoch.
    """

    def __init__(self, sources: Sources, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._sources = sources
        self._now_ns = now_ns
        self._environment = _environment()

    def _room(self, ask: Ask) -> Room:
        return Room(ask, self._sources, self._now_ns(), self._environment)

    def answer(self, ask: Ask) -> Answer:
        """Answer a GET of somebody entitled."""
        from streamlit_extension.viewer.pages import GETS

        room = self._room(ask)
        for pattern, view in GETS:
            found = re.fullmatch(pattern, ask.path)
            if found is not None:
                return self._guarded(room, view, found.groups())
        return room.page("notice.html", status=404, **_NOTHING_HERE)

    def act(self, ask: Ask) -> Answer:
        """Do what a form asks for, and lead back by a redirect."""
        from streamlit_extension.viewer.pages import POSTS

        room = self._room(ask)
        view = POSTS.get(ask.path)
        if view is None:
            return room.page("notice.html", status=405, **_NOTHING_HERE)
        return self._guarded(room, view, ())

    def _guarded(self, room: Room, view: View, words: tuple[str, ...]) -> Answer:
        try:
            return view(room, *words)
        except StoreIsOff:
            return room.page(
                "notice.html",
                title="The embedded store is off",
                said="Telemetry goes to a collector, so there is nothing to show here. Health and alerts still are.",
                help='To keep telemetry here as well, set store = "on" (STX_STORE=on) and start again.',
                kind="empty",
            )
        except NotFound as error:
            return room.page(
                "notice.html", status=404, title="Not found", said=str(error), help=_SEARCH_HINT, kind="empty"
            )

    # -- who is not entitled --------------------------------------------------------------------------------------

    def refuse_stranger(self, ask: Ask) -> Answer:
        """401 for a person: how to come in."""
        return self._bare(
            ask,
            401,
            "This page needs a link",
            "Telemetry is for the people who run this application.",
            "Run  streamlit-extension link  where it runs; the link opens this page once, within ten minutes.",
            (b"www-authenticate", b"Bearer"),
        )

    def refuse_link(self, ask: Ask) -> Answer:
        """403: the code was used, is too old, or was never made."""
        return self._bare(
            ask,
            403,
            "This link no longer opens anything",
            "Each link opens the page once, within ten minutes.",
            "Run  streamlit-extension link  for another one.",
        )

    def refuse_form(self, ask: Ask) -> Answer:
        """403: another site's form, or a page that was open for too long."""
        return self._bare(
            ask, 403, "Nothing was changed", "The form was too old or came from another site.", "Open the page again."
        )

    def come_again(self, ask: Ask) -> Answer:
        """A step of our own after a link on another site, with which the browser sends its cookie."""
        words = urlencode(ask.query)
        to = ask.base + quote(ask.path) + (f"?{words}" if words else "")
        return self._room(ask).page("again.html", to=to)

    def _bare(self, ask: Ask, status: int, title: str, said: str, hint: str, *headers: tuple[bytes, bytes]) -> Answer:
        made = self._room(ask).page("bare.html", status=status, title=title, said=said, help=hint)
        return Answer(made.status, made.body, made.content_type, headers)

    # -- files ----------------------------------------------------------------------------------------------------

    def static(self, name: str) -> Answer:
        """One of the files that the page consists of; they hold nothing of anybody's."""
        found = _files().get(name)
        if found is None:
            return Answer(404, b"not found\n", "text/plain; charset=utf-8")
        return Answer(200, found, _TYPES[Path(name).suffix], ((b"cache-control", b"public, max-age=86400"),))


_SEARCH_HINT: Final = "Search for an error reference, a trace id, a session id, or words of a log line."
_NOTHING_HERE: Final = {
    "title": "Not found",
    "said": "There is no such page.",
    "help": _SEARCH_HINT,
    "kind": "empty",
}


@cache
def _files() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (_HERE / "static").iterdir() if file.suffix in _TYPES}


@cache
def _version() -> str:
    """Of the files, so that browsers fetch them anew when they changed."""
    return hashlib.sha256(b"\0".join(content for _, content in sorted(_files().items()))).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "clean": text.clean,
        "line": text.one_line,
        "duration": text.duration,
        "size": text.size,
        "number": text.number,
        "percent": text.percent,
        "time": time_element,
    }
    return environment


def time_element(ns: int | None, form: str = "full") -> Markup:
    """A `<time>` in UTC, which the page's script writes in the reader's zone.

    `form` is full (date and time), clock (with ms), minute or ago.
    """
    at = text.moment(ns)
    if at is None:
        return Markup("<span>–</span>")
    plain = {
        "clock": f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}Z",
        "minute": f"{at:%H:%M}Z",
        "ago": f"{at:%Y-%m-%d %H:%M:%S}Z",
    }.get(form, f"{at:%Y-%m-%d %H:%M:%S}Z")
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" data-form="{}">{}</time>').format(stamp, form, plain)
