"""doctor: what it looks at, and that each problem has a remedy."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from streamlit_extension.cli import cli
from streamlit_extension.doctor import Finding, examine, page_path_collisions
from streamlit_extension.settings import Settings


def look(tmp_path: Path, environ: Mapping[str, str] | None = None, script: Path | None = None) -> list[Finding]:
    environ = {"STX_DATA_DIR": "data", "STREAMLIT_SERVER_PORT": "0", **(environ or {})}
    return examine(Settings.load(environ, tmp_path), script, environ)


def one(findings: list[Finding], name: str, section: str = "") -> Finding:
    return next(finding for finding in findings if finding.name == name and section in ("", finding.section))


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_versions_seams_and_settings_are_there(tmp_path: Path) -> None:
    """The report names versions, every seam, and each setting with where it was written."""
    findings = look(tmp_path, {"STX_LOG_LEVEL": "DEBUG"})
    assert one(findings, "streamlit").value[0].isdigit()
    missing = {finding.name for finding in findings if finding.section == "seams" and finding.value != "present"}
    assert missing <= {"cache counters"}  # the oldest Streamlit does not count its caches' hits
    named = {finding.name for finding in findings if finding.section == "seams"}
    assert named >= {"SQL statements", "SQL connections", "SQL connects", "own routes", "canary", "script runs"}
    assert one(findings, "log_level") == Finding("settings", "log_level", "DEBUG", origin="environment STX_LOG_LEVEL")
    assert one(findings, "health.interval_s").origin == "default"


def test_a_seam_that_has_moved_is_a_problem_with_what_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy's, the application's routes' and the canary's are named as Streamlit's own are."""
    from sqlalchemy.engine import Connection
    from streamlit.runtime import Runtime
    from streamlit.starlette import App

    monkeypatch.delattr(Connection, "_exec_single_context")
    monkeypatch.delattr(Runtime, "connect_session")
    monkeypatch.setattr(App, "__init__", lambda self: None)
    findings = look(tmp_path)
    for name, lost in (("SQL statements", "spans"), ("canary", "health.canary"), ("own routes", "requests")):
        finding = one(findings, name)
        assert finding.value.startswith("missing: ") and lost in finding.value and "README" in finding.remedy


def test_behind_a_proxy_it_is_the_proxy_that_has_to_answer(tmp_path: Path, taken: int) -> None:
    """A collector that only the proxy reaches is no problem, a proxy that is not there is one; no password is shown."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.invalid:4318"}
    reached = look(tmp_path, {**environ, "HTTP_PROXY": f"http://u:secret@127.0.0.1:{taken}"})
    finding = one(reached, "OTEL_EXPORTER_OTLP_ENDPOINT", "endpoints")
    assert finding.value.endswith("which answers") and not finding.remedy and "secret" not in finding.value
    lost = one(look(tmp_path, {**environ, "HTTP_PROXY": "http://127.0.0.1:1"}), finding.name, "endpoints")
    assert "not reachable" in lost.value and "NO_PROXY" in lost.remedy


def test_what_waits_in_the_spool_is_told(tmp_path: Path) -> None:
    """How many records wait, whose files they are in, and which file can't be read."""
    from otel.ledger import Ledger
    from otel.records import Signal
    from otel.spool import FOLDER, Spool
    from tests.support.spooling import batch, commit

    assert one(look(tmp_path), "waiting", "spool") == Finding("spool", "waiting", "nothing: there is no spool yet")
    ledger, folder = Ledger(), tmp_path / "data" / FOLDER
    dead = Spool(folder, ledger, {})
    dead.start()
    commit(dead, ledger, batch(Signal.LOGS, [1, 2, 3]))
    dead.close(0)
    assert one(look(tmp_path), "waiting", "spool").value == "3 records, 3 of ended processes"
    (folder / "0-broken.db").write_bytes(b"no database at all" * 400)
    finding = one(look(tmp_path), "0-broken.db", "spool")
    assert finding.value.startswith("can't be read: ") and "next start" in finding.remedy
    (folder / "1-old.db.damaged").write_bytes(b"")
    assert "1 damaged" in one(look(tmp_path), "set aside", "spool").value


def test_folder_is_looked_at_and_not_made(tmp_path: Path) -> None:
    """A folder that isn't there yet is fine where it can be made, a problem where a file is in its way."""
    assert not one(look(tmp_path), str(tmp_path / "data")).remedy
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert "data_dir" in one(look(tmp_path, {"STX_DATA_DIR": "file/x"}), str(tmp_path / "file" / "x")).remedy


def test_taken_port_is_a_problem_with_its_holder(tmp_path: Path, taken: int) -> None:
    """A port that another process holds is named, with who holds it where that can be told."""
    findings = look(tmp_path, {"STX_MANAGEMENT_PORT": str(taken)})
    finding = next(f for f in findings if f.section == "ports" and f.name == "management_port")
    assert f"{taken} is taken by" in finding.value and finding.remedy


def test_endpoints_answer_or_not(tmp_path: Path, taken: int) -> None:
    """A listening address answers; a closed one is a problem, and no password is shown."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        findings = look(
            tmp_path,
            {
                "STX_HEALTH__EXTERNAL_APIS__UP": f"http://127.0.0.1:{taken}/health",
                "STX_HEALTH__DATABASE__URL": f"postgresql://me:hush@127.0.0.1:{closed.getsockname()[1]}/app",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}",
            },
        )
    assert not one(findings, "health.external_apis.up").remedy
    assert one(findings, "OTEL_EXPORTER_OTLP_ENDPOINT").remedy
    assert next(f for f in findings if f.name == "health.database.url" and f.section == "endpoints").remedy
    assert "hush" not in repr(findings)


@pytest.fixture
def never_connecting(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Records every address that somebody tries to connect to, and lets none through."""
    tried: list[object] = []

    class Watched(socket.socket):
        def connect(self, address: Any, /) -> None:
            tried.append(address)
            raise ConnectionRefusedError

    monkeypatch.setattr(socket, "socket", Watched)
    return tried


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://169.254.169.254/", "link-local address"),
        ("http://[fe80::1%251]/", "link-local address"),
        ("http://2852039166/", "link-local address"),  # the same as a number
        ("http://[::ffff:169.254.169.254]/latest", "link-local address"),
        ("http://100.100.100.200/", "a cloud's metadata address"),
        ("http://[fd00:ec2::254]/", "a cloud's metadata address"),
        ("https://metadata.google.internal/", "a cloud's metadata address"),
        ("http://0.0.0.0:8080/", "unspecified address"),
    ],
)
def test_addresses_that_the_check_refuses_are_a_problem_and_not_contacted(
    tmp_path: Path, never_connecting: list[object], url: str, reason: str
) -> None:
    """`doctor` connects to nothing that the check of external APIs would not ask, and says so with a remedy."""
    finding = one(look(tmp_path, {"STX_HEALTH__EXTERNAL_APIS__A": url}), "health.external_apis.a", "endpoints")
    assert finding.value.endswith(f" is not asked: {reason}")
    assert finding.remedy == "let health.external_apis.a name the service itself"
    assert never_connecting == []


@pytest.mark.parametrize(
    "variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "STX_HEALTH__CACHE__URL", "STX_HEALTH__DATABASE__URL"]
)
def test_no_setting_leads_to_a_metadata_address(tmp_path: Path, never_connecting: list[object], variable: str) -> None:
    """The same holds for databases, caches and collectors."""
    scheme = {"STX_HEALTH__CACHE__URL": "redis", "STX_HEALTH__DATABASE__URL": "postgresql"}.get(variable, "http")
    findings = look(tmp_path, {variable: f"{scheme}://169.254.169.254:80/0"})
    assert [
        each.name for each in findings if each.section == "endpoints" and "is not asked" in each.value and each.remedy
    ]
    assert never_connecting == []


def test_a_name_is_resolved_once_and_all_its_addresses_are_looked_at(
    tmp_path: Path, never_connecting: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with one refused address is not contacted at all; what is contacted is the address that was looked at."""
    answers = [["93.184.216.34", "169.254.169.254"], ["93.184.216.34"], ["169.254.169.254"]]

    def resolve(_host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in answers.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    environ = {"STX_HEALTH__EXTERNAL_APIS__A": "http://rebinding.example:8080/"}
    assert "is not asked" in one(look(tmp_path, environ), "health.external_apis.a", "endpoints").value
    assert never_connecting == []
    assert "not reachable" in one(look(tmp_path, environ), "health.external_apis.a", "endpoints").value
    assert never_connecting == [("93.184.216.34", 8080)]


def test_a_collector_at_any_address_of_this_machine_answers(tmp_path: Path, taken: int) -> None:
    """`0.0.0.0` is where many collectors are said to be; a connection reaches this machine."""
    finding = one(
        look(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://0.0.0.0:{taken}"}), "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    assert finding.value.endswith(" answers")


def test_page_path_collisions(tmp_path: Path) -> None:
    """Pages called health, metrics or telemetry are found in `pages/` and in literals; other pages are not."""
    (tmp_path / "pages").mkdir()
    for name in ("1_health.py", "Reports.py", "2_📈_metrics_of_today.py"):
        (tmp_path / "pages" / name).write_text("")
    script = tmp_path / "app.py"
    script.write_text(
        "import streamlit as st\n"
        "def telemetry(): pass\n"
        "st.navigation([st.Page('a.py', url_path='metrics'), st.Page(telemetry), st.Page('b/clients.py'),\n"
        "               st.Page('health.py', default=True), st.Page('health.py', url_path='state')])\n"
    )
    found = page_path_collisions(script)
    assert [line.partition(" has ")[0] for line in found] == [
        "page pages/1_health.py",
        "page in line 3 of app.py",
        "page in line 3 of app.py",
    ]
    assert page_path_collisions(script, "/ops") == []
    assert len([f for f in look(tmp_path, script=script) if f.section == "pages" and f.remedy]) == 3


def test_script_that_does_not_parse_has_no_collisions(tmp_path: Path) -> None:
    """Reading never fails: running the script says what is wrong with it."""
    script = tmp_path / "app.py"
    script.write_text("def (")
    assert page_path_collisions(script) == []
    assert page_path_collisions(tmp_path / "gone.py") == []


def test_exit_code_and_json(tmp_path: Path, taken: int) -> None:
    """The exit code is 1 with a problem and 0 without; JSON says the same; text has no colours in a pipe."""
    env = {"STX_DATA_DIR": str(tmp_path), "STX_HEALTH__EXTERNAL_APIS__A": f"http://127.0.0.1:{taken}/"}
    good = CliRunner().invoke(cli, ["doctor", "--json"], env=env)
    report = json.loads(good.stdout)
    assert report["ok"] is (good.exit_code == 0)
    assert {row["section"] for row in report["findings"]} >= {"versions", "seams", "settings", "ports", "endpoints"}
    bad = CliRunner().invoke(cli, ["doctor"], env={**env, "STX_HEALTH__EXTERNAL_APIS__A": "http://127.0.0.1:1/"})
    assert bad.exit_code == 1 and "problem: health.external_apis.a" in bad.stdout and "\x1b" not in bad.stdout
