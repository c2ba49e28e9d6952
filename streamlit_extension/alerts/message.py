"""What a notice says to people: title, lines and links; every sink puts them into its own form."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import msgspec

from otel.guard import clean_text
from streamlit_extension.alerts.model import Alert, AlertRule, Cause, Metric, Notice, NoticeKind, Severity

_VERBS: Final = {
    NoticeKind.FIRED: "FIRING",
    NoticeKind.REPEATED: "STILL FIRING",
    NoticeKind.ACKNOWLEDGED: "SILENCED",
    NoticeKind.RESOLVED: "RESOLVED",
}
_CAUSES: Final = {
    Cause.CLEARED: "back to normal",
    Cause.NO_DATA: "resolved because its data stopped",
    Cause.RULE_REMOVED: "resolved because its rule was taken out",
}


class Link(msgspec.Struct, frozen=True):
    """A link's words and where it leads."""

    text: str
    url: str


class Links(msgspec.Struct, frozen=True):
    """Where readers find more: bases without a slash at their end, None where there is none.

    `public_url` is where the application is reached from outside, its path prefix included; `jaeger_url` Jaeger's root.
    """

    public_url: str | None = None
    jaeger_url: str | None = None

    def for_trace(self, trace_id: str | None) -> tuple[Link, ...]:
        """Return links to one trace, or to the pages themselves where there is no example."""
        found = []
        if self.public_url:
            base = f"{self.public_url.rstrip('/')}/telemetry/"
            target = f"{base}traces/{quote(trace_id, safe='')}" if trace_id else base
            found.append(Link("Example trace" if trace_id else "Telemetry page", target))
        if self.jaeger_url:
            base = self.jaeger_url.rstrip("/")
            found.append(Link("Jaeger", f"{base}/trace/{quote(trace_id, safe='')}" if trace_id else f"{base}/search"))
        return tuple(found)


class AlertText(msgspec.Struct, frozen=True):
    """One alert in words: `headline` in one line, `facts` as name and value, `runbook` what to do."""

    headline: str
    facts: tuple[tuple[str, str], ...]
    runbook: str
    links: tuple[Link, ...]


class Message(msgspec.Struct, frozen=True):
    """A notice in words."""

    title: str
    alerts: tuple[AlertText, ...]
    test: bool

    def as_text(self) -> str:
        """Return all of it as plain text."""
        parts = []
        for alert in self.alerts:
            lines = [alert.headline, *(f"  {name}: {value}" for name, value in alert.facts)]
            lines += [f"  What to do: {alert.runbook}"] if alert.runbook else []
            lines += [f"  {link.text}: {link.url}" for link in alert.links]
            parts.append("\n".join(lines))
        note = "This is a test: nothing is wrong and nothing needs to be done.\n\n" if self.test else ""
        return note + "\n\n".join(parts) + "\n"


def amount(value: float, unit: str) -> str:
    """Write a value with its unit, without needless digits."""
    number = f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) < 1e15 else f"{value:g}"
    return f"{number}{unit}" if unit in ("", "%") else f"{number} {unit}"


def moment(at: float) -> str:
    """Write seconds since the Unix epoch as RFC 3339 in UTC."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return "unknown"


def plain(text: str) -> str:
    """Return what people, settings or other machines said, in one line, without control characters and secrets."""
    return " ".join("".join(each if each.isprintable() else " " for each in clean_text(text)).split())


def title_of(rule: AlertRule) -> str:
    """Return a rule's title, its name where it has none."""
    return plain(rule.title or rule.name)


def describe(notice: Notice, links: Links | None = None) -> Message:
    """Return what a notice says."""
    links = links or Links()
    verb = _VERBS[notice.kind]
    names = ", ".join(title_of(alert.rule) for alert in notice.alerts)
    service, instance = plain(notice.service), plain(notice.instance)
    where = f"{service} ({instance})" if instance else service
    title = f"{'[TEST] ' if notice.test else ''}[{verb}] {where}: {names}"
    return Message(title, tuple(_text_of(alert, notice, links) for alert in notice.alerts), notice.test)


def _text_of(alert: Alert, notice: Notice, links: Links) -> AlertText:
    unit = alert.rule.unit
    value, threshold = amount(alert.value, unit), amount(alert.threshold, unit)
    resolved = notice.kind is NoticeKind.RESOLVED
    if resolved:
        headline = f"{title_of(alert.rule)}: {_CAUSES[alert.cause or Cause.CLEARED]}, {value} (threshold {threshold})"
    else:
        headline = f"{title_of(alert.rule)} is {value} (threshold {threshold})"
    facts = [("Severity", str(alert.rule.severity)), ("Since", moment(alert.fired_at))]
    if resolved:
        facts.append(("Until", moment(alert.at)))
    if alert.silence is not None:
        facts.append(("Silenced", f"until {moment(alert.silence.until)}: {plain(alert.silence.reason)}"))
    facts.append(("Service", plain(notice.service)))
    facts += [("Instance", plain(notice.instance))] if notice.instance else []
    facts += [("Trace", alert.trace_id)] if alert.trace_id else []
    runbook = "" if resolved else plain(alert.rule.runbook)
    return AlertText(headline, tuple(facts), runbook, links.for_trace(alert.trace_id))


def trial_notice(now: float, *, service: str, instance: str = "", kind: NoticeKind = NoticeKind.FIRED) -> Notice:
    """Return a notice that is marked as a test."""
    rule = AlertRule(
        name="alerts_test",
        metric=Metric.CPU_USAGE,
        threshold=85.0,
        severity=Severity.INFO,
        unit="%",
        title="Test of the alerts",
        runbook="Nothing: whoever reads this is told of alerts.",
    )
    key = "/".join(part for part in (service, instance, rule.name) if part)
    cause = Cause.CLEARED if kind is NoticeKind.RESOLVED else None
    value = 0.0 if cause else 100.0
    alert = Alert(rule, key, value, rule.threshold, now, now, trace_id=None, cause=cause)
    return Notice(kind, (alert,), now, service, instance, test=True)
