"""The OpenTelemetry instruments of alerts and circuits; what they tell is read when somebody collects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from otel.containment import contained
from otel.names import SCHEMA_URL, UNITS, Attribute, Metric
from streamlit_extension.alerts.breaker import CircuitSnapshot, CircuitState
from streamlit_extension.alerts.delivery import SinkCounts

SCOPE: Final = "streamlit_extension.alerts"
_RULE, _SINK = Attribute.ALERT_RULE_NAME.value, Attribute.ALERT_SINK_NAME.value
_OUTCOME, _REASON = Attribute.ALERT_NOTIFICATION_OUTCOME.value, Attribute.ERROR_TYPE.value
_CIRCUIT, _STATE, _CALL = (
    each.value for each in (Attribute.CIRCUIT_NAME, Attribute.CIRCUIT_STATE, Attribute.CIRCUIT_OUTCOME)
)


class AlertInstruments:
    """Makes the instruments of a meter, once; `close` silences them, for a meter gives none back.

    Arguments:
        active: returns for each rule whether it fires.
        counts: returns by sink what became of its notices.
        circuits: returns every circuit.
        meter_provider: by default the API's global one.
    """

    def __init__(
        self,
        active: Callable[[], Mapping[str, bool]],
        counts: Callable[[], Mapping[str, SinkCounts]],
        circuits: Callable[[], Sequence[CircuitSnapshot]],
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._active, self._counts, self._circuits = active, counts, circuits
        self._on = True
        meter = get_meter(SCOPE, meter_provider=meter_provider, schema_url=SCHEMA_URL)
        table: Mapping[Metric, tuple[str, Callable[[], Iterable[Observation]], str]] = {
            Metric.ALERT_ACTIVE: ("up_down_counter", self._rules, "1 for a rule that fires, else 0"),
            Metric.ALERT_NOTIFICATIONS: ("counter", self._finished, "Notifications delivered or given up, by sink"),
            Metric.ALERT_NOTIFICATIONS_WAITING: ("up_down_counter", self._waiting, "Notifications that wait"),
            Metric.CIRCUIT_STATES: ("up_down_counter", self._states, "1 for the state that a circuit is in, else 0"),
            Metric.CIRCUIT_CALLS: ("counter", self._calls, "Calls made under a circuit, and those that were not made"),
        }
        for metric, (kind, read, description) in table.items():
            make = getattr(meter, f"create_observable_{kind}")
            make(metric.value, [self._callback(read)], unit=UNITS[metric], description=description)

    def close(self) -> None:
        """Tell nothing any more."""
        self._on = False

    def _callback(
        self, read: Callable[[], Iterable[Observation]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_options: CallbackOptions) -> Iterable[Observation]:
            if self._on:
                with contained("figures of the alerts could not be read"):
                    return list(read())
            return ()

        return callback

    def _rules(self) -> Iterator[Observation]:
        for rule, fires in self._active().items():
            yield Observation(int(fires), {_RULE: rule})

    def _finished(self) -> Iterator[Observation]:
        for sink, counts in self._counts().items():
            yield Observation(counts.delivered, {_SINK: sink, _OUTCOME: "delivered"})
            for reason, given_up in counts.failed.items():
                yield Observation(given_up, {_SINK: sink, _OUTCOME: "failed", _REASON: str(reason)})

    def _waiting(self) -> Iterator[Observation]:
        for sink, counts in self._counts().items():
            yield Observation(counts.waiting, {_SINK: sink})

    def _states(self) -> Iterator[Observation]:
        for circuit in self._circuits():
            for state in CircuitState:
                yield Observation(int(circuit.state is state), {_CIRCUIT: circuit.name, _STATE: state.value})

    def _calls(self) -> Iterator[Observation]:
        for circuit in self._circuits():
            figures = {
                "success": circuit.calls - circuit.failed,
                "failure": circuit.failed,
                "rejected": circuit.rejected,
            }
            for outcome, calls in figures.items():
                yield Observation(calls, {_CIRCUIT: circuit.name, _CALL: outcome})
