"""Looks at everything that a start needs and says what would not work, each problem with its remedy."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from otel.environment import ENDPOINTS
from otel.file_systems import nearest_existing, network_file_system
from otel.proxies import proxy_of
from streamlit_extension._settings_load import origin_of
from streamlit_extension.health.checks.external_apis import RefusedAddressError, SocketAddress, permitted_addresses
from streamlit_extension.page_paths import page_path_collisions
from streamlit_extension.settings import Settings, redact_url
from streamlit_extension.streamlit_options import RunError, application_socket

__all__ = ["Finding", "examine", "page_path_collisions"]

PACKAGES: Final = (
    ("streamlit-extension", "streamlit", "starlette", "uvicorn", "uvloop", "httptools", "websockets", "SQLAlchemy")
    + ("psycopg", "redis", "msgspec", "psutil", "opentelemetry-api", "opentelemetry-sdk")
    + ("opentelemetry-exporter-otlp-proto-http", "opentelemetry-instrumentation-sqlalchemy")
)
_CONNECT_TIMEOUT_S: Final = 1.0
#: Where a connection to "any address" ends up; the check of external APIs alone refuses it.
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
#: Begins what is told of an address that the checks refuse: those of machines' credentials are nobody's service.
_REFUSED: Final = "is not asked"
_LEAST_FREE_BYTES: Final = 64 * 1024 * 1024
_DEFAULT_PORTS: Final = {
    "http": 80,
    "https": 443,
    "redis": 6379,
    "rediss": 6379,
    "postgresql": 5432,
    "postgres": 5432,
    "mysql": 3306,
    "mariadb": 3306,
    "mssql": 1433,
    "oracle": 1521,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: its `section`, what was looked at, what was found, and the `remedy` of a problem.

    `origin` is where a setting was written. A finding without a remedy is no problem.
    """

    section: str
    name: str
    value: Any
    remedy: str = ""
    origin: str = ""


def examine(settings: Settings, script: Path | None, environ: Mapping[str, str]) -> list[Finding]:
    """Return what was found, in the order of the report. Nothing is created or changed; connections last a second."""
    return [
        *_versions(),
        *_seams(),
        *_settings(settings),
        *_data_folder(settings),
        *_spool(settings),
        *_ports(settings),
        *_endpoints(settings, environ),
        *_pages(settings, script),
    ]


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "Python", platform.python_version())
    for name in PACKAGES:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        yield Finding("versions", name, found)


def _seams() -> Iterator[Finding]:
    try:
        from otel.instrumentation import sqlalchemy_seams
        from otel.instrumentation.streamlit import seams
        from streamlit_extension import canary
    except ImportError as error:
        yield Finding("seams", "Streamlit", f"can't be imported: {error.name}", "install streamlit >= 1.57")
        return
    found = (("Streamlit", {**seams(), **canary.seams()}), ("SQLAlchemy", sqlalchemy_seams.seams()))
    for library, each in found:
        for name, lost in each.items():
            remedy = f"use a {library} version that the README names as tested" if lost else ""
            yield Finding("seams", name, "present" if lost is None else f"missing: {lost}", remedy)


def _settings(settings: Settings) -> Iterator[Finding]:
    yield Finding("settings", "file", str(settings.config_path) if settings.config_path else "none")
    for name, value in settings.dump().items():
        yield Finding("settings", name, value, origin=str(origin_of(settings, name)))
    yield Finding("settings", "(service name)", settings.service_name)
    yield Finding("settings", "(service version)", settings.service_version)
    yield Finding("settings", "(embedded store)", "on" if settings.store_enabled else "off")


def _data_folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    there = nearest_existing(folder)
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    state = "writable" if writable else "not writable"
    remedy = "" if writable else "set data_dir (STX_DATA_DIR) to a folder that this user can write to"
    yield Finding("data folder", str(folder), state if there == folder else f"not there yet, {state}", remedy)
    kind = network_file_system(folder)
    remedy = "set data_dir (STX_DATA_DIR) to a local disk: SQLite's WAL and locks don't hold here" if kind else ""
    yield Finding("data folder", "file system", f"network ({kind})" if kind else "local", remedy)
    try:
        free_bytes = shutil.disk_usage(there).free
    except OSError:
        return
    remedy = "free some space, or set data_dir (STX_DATA_DIR)" if free_bytes < _LEAST_FREE_BYTES else ""
    yield Finding("data folder", "free space", f"{free_bytes / 1024**2:,.0f} MiB", remedy)
    cap_bytes = settings.spool.max_bytes
    remedy = "" if free_bytes >= cap_bytes else "set spool.max_bytes (STX_SPOOL__MAX_BYTES) below the free space"
    yield Finding("data folder", "room for the spool", f"{cap_bytes / 1024**2:,.0f} MiB at most", remedy)


def _spool(settings: Settings) -> Iterator[Finding]:
    """What waits to be sent, and what of it can't be read; the files are only looked at."""
    from otel.spool import FOLDER
    from otel.spool.reading import status_of
    from otel.spool.salvage import ASIDE_SUFFIX

    folder = settings.data_dir / FOLDER
    if not folder.is_dir():
        yield Finding("spool", "waiting", "nothing: there is no spool yet")
        return
    files = status_of(folder)
    records = [(each.owned, waiting.records) for each in files for waiting in each.waiting.values()]
    left = sum(count for owned, count in records if not owned)
    value = f"{sum(count for _, count in records):,} records" + (f", {left:,} of ended processes" if left else "")
    yield Finding("spool", "waiting", value)
    for each in files:
        if each.problem:
            remedy = (
                "nothing to do: the next start saves what can be read" if not each.owned else "see its process' log"
            )
            yield Finding("spool", each.path.name, f"can't be read: {each.problem}", remedy)
    if aside := sorted(folder.glob(f"*{ASIDE_SUFFIX}")):
        yield Finding("spool", "set aside", f"{len(aside)} damaged files, which may be removed")


def _ports(settings: Settings) -> Iterator[Finding]:
    try:
        address, port = application_socket()
    except RunError as error:
        port = 0
        yield Finding("ports", "server.port", str(error), "correct it in config.toml or in the environment")
    else:
        yield _port("server.port", address, port, "stop what holds it or choose another with --server.port")
    if settings.management_port:
        remedy = "stop what holds it or set management_port (STX_MANAGEMENT_PORT)"
        if settings.management_port == port:
            yield Finding("ports", "management_port", f"{port}, the application's own", remedy)
        else:
            yield _port("management_port", settings.management_address, settings.management_port, remedy)


def _port(name: str, address: str, port: int, remedy: str) -> Finding:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            return _taken(name, address, port, remedy, error)
    return Finding("ports", name, f"{address}:{port} is free")


def _taken(name: str, address: str, port: int, remedy: str, error: Exception) -> Finding:
    if getattr(error, "errno", None) != errno.EADDRINUSE:
        return Finding("ports", name, f"{address}:{port} can't be bound: {error.__class__.__name__}", remedy)
    holder, ours = _holder(port)
    return Finding("ports", name, f"{address}:{port} is taken by {holder}", "" if ours else remedy)


def _holder(port: int) -> tuple[str, bool]:
    """Return who listens on a port, as far as this user can tell, and whether it is one of our own processes."""
    import psutil

    try:
        listening = [
            c for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.status == "LISTEN"
        ]
        process = next((psutil.Process(c.pid) for c in listening if c.pid), None)
        if process is None:
            return "another process", False
        words = process.cmdline()
        ours = any("streamlit-extension" in word or "streamlit_extension" in word for word in words[:4])
        return f"{process.name()} (pid {process.pid})", ours
    except (psutil.Error, OSError):
        return "another process", False


def _endpoints(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    for name, url in _configured_urls(settings, environ):
        proxy = proxy_of(environ, url) if name in ENDPOINTS else None
        trouble, remedy = _unreachable(proxy or url, is_api=name.startswith("health.external_apis.")), ""
        if proxy is not None:
            shown = f"{redact_url(url)} through {redact_url(proxy)}, which"
            yield Finding(
                "endpoints",
                name,
                f"{shown} {trouble or 'answers'}",
                "check the proxy's variables (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)" if trouble else "",
            )
            continue
        if trouble:
            remedy = f"check {name}, the network policy and that the service is up"
        if trouble and trouble.startswith(_REFUSED):
            remedy = f"let {name} name the service itself"
        yield Finding("endpoints", name, f"{redact_url(url)} {trouble or 'answers'}", remedy)


def _configured_urls(settings: Settings, environ: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    health = settings.health
    for name, secret in (("health.database.url", health.database.url), ("health.cache.url", health.cache.url)):
        if secret is not None:
            yield name, secret.reveal()
    for name, url in health.external_apis.items():
        yield f"health.external_apis.{name}", str(url)
    for name in ENDPOINTS:
        if environ.get(name):
            yield name, environ[name]


def _unreachable(url: str, *, is_api: bool) -> str | None:
    """Return why no connection is possible, None when one was made or the URL names no host (SQLite)."""
    try:
        parts = urlsplit(url)
        scheme = parts.scheme.partition("+")[0]
        port = parts.port or _DEFAULT_PORTS.get(scheme)
        if scheme == "unix":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(_CONNECT_TIMEOUT_S)
                probe.connect(parts.path)
        elif parts.hostname and port:
            host = parts.hostname if is_api else _ANY_ADDRESS.get(parts.hostname, parts.hostname)
            _connect(permitted_addresses(host, port))
    except RefusedAddressError as error:
        return f"{_REFUSED}: {error}"
    except TimeoutError:
        return f"does not answer within {_CONNECT_TIMEOUT_S:g} s"
    except socket.gaierror:
        return "has an unknown host"
    except ValueError:
        return "is no valid URL"
    except OSError as error:
        return f"is not reachable: {error.strerror or type(error).__name__}"
    return None


def _connect(addresses: Iterable[SocketAddress]) -> None:
    """Connect to the first that answers, and to nothing but what was looked at."""
    trouble: OSError = socket.gaierror("no address")
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.settimeout(_CONNECT_TIMEOUT_S)
                probe.connect(address)
                return
        except OSError as error:
            trouble = error
    raise trouble


def _pages(settings: Settings, script: Path | None) -> Iterator[Finding]:
    if script is None:
        return
    lines = page_path_collisions(script, settings.path_prefix)
    for line in lines:
        what, _, remedy = line.partition(": ")
        yield Finding("pages", script.name, what, remedy)
    if not lines:
        yield Finding("pages", script.name, "no page has a path of ours")
