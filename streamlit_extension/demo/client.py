"""A user without a browser: speaks Streamlit's WebSocket protocol, for simulated sessions and for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

#: How long a connection may take, in seconds; a server that starts many sessions at once is slow to answer.
OPEN_S: Final = 60.0
#: Kinds of elements that are widgets with a label and an id.
_WIDGETS = (
    *("button", "download_button", "checkbox", "text_input", "text_area", "number_input", "selectbox", "radio"),
    *("slider", "multiselect", "date_input", "chat_input", "button_group"),
)


@dataclass(frozen=True, slots=True)
class Widget:
    """A widget that the page shows; one that a fragment shows reruns that fragment alone."""

    id: str
    kind: str
    label: str
    form_id: str = ""
    fragment_id: str = ""


@dataclass(slots=True)
class Page:
    """What the last runs have shown. `timers` are fragments that refresh themselves: id → seconds between."""

    widgets: dict[str, Widget] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    exceptions: list[str] = field(default_factory=list)
    timers: dict[str, float] = field(default_factory=dict)

    def widget(self, label: str) -> Widget:
        """The widget with this label; raises KeyError with those that there are."""
        for widget in self.widgets.values():
            if widget.label == label:
                return widget
        raise KeyError(f"no widget {label!r}; there are {sorted(widget.label for widget in self.widgets.values())}")


class StreamlitClient:
    """One session with a running application.

    Arguments:
        url: of the application, `http://…` or `https://…`, with its base path.
        session_id: of a session to come back to, as a browser does after a lost connection.

    Use it as an asynchronous context manager; entering it connects and starts the first run.
    """

    def __init__(self, url: str, *, session_id: str | None = None) -> None:
        parts = urlsplit(url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._address = urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/_stcore/stream", "", ""))
        self.session_id = session_id
        self.page = Page()
        self.pages: dict[str, str] = {}
        self.page_script_hash = ""
        self.runs_finished = 0
        self.close_code: int | None = None
        self._states: dict[str, WidgetState] = {}
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._moved = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- connection ---------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, with the id of the session before if there was one, and start a run."""
        protocols = ["streamlit", "-"] + ([self.session_id] if self.session_id else [])
        self.close_code = None
        self._connection = await connect(
            self._address,
            subprotocols=[Subprotocol(each) for each in protocols],
            origin=self._origin,  # type: ignore[arg-type]
            max_size=None,
            open_timeout=OPEN_S,
            proxy=None,
        )
        self._reader = asyncio.create_task(self._read(self._connection), name="streamlit-client")
        await self.rerun()

    async def close(self) -> None:
        """Leave."""
        if self._connection is not None:
            await self._connection.close()
        if self._reader is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def wait_closed(self, timeout_s: float = 30.0) -> int | None:
        """Wait until the server closes the connection; returns the code (1012 when it restarts)."""
        if self._reader is not None:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._reader)
        return self.close_code

    # -- what a user does ---------------------------------------------------------------------------------------

    async def rerun(
        self, *, page_script_hash: str | None = None, fragment_id: str = "", auto: bool = False, query: str = ""
    ) -> None:
        """Ask for a run of the script, of another page, or of one fragment (`auto` as its timer does)."""
        message = BackMsg()
        state = message.rerun_script
        state.query_string = query
        state.page_script_hash = self.page_script_hash if page_script_hash is None else page_script_hash
        if fragment_id:
            state.fragment_id = fragment_id
            state.is_auto_rerun = auto
        state.widget_states.widgets.extend(self._states.values())
        await self._send(message)

    async def click(self, label: str) -> None:
        """Press a button, also one that submits a form."""
        widget = self.page.widget(label)
        pressed = WidgetState(id=widget.id, trigger_value=True)
        self._states[widget.id] = pressed
        await self.rerun(fragment_id=widget.fragment_id)
        del self._states[widget.id]

    async def set(self, label: str, value: Any, *, rerun: bool = True) -> None:
        """Give a widget a value (text, number, bool, a list of numbers); inside a form without a rerun."""
        widget = self.page.widget(label)
        self._states[widget.id] = _state(widget, value)
        if rerun and not widget.form_id:
            await self.rerun(fragment_id=widget.fragment_id)

    async def open_page(self, name: str) -> None:
        """Go to another page of the application by its name or its path in the URL."""
        for page_hash, page_name in self.pages.items():
            if page_name == name:
                self._states.clear()
                self.page_script_hash = page_hash
                await self.rerun()
                return
        raise KeyError(f"no page {name!r}; there are {sorted(self.pages.values())}")

    async def wait_finished(self, runs: int | None = None, timeout_s: float = 30.0) -> Page:
        """Wait until `runs` runs have finished since the connection (default: one more), or raise TimeoutError."""
        wanted = self.runs_finished + 1 if runs is None else runs
        async with asyncio.timeout(timeout_s), self._moved:
            await self._moved.wait_for(lambda: self.runs_finished >= wanted or self.close_code is not None)
        if self.runs_finished < wanted:
            raise ConnectionError(f"the connection was closed with code {self.close_code}")
        return self.page

    # -- what the server says -----------------------------------------------------------------------------------

    async def _send(self, message: BackMsg) -> None:
        if self._connection is None:
            raise ConnectionError("not connected")
        await self._connection.send(message.SerializeToString())

    async def _read(self, connection: ClientConnection) -> None:
        try:
            async for data in connection:
                message = ForwardMsg()
                message.ParseFromString(data if isinstance(data, bytes) else data.encode())
                self._take(message)
                if message.WhichOneof("type") == "script_finished":
                    async with self._moved:
                        self.runs_finished += 1
                        self._moved.notify_all()
        except ConnectionClosed:
            pass
        finally:
            async with self._moved:
                self.close_code = connection.close_code
                self._moved.notify_all()

    def _take(self, message: ForwardMsg) -> None:
        match message.WhichOneof("type"):
            case "new_session":
                self._take_session(message)
            case "navigation":
                self.pages |= {page.page_script_hash: page.page_name for page in message.navigation.app_pages}
                self.page_script_hash = message.navigation.page_script_hash
            case "auto_rerun":
                self.page.timers[message.auto_rerun.fragment_id] = message.auto_rerun.interval
            case "delta" if message.delta.WhichOneof("type") == "new_element":
                self._take_element(message.delta.new_element, message.delta.fragment_id)
            case "session_event" if message.session_event.WhichOneof("type") == "script_compilation_exception":
                self.page.exceptions.append(message.session_event.script_compilation_exception.type)

    def _take_session(self, message: ForwardMsg) -> None:
        session = message.new_session
        self.session_id = session.initialize.session_id or self.session_id
        self.page_script_hash = self.page_script_hash or session.page_script_hash
        if not list(getattr(session, "fragment_ids_this_run", ())):
            self.page = Page()

    def _take_element(self, element: Any, fragment_id: str = "") -> None:
        kind = element.WhichOneof("type")
        if kind is None:
            return
        value = getattr(element, kind)
        if kind in _WIDGETS:
            widget = Widget(value.id, kind, value.label, getattr(value, "form_id", ""), fragment_id)
            self.page.widgets[widget.id] = widget
        elif kind == "exception":
            self.page.exceptions.append(value.type)
        elif hasattr(value, "body"):
            self.page.texts.append(value.body)


def _state(widget: Widget, value: Any) -> WidgetState:
    match value:
        case bool():
            return WidgetState(id=widget.id, bool_value=value)
        case str():
            return WidgetState(id=widget.id, string_value=value)
        case int() | float() if widget.kind == "number_input":
            return WidgetState(id=widget.id, double_value=float(value))
        case int():
            return WidgetState(id=widget.id, int_value=value)
        case list() | tuple():
            state = WidgetState(id=widget.id)
            state.double_array_value.data.extend(float(each) for each in value)
            return state
    raise TypeError(
        f"a {type(value).__name__} is no widget's value; allowed are text, numbers, bool and lists of numbers"
    )


def describe(page: Page) -> Mapping[str, list[str]]:
    """What a page shows, for a test's message."""
    return {"widgets": [each.label for each in page.widgets.values()], "texts": page.texts, "errors": page.exceptions}
