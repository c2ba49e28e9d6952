"""Puts the values of both sources together, checks what concerns several of them, and writes them out redacted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from otel.config import ConfigError, TelemetryConfig
from otel.environment import is_disabled, sends_elsewhere, service_identity
from streamlit_extension import _settings_sources as sources
from streamlit_extension._settings_rules import rule_of
from streamlit_extension._settings_sources import Entry
from streamlit_extension._settings_types import (
    HIDDEN,
    Origin,
    Secrecy,
    Secret,
    SettingsError,
    redact_url,
)
from streamlit_extension.settings import (
    Health,
    LogFormat,
    Schema,
    Settings,
    StoreMode,
    default_data_dir,
    package_version,
)

#: Checks with a fixed name; engines are found later under `database:NAME`.
_CHECKS: Final = ("cache", "database", "disk", "memory", "script")
#: The scheduler's: by this share of its interval a run may be late.
_JITTER: Final = 0.1


def load(environ: Mapping[str, str], cwd: Path) -> Settings:
    """Return the settings of a file and an environment; see `Settings.load`."""
    file = sources.config_file(environ, cwd)
    written = sources.read_file(file, Schema) if file is not None else []
    entries = _merge(written, sources.read_environment(environ, Schema))
    name, version = service_identity(environ)
    service_name = name or "streamlit-app"
    values = _values(entries, cwd)
    values["data_dir"] = cwd / values["data_dir"] if "data_dir" in values else default_data_dir(service_name)
    schema = _build(Schema, values)
    _check_together(schema, entries)
    derived: dict[str, Any] = {
        "service_name": service_name,
        "store_enabled": store_enabled(schema.store, environ),
        "config_path": file,
        "origins": {".".join(path): entry.origin for path, entry in entries.items()},
    }
    derived["service_version"] = version or package_version()
    derived["telemetry"] = _telemetry(
        environ,
        service_name=service_name,
        service_version=derived["service_version"],
        data_dir=schema.data_dir,
        store=derived["store_enabled"],
    )
    return Settings(**{name: getattr(schema, name) for name in sources.fields_of(Schema)}, **derived)


def _telemetry(environ: Mapping[str, str], **values: Any) -> TelemetryConfig:
    try:
        return TelemetryConfig.from_environment(environ, **values)
    except ConfigError as error:
        raise SettingsError(str(error)) from None


def store_enabled(mode: StoreMode, environ: Mapping[str, str]) -> bool:
    """Decide on the embedded store; `auto` is on without OTLP endpoint, explicit exporter and OTEL_SDK_DISABLED."""
    if mode is not StoreMode.AUTO:
        return mode is StoreMode.ON
    return not is_disabled(environ) and not sends_elsewhere(environ)


def _merge(file: list[Entry], environment: list[Entry]) -> dict[tuple[str, ...], Entry]:
    """Let the environment win, also over the file's twin of a secret; names of maps match whatever their case."""
    for source in (file, environment):
        _refuse_both_twins({entry.path: entry for entry in source})
    merged = {entry.path: entry for entry in file}
    spelled = {tuple(part.lower() for part in path): path for path in merged}
    tables = {low[:depth]: path[:depth] for low, path in spelled.items() for depth in range(1, len(low))}
    for entry in environment:
        near = spelled.get(entry.path)
        path = near or (*tables.get(entry.path[:-1], entry.path[:-1]), entry.path[-1])
        plain = sources.twin_of(path, Schema)
        other = plain if plain is not None else (*path[:-1], f"{path[-1]}_file")
        merged.pop(other, None)
        merged[path] = Entry(path, entry.value, entry.name, entry.origin)
    return merged


def _refuse_both_twins(entries: Mapping[tuple[str, ...], Entry]) -> None:
    for path, entry in entries.items():
        plain = sources.twin_of(path, Schema)
        if plain is not None and plain in entries:
            raise entry.error(f"can't be set together with {entries[plain].name}; allowed: one of the two")


def _values(entries: Mapping[tuple[str, ...], Entry], cwd: Path) -> dict[str, Any]:
    """Return converted values as nested mappings."""
    tree: dict[str, Any] = {}
    for path, entry in entries.items():
        value = _convert(path, entry)
        _put(tree, path, value)
        plain = sources.twin_of(path, Schema)
        if plain is not None:
            rule = rule_of(sources.find(Schema, plain))
            assert rule is not None
            _put(tree, plain, sources.convert_file(entry, value, rule, cwd))
    return tree


def _convert(path: tuple[str, ...], entry: Entry) -> Any:
    rule = rule_of(sources.find(Schema, path))
    assert rule is not None
    return sources.convert(entry, rule)


def _put(tree: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _build(hint: Any, values: Mapping[str, Any]) -> Any:
    """Make the tables from nested mappings; what is missing takes its default."""
    table = sources.table_of(hint)
    if table is not None:
        fields = sources.fields_of(table)
        return table(**{name: _build(fields[name], value) for name, value in values.items()})
    inner = sources.map_of(hint)
    if inner is not None:
        return {name: _build(inner, value) for name, value in values.items()}
    return values


def _check_together(settings: Schema, entries: Mapping[tuple[str, ...], Entry]) -> None:
    _refuse_unknown_checks(settings.health, entries)
    for names, holds, allowed in _joint_rules(settings):
        if holds():
            continue
        written = [name for name in names if name in entries]
        paths = ", ".join(f"{'.'.join(name)} = {_plain(settings, name)}" for name in names)
        text = f"does not fit ({paths}); allowed: {allowed}"
        if written:
            raise entries[written[-1]].error(text)
        raise SettingsError(f"{'.'.join(names[0])}: {text}")


def _plain(settings: Schema, path: tuple[str, ...]) -> str:
    value: Any = settings
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return "not set" if value is None or value == () else repr(value)


_Joint = tuple[tuple[tuple[str, ...], ...], Callable[[], bool], str]


def _joint_rules(settings: Schema) -> Iterator[_Joint]:
    """Yield rules about several settings: their names, whether it holds, and what is allowed."""
    health, email, scale = settings.health, settings.notify.email, settings.autoscale
    chat = settings.notify.slack
    yield (
        (("shutdown_budget_s",), ("pre_drain_s",)),
        lambda: settings.pre_drain_s < settings.shutdown_budget_s,
        "pre_drain_s below shutdown_budget_s, which is the total of all phases",
    )
    yield (
        (("log_format",), ("gelf_url",)),
        lambda: settings.gelf_url is None or settings.log_format is LogFormat.GELF,
        "gelf_url with log_format = gelf",
    )
    yield _age_rule(health)
    for name in health.checks:
        yield _age_rule(health, name)
        yield from _dependency_rules(health, name)
    yield (
        (("notify", "email", "host"), ("notify", "email", "sender"), ("notify", "email", "recipients")),
        lambda: not email.host or bool(email.sender and email.recipients),
        "sender and recipients beside host",
    )
    yield (
        (("notify", "slack", "token"), ("notify", "slack", "channel")),
        lambda: (chat.token is None) == (chat.channel is None),
        "both or neither",
    )
    yield (
        (("notify", "slack", "webhook_url"), ("notify", "slack", "token")),
        lambda: chat.webhook_url is None or chat.token is None,
        "one of them",
    )
    yield (
        (("autoscale", "namespace"), ("autoscale", "deployment")),
        lambda: (scale.namespace is None) == (scale.deployment is None),
        "both or neither",
    )
    yield (
        (("autoscale", "min_replicas"), ("autoscale", "max_replicas")),
        lambda: scale.min_replicas <= scale.max_replicas,
        "min_replicas up to max_replicas",
    )


def _age_rule(health: Health, name: str | None = None) -> _Joint:
    """A result must not turn stale before the next one can be there: an interval with its jitter, and the time-out."""
    own = health.checks.get(name or "")
    check = health if name is None else health.for_check(name)
    fields = ("interval_s", "timeout_s", "max_age_s")
    return (
        tuple(
            ("health", "checks", name, field) if name and getattr(own, field) is not None else ("health", field)
            for field in fields
        ),
        lambda: check.max_age_s >= check.interval_s * (1 + _JITTER) + check.timeout_s,
        f"max_age_s of at least {1 + _JITTER:g} times interval_s plus timeout_s",
    )


def _dependency_rules(health: Health, name: str) -> Iterator[_Joint]:
    names = (("health", "checks", name, "depends_on"),)
    needed = health.checks[name].depends_on or ()
    yield names, lambda: all(_is_check(each, health) for each in needed), _check_names(health)
    yield names, lambda: not _leads_back(name, health), "names of other checks that do not depend on this one"


def _refuse_unknown_checks(health: Health, entries: Mapping[tuple[str, ...], Entry]) -> None:
    for path, entry in entries.items():
        if path[:2] == ("health", "checks") and not _is_check(path[2], health):
            raise entry.error(f"there is no check {path[2]!r}; allowed: {_check_names(health)}")


def _check_names(health: Health) -> str:
    return ", ".join([*_CHECKS, "database:NAME", *(f"external_apis:{each}" for each in health.external_apis)])


def _is_check(name: str, health: Health) -> bool:
    group, mark, own = name.partition(":")
    known = own in health.external_apis if group == "external_apis" else group == "database" and bool(own)
    return name in _CHECKS or (bool(mark) and known)


def _leads_back(name: str, health: Health) -> bool:
    """Whether a check depends on itself, directly or through others."""
    seen: set[str] = set()
    todo = list(health.for_check(name).depends_on or ())
    while todo:
        each = todo.pop()
        if each not in seen:
            seen.add(each)
            todo += health.for_check(each).depends_on or ()
    return name in seen


def dump(settings: Settings) -> dict[str, Any]:
    """Return every setting by dotted name, redacted; see `Settings.dump`."""
    return dict(_dump(Schema, settings, ()))


def _dump(hint: Any, value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    table, inner = sources.table_of(hint), sources.map_of(hint)
    if table is not None:
        for name, field in sources.fields_of(table).items():
            yield from _dump(field, getattr(value, name), (*path, name))
    elif inner is not None:
        for name, item in value.items():
            yield from _dump(inner, item, (*path, name))
    else:
        yield ".".join(path), _printable(value, hint)


def _printable(value: Any, hint: Any) -> Any:
    rule = rule_of(hint)
    secrecy = rule.secrecy if rule is not None else Secrecy.SECRET
    if isinstance(value, Secret):
        text = value.reveal()
        return (redact_url(text) if secrecy is Secrecy.URL else HIDDEN) if text else None
    if secrecy is Secrecy.URL and isinstance(value, str):
        return redact_url(value)
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def secrets_of(settings: Settings) -> Iterator[str]:
    """Yield every secret in the clear, for those who must recognise it: values, lines of lists, passwords of URLs."""
    for value in _secrets(Schema, settings):
        text = value.reveal()
        yield from (line.strip() for line in text.splitlines())
        password = re.search(r"://[^/?#\s]*?:(.*)@", text)
        if password is not None:
            yield from dict.fromkeys((password[1], unquote(password[1])))


def _secrets(hint: Any, value: Any) -> Iterator[Secret]:
    table, inner = sources.table_of(hint), sources.map_of(hint)
    if table is not None:
        for name, field in sources.fields_of(table).items():
            yield from _secrets(field, getattr(value, name))
    elif inner is not None:
        for item in value.values():
            yield from _secrets(inner, item)
    elif isinstance(value, Secret):
        yield value


def origin_of(settings: Settings, name: str) -> Origin:
    """Return a value's origin; a secret read from its twin has the twin's."""
    return settings.origins.get(name) or settings.origins.get(f"{name}_file") or Origin()
