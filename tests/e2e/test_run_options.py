"""`run` takes what Streamlit's users know: their options, files, secrets, pages and certificates."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import select
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamlit_extension.demo.client import StreamlitClient
from tests.support.requirements import program
from tests.support.server import Server, Start

HELLO = "import streamlit as st\nst.title('hello')\n"
KINDS = ("", "/detailed", "/ready", "/live", "/startup")


async def texts(server: Server, finished: int = 1) -> list[str]:
    """What a new browser is shown."""
    async with StreamlitClient(server.url) as client:
        page = await client.wait_finished(finished)
        assert page.exceptions == []
        return page.texts


# -- where the paths are --------------------------------------------------------------------------------------------


async def test_a_path_prefix_moves_every_health_path(serve: Start, script: Callable[..., Path]) -> None:
    """Below the prefix they answer; where they were is the application's."""
    server = serve(script(HELLO), env={"STX_PATH_PREFIX": "/ops"}, ready="/ops/health/startup")
    for kind in KINDS:
        assert server.get(f"/ops/health{kind}").headers["content-type"] == "application/json"
        assert "json" not in server.get(f"/health{kind}").headers.get("content-type", "")
    assert server.get("/ops/health/detailed/system").json["status"] == "healthy"
    assert await texts(server) == ["hello"]
    assert server.stop() == 0


async def test_below_a_base_path_the_application_and_its_probes_answer(
    serve: Start, script: Callable[..., Path]
) -> None:
    """`server.baseUrlPath`: the page and the probes below it, and the probes at the root too, with a prefix as well."""
    server = serve(script(HELLO), "--server.baseUrlPath", "apps/one", base="/apps/one")
    root = Server(server.process, server.port, server.log)
    for kind in KINDS:
        assert server.get(f"/health{kind}").status == root.get(f"/health{kind}").status == 200
    assert await texts(server) == ["hello"]
    assert server.stop() == 0
    moved = serve(
        script(HELLO),
        "--server.baseUrlPath=/apps/one/",
        env={"STX_PATH_PREFIX": "/ops"},
        base="/apps/one",
        ready="/ops/health/startup",
    )
    assert Server(moved.process, moved.port, moved.log).get("/ops/health/live").status == 200
    assert moved.stop() == 0


# -- files ----------------------------------------------------------------------------------------------------------


async def test_config_file_options_and_secrets_are_those_of_the_script(
    serve: Start, script: Callable[..., Path], tmp_path: Path
) -> None:
    """`.streamlit/config.toml` and `secrets.toml` beside the script; the command line wins over the file."""
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit/config.toml").write_text("[server]\nmaxUploadSize = 7\nmaxMessageSize = 77\n")
    (tmp_path / ".streamlit/secrets.toml").write_text("word = 'open sesame'\n[db]\nuser = 'ada'\n")
    source = """
import json, sys
import streamlit as st
st.write(json.dumps([
    st.get_option("server.maxUploadSize"), st.get_option("server.maxMessageSize"),
    st.secrets["word"], st.secrets.db.user, sys.argv[1:],
]))
"""
    server = serve(script(source), "--server.maxMessageSize", "88", "--", "--name", "value")
    (shown,) = await texts(server)
    assert json.loads(shown) == [7, 88, "open sesame", "ada", ["--name", "value"]]
    assert "open sesame" not in server.output
    assert server.stop() == 0


async def test_a_changed_script_is_run_again(serve: Start, script: Callable[..., Path]) -> None:
    """With `server.runOnSave` every open page shows the new source by itself."""
    path = script(HELLO)
    server = serve(path, "--server.runOnSave", "true", "--server.fileWatcherType", "poll")
    async with StreamlitClient(server.url) as client:
        assert (await client.wait_finished(1)).texts == ["hello"]
        await asyncio.sleep(1.1)  # the watcher compares times
        path.write_text(HELLO.replace("hello", "changed"))
        page = await client.wait_finished(2, 60)
        assert page.texts == ["changed"]
    assert server.stop() == 0


async def test_an_imported_module_that_changes_is_loaded_again(serve: Start, script: Callable[..., Path]) -> None:
    """Modules beside the script are imported from there and watched too."""
    helper = script("WORD = 'first'\n", "helper.py")
    path = script("import streamlit as st\nimport helper\nst.title(helper.WORD)\n")
    server = serve(path, "--server.runOnSave", "true", "--server.fileWatcherType", "poll")
    async with StreamlitClient(server.url) as client:
        assert (await client.wait_finished(1)).texts == ["first"]
        await asyncio.sleep(1.1)
        helper.write_text("WORD = 'second word'\n")
        page = await client.wait_finished(2, 60)
        assert page.texts == ["second word"]
    assert server.stop() == 0


async def test_the_pages_of_a_multipage_script_are_found(
    serve: Start, script: Callable[..., Path], tmp_path: Path
) -> None:
    """A `pages` folder, and `st.navigation` with functions."""
    (tmp_path / "pages").mkdir()
    script("import streamlit as st\nst.title('the second')\n", "pages/2_second.py")
    server = serve(script(HELLO))
    async with StreamlitClient(server.url) as client:
        await client.wait_finished(1)
        await client.open_page("second")
        assert (await client.wait_finished(2)).texts == ["the second"]
    assert server.stop() == 0
    (tmp_path / "pages/2_second.py").unlink()
    (tmp_path / "pages").rmdir()
    source = """
import streamlit as st
def one():
    st.title("page one")
def two():
    st.title("page two")
st.navigation([st.Page(one, title="One"), st.Page(two, title="Two")]).run()
"""
    server = serve(script(source))
    async with StreamlitClient(server.url) as client:
        assert (await client.wait_finished(1)).texts == ["page one"]
        await client.open_page("Two")
        assert (await client.wait_finished(2)).texts == ["page two"]
    assert server.stop() == 0


# -- certificates ---------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that has signed itself, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += [
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def tls(cert: Path, key: Path) -> tuple[str, ...]:
    return ("--server.sslCertFile", str(cert), "--server.sslKeyFile", str(key))


def test_with_a_certificate_everything_is_encrypted(
    serve: Start, script: Callable[..., Path], certificate: tuple[Path, Path]
) -> None:
    """The page and the probes answer by TLS with that certificate, and nothing answers without."""
    server = serve(script(HELLO), *tls(*certificate), ready=None)
    context = ssl.create_default_context(cafile=str(certificate[0]))
    url = f"https://127.0.0.1:{server.port}"

    def get(path: str) -> Any:
        with urllib.request.urlopen(url + path, context=context, timeout=10) as answer:
            return answer.status, answer.read()

    deadline = time.monotonic() + 60
    while True:
        try:
            assert get("/health/startup")[0] == 200
            break
        except OSError:
            assert time.monotonic() < deadline, server.output
            assert server.process.poll() is None, server.output
            time.sleep(0.1)
    assert json.loads(get("/health/live")[1])["alive"] is True
    assert b"<html" in get("/")[1]
    assert "https://localhost:" in server.output
    with pytest.raises(OSError):
        server.get("/health/live")
    assert server.stop() == 0


@pytest.mark.parametrize("broken", ["missing", "empty", "no certificate", "another's key", "no key"])
def test_a_bad_certificate_is_one_line(
    serve: Start, script: Callable[..., Path], tmp_path: Path, certificate: tuple[Path, Path], broken: str
) -> None:
    """Exit code 2, no traceback, and nothing of the key."""
    cert, key = certificate
    options = tls(cert, key)
    match broken:
        case "missing":
            cert.unlink()
        case "empty":
            cert.write_text("")
        case "no certificate":
            cert.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        case "another's key":
            command = [program("openssl"), "genrsa", "-out", str(key), "2048"]
            subprocess.run(command, check=True, capture_output=True)
        case "no key":
            options = options[:2]
    secret = key.read_text().splitlines()[1]
    server = serve(script(HELLO), *options, ready=None)
    assert server.process.wait(60) == 2, server.output
    (line,) = server.output.strip().splitlines()
    assert "TLS" in line or "server.ssl" in line
    assert secret not in line


def test_an_idle_connection_is_left_to_the_load_balancer_to_close(serve: Start, script: Callable[..., Path]) -> None:
    """Six seconds of idleness, at which uvicorn's own five would have met the next request half-way."""
    server = serve(script(HELLO))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    with contextlib.closing(connection):
        for pause_s in (6.0, 0.0):
            connection.request("GET", "/_stcore/host-config")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            assert select.select([connection.sock], [], [], pause_s)[0] == [], "the server has closed it"
    assert server.stop() == 0
