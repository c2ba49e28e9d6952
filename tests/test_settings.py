"""Settings: every binding name, both sources, secrets, and errors of one line."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streamlit_extension import _settings_sources as sources
from streamlit_extension._settings_rules import rule_of
from streamlit_extension.settings import (
    Origin,
    OriginKind,
    Schema,
    Secret,
    Settings,
    SettingsError,
    load_or_make_token,
    make_data_folder,
    prepare_data_dir,
    redact_url,
)

DEFAULTS = """
path_prefix = ""
management_address = "127.0.0.1"
store = "auto"
log_format = "json"
log_level = "INFO"
shutdown_budget_s = 25
pre_drain_s = 0
trust_inbound_context = false
health_details = "auto"
[spool]
max_bytes = 536870912
max_age_s = 259200
[health]
canary = false
interval_s = 10
timeout_s = 2
max_age_s = 30
failures_to_trip = 2
successes_to_recover = 1
shared_failure = "unready"
[alerts]
interval_s = 15
for_s = 30
repeat_s = 3600
[alerts.thresholds]
cpu_usage = 85
memory_usage = 90
disk_usage = 85
error_rate = 5
response_time = 5000
database_connections = "auto"
[notify.pagerduty]
events_url = "https://events.pagerduty.com/v2/enqueue"
[notify.email]
port = 587
starttls = true
[autoscale]
min_replicas = 1
max_replicas = 10
cooldown_s = 300
[breaker]
failures = 5
reset_s = 30
"""

OTHERS = """
log_format = "gelf"
gelf_url = "udp://graylog.internal:12201"
data_dir = "/var/lib/app"
token = "binding-name-token"
management_port = 9090
[health.database]
url = "postgresql+psycopg://user:pw@db/app"
[health.cache]
url = "redis://:pw@cache:6379/0"
[health.external_apis]
billing = "https://billing.internal/health"
[health.checks.database]
critical = false
shared = true
depends_on = ["cache"]
enabled = true
interval_s = 5
timeout_s = 1
max_age_s = 9
slow_s = 0.2
failures_to_trip = 3
successes_to_recover = 4
shared_failure = "degrade"
[notify]
urls = ["slack://a/b/c"]
public_url = "https://app.example.org"
jaeger_url = "https://jaeger.internal"
[notify.slack]
webhook_url = "https://hooks.slack.com/x"
[notify.pagerduty]
routing_key = "key"
[notify.email]
host = "smtp.internal"
username = "me"
password = "pw"
sender = "app@example.org"
recipients = ["ops@example.org"]
[autoscale]
namespace = "prod"
deployment = "app"
[breaker]
on_alerts = ["database_connections"]
"""

ENVIRONMENT = {
    "STX_MANAGEMENT_PORT": ("9090", "management_port", 9090),
    "STX_TRUST_INBOUND_CONTEXT": ("TRUE", "trust_inbound_context", True),
    "STX_LOG_LEVEL": ("debug", "log_level", "DEBUG"),
    "STX_ALERTS__THRESHOLDS__CPU_USAGE": ("70", "alerts.thresholds.cpu_usage", 70.0),
    "STX_ALERTS__THRESHOLDS__DATABASE_CONNECTIONS": ("12", "alerts.thresholds.database_connections", 12.0),
    "STX_HEALTH__EXTERNAL_APIS__BILLING": ("https://b/health", "health.external_apis.billing", "https://b/health"),
    "STX_HEALTH__CHECKS__DATABASE__CRITICAL": ("false", "health.checks.database.critical", False),
    "STX_HEALTH__CHECKS__DATABASE__DEPENDS_ON": ('["cache"]', "health.checks.database.depends_on", ["cache"]),
    "STX_NOTIFY__EMAIL__RECIPIENTS": ('["a@b.org"]', "notify.email.recipients", ["a@b.org"]),
    "STX_SPOOL__MAX_BYTES": ("1048576", "spool.max_bytes", 1 << 20),
    "STX_SPOOL__MAX_AGE_S": ("3600", "spool.max_age_s", 3600.0),
    "STX_PATH_PREFIX": ("/ops/", "path_prefix", "/ops"),
}

SECRETS = {
    "token": "{}",
    "notify.email.password": "{}",
    "notify.slack.webhook_url": "https://hooks.slack.com/{}",
    "notify.pagerduty.routing_key": "{}",
    "health.database.url": "postgresql://app:{}@db/app",
    "health.cache.url": "redis://:{}@cache:6379/0",
    "notify.urls": '["slack://{}/b/c"]',
}


def variable(name: str) -> str:
    return "STX_" + name.upper().replace(".", "__")


def load(cwd: Path, toml: str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    if toml is not None:
        (cwd / "observability.toml").write_text(toml, "utf-8")
    return Settings.load(environ or {}, cwd)


def refusal(cwd: Path, toml: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(cwd, toml, environ)
    text = str(caught.value)
    assert text and len(text.splitlines()) == 1
    return text


def flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def test_every_binding_default_is_the_default(tmp_path: Path) -> None:
    """The design's values, written out in a file, change nothing but their origin."""
    written = load(tmp_path, DEFAULTS).dump()
    assert written == Settings.load({}, tmp_path / "elsewhere").dump()
    for name, value in flat(tomllib.loads(DEFAULTS)):
        assert written[name] == value, name


def test_every_other_binding_name_loads(tmp_path: Path) -> None:
    """The names without a default are taken from the file as they are, secrets hidden."""
    loaded = load(tmp_path, OTHERS)
    dump = loaded.dump()
    for name, value in flat(tomllib.loads(OTHERS)):
        assert loaded.origin(name).kind is OriginKind.FILE, name
        assert dump[name] == value or "***" in dump[name], name
    assert loaded.token_value() == "binding-name-token"
    assert loaded.notify.url_values() == ("slack://a/b/c",)
    assert loaded.data_dir == Path("/var/lib/app")


def test_every_value_of_the_schema_has_a_rule() -> None:
    """Each field is a table, a map or a value that says in words what it allows."""
    for path in sources.known_paths(Schema):
        rule = rule_of(sources.find(Schema, path))
        assert rule is not None and rule.allowed, path


@pytest.mark.parametrize(
    "url", ["http://host:1", "udp://host", "tcp://:12201", "udp://host:0", "udp://me:pw@host:1", "udp://host:1/x?y=1"]
)
def test_gelf_address_is_a_scheme_a_host_and_a_port(tmp_path: Path, url: str) -> None:
    """Anything else stops the start with what is allowed, and nothing of a password."""
    text = refusal(tmp_path, environ={"STX_LOG_FORMAT": "gelf", "STX_GELF_URL": url})
    assert "udp://host:port or tcp://host:port" in text and "pw" not in text.replace("***", "")


def test_gelf_address_needs_the_gelf_format(tmp_path: Path) -> None:
    """An address without `log_format = gelf` would be ignored in silence; it stops the start."""
    assert "log_format = gelf" in refusal(tmp_path, environ={"STX_GELF_URL": "tcp://host:12201"})
    loaded = load(tmp_path, environ={"STX_LOG_FORMAT": "gelf", "STX_GELF_URL": "tcp://host:12201"})
    assert loaded.gelf_url == "tcp://host:12201"


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_each_form_of_the_environment(tmp_path: Path, name: str) -> None:
    """Numbers, flags, lists as JSON, maps and overrides of a check are set by a variable, which is their origin."""
    text, setting, value = ENVIRONMENT[name]
    loaded = load(tmp_path, environ={name: text})
    assert loaded.dump()[setting] == value
    assert str(loaded.origin(setting)) == f"environment {name}"


def test_every_setting_has_a_variable_that_reaches_it(tmp_path: Path) -> None:
    """A bad value in the variable of any setting is refused by name, so each variable is read."""
    for path in sources.known_paths(Schema):
        name = sources.environment_name(path)
        assert refusal(tmp_path, environ={name: "\x00\n{"}).startswith(f"{name}: "), name


def test_environment_wins_over_the_file_whatever_the_case_of_a_map(tmp_path: Path) -> None:
    """A variable replaces the file's value, also under a name that the file spells with capitals."""
    toml = '[health.external_apis]\nBilling = "https://old/"\n[health]\ninterval_s = 20\n'
    loaded = load(tmp_path, toml, {"STX_HEALTH__EXTERNAL_APIS__BILLING": "https://new/", "STX_HEALTH__INTERVAL_S": "5"})
    assert dict(loaded.health.external_apis) == {"Billing": "https://new/"}
    assert loaded.health.interval_s == 5.0


def test_config_variable_names_the_file(tmp_path: Path) -> None:
    """STX_CONFIG is used instead of observability.toml, and a file that is not there stops the start."""
    (tmp_path / "observability.toml").write_text("log_level = 'ERROR'")
    (tmp_path / "other.toml").write_text("log_level = 'DEBUG'")
    assert load(tmp_path).log_level == "ERROR"
    assert load(tmp_path, environ={"STX_CONFIG": "other.toml"}).log_level == "DEBUG"
    assert "gone.toml" in refusal(tmp_path, environ={"STX_CONFIG": "gone.toml"})


def test_checks_take_defaults_and_overrides() -> None:
    """A check without a table has the defaults; one with a table keeps what it doesn't set; slow is half the timeout."""
    loaded = Settings.load({"STX_HEALTH__TIMEOUT_S": "4", "STX_HEALTH__CHECKS__CACHE__INTERVAL_S": "3"}, Path("/"))
    assert (loaded.health.for_check("cache").interval_s, loaded.health.for_check("cache").slow_s) == (3.0, 2.0)
    assert (loaded.health.for_check("disk").interval_s, loaded.health.for_check("disk").critical) == (10.0, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEALTH__INTERVAL_S", "0"),
        ("HEALTH__TIMEOUT_S", "nan"),
        ("HEALTH__MAX_AGE_S", "inf"),
        ("HEALTH__INTERVAL_S", "31"),
        ("HEALTH__CHECKS__DISK__INTERVAL_S", "31"),
        ("HEALTH__CHECKS__DISK__DEPENDS_ON", '["disk"]'),
        ("HEALTH__CHECKS__DISK__DEPENDS_ON", '["databse"]'),
        ("HEALTH__CHECKS__DATABSE__CRITICAL", "false"),
        ("MANAGEMENT_PORT", "65536"),
        ("ALERTS__THRESHOLDS__CPU_USAGE", "101"),
        ("STORE", "maybe"),
        ("PATH_PREFIX", "ops"),
        ("PATH_PREFIX", "/_stcore"),
        ("PATH_PREFIX", "/a b"),
        ("HEALTH__CACHE__URL", "http://cache"),
        ("HEALTH__DATABASE__URL", "https://db"),
        ("HEALTH__EXTERNAL_APIS__A", "ftp://a"),
        ("HEALTH__EXTERNAL_APIS__A", "http://a:99999/"),
        ("HEALTH__EXTERNAL_APIS", "{}"),
        ("HEALTH", "{}"),
        ("NOTIFY__EMAIL__HOST", "smtp"),
        ("AUTOSCALE__NAMESPACE", "prod"),
        ("AUTOSCALE__MIN_REPLICAS", "11"),
        ("PRE_DRAIN_S", "25"),
        ("BREAKER__ON_ALERTS", '["cpu"]'),
        ("NOTIFY__PUBLIC_URL", "app.example.org"),
        ("NOTIFY__JAEGER_URL", "ftp://jaeger"),
        ("TRUST_INBOUND_CONTEXT", "yes"),
        ("NOTIFY__EMAIL__RECIPIENTS", "a@b.org"),
        ("DATA_DIR", "~nobody-of-that-name/x"),
        ("SPOOL__MAX_BYTES", "1048575"),
        ("SPOOL__MAX_BYTES", "512M"),
        ("SPOOL__MAX_BYTES", "-1"),
        ("SPOOL__MAX_AGE_S", "0"),
        ("SPOOL__MAX_AGE_S", "nan"),
        ("SPOOL__MAX_AGE_S", "3d"),
        ("SPOOL", "{}"),
    ],
)
def test_bad_values_are_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    """A value out of range, of the wrong kind or that does not fit another stops with the name and what is allowed."""
    text = refusal(tmp_path, environ={f"STX_{name}": value})
    assert text.startswith(f"STX_{name}: ") and "allowed: " in text


def test_bad_value_in_a_file_names_key_value_and_file(tmp_path: Path) -> None:
    """The key is spelled as a path, with the value and the file beside what is allowed."""
    text = refusal(tmp_path, "[health]\ninterval_s = -1\n")
    assert text.startswith("health.interval_s: -1 ") and "above 0" in text and "observability.toml" in text


@pytest.mark.parametrize("toml", ["log_level = 'INFO'\nx = = 1", "log_level = 'INFO'\nlog_level = 'INFO'", "a=1\n[x"])
def test_bad_toml_names_file_and_line(tmp_path: Path, toml: str) -> None:
    """A file that is no TOML is one line with the file and the line's number, or its end."""
    text = refusal(tmp_path, toml)
    assert "observability.toml" in text and ("line 2" in text or "end" in text)


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are refused with their line."""
    (tmp_path / "observability.toml").write_bytes(b"a = 1\nb = '\xff'")
    assert "line 2" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "near"), [("STX_TOKN", "STX_TOKEN"), ("STX_HEALTH__INTERVALL_S", "STX_HEALTH__INTERVAL_S")]
)
def test_typo_suggests_the_nearest_name(tmp_path: Path, name: str, near: str) -> None:
    """An unknown variable is answered with the closest one; its value, which may be a secret, is not shown."""
    text = refusal(tmp_path, environ={name: "hush-hush-value"})
    assert near in text and "hush-hush" not in text
    assert "health.interval_s" in refusal(tmp_path, "[health]\ninterval = 3")


_SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_SLOW
@given(st.text(min_size=1, max_size=40).filter(lambda key: key not in sources.fields_of(Schema)))
@example("a\nb")
@example("\x1b[31m\u2028")
def test_any_unknown_key_is_refused_in_one_line(tmp_path: Path, key: str) -> None:
    """Whatever an unknown key holds, the refusal is one line."""
    tables: list[dict[str, Any]] = [
        {key: 1},
        {"health": {f"x{key}": {}}},
        {"health": {"checks": {key: {f"x{key}": 1}}}},
    ]
    for data in tables:
        with pytest.raises(SettingsError) as caught:
            list(sources.flatten(data, Schema, (), Origin(OriginKind.FILE, "f")))
        assert len(str(caught.value).splitlines()) == 1 and "unknown setting" in str(caught.value)
    name = "STX_" + key
    known = sources.find(Schema, tuple(key.lower().split("__"))) is not None or name == "STX_CONFIG"
    if not known and not sources.is_injected(name, "1"):
        refusal(tmp_path, environ={name: "1"})


_secret = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30).map(lambda t: f"S3cr3t{t}X9x")


@_SLOW
@given(st.sampled_from(sorted(SECRETS)), _secret, st.booleans())
@example("health.database.url", "S3cr3t/?#@X9x", False)
@example("health.cache.url", "S3cr3t/X9x", False)
@example("token", "S3cr3t\nX9x", True)
def test_secrets_show_in_no_error_dump_or_repr(tmp_path: Path, name: str, secret: str, other_error: bool) -> None:
    """Whether a secret is accepted or refused, alone or beside another error, nothing that is printed holds it."""
    environ = {variable(name): SECRETS[name].format(secret)}
    if other_error:
        environ["STX_HEALTH__INTERVAL_S"] = "no"
    try:
        loaded = load(tmp_path, environ=environ)
        said = f"{loaded!r} {loaded.dump()}"
    except SettingsError as error:
        said = str(error)
        assert len(said.splitlines()) == 1
    assert "S3cr3t" not in said and "X9x" not in said


@_SLOW
@given(_secret)
def test_user_info_of_any_url_is_redacted(secret: str) -> None:
    """A password in a URL never survives redaction, whatever characters it has."""
    assert "S3cr3t" not in redact_url(f"https://user:{secret}@host/path?token={secret}")
    assert redact_url("redis://cache:6379/0") == "redis://cache:6379/0"


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_has_a_file_twin(tmp_path: Path, name: str) -> None:
    """`NAME_file` gives the secret without its trailing newline, from the file and from the environment."""
    value = SECRETS[name].format("abc").strip('["]')
    (tmp_path / "secret").write_text(value + "\n")
    table, _, key = name.rpartition(".")
    toml = (f"[{table}]\n" if table else "") + f'{key}_file = "secret"\n'
    for loaded in (load(tmp_path, toml), load(tmp_path, "", {variable(name) + "_FILE": "secret"})):
        secret: Any = loaded
        for part in name.split("."):
            secret = getattr(secret, part)
        assert isinstance(secret, Secret) and secret.reveal() == value
        assert "abc" not in str(loaded.dump())


def test_both_twins_are_refused_and_the_environment_s_wins(tmp_path: Path) -> None:
    """A secret in two forms from one source is an error; the environment's form replaces the file's."""
    (tmp_path / "secret").write_text("from-file")
    assert "STX_TOKEN" in refusal(tmp_path, environ={"STX_TOKEN": "a", "STX_TOKEN_FILE": "secret"})
    assert load(tmp_path, 'token = "a"', {"STX_TOKEN_FILE": "secret"}).token_value() == "from-file"
    assert load(tmp_path, 'token_file = "secret"', {"STX_TOKEN": "b"}).token_value() == "b"


@pytest.mark.parametrize("content", [None, "", "\n", b"\xff\xfe", "bad\x01token"])
def test_unusable_secret_files_are_refused(tmp_path: Path, content: str | bytes | None) -> None:
    """A secret's file that is missing, empty, no text or not allowed stops the start without showing what it holds."""
    if content is not None:
        (tmp_path / "secret").write_bytes(content if isinstance(content, bytes) else content.encode())
    text = refusal(tmp_path, environ={"STX_TOKEN_FILE": "secret"})
    assert text.startswith("STX_TOKEN_FILE: ") and "bad" not in text


def test_secret_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A rotated secret holds within about a second, and the last one holds while the file is away."""
    file = tmp_path / "secret"
    file.write_text("first")
    secret = Secret(file=file)
    file.unlink()
    file.write_text("second-one")
    deadline = time.monotonic() + 10
    while secret.reveal() != "second-one" and time.monotonic() < deadline:
        time.sleep(0.1)
    file.unlink()
    time.sleep(1.1)
    assert secret.reveal() == "second-one"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STX_SERVICE_HOST", "10.0.0.1"),
        ("STX_APP_SERVICE_HOST", "10.0.0.1"),
        ("STX_SERVICE_PORT", "8501"),
        ("STX_APP_SERVICE_PORT_HTTP", "8501"),
        ("STX_PORT_8501_TCP", "tcp://10.0.0.1:8501"),
        ("STX_PORT_8501_TCP_ADDR", "10.0.0.1"),
        ("STX_APP_PORT_53_UDP_PROTO", "udp"),
        ("STX_PORT", "tcp://10.0.0.1:8501"),
        ("STX_MANAGEMENT_PORT", "tcp://10.0.0.1:9090"),
        ("STX_X_PORT", "sctp://10.0.0.1:9"),
    ],
)
def test_variables_of_a_kubernetes_service_are_ignored(tmp_path: Path, name: str, value: str) -> None:
    """What Kubernetes injects for a Service called stx or stx-… changes nothing and stops nothing."""
    assert load(tmp_path, environ={name: value}).dump() == load(tmp_path).dump()


@pytest.mark.parametrize(("name", "value"), [("STX_PORT", "8501"), ("STX_PORT_8501", "1"), ("STX_XSERVICE_HOST", "x")])
def test_what_only_looks_injected_is_refused(tmp_path: Path, name: str, value: str) -> None:
    """A name or value that Kubernetes would not write is an unknown setting."""
    assert refusal(tmp_path, environ={name: value}).startswith(name)


def test_empty_variables_count_as_not_set(tmp_path: Path) -> None:
    """An empty variable leaves the file's value, except where empty is a value."""
    toml = 'token = "kept"\npath_prefix = "/ops"\n'
    loaded = load(tmp_path, toml, {"STX_TOKEN": "", "STX_MANAGEMENT_PORT": "", "STX_PATH_PREFIX": ""})
    assert (loaded.token_value(), loaded.management_port, loaded.path_prefix) == ("kept", None, "")


def test_service_comes_from_the_standard_variables(tmp_path: Path) -> None:
    """OTEL_SERVICE_NAME wins over the resource attributes; the version is theirs or the package's."""
    attributes = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=from%20attributes,service.version=2.1,x"}
    loaded = load(tmp_path, environ=attributes)
    assert (loaded.service_name, loaded.service_version) == ("from attributes", "2.1")
    assert loaded.data_dir.name == "from-attributes"
    assert load(tmp_path, environ={**attributes, "OTEL_SERVICE_NAME": "shop"}).service_name == "shop"
    assert load(tmp_path).service_name == "streamlit-app"
    assert load(tmp_path, environ={"OTEL_SERVICE_NAME": "../.."}).data_dir.name == "streamlit-app"


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, False),
        ({"OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "STX_STORE": "on"}, True),
        ({"STX_STORE": "off"}, False),
    ],
)
def test_store_is_on_when_nothing_else_takes_telemetry(tmp_path: Path, environ: dict[str, str], on: bool) -> None:
    """`auto` gives way to an endpoint, an explicit exporter and a disabled SDK; `on` and `off` are orders."""
    assert load(tmp_path, environ=environ).store_enabled is on


def test_loading_creates_nothing(tmp_path: Path) -> None:
    """No folder or file appears before `prepare_data_dir` is asked for one, which is private."""
    loaded = load(tmp_path, environ={"STX_DATA_DIR": "a/b"})
    assert list(tmp_path.iterdir()) == []
    folder = prepare_data_dir(loaded)
    assert folder == tmp_path / "a" / "b"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_unusable_data_folder_is_told_and_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where no folder can be made there is a reason and a warning, and the token lives in memory."""
    (tmp_path / "file").write_text("")
    loaded = load(tmp_path, environ={"STX_DATA_DIR": "file/below"})
    assert make_data_folder(loaded).path is None and "file/below" in make_data_folder(loaded).reason
    assert prepare_data_dir(loaded) is None and "can't be used" in caplog.text
    assert len(load_or_make_token(loaded, None)) >= 32


def test_token_is_made_once_and_private(tmp_path: Path) -> None:
    """The token is kept for the next process, readable by its owner alone; a configured one wins; a public one is remade."""
    loaded = load(tmp_path)
    token = load_or_make_token(loaded, tmp_path)
    assert load_or_make_token(loaded, tmp_path) == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert load_or_make_token(load(tmp_path, environ={"STX_TOKEN": "mine"}), tmp_path) == "mine"
    (tmp_path / "token").chmod(0o644)
    assert load_or_make_token(loaded, tmp_path) != token


def test_processes_that_start_together_agree_on_the_token(tmp_path: Path) -> None:
    """Eight processes that race for the first token all end with the same one and leave no draft."""
    code = (
        "import sys, pathlib; from streamlit_extension.settings import *\n"
        "sys.stdin.readline(); print(load_or_make_token(Settings(), pathlib.Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for _ in range(8)]  # type: ignore[call-overload]
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    tokens = {racer.communicate(timeout=60)[0] for racer in racers}
    assert len(tokens) == 1 and all(racer.returncode == 0 for racer in racers)
    assert os.listdir(tmp_path) == ["token"]
