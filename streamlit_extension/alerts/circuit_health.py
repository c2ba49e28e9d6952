"""Circuits as components of the health answers: an open one degrades, and stops nobody from being ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from streamlit_extension.alerts.breaker import Circuit, CircuitChange, Circuits, CircuitSnapshot, CircuitState
from streamlit_extension.health.model import CheckResult, CheckSpec, Outcome


class Service(Protocol):
    """The part of a `HealthService` that is needed."""

    def register(self, spec: CheckSpec, /) -> None:
        """Add a component."""

    def unregister(self, name: str, /) -> None:
        """Take it away."""

    def report(self, name: str, result: CheckResult, /) -> None:
        """Take a result."""


def component_of(name: str) -> str:
    """Return the component that shows a circuit."""
    return f"circuit:{name}"


def result_of(circuit: CircuitSnapshot) -> CheckResult:
    """Return what a circuit's state means."""
    closed = circuit.state is CircuitState.CLOSED
    detail = {"state": str(circuit.state), **({} if closed else {"reason": str(circuit.state)})}
    return CheckResult(Outcome.OK if closed else Outcome.DEGRADED, detail=detail)


def show_circuits(circuits: Circuits, service: Service) -> Callable[[], None]:
    """Show every circuit that there is or will be, and each change at once; returns what ends it."""
    shown: set[str] = set()

    def made(circuit: Circuit) -> None:
        shown.add(circuit.name)
        service.register(CheckSpec(component_of(circuit.name), None, failures_to_trip=1))
        service.report(component_of(circuit.name), result_of(circuit.snapshot()))

    def changed(change: CircuitChange) -> None:
        service.report(component_of(change.name), result_of(CircuitSnapshot(change.name, change.new, 0, 0, 0)))

    end = circuits.subscribe(changed, made)

    def close() -> None:
        end()
        for name in shown:
            service.unregister(component_of(name))

    return close
