"""One frozen, validated `Settings` from a file and the environment, each value with its origin.

A field without its table's default is `None`: not configured. Every secret has a `NAME_file` twin.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from streamlit_extension import _settings_rules as rules
from streamlit_extension._settings_rules import HealthDetails, LogFormat, LogLevel, SharedFailure, StoreMode
from streamlit_extension._settings_types import Origin, OriginKind, Secret, SettingsError, redact_url
from streamlit_extension.data_folder import (
    DataFolder,
    load_or_make_token,
    make_data_folder,
    prepare_data_dir,
)

__all__ = [
    "Alerts",
    "Autoscale",
    "Breaker",
    "CacheSettings",
    "CheckSettings",
    "DataFolder",
    "DatabaseSettings",
    "Email",
    "Health",
    "HealthDetails",
    "LogFormat",
    "LogLevel",
    "Notify",
    "Origin",
    "OriginKind",
    "PagerDuty",
    "QuerySettings",
    "ResolvedCheck",
    "Secret",
    "Settings",
    "SettingsError",
    "SharedFailure",
    "Slack",
    "SpoolSettings",
    "StoreMode",
    "Thresholds",
    "load_or_make_token",
    "make_data_folder",
    "prepare_data_dir",
    "redact_url",
]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of settings: immutable, every field by name."""


class CheckSettings(Table, frozen=True):
    """`[health.checks.NAME]`: what is set for one check; None takes the default of `[health]` or of the check."""

    critical: rules.Flag | None = None
    shared: rules.Flag | None = None
    depends_on: rules.Names | None = None
    enabled: rules.Flag = True
    interval_s: rules.Seconds | None = None
    timeout_s: rules.Seconds | None = None
    max_age_s: rules.Seconds | None = None
    slow_s: rules.Seconds | None = None
    failures_to_trip: rules.Count | None = None
    successes_to_recover: rules.Count | None = None
    shared_failure: rules.WhenSharedFails | None = None


class ResolvedCheck(Table, frozen=True):
    """The settings of one check with all defaults filled in; what stays None is for the check itself to say."""

    interval_s: float
    timeout_s: float
    max_age_s: float
    slow_s: float
    failures_to_trip: int
    successes_to_recover: int
    shared_failure: SharedFailure
    enabled: bool
    critical: bool | None
    shared: bool | None
    depends_on: tuple[str, ...] | None


class DatabaseSettings(Table, frozen=True):
    """`[health.database]`: only where discovery does not find it."""

    url: rules.DatabaseUrl | None = None
    url_file: rules.SecretFile | None = None


class CacheSettings(Table, frozen=True):
    """`[health.cache]`: a Redis to check."""

    url: rules.CacheUrl | None = None
    url_file: rules.SecretFile | None = None


class Health(Table, frozen=True):
    """`[health]`: the defaults of every check. `slow_s`, half the timeout by default, is when an answer degrades."""

    canary: rules.Flag = False
    interval_s: rules.Seconds = 10.0
    timeout_s: rules.Seconds = 2.0
    max_age_s: rules.Seconds = 30.0
    slow_s: rules.Seconds | None = None
    failures_to_trip: rules.Count = 2
    successes_to_recover: rules.Count = 1
    shared_failure: rules.WhenSharedFails = SharedFailure.UNREADY
    database: DatabaseSettings = DatabaseSettings()
    cache: CacheSettings = CacheSettings()
    external_apis: Mapping[str, rules.HttpUrl] = {}
    checks: Mapping[str, CheckSettings] = {}

    def for_check(self, name: str) -> ResolvedCheck:
        """Return what holds for the check `name`: its own table over the defaults of `[health]`."""
        own = self.checks.get(name, CheckSettings())

        def pick(field: str) -> Any:
            value = getattr(own, field)
            return getattr(self, field) if value is None else value

        timeout_s = pick("timeout_s")
        slow_s = pick("slow_s")
        return ResolvedCheck(
            interval_s=pick("interval_s"),
            timeout_s=timeout_s,
            max_age_s=pick("max_age_s"),
            slow_s=timeout_s / 2 if slow_s is None else slow_s,
            failures_to_trip=pick("failures_to_trip"),
            successes_to_recover=pick("successes_to_recover"),
            shared_failure=pick("shared_failure"),
            enabled=own.enabled,
            critical=own.critical,
            shared=own.shared,
            depends_on=own.depends_on,
        )


class SpoolSettings(Table, frozen=True):
    """`[spool]`: what telemetry may wait on disk, for each process; above it the oldest is given up and counted."""

    max_bytes: rules.Bytes = 512 * 1024 * 1024
    max_age_s: rules.Seconds = 72 * 3600.0


class QuerySettings(Table, frozen=True):
    """`[query]`: roots of the APIs that `logs` and `traces` ask in place of the embedded store."""

    jaeger_url: rules.HttpUrl | None = None
    victorialogs_url: rules.HttpUrl | None = None


class Thresholds(Table, frozen=True):
    """`[alerts.thresholds]`: per cent, except `response_time` (ms) and `database_connections` (a count or "auto").

    `memory_growth` is per cent of the memory limit an hour, of what looks like a leak.
    """

    cpu_usage: rules.Percent = 85.0
    memory_usage: rules.Percent = 90.0
    disk_usage: rules.Percent = 85.0
    error_rate: rules.Percent = 5.0
    response_time: rules.Milliseconds = 5000.0
    database_connections: rules.Connections = "auto"
    memory_growth: rules.Percent = 1.0


class Alerts(Table, frozen=True):
    """`[alerts]`: how often rules are evaluated, how long one must hold, and when it is told again."""

    interval_s: rules.Seconds = 15.0
    for_s: rules.SecondsOrNone = 30.0
    repeat_s: rules.Seconds = 3600.0
    thresholds: Thresholds = Thresholds()


class Slack(Table, frozen=True):
    """`[notify.slack]`: a webhook, or a bot's token and a channel, which replies where a webhook can't."""

    webhook_url: rules.WebhookUrl | None = None
    webhook_url_file: rules.SecretFile | None = None
    token: rules.SecretText | None = None
    token_file: rules.SecretFile | None = None
    channel: rules.Words | None = None
    api_url: rules.HttpUrl = "https://slack.com/api"


class PagerDuty(Table, frozen=True):
    """`[notify.pagerduty]`."""

    routing_key: rules.SecretText | None = None
    routing_key_file: rules.SecretFile | None = None
    events_url: rules.HttpUrl = "https://events.pagerduty.com/v2/enqueue"


class Email(Table, frozen=True):
    """`[notify.email]`: used when `host` is set; `sender` and `recipients` are needed then.

    `implicit_tls` is TLS from the first byte, in place of STARTTLS; where it is not set, on port 465.
    """

    host: rules.Address | None = None
    port: rules.Port = 587
    starttls: rules.Flag = True
    implicit_tls: rules.Flag | None = None
    username: rules.Words | None = None
    password: rules.SecretText | None = None
    password_file: rules.SecretFile | None = None
    sender: rules.Words | None = None
    recipients: rules.Names = ()


class Notify(Table, frozen=True):
    """`[notify]`: where alerts go. `urls` carry secrets anywhere in them and are one secret of a URL a line.

    `public_url` is where the application is reached from outside, `jaeger_url` Jaeger's root: bases of links.
    """

    public_url: rules.HttpUrl | None = None
    jaeger_url: rules.HttpUrl | None = None
    urls: rules.SecretNames = Secret()
    urls_file: rules.SecretFile | None = None
    slack: Slack = Slack()
    pagerduty: PagerDuty = PagerDuty()
    email: Email = Email()

    def url_values(self) -> tuple[str, ...]:
        """Return the further services' URLs, in the clear."""
        return tuple(line.strip() for line in self.urls.reveal().splitlines() if line.strip())


class Autoscale(Table, frozen=True):
    """`[autoscale]`: acts when namespace and deployment are both set."""

    namespace: rules.Label | None = None
    deployment: rules.Label | None = None
    min_replicas: rules.Count = 1
    max_replicas: rules.Count = 10
    cooldown_s: rules.Seconds = 300.0


class Breaker(Table, frozen=True):
    """`[breaker]`: consecutive failures that open a circuit, for how long, and the alerts that open it too."""

    failures: rules.Count = 5
    reset_s: rules.Seconds = 30.0
    on_alerts: rules.AlertNames = ()


def default_data_dir(service_name: str = "streamlit-app") -> Path:
    """Return the folder for a service under the user's state folder; nothing is created."""
    import platformdirs

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", service_name).strip(".-")[:100] or "streamlit-app"
    return platformdirs.user_state_path("streamlit-extension", appauthor=False) / name


def package_version() -> str:
    """Return the version of this package as it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("streamlit-extension")
    except PackageNotFoundError:  # the sources on a path, not installed
        return "0.0.0"


class Schema(Table, frozen=True):
    """Every setting that can be written, at the top level of the file."""

    data_dir: rules.Folder = msgspec.field(default_factory=default_data_dir)
    token: rules.SecretText | None = None
    token_file: rules.SecretFile | None = None
    path_prefix: rules.Prefix = ""
    management_port: rules.PortOrAny | None = None
    management_address: rules.Address = "127.0.0.1"
    store: rules.Store = StoreMode.AUTO
    log_format: rules.Format = LogFormat.JSON
    log_level: rules.Level = LogLevel.INFO
    gelf_url: rules.GelfUrl | None = None
    shutdown_budget_s: rules.Seconds = 25.0
    pre_drain_s: rules.SecondsOrNone = 0.0
    trust_inbound_context: rules.Flag = False
    health_details: rules.Details = HealthDetails.AUTO
    spool: SpoolSettings = SpoolSettings()
    query: QuerySettings = QuerySettings()
    health: Health = Health()
    alerts: Alerts = Alerts()
    notify: Notify = Notify()
    autoscale: Autoscale = Autoscale()
    breaker: Breaker = Breaker()


class Settings(Schema, frozen=True):
    """All settings of a process, with what follows from the standard `OTEL_*` variables.

    `Settings()` holds every default and reads nothing. `service_name` and `service_version` come from OTEL_SERVICE_NAME
    and OTEL_RESOURCE_ATTRIBUTES; `store_enabled` is the decision that `store` leads to; `config_path` is the file that
    was read; `origins` gives for each dotted name where its value was written (absent: default). `telemetry` is the
    `otel.config.TelemetryConfig` that the `OTEL_*` variables make, None where none were read.
    """

    service_name: str = "streamlit-app"
    service_version: str = msgspec.field(default_factory=package_version)
    store_enabled: bool = True
    config_path: Path | None = None
    origins: Mapping[str, Origin] = {}
    telemetry: Any = None

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Settings:
        """Read the file and the environment, which wins. Nothing is created on disk.

        Arguments: `environ` (default: the process's), `cwd` the folder of `observability.toml` and of relative paths.
        Raises: SettingsError, one line, for an unknown name, a bad value or an unreadable file.
        """
        from streamlit_extension._settings_load import load

        return load(os.environ if environ is None else environ, Path.cwd() if cwd is None else cwd)

    def token_value(self) -> str | None:
        """Return the token that entitles, in the clear; None when none is configured."""
        return self.token.reveal() if self.token is not None else None

    def origin(self, name: str) -> Origin:
        """Return where the value of a dotted name such as `health.interval_s` was written."""
        return self.origins.get(name, Origin())

    def dump(self) -> dict[str, Any]:
        """Return every setting by dotted name as JSON-ready values, secrets as `***`, in the order of the schema."""
        from streamlit_extension._settings_load import dump

        return dump(self)
