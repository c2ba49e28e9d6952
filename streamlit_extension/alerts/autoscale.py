"""More replicas while an alert that they would help fires: one at a time, within bounds, with a cool-down for all.

Every replica may try: the cool-down is an annotation of the deployment, claimed by compare-and-set before the scale is
changed, so that one of them wins. Where a HorizontalPodAutoscaler has the deployment, nothing is done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from otel.trace_context import suppressed
from streamlit_extension.alerts.kube import KubeClient, KubeError
from streamlit_extension.alerts.model import AlertRule, Metric

if TYPE_CHECKING:
    from streamlit_extension.settings import Autoscale

_log = logging.getLogger("streamlit_extension.alerts.autoscale")

#: Holds when a replica was last added, RFC 3339.
ANNOTATION: Final = "streamlit-extension/last-scaled"
#: What more replicas help against. More of them would need more connections, share the same faulty code, and leave a
#: full disk as full.
HELPS: Final = frozenset({Metric.CPU_USAGE, Metric.MEMORY_USAGE, Metric.RESPONSE_TIME})
_SCALE_TRIES: Final = 5


class Outcome(StrEnum):
    """What an attempt came to."""

    SCALED = "scaled"
    COOLING_DOWN = "cooling_down"
    AT_MAXIMUM = "at_maximum"
    SUSPENDED = "suspended"  # scaled to none on purpose
    HAS_AUTOSCALER = "has_autoscaler"
    LOST_RACE = "lost_race"  # another replica was first
    FAILED = "failed"


class Attempt(msgspec.Struct, frozen=True):
    """One attempt: its outcome, the replicas before and after, and what went wrong."""

    outcome: Outcome
    before: int | None = None
    after: int | None = None
    detail: str = ""
    wait_s: float = 0.0


def decide(
    deployment: Mapping[str, Any], autoscalers: Sequence[Mapping[str, Any]], settings: Autoscale, now: float
) -> Attempt:
    """Return what is to be done (`SCALED` with the number wanted), from values alone; `now` is the server's time."""
    name = deployment["metadata"]["name"]
    replicas = int(deployment["spec"].get("replicas", 1))
    if any(_targets(each, name) for each in autoscalers):
        return Attempt(Outcome.HAS_AUTOSCALER, replicas)
    if replicas == 0:
        return Attempt(Outcome.SUSPENDED, replicas)
    last = last_scaled(deployment)
    if last is not None and now - last < settings.cooldown_s:
        # A time in the future is a clock that was wrong; it cools down once, not for years.
        return Attempt(Outcome.COOLING_DOWN, replicas, wait_s=settings.cooldown_s - max(0.0, now - last))
    if replicas >= settings.max_replicas:
        return Attempt(Outcome.AT_MAXIMUM, replicas)
    return Attempt(Outcome.SCALED, replicas, max(replicas + 1, settings.min_replicas))


def last_scaled(deployment: Mapping[str, Any]) -> float | None:
    """Return when a replica was last added, None when never or when it can't be understood."""
    text = (deployment["metadata"].get("annotations") or {}).get(ANNOTATION)
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None


def _targets(autoscaler: Mapping[str, Any], deployment: str) -> bool:
    target = autoscaler.get("spec", {}).get("scaleTargetRef", {})
    return bool(target.get("kind") == "Deployment" and target.get("name") == deployment)


class AutoScaler:
    """Adds replicas on a thread of its own, `stx-autoscale`, while an alert of `HELPS` fires.

    Arguments:
        client: asks the API server, for the namespace.
        settings: `[autoscale]`, with a deployment.
        clock: wall time, where the server doesn't tell its own.
    """

    def __init__(self, client: KubeClient, settings: Autoscale, *, clock: Callable[[], float] = time.time) -> None:
        if not settings.deployment:
            raise ValueError("autoscale: no deployment is named")
        self._client = client
        self._settings = settings
        self._clock = clock
        self._deployment = settings.deployment
        self._changed = threading.Condition()
        self._wanted: tuple[str, ...] = ()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._told: Outcome | None = None

    def consider(self, firing: Sequence[AlertRule], fired: Sequence[AlertRule], /) -> None:
        """Take note of what fires; never blocks."""
        wanted = tuple(rule.name for rule in firing if rule.metric in HELPS)
        with self._changed:
            began = bool(wanted) and not self._wanted
            self._wanted = wanted
            if not wanted or self._stopping:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stx-autoscale", daemon=True)
                self._thread.start()
            if began:
                self._changed.notify_all()

    def stop(self, timeout_s: float = 1.0) -> bool:
        """End the thread; False when it still waits for the API server."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def attempt(self, alerts: Sequence[str] = ()) -> Attempt:
        """Try once now, and write an audit event when it scaled; never raises."""
        with suppressed():
            try:
                attempt = self._try()
            except KubeError as error:
                attempt = Attempt(Outcome.FAILED, detail=str(error))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                attempt = Attempt(Outcome.FAILED, detail=f"not understood ({type(error).__name__})")
        self._audit(attempt, alerts)
        return attempt

    def _try(self) -> Attempt:
        found = self._client.deployment(self._deployment)
        now = found.server_time if found.server_time is not None else self._clock()
        decided = decide(found.body, self._client.autoscalers().body.get("items", []), self._settings, now)
        if decided.outcome is not Outcome.SCALED or decided.after is None or decided.before is None:
            return decided
        stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        try:
            claimed = self._client.annotate(
                self._deployment, {ANNOTATION: stamp}, found.body["metadata"]["resourceVersion"]
            )
        except KubeError as error:
            if error.status == 409:
                return Attempt(Outcome.LOST_RACE, decided.before)
            raise
        return self._set(decided.before, decided.after, claimed.body["metadata"]["resourceVersion"])

    def _set(self, before: int, after: int, version: str) -> Attempt:
        """Change the scale that we have claimed; Kubernetes' own writes move the version: a conflict is looked into."""
        for _ in range(_SCALE_TRIES):
            try:
                self._client.set_scale(self._deployment, after, version)
            except KubeError as error:
                if error.status != 409:
                    raise
            else:
                return Attempt(Outcome.SCALED, before, after)
            scale = self._client.scale(self._deployment).body
            if int(scale["spec"].get("replicas", 0)) != before:
                return Attempt(Outcome.LOST_RACE, before)
            version = scale["metadata"]["resourceVersion"]
        return Attempt(Outcome.FAILED, before, detail="the deployment changes too often")

    def _audit(self, attempt: Attempt, alerts: Sequence[str]) -> None:
        fields: dict[str, Any] = {
            "namespace": self._settings.namespace,
            "deployment": self._deployment,
            "outcome": str(attempt.outcome),
            "replicas_before": attempt.before,
            "alerts": list(alerts),
        }
        if attempt.outcome is Outcome.SCALED:
            fields["replicas_after"] = attempt.after
            _log.warning("a replica was added", extra={"event": "audit.scaled", **fields})
        elif attempt.outcome is not self._told:  # said once, not at every try
            fields["detail"] = attempt.detail
            level = logging.ERROR if attempt.outcome is Outcome.FAILED else logging.INFO
            _log.log(level, "no replica was added", extra={"event": "audit.not_scaled", **fields})
        self._told = attempt.outcome

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._stopping)
                if self._stopping:
                    return
                alerts = self._wanted
            attempt = self.attempt(alerts)
            wait_s = attempt.wait_s or self._settings.cooldown_s
            if attempt.outcome in (Outcome.FAILED, Outcome.LOST_RACE):
                wait_s = min(30.0, self._settings.cooldown_s)
            with self._changed:
                if self._changed.wait_for(lambda: self._stopping, wait_s):
                    return


def autoscaler_from(settings: Autoscale, client: KubeClient | None = None) -> AutoScaler | None:
    """Return what `[autoscale]` asks for, None when it is not configured; outside a cluster that is logged."""
    if not settings.namespace or not settings.deployment:
        return None
    if client is None:
        from streamlit_extension.alerts.kube import in_cluster

        access = in_cluster()
        if access is None:
            fields = {"event": "alerts.autoscale_unavailable", "deployment": settings.deployment}
            _log.warning("auto-scaling is configured, but this is no pod with a service account", extra=fields)
            return None
        client = KubeClient(access, settings.namespace)
    return AutoScaler(client, settings)
