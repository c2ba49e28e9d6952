"""Two Jaegers on one OpenSearch, with the shipped file: `deploy/jaeger/opensearch.yaml`."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from scripts.stack import ROOT
from tests.stack.backends import ask, until
from tests.stack.crowd import SCRIPT, SERVICE, crowd, ran
from tests.stack.shared import Load, Program, Shared, StartShared, found, opensearch, send, start_shared, trace
from tests.stack.test_commands import command
from tests.stack.test_outages import AWAY_S
from tests.support.backends import free_port
from tests.support.server import Start
from tests.support.stack import built

__all__ = ["opensearch", "start_shared"]  # fixtures
CONFIG = ROOT / "deploy" / "jaeger" / "opensearch.yaml"
#: What Jaeger has taken is written and found after it: 0.2 s in Jaeger, and OpenSearch's second.
SETTLED_S = 5.0
pytestmark = pytest.mark.timeout(600)


def spans(of: dict[str, set[str]]) -> int:
    """How many there are in all."""
    return sum(map(len, of.values()))


def read_by_the_other(shared: Shared, service: str, sent: dict[str, set[str]]) -> None:
    """All that was sent to the one is found by the other."""
    assert until(lambda: found(shared.jaegers[1], service), lambda seen: seen == sent, 120) == sent


async def test_what_one_writes_the_other_finds_also_after_both_were_killed(
    start_shared: StartShared, serve: Start, tmp_path: Path
) -> None:
    """By search and by trace id, and by our own command."""
    shared = start_shared()
    script = tmp_path / "app.py"
    script.write_text(SCRIPT)
    server = serve(script, env={"OTEL_EXPORTER_OTLP_ENDPOINT": shared.collector.url, "OTEL_SERVICE_NAME": SERVICE})
    await crowd(server.url, ["Work", "Fail"])
    server.stop()
    did = ran(server)
    reader = shared.jaegers[1]
    before = until(lambda: found(reader, SERVICE), lambda seen: seen.keys() >= set(did.all))
    assert before.keys() >= set(did.all)
    for each in shared.jaegers:
        each.end(signal.SIGKILL)
    for each in shared.jaegers:
        each.start()
    for each in shared.jaegers:
        after = found(each, SERVICE)
        assert all(after[trace_id] >= those for trace_id, those in before.items())
    assert all(trace(reader, each) >= before[each] for each in did.of("fail"))

    def asked(*words: str) -> list[dict[str, object]]:
        got = command(tmp_path / "nothing", "traces", *words, "--json", STX_QUERY__JAEGER_URL=reader.url)
        assert got.returncode == 0, got.stderr
        return [json.loads(line) for line in got.stdout.splitlines()]

    assert {each["trace_id"] for each in asked("--limit", "1000")} == set(did.all)
    assert {each["trace_id"] for each in asked("--failed", "--limit", "1000")} == did.of("fail")
    one = min(did.of("fail"))
    assert [each["trace_id"] for each in asked(one[:16])] == [one]
    drawn = command(tmp_path / "nothing", "traces", one, STX_QUERY__JAEGER_URL=reader.url)
    assert "RuntimeError: asked for" in drawn.stdout


def test_an_outage_of_the_store_loses_nothing(
    start_shared: StartShared, record_property: Callable[[str, object], None]
) -> None:
    """Jaeger and the collector hold what comes until it is back; what is stored twice is shown once."""
    shared = start_shared()
    with Load(shared.collector, "outage") as load:
        load.more(50)
        shared.opensearch.end(signal.SIGKILL)
        threading.Event().wait(AWAY_S)
        shared.opensearch.start()
        load.more(50)
    read_by_the_other(shared, "outage", load.sent)
    told = {"traces": len(load.sent), "spans twice in the store": shared.documents() - spans(load.sent)}
    for key, value in told.items():
        record_property(key, value)
    print(f"OpenSearch SIGKILL, away {AWAY_S:.0f} s: {told}")


def test_a_jaeger_killed_while_the_store_is_away_loses_what_it_was_about_to_write(
    start_shared: StartShared, record_property: Callable[[str, object], None]
) -> None:
    """At most JAEGER_BULK_SPANS spans."""
    bound = 60
    shared = start_shared(JAEGER_BULK_SPANS=str(bound))
    writer, reader = shared.jaegers
    with Load(shared.collector, "killed") as load:
        load.more(50)
        shared.opensearch.end(signal.SIGKILL)
        load.more(100)
        writer.end(signal.SIGKILL)
        shared.opensearch.start()
        assert shared.waiting()
        writer.start()
        load.more(50)

    def look() -> tuple[float, dict[str, set[str]], dict[str, set[str]]]:
        before = found(reader, "killed")
        threading.Event().wait(SETTLED_S)
        return shared.waiting(), before, found(reader, "killed")

    def settled(seen: tuple[float, dict[str, set[str]], dict[str, set[str]]]) -> bool:
        waiting, before, after = seen
        return not waiting and before == after

    waiting, before, seen = until(look, settled, 120)
    assert (waiting, before) == (0, seen)
    lost = spans(load.sent) - spans(seen)
    record_property("spans lost", lost)
    print(f"Jaeger SIGKILL while OpenSearch was away: {lost} of {spans(load.sent)} spans lost")
    assert seen.keys() <= load.sent.keys()
    assert lost <= bound


def test_indices_go_by_the_hour_and_old_ones_are_removed(start_shared: StartShared) -> None:
    """An index for each hour where that is asked for; what removes them leaves those of others."""
    hourly = start_shared(JAEGER_INDEX_ROTATION="hour", JAEGER_INDEX_HOUR="-15", JAEGER_INDEX_SHARDS="2")
    daily = start_shared()
    for each in (hourly, daily):
        sent = send(each.collector, "rotated", 3)
        read_by_the_other(each, "rotated", sent)
    kept = hourly.indices() | daily.indices()
    (hour,) = (each for each in kept if each.startswith(f"{hourly.prefix}-jaeger-span"))
    (day,) = (each for each in kept if each.startswith(f"{daily.prefix}-jaeger-span"))
    now = datetime.now(UTC)
    assert re.fullmatch(rf"\w+-jaeger-span-{now:%Y-%m}-\d\d-\d\d", hour)
    assert re.fullmatch(rf"\w+-jaeger-span-{now:%Y-%m}-\d\d", day)
    ((shards, replicas),) = (
        (each["pri"], each["rep"])
        for each in json.loads(ask(f"{hourly.opensearch.url}/_cat/indices/{hour}", format="json"))
    )
    assert (shards, replicas) == ("2", "1")
    clean(hourly, 7)
    assert {hour, day} <= hourly.indices()
    clean(hourly, 0)
    assert not any(each.startswith(hourly.prefix) for each in hourly.indices())
    assert day in hourly.indices()


def clean(shared: Shared, days: int) -> None:
    """Remove what is older."""
    words = [built("jaeger", "es-index-cleaner"), str(days), shared.opensearch.url]
    environ = {**os.environ, "INDEX_PREFIX": shared.prefix}
    subprocess.run(words, env=environ, check=True, capture_output=True, timeout=60)


@contextmanager
def guarded(node: Program, certificate: trustme.LeafCert, user: str, password: str) -> Iterator[str]:
    """The node over TLS, for one user."""

    class Guard(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
                body += self.rfile.read(size + 2)[:-2]
            if self.headers.get("Transfer-Encoding") == "chunked":
                self.rfile.readline()
            if self.headers.get("Authorization") != f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}":
                status, kind, said = 401, "text/plain", b"who are you?"
            else:
                status, kind, said = forward(node, self.command, self.path, body, self.headers.get("Content-Type"))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else said)

        do_GET = do_HEAD = do_POST = do_PUT = answer

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, name="guard")
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def forward(node: Program, method: str, path: str, body: bytes, kind: str | None) -> tuple[int, str, bytes]:
    """Ask the node itself."""
    headers = {"Content-Type": kind} if kind else {}
    request = urllib.request.Request(f"{node.url}{path}", body or None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as got:
            return got.status, got.headers.get("Content-Type", ""), got.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Content-Type", ""), error.read()


def test_the_store_is_reached_over_tls_with_user_and_password(
    opensearch: Program, start_shared: StartShared, tmp_path: Path
) -> None:
    """All of which are of the environment, and who signed too; with another password it doesn't start."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    with guarded(opensearch, authority.issue_cert("127.0.0.1"), "jaeger", "a-password") as url:
        given = {
            "JAEGER_OPENSEARCH_URLS": f"{url},https://127.0.0.1:{free_port()}",  # the second one is away
            "JAEGER_OPENSEARCH_CA_FILE": str(tmp_path / "ca.crt"),
            "JAEGER_OPENSEARCH_USER": "jaeger",
        }
        shared = start_shared(**given, JAEGER_OPENSEARCH_PASSWORD="a-password")
        sent = send(shared.collector, "guarded", 3)
        read_by_the_other(shared, "guarded", sent)
        with pytest.raises(AssertionError, match="no Elasticsearch node available"):
            start_shared(**given, JAEGER_OPENSEARCH_PASSWORD="another")


def test_the_header_names_every_variable() -> None:
    """What the first comment says is all that there is, with its default."""
    header, _, rest = CONFIG.read_text(encoding="utf-8").partition("\nservice:")
    used = dict(re.findall(r"\$\{env:(\w+):-([^}]*)\}", rest))
    assert used == dict(re.findall(r"(JAEGER_\w+) \(([^)]*)\)", header))
