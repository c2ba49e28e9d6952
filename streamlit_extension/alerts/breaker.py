"""Circuit breakers for named dependencies: what fails again and again is not asked for a while.

The state machine is interlock's; protected calls run outside its lock, so that a slow dependency never makes the
sessions of a process wait for one another. It is imported when the first circuit is made.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import msgspec

from streamlit_extension.alerts.circuit_values import Clock, check_circuit
from streamlit_extension.alerts.model import AlertRule

if TYPE_CHECKING:
    from interlock import CircuitBreaker

_log = logging.getLogger("streamlit_extension.alerts.breaker")

F = TypeVar("F", bound=Callable[..., Any])


class CircuitState(StrEnum):
    """Whether calls pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitChange(msgspec.Struct, frozen=True):
    """A circuit went from one state to another."""

    name: str
    old: CircuitState
    new: CircuitState


class CircuitSnapshot(msgspec.Struct, frozen=True):
    """One circuit now, for health and metrics. `rejected` calls were not made, `failed` ones were."""

    name: str
    state: CircuitState
    calls: int
    failed: int
    rejected: int


class _Opened(Exception):
    """What an alert counts as: the failures that it stands for."""


class _Listener:
    """Counts what the library tells, and passes changes on."""

    def __init__(self, on_change: Callable[[CircuitChange], None]) -> None:
        self.calls = self.failed = self.rejected = 0
        self._on_change = on_change
        self._lock = threading.Lock()

    def on_state_change(self, *, name: str, old: Any, new: Any) -> None:
        """A transition, told outside the library's lock."""
        before, after = _state_of(old), _state_of(new)
        if before is not after:
            self._on_change(CircuitChange(name, before, after))

    def on_call(self, *, name: str, outcome: Any, duration: float) -> None:
        """A call ended."""
        with self._lock:
            self.calls += 1
            self.failed += bool(outcome.is_failure)

    def on_rejected(self, *, name: str) -> None:
        """A call was not made."""
        with self._lock:
            self.rejected += 1

    def on_reset(self, *, name: str) -> None:
        """Nothing of ours resets silently: the change has been told."""


def _state_of(state: Any) -> CircuitState:
    if state.value == "half_open":
        return CircuitState.HALF_OPEN
    return CircuitState.OPEN if state.value in ("open", "forced_open") else CircuitState.CLOSED


class Circuit:
    """The circuit of one dependency: a decorator (of functions and coroutine functions), and a context manager.

    ```
    billing = circuit_breaker("billing")

    @billing
    def invoices(): ...

    with billing:
        ...
    ```

    While it is open, nothing is called and `interlock.CircuitOpenError` is raised, with `retry_after` in seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int = 5,
        reset_s: float = 30.0,
        opens_on: Iterable[str] = (),
        on_change: Callable[[CircuitChange], None] = lambda _: None,
        clock: Clock | None = None,
        unreachable: tuple[type[Exception], ...] = (),
    ) -> None:
        from interlock import CircuitBreaker, Config

        check_circuit(name, failures, reset_s)
        self.name = name
        self.failures = failures
        self.opens_on = frozenset((opens_on,) if isinstance(opens_on, str) else map(str, opens_on))
        self._listener = _Listener(on_change)
        # A window of as many calls as failures that open it, all of which must have failed: consecutive failures.
        config = Config(
            failure_rate_threshold=1.0,
            minimum_number_of_calls=failures,
            window_size=failures,
            permitted_calls_in_half_open=1,
            wait_duration_in_open=reset_s,
        )
        self._breaker: CircuitBreaker = CircuitBreaker(
            name=name, config=config, clock=clock, listener=self._listener, unreachable_exceptions=unreachable
        )

    @property
    def state(self) -> CircuitState:
        """Whether calls pass now; an open circuit turns half-open with the first call after its time."""
        return _state_of(self._breaker.state)

    def snapshot(self) -> CircuitSnapshot:
        """Return what health and metrics show."""
        listener = self._listener
        return CircuitSnapshot(self.name, self.state, listener.calls, listener.failed, listener.rejected)

    def __call__(self, function: F) -> F:
        """Protect a function or a coroutine function. Raises TypeError for a generator's: it runs after its call."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"circuit {self.name!r}: a generator can't be decorated; use `with` around what it calls")
        protected: Any = self._breaker(function)
        return protected  # type: ignore[no-any-return]

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function under protection."""
        return self._breaker.call_sync(function, *args, **kwargs)

    def __enter__(self) -> Self:
        self._breaker.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        return self._breaker.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        await self._breaker.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        return await self._breaker.__aexit__(kind, error, trace)

    def succeeded(self) -> None:
        """Count a success that was seen elsewhere."""
        if self.state is CircuitState.CLOSED:
            with contextlib.suppress(Exception), self._breaker:
                pass

    def failed(self, error: Exception | None = None) -> None:
        """Count a failure that was seen elsewhere."""
        if self.state is CircuitState.CLOSED:
            with contextlib.suppress(Exception), self._breaker:
                raise error or _Opened

    def open(self) -> bool:
        """Open it as its failures would: after `reset_s` one call tries again. False when successes won the race."""
        for _ in range(20 * self.failures):
            with contextlib.suppress(Exception), self._breaker:
                raise _Opened
            if self.state is CircuitState.OPEN:
                return True
        return False


class Circuits:
    """All circuits of a process, by name: the same name is the same circuit, however often a script asks for it.

    Arguments:
        failures: consecutive failures that open one.
        reset_s: how long it stays open before one call tries.
        on_alerts: metrics whose alert opens every circuit that names none itself.
        clock: monotonic time, by default the system's.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        reset_s: float = 30.0,
        on_alerts: Iterable[str] = (),
        clock: Clock | None = None,
    ) -> None:
        self._failures = failures
        self._reset_s = reset_s
        self._on_alerts = frozenset(map(str, on_alerts))
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, Circuit] = {}
        self._subscribers: list[Callable[[CircuitChange], object]] = []
        self._on_made: list[Callable[[Circuit], object]] = []

    def configure(self, *, failures: int, reset_s: float, on_alerts: Iterable[str] = ()) -> None:
        """Let circuits that are made from now on have these values."""
        with self._lock:
            self._failures, self._reset_s, self._on_alerts = failures, reset_s, frozenset(map(str, on_alerts))

    def get(
        self,
        name: str,
        *,
        failures: int | None = None,
        reset_s: float | None = None,
        opens_on: Iterable[str] | None = None,
    ) -> Circuit:
        """Return the circuit of a dependency, made at the first call with the values of that call."""
        with self._lock:
            found = self._held.get(name)
            if found is not None:
                return found
            found = self._held[name] = Circuit(
                name,
                failures=self._failures if failures is None else failures,
                reset_s=self._reset_s if reset_s is None else reset_s,
                opens_on=self._on_alerts if opens_on is None else opens_on,
                on_change=self._tell,
                clock=self._clock,
            )
            told = tuple(self._on_made)
        for each in told:
            _contained(each, found)
        return found

    def subscribe(
        self, changed: Callable[[CircuitChange], object], made: Callable[[Circuit], object] | None = None
    ) -> Callable[[], None]:
        """Tell `changed` of every change, on the thread that caused it; returns what ends it.

        Arguments:
            made: told of every circuit: of those that there are at once, of others when they are made.
        """
        with self._lock:
            self._subscribers.append(changed)
            if made is not None:
                self._on_made.append(made)
            held = tuple(self._held.values())
        for circuit in held if made is not None else ():
            _contained(made, circuit)

        def end() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._subscribers.remove(changed)
                if made is not None:
                    self._on_made.remove(made)

        return end

    def snapshots(self) -> tuple[CircuitSnapshot, ...]:
        """Return every circuit as it is now."""
        with self._lock:
            held = tuple(self._held.values())
        return tuple(circuit.snapshot() for circuit in held)

    def consider(self, firing: Sequence[AlertRule], fired: Sequence[AlertRule], /) -> None:
        """Open the circuits that name a metric whose alert fired just now."""
        metrics = {rule.metric for rule in fired}
        with self._lock:
            held = tuple(self._held.values())
        for circuit in held:
            causes = sorted(circuit.opens_on & metrics)
            if causes:
                opened = circuit.open()
                fields = {"event": "audit.circuit_opened_by_alert", "circuit": circuit.name, "alerts": causes}
                _log.warning("an alert %s a circuit", "opened" if opened else "could not open", extra=fields)

    def _tell(self, change: CircuitChange) -> None:
        fields = {"event": f"audit.circuit_{change.new}", "circuit": change.name, "old_state": str(change.old)}
        level = logging.INFO if change.new is CircuitState.CLOSED else logging.WARNING
        _log.log(level, "circuit %s is %s", change.name, change.new.replace("_", " "), extra=fields)
        with self._lock:
            subscribers = tuple(self._subscribers)
        for subscriber in subscribers:
            _contained(subscriber, change)


def _contained(subscriber: Callable[[Any], object] | None, told: object) -> None:
    try:
        if subscriber is not None:
            subscriber(told)
    except Exception as error:
        extra = {"event": "telemetry.internal_error", "error_type": type(error).__name__}
        _log.warning("a subscriber of circuits failed", extra=extra)


#: The process's circuits; the composition root configures them from `[breaker]`.
CIRCUITS = Circuits()


def circuit_breaker(
    name: str,
    *,
    failures: int | None = None,
    reset_s: float | None = None,
    opens_on: Iterable[str] | None = None,
) -> Circuit:
    """Return the circuit of a named dependency; safe in a script that runs again and again.

    Arguments:
        name: the dependency's name.
        failures: consecutive failures that open it, by default `[breaker] failures`.
        reset_s: seconds until one call tries again, by default `[breaker] reset_s`.
        opens_on: metrics whose alert opens it, such as `{"database_connections"}`; by default `[breaker] on_alerts`.

    Raises:
        ValueError: a value is out of its range.
    """
    return CIRCUITS.get(name, failures=failures, reset_s=reset_s, opens_on=opens_on)
