"""Reads `OTEL_*` variables by the rules of the specification, and says in one line what is wrong with one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

from otel.guard import redact_url

Choice = TypeVar("Choice", bound=StrEnum)

_SIGNALS: Final = ("TRACES", "METRICS", "LOGS")
#: Variables that say where a collector is.
ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    *(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT" for signal in _SIGNALS),
)
#: Variables any of which says that telemetry goes somewhere else than to the embedded store.
ELSEWHERE: Final = (*ENDPOINTS, *(f"OTEL_{signal}_EXPORTER" for signal in _SIGNALS))
#: Longest text of a bad value that is repeated.
_SHOWN = 100


class ConfigError(ValueError):
    """A variable's value is not allowed; the text is one line and holds no secret."""


def resource_attributes(environ: Mapping[str, str]) -> dict[str, str]:
    """OTEL_RESOURCE_ATTRIBUTES as a mapping: `key=value` pairs with commas, values percent-encoded."""
    pairs = (pair.partition("=") for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    return {key.strip(): unquote(value.strip()) for key, mark, value in pairs if mark and key.strip()}


def service_identity(environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The service's name and version as OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES give them, None for neither."""
    attributes = resource_attributes(environ)
    name = environ.get("OTEL_SERVICE_NAME", "").strip() or attributes.get("service.name")
    return name or None, attributes.get("service.version") or None


def sends_elsewhere(environ: Mapping[str, str]) -> bool:
    """Whether an OTLP endpoint or an explicit exporter is set."""
    return any(environ.get(name, "").strip() for name in ELSEWHERE)


def is_disabled(environ: Mapping[str, str]) -> bool:
    """The meaning of OTEL_SDK_DISABLED: only "true", in whatever case, disables."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


class Environment:
    """Typed reading of variables; each method gives `default` where the variable is not set or empty.

    Every method raises ConfigError for a value that is not allowed.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def has(self, name: str) -> bool:
        """Whether a variable is set and not empty."""
        return bool(self.text(name, ""))

    def text(self, name: str, default: str) -> str:
        """A variable as text, without space around it."""
        return self._environ.get(name, "").strip() or default

    def error(self, name: str, allowed: str, *, secret: bool = False) -> ConfigError:
        """What to raise for a value."""
        value = self.text(name, "")
        shown = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
        said = "this value" if secret else repr(redact_url(shown))
        return ConfigError(f"{name}: {said} is not allowed; allowed: {allowed} (in the environment)")

    def flag(self, name: str, default: bool) -> bool:
        """A Boolean: the specification knows "true" and "false" in whatever case."""
        value = self.text(name, str(default)).lower()
        if value not in ("true", "false"):
            raise self.error(name, "true or false")
        return value == "true"

    def choice(self, name: str, enum: type[Choice], default: Choice) -> Choice:
        """One of an enum's values, in whatever case."""
        try:
            return enum(self.text(name, default).lower())
        except ValueError:
            raise self.error(name, "one of " + ", ".join(enum)) from None

    def check_installed(self, name: str, group: str) -> None:
        """A list of what packages have registered as entry points of `group`, or none; the API itself reads it."""
        if not self.has(name):
            return
        known = {"none", *(each.name for each in entry_points(group=group))}
        listed = [each.strip() for each in self.text(name, "").split(",")]
        if any(each not in known and each.lower() != "none" for each in listed):
            raise self.error(name, "a list of " + ", ".join(sorted(known)))

    def count(self, name: str, default: int, *, least: int = 0) -> int:
        """A whole number."""
        value = self.text(name, str(default))
        if not re.fullmatch(r"\d{1,9}", value) or int(value) < least:
            raise self.error(name, f"a whole number from {least}")
        return int(value)

    def limit(self, name: str, default: int | None) -> int | None:
        """A whole number, None for no limit."""
        return default if not self.has(name) else self.count(name, 0)

    def milliseconds(self, name: str, default_s: float) -> float:
        """A duration, which the specification counts in milliseconds, in seconds."""
        if not self.has(name):
            return default_s
        value = self._number(name)
        if value is None or not 0 < value <= 31_622_400_000:
            raise self.error(name, "a number of milliseconds above 0 (at most a year)")
        return value / 1000

    def ratio(self, name: str, default: float) -> float:
        """A share from 0 to 1."""
        value = self._number(name) if self.has(name) else default
        if value is None or not 0 <= value <= 1:
            raise self.error(name, "a number from 0 to 1")
        return value

    def _number(self, name: str) -> float | None:
        try:
            value = float(self.text(name, ""))
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    def file(self, name: str) -> Path | None:
        """The path of a file that can be read."""
        if not self.has(name):
            return None
        path = Path(self.text(name, ""))
        try:
            with path.open("rb"):
                return path
        except OSError:
            raise self.error(name, "the path of a PEM file that can be read") from None

    def url(self, name: str, default: str, *, bare: str | None = None) -> str:
        """An address by HTTP; `bare` is the scheme of one written as `host:port`, None where it must have one."""
        value = self.text(name, default)
        if bare is not None and "://" not in value:
            value = f"{bare}://{value}"
        allowed = "a URL that begins with http:// or https://" + (", or host:port" if bare else "")
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and value.isprintable()
        except ValueError:  # a port that is no number, a broken IPv6 address
            usable = False
        if not usable or " " in value:
            raise self.error(name, allowed)
        return value

    def proxy(self, endpoint: str) -> str | None:
        """The proxy for an endpoint, None for none; its modules are loaded only where a variable names one."""
        if not any(name.lower().endswith("_proxy") for name in self._environ):
            return None
        from otel.proxies import proxy_of

        return proxy_of(self._environ, endpoint)

    def headers(self, name: str) -> dict[str, str]:
        """Headers: `key=value` pairs with commas, percent-encoded (W3C baggage); a value is never repeated."""
        found = {}
        for pair in self.text(name, "").split(","):
            if not pair.strip():
                continue
            key, mark, value = pair.partition("=")
            key, value = unquote(key).strip().lower(), unquote(value).strip()
            if not mark or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", key) or re.search(r"[\r\n\0]", value):
                raise self.error(name, "a list of key=value with commas, percent-encoded", secret=True)
            found[key] = value
        return found
