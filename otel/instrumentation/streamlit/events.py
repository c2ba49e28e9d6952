"""A script runner's events, heard before everybody else and at no price for each element that a script shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class EventsHeard:
    """Stands before a runner's signal, whose receivers hear of everything as they did.

    Streamlit sends each element of a script by the same signal as the run's start and end. A receiver of it would be
    called for all of them, so while the script's function runs, which tells of nothing else, `pause` takes us out.

    Arguments:
        signal: Streamlit's; everything but `send` is its own.
        hear: is called with each event before the signal's receivers are; raises nothing.
    """

    def __init__(self, signal: Any, hear: Callable[..., None]) -> None:
        self.signal = signal
        self._hear = hear

    def is_of(self, receiver: Callable[..., None]) -> bool:
        """Whether it is this receiver that hears by us."""
        return self._hear == receiver

    def send(self, *sender: Any, **payload: Any) -> Any:
        """Hear, then let the others hear."""
        self._hear(*sender, **payload)
        return self.signal.send(*sender, **payload)

    def pause(self) -> None:
        """Hear nothing until `resume`: what is sent goes to the signal itself."""
        self.send = self.signal.send  # type: ignore[method-assign]

    def resume(self) -> None:
        """Hear again."""
        self.__dict__.pop("send", None)

    def __getattr__(self, name: str) -> Any:
        """What else the signal has."""
        return getattr(self.signal, name)


def hear(runner: Any, receiver: Callable[..., None]) -> None:
    """Let `receiver` hear of a runner's events from now on."""
    runner.on_event = EventsHeard(runner.on_event, receiver)


def leave(runner: Any, receiver: Callable[..., None]) -> None:
    """The inverse of `hear`; whoever else hears of the runner goes on."""
    own = events_of(runner, receiver)
    if own is None:
        return
    if runner.on_event is own:
        runner.on_event = own.signal
        return
    before = runner.on_event
    while before.signal is not own:
        before = before.signal
    before.signal = own.signal


def events_of(runner: Any, receiver: Callable[..., None]) -> EventsHeard | None:
    """What `hear` has put in place for this receiver, before which others may stand by now."""
    found = getattr(runner, "on_event", None)
    while isinstance(found, EventsHeard) and not found.is_of(receiver):
        found = found.signal
    return found if isinstance(found, EventsHeard) else None
