"""Any service by its URL: a real Apprise speaks to a loopback service; nothing of a URL shows."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from streamlit_extension.alerts.delivery import FailureReason, SinkError
from streamlit_extension.alerts.model import NoticeKind
from streamlit_extension.alerts.sinks.urls import UrlSink, scheme_of
from tests.alerts.fakes import Service, running
from tests.alerts.sinks.test_http_sinks import LINKS, TRACE, notice


@pytest.fixture
def json_service() -> Iterator[Service]:
    """What Apprise's `json://` URLs speak to."""
    with running(lambda _: None, "/s3cr3t", (200, b"")) as service:
        yield service


def url_of(service: Service) -> str:
    return service.url.replace("http://", "json://user:s3cr3t@")


def test_a_notice_arrives_with_its_text_and_kind(json_service: Service) -> None:
    """Title, text with trace and links, and the library's kind of message: success for a resolve."""
    sink = UrlSink(0, lambda: (url_of(json_service),), LINKS)
    sink.send(notice(NoticeKind.FIRED))
    sink.send(notice(NoticeKind.RESOLVED))
    fired, resolved = json_service.taken
    assert (fired["type"], resolved["type"]) == ("failure", "success")
    assert fired["title"] == "[FIRING] shop (pod-1): CPU usage" and TRACE in fired["message"]
    assert "https://jaeger.example.com/trace/" in fired["message"]
    assert sink.name == "url1-json"


def test_a_refusal_shows_nothing_of_the_url(json_service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """A service that refuses is a failure; neither error nor log has a part of the URL."""
    caplog.set_level(logging.DEBUG)
    json_service.trouble.append((500, {}))
    with pytest.raises(SinkError) as caught:
        UrlSink(0, lambda: (url_of(json_service),)).send(notice(NoticeKind.FIRED))
    assert caught.value.reason is FailureReason.SERVER_ERROR
    assert "s3cr3t" not in str(caught.value) and "s3cr3t" not in caplog.text
    logging.getLogger("apprise").debug("the user's own use of the library is logged")
    assert "the user's own use" in caplog.text


@pytest.mark.parametrize("urls", [("nosuchservice://s3cr3t",), ("s3cr3t",), ()])
def test_a_url_that_nobody_knows_is_a_configuration_failure(urls: tuple[str, ...]) -> None:
    """What the library does not know, or what was taken out of the list, is not tried again."""
    with pytest.raises(SinkError) as caught:
        UrlSink(0, lambda: urls).send(notice(NoticeKind.FIRED))
    assert caught.value.reason is FailureReason.CONFIGURATION and "s3cr3t" not in str(caught.value)


def test_names_show_the_scheme_alone() -> None:
    """The name of a sink is in logs and metrics: it has nothing but number and scheme."""
    assert UrlSink(2, lambda: ("", "", "tgram://123:abc/")).name == "url3-tgram"
    assert [scheme_of(text) for text in ("SLACK://a", "no url", "a b://x", "")] == [
        "slack",
        "unknown",
        "unknown",
        "unknown",
    ]


def test_libraries_are_imported_only_where_they_are_used() -> None:
    """Neither Apprise nor the circuit breaker's library is loaded by alerts that don't use them."""
    code = (
        "import sys\n"
        "import streamlit_extension.utils.monitoring, streamlit_extension.alerts.sinks.slack\n"
        "import streamlit_extension.alerts.breaker, streamlit_extension.alerts.sinks.urls\n"
        "from streamlit_extension.alerts.sinks import sinks_from\n"
        "from streamlit_extension.settings import Settings\n"
        "assert [sink.name for sink in sinks_from(Settings())] == ['log']\n"
        "print(sorted({'apprise', 'interlock', 'requests', 'sqlalchemy', 'streamlit', 'smtplib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
