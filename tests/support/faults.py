"""Faults that tests cause on purpose."""

from __future__ import annotations

import ctypes
import threading
import time

from tests.support.otlp import Reply

#: What a receiver can do to a request, by HTTP and by gRPC.
HTTP_FAULTS = (
    Reply(400),
    Reply(413),
    Reply(429, headers={"Retry-After": "0"}),
    Reply(429, headers={"Retry-After": "1"}),
    Reply(500),
    Reply(503),
    Reply(rejected=1, message="one too many"),
    Reply(reset=True, status=503),
    Reply(delay_s=60, status=503),
    Reply(drip_s=0.5, status=503),
)
GRPC_FAULTS = (
    Reply(3),
    Reply(8, message="Received message larger than max"),
    Reply(13),
    Reply(14),
    Reply(rejected=1),
    Reply(4),
)


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
