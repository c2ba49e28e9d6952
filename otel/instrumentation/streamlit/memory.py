"""Where an application's memory goes: sampled by one thread beside the script runs, which it never holds up."""

from __future__ import annotations

import heapq
import threading
import time
from typing import Any

import msgspec

from otel import installed
from otel.containment import contained
from otel.instrumentation.streamlit import reading
from otel.instrumentation.streamlit.sizing import size_of
from otel.trace_context import suppressed

#: Seconds between two samples.
INTERVAL_S = 30.0
#: The first one comes sooner.
FIRST_S = 5.0
#: After each measurement (about 2 ms at most) the thread rests, so that scripts have the interpreter to themselves.
REST_S = 0.05
#: So many sessions are measured in one sample; the others keep what was found before, and come next.
MAX_SESSIONS = 200
#: So many cached functions are measured in one sample, the largest caches being the ones with the most entries.
MAX_CACHES = 100
#: So many of the largest sessions are kept in the embedded store.
KEPT_SESSIONS = 50


class SessionMemory(msgspec.Struct, frozen=True):
    """What one session holds, in bytes.

    `complete` is False where there was more than could be looked at: then it holds at least this.
    """

    session_id: str
    session_state_bytes: int
    uploads_bytes: int
    complete: bool

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.session_state_bytes + self.uploads_bytes


class MemorySample(msgspec.Struct, frozen=True):
    """One look at all of them, in bytes; None where this Streamlit does not show it. `taken_s` is monotonic."""

    session_state: int | None = None
    cache: int | None = None
    uploads: int | None = None
    media: int | None = None
    sessions: tuple[SessionMemory, ...] = ()
    taken_s: float = 0.0

    def largest(self, count: int) -> tuple[SessionMemory, ...]:
        """The sessions that hold most, the largest first."""
        return tuple(heapq.nlargest(count, self.sessions, key=lambda each: each.bytes))


class MemorySampler(msgspec.Struct):
    """Takes a sample now and then, on a thread of its own that `start` begins and `stop` ends.

    A measurement takes no lock of Streamlit's and calls nothing of the application's; its objects are held for
    milliseconds. Its share of the interpreter's time is bounded: at most 2 ms of work for each `rest_s` of rest.
    """

    interval_s: float = INTERVAL_S
    first_s: float = FIRST_S
    rest_s: float = REST_S
    _sample: MemorySample = msgspec.field(default_factory=MemorySample)
    _known: dict[str, SessionMemory] = msgspec.field(default_factory=dict)
    _thread: threading.Thread | None = None
    _stop: threading.Event = msgspec.field(default_factory=threading.Event)

    @property
    def sample(self) -> MemorySample:
        """The newest sample."""
        return self._sample

    def start(self) -> None:
        """Begin; when it runs already nothing changes."""
        if self._thread is None or not self._thread.is_alive():
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="streamlit-memory-sampler", daemon=True
            )
            self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread, and forget what was found."""
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        self._sample = MemorySample()
        self._known.clear()

    def _run(self, stop: threading.Event) -> None:
        wait_s = self.first_s
        with suppressed():
            while not stop.wait(wait_s):
                wait_s = self.interval_s
                with contained("memory could not be sampled"):
                    _keep(self.take(stop))

    def take(self, stop: threading.Event | None = None) -> MemorySample:
        """Take a sample now, on the caller's thread."""
        resting = stop or threading.Event()
        uploads = _read(lambda: dict(reading.uploaded_files()))
        states = _read(lambda: list(reading.session_states()))
        sessions = self._measure_sessions(states or [], uploads or {}, resting)
        sample = MemorySample(
            session_state=None if states is None else sum(each.session_state_bytes for each in sessions),
            cache=_read(lambda: self._measure_caches(resting)),
            uploads=None if uploads is None else sum(uploads.values()),
            media=_read(reading.media_bytes),
            sessions=sessions,
            taken_s=time.monotonic(),
        )
        if stop is None or not stop.is_set():
            self._sample = sample
        return sample

    def _measure_sessions(
        self, states: list[tuple[str, tuple[Any, ...]]], uploads: dict[str, int], stop: threading.Event
    ) -> tuple[SessionMemory, ...]:
        """Those measured longest ago come first: their places in `_known` say which."""
        there = dict(states)
        known = {name: value for name, value in self._known.items() if name in there}
        due = [name for name in there if name not in known] + list(known)
        for name in due[:MAX_SESSIONS]:
            found = size_of(there[name])
            known.pop(name, None)
            known[name] = SessionMemory(name, found.bytes, uploads.get(name, 0), found.complete)
            if stop.wait(self.rest_s):
                break
        self._known = known
        return tuple(known.values())

    def _measure_caches(self, stop: threading.Event) -> int:
        total = 0
        for entries in sorted(reading.cache_entries(), key=dict.__len__, reverse=True)[:MAX_CACHES]:
            total += size_of((entries,)).bytes
            if stop.wait(self.rest_s):
                break
        return total


def _keep(sample: MemorySample) -> None:
    """Give the largest sessions to the embedded store, where there is one: who they are is told to nobody else."""
    store = getattr(getattr(installed.current(), "destination", None), "store", None)
    if store is not None and sample.sessions:
        store.put_session_memory(
            [(each.session_id, each.session_state_bytes, each.uploads_bytes) for each in sample.largest(KEPT_SESSIONS)]
        )


def _read(read: Any) -> Any:
    """What is read, or None where Streamlit's internals have moved."""
    try:
        return read()
    except (ImportError, AttributeError, RuntimeError, KeyError, TypeError):
        return None
