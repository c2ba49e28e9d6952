"""Faults that tests cause on purpose."""

from __future__ import annotations

import ctypes
import threading
import time


class Killed(BaseException):
    """Raised inside a thread from outside; nothing catches it."""


def kill_thread(name: str, timeout_s: float = 30.0) -> None:
    """End the thread of this name really: an exception is raised inside it, and it is waited for."""
    thread = next(each for each in threading.enumerate() if each.name == name)
    assert thread.ident is not None
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Killed)) == 1
    deadline = time.monotonic() + timeout_s
    while thread.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)
