"""Spans and metrics without secrets: each function gives its argument back where nothing had to be replaced."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.attributes import BoundedAttributes

from otel.guard import known_secrets, redact_text, redact_value

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Link, Status

#: Attributes that are remembered as clean, and the characters of a value that is.
MAX_KEPT: Final = 4096
MAX_KEPT_TEXT: Final = 128

#: The secrets that were known, and the attributes that were found to hold none of them: spans say the same ones again.
_clean: tuple[tuple[tuple[str, bool], ...], set[tuple[str, str]]] = ((), set())


def _known_clean() -> set[tuple[str, str]]:
    """Attributes, and texts under "", that hold no secret; to be asked before a value is looked at and told after.

    Where another secret is remembered meanwhile, what is told goes into a set that nobody asks any more.
    """
    global _clean  # noqa: PLW0603 - replaced as a whole, for whoever reads it on another thread
    secrets = known_secrets()
    kept = _clean
    if kept[0] is not secrets or len(kept[1]) >= MAX_KEPT:
        kept = _clean = (secrets, set())
    return kept[1]


def clean_attributes(attributes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Attributes as they may leave; the same object where nothing had to be replaced."""
    if not attributes:
        return attributes
    changed = {}
    plain: Mapping[str, Any] = getattr(attributes, "_dict", attributes)  # ended: nobody writes to it any more
    known = _known_clean()
    for key, value in plain.items():
        is_text = value.__class__ is str
        if is_text and (key, value) in known:
            continue
        clean = _clean_value(key, value)
        if clean is not value:
            changed[key] = clean
        elif is_text and len(value) <= MAX_KEPT_TEXT:
            known.add((key, value))
    if not changed:
        return attributes
    result = BoundedAttributes(attributes={**attributes, **changed}, immutable=True)
    result.dropped = getattr(attributes, "dropped", 0)
    return result


def _clean_value(key: str, value: Any) -> Any:
    clean = redact_value(key, value)
    if isinstance(clean, str):
        clean = _encodable(clean)
        return value if clean == value else clean
    if isinstance(value, tuple):  # the guard makes lists
        clean = tuple(_encodable(each) if isinstance(each, str) else each for each in clean)
        return value if clean == value else clean
    return clean


def _encodable(text: str) -> str:
    """`text` without lone surrogates, which UTF-8 (and so protobuf) has no form for."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _clean_text(text: str) -> str:
    return _encodable(redact_text(text))


def _clean_name(name: str) -> str:
    known = _known_clean()
    if ("", name) in known:
        return name
    clean = _clean_text(name)
    if clean == name and len(name) <= MAX_KEPT_TEXT:
        known.add(("", name))
    return clean


def clean_span(span: ReadableSpan) -> ReadableSpan:
    """A span as it may leave."""
    attributes = clean_attributes(span._attributes)
    # The SDK's own names first: the public ones make copies.
    events = _clean_each(span.events, _clean_event) if getattr(span, "_events", True) else None
    links = _clean_each(span.links, _clean_link) if getattr(span, "_links", True) else None
    status = _clean_status(span.status)
    name = _clean_name(span.name)
    if (
        attributes is span._attributes
        and events is None
        and links is None
        and status is span.status
        and name == span.name
    ):
        return span
    from opentelemetry.sdk.trace import ReadableSpan

    return ReadableSpan(
        name=name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=span._events if events is None else events,
        links=span._links if links is None else links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _clean_each(items: Sequence[Any], clean: Callable[[Any], Any]) -> list[Any] | None:
    """The cleaned items, None where none had to be changed."""
    if not items:
        return None
    found = [clean(each) for each in items]
    return None if all(new is old for new, old in zip(found, items, strict=True)) else found


def _clean_event(event: Event) -> Event:
    attributes = clean_attributes(event.attributes)
    name = _clean_text(event.name)
    if attributes is event.attributes and name == event.name:
        return event
    from opentelemetry.sdk.trace import Event

    return Event(name, attributes, event.timestamp)


def _clean_link(link: Link) -> Link:
    attributes = clean_attributes(link.attributes)
    if attributes is link.attributes:
        return link
    from opentelemetry.trace import Link

    return Link(link.context, attributes)


def _clean_status(status: Status) -> Status:
    description = status.description
    if not description or (clean := _clean_text(description)) == description:
        return status
    from opentelemetry.trace import Status

    return Status(status.status_code, clean)


def clean_metrics(data: MetricsData) -> MetricsData:
    """Metrics as they may leave; attribute values are looked at, exemplars' too."""
    resources = _clean_each(data.resource_metrics, _clean_resource_metrics)
    return data if resources is None else dataclasses.replace(data, resource_metrics=resources)


def _clean_resource_metrics(each: Any) -> Any:
    scopes = _clean_each(each.scope_metrics, _clean_scope_metrics)
    return each if scopes is None else dataclasses.replace(each, scope_metrics=scopes)


def _clean_scope_metrics(each: Any) -> Any:
    metrics = _clean_each(each.metrics, _clean_metric)
    return each if metrics is None else dataclasses.replace(each, metrics=metrics)


def _clean_metric(metric: Any) -> Any:
    points = _clean_each(metric.data.data_points, _clean_point)
    if points is None:
        return metric
    return dataclasses.replace(metric, data=dataclasses.replace(metric.data, data_points=points))


def _clean_point(point: Any) -> Any:
    attributes = clean_attributes(point.attributes)
    exemplars = _clean_each(getattr(point, "exemplars", ()), _clean_exemplar)
    if attributes is point.attributes and exemplars is None:
        return point
    return dataclasses.replace(
        point, attributes=attributes, exemplars=point.exemplars if exemplars is None else exemplars
    )


def _clean_exemplar(exemplar: Any) -> Any:
    attributes = clean_attributes(exemplar.filtered_attributes)
    unchanged = attributes is exemplar.filtered_attributes
    return exemplar if unchanged else dataclasses.replace(exemplar, filtered_attributes=attributes)
