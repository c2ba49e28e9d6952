"""What sends one signal to where it is sent."""

from __future__ import annotations

import typing
from collections.abc import Callable

from otel.config import OtlpTarget, Protocol, TelemetryConfig
from otel.export.outcome import Outcome
from otel.records import Signal


class Sender(typing.Protocol):
    """Sends one signal's requests, one at a time, from one thread. Never raises, never logs what it sends."""

    def send(self, payload: bytes, count: int, /) -> Outcome:
        """Send one encoded request with `count` records; returns within the target's time-out."""

    def abort(self) -> None:
        """End an attempt that runs now, from another thread."""

    def close(self) -> None:
        """Close what is kept open."""

    def begin_in_child(self) -> None:
        """In a forked child: let the parent's connection be."""


def make_sender(signal: Signal, target: OtlpTarget) -> Sender:
    """The sender of a signal; gRPC is imported only where it is asked for.

    Raises:
        ImportError: gRPC is asked for and not installed.
        OSError, ValueError: a certificate or the endpoint can't be read.
    """
    if target.protocol is Protocol.GRPC:
        from otel.export.grpc import GrpcSender

        return GrpcSender(signal, target)
    from otel.export.http import HttpSender

    return HttpSender(signal, target)


def make_senders(
    config: TelemetryConfig, on_error: Callable[[Signal, Exception], None] | None = None
) -> dict[Signal, Sender]:
    """A sender for each signal that has an OTLP target.

    Arguments:
        on_error: told of what `make_sender` raises, so that the others are made; by default it is raised.
    """
    senders = {}
    for signal in Signal:
        target = config.destinations(signal).otlp
        if target is None:
            continue
        try:
            senders[signal] = make_sender(signal, target)
        except Exception as error:
            if on_error is None:
                raise
            on_error(signal, error)
    return senders
