"""Who may see the telemetry page, and whose wish a form is."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from streamlit_extension.endpoints.entitlement import Audience
from streamlit_extension.viewer.links import LIFETIME_S
from tests.viewer.support import TOKEN, Open, desktop

__all__ = ["desktop"]

HTML = {"accept": "text/html"}


def token_in(page: str) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


async def test_who_is_entitled(desktop: Open) -> None:
    """The token, and a person at the machine; a stranger, a proxy's caller and another Host are not."""
    opened = desktop()
    for caller, status in (
        ({}, 200),
        ({"peer": "10.1.2.3"}, 401),
        ({"peer": "10.1.2.3", "authorization": f"Bearer {TOKEN}"}, 200),
        ({"peer": "10.1.2.3", "authorization": "Bearer wrong"}, 401),
        ({"x_forwarded_for": "10.1.2.3"}, 401),
        ({"base": "http://evil.example"}, 401),
        ({"sec_fetch_site": "cross-site"}, 401),
    ):
        async with opened.client(**caller) as client:
            answer = await client.get("/telemetry/")
            assert answer.status_code == status, caller
            if status == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "shop" not in answer.text
    for options in ({"loopback": False}, {"loopback": None}, {"audience": Audience.TOKEN}):
        async with desktop(**options).client() as client:
            assert (await client.get("/telemetry/")).status_code == 401, options


async def test_no_part_of_the_page_is_open_to_strangers(desktop: Open) -> None:
    """Every path but the style and script asks who is there, unknown ones too."""
    opened = desktop(audience=Audience.TOKEN)
    async with opened.client(**HTML) as client:
        for path in (
            "",
            "runs",
            "traces/00",
            "logs?q=x",
            "metrics/x",
            "health",
            "search?q=1",
            "nothing",
            "%00",
            "x" * 99,
        ):
            answer = await client.get(f"/telemetry/{path}")
            assert answer.status_code == 401, path
            assert "streamlit-extension link" in answer.text
        assert (await client.post("/telemetry/maintenance", data={"reason": "x"})).status_code == 401
        assert (await client.get("/telemetry/static/viewer.css")).status_code == 200
        assert (await client.get("/telemetry/static/../desk.py")).status_code in (204, 401, 404)
        assert (await client.get("/telemetry/static/%2e%2e/desk.py")).status_code in (204, 401, 404)


async def test_a_link_begins_a_session_once(desktop: Open) -> None:
    """A redirect sets the cookie, which alone opens the page; the same link again opens nothing."""
    opened = desktop(audience=Audience.TOKEN)
    code = opened.links.make()
    async with opened.client(peer="10.0.0.9", base="https://app.example", **HTML) as client:
        answer = await client.get(f"/telemetry/enter?code={code}")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/telemetry/"
        cookie = answer.headers["set-cookie"]
        for flag in ("HttpOnly", "SameSite=Strict", "Path=/telemetry/", "Secure", "Max-Age=43200"):
            assert flag in cookie
        assert code not in cookie
        assert TOKEN not in cookie
        assert (await client.get("/telemetry/")).status_code == 200
    async with opened.client(peer="10.0.0.9", **HTML) as other:
        again = await other.get(f"/telemetry/enter?code={code}")
        assert again.status_code == 403
        assert "set-cookie" not in again.headers
        plain = await other.get(f"/telemetry/enter?code={opened.links.make()}")
        assert "Secure" not in plain.headers["set-cookie"]


async def test_looking_ahead_does_not_use_a_link_up(desktop: Open) -> None:
    """HEAD and a browser's prefetch leave the code as it is."""
    opened = desktop(audience=Audience.TOKEN)
    code = opened.links.make()
    async with opened.client(peer="10.0.0.9") as client:
        assert (await client.head(f"/telemetry/enter?code={code}")).status_code == 503
        ahead = await client.get(f"/telemetry/enter?code={code}", headers={"sec-purpose": "prefetch;prerender"})
        assert ahead.status_code == 503
        assert (await client.get(f"/telemetry/enter?code={code}")).status_code == 303


async def test_a_session_can_not_be_made_up(desktop: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed, a longer-lived, another application's and an old cookie open nothing."""
    opened = desktop(audience=Audience.TOKEN)
    async with opened.client(peer="10.0.0.9") as client:
        await client.get(f"/telemetry/enter?code={opened.links.make()}")
        ((name, value),) = client.cookies.items()
        until, nonce, signature = value.split(".")
        wrong = [
            f"{int(until) + 9}.{nonce}.{signature}",
            f"{until}.{nonce}x.{signature}",
            f"{until}.{nonce}.{signature[:-1]}",
            f"{until}.{nonce}.",
            "",
            "..",
            "ü",
            "x" * 5000,
        ]
        for each in wrong:
            client.cookies.clear()
            answer = await client.get("/telemetry/", headers={b"cookie": f"{name}={each}".encode("latin-1")})
            assert answer.status_code == 401, each
        good = {"cookie": f"theme=dark; {name}={value}"}
        assert (await client.get("/telemetry/", headers=good)).status_code == 200
        later = msgspec.structs.replace(opened.page._access, wall=lambda: int(until) + 1.0)
        monkeypatch.setattr(opened.page, "_access", later)
        assert (await client.get("/telemetry/", headers=good)).status_code == 401


async def test_a_permalink_from_another_site_comes_in_by_a_step_of_ours(desktop: Open) -> None:
    """The browser keeps a strict cookie back on the way from a chat; a step of our own brings it."""
    opened = desktop(audience=Audience.TOKEN)
    elsewhere = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    async with opened.client(peer="10.0.0.9", **HTML) as client:
        answer = await client.get('/telemetry/logs?q="><script>', headers=elsewhere)
        assert answer.status_code == 200
        assert 'http-equiv="refresh" content="0; url=/telemetry/logs?q=%22%3E%3Cscript%3E"' in answer.text
        assert (await client.get("/telemetry/logs", headers={"sec-fetch-site": "same-origin"})).status_code == 401
        framed = {**elsewhere, "sec-fetch-dest": "iframe"}
        assert (await client.get("/telemetry/logs", headers=framed)).status_code == 401


async def test_forms_of_other_sites_change_nothing(desktop: Open) -> None:
    """Without the form's own token, with another caller's, from another origin or as JSON: 403 and nothing is written."""
    opened = desktop()
    wish = {"switch": "on", "reason": "upgrade", "for": "30m"}
    async with opened.client(**HTML) as client, opened.client(peer="10.0.0.9", **HTML) as other:
        good = token_in((await client.get("/telemetry/health")).text)
        await other.get(f"/telemetry/enter?code={opened.links.make()}")
        others = token_in((await other.get("/telemetry/health")).text)
        tries: list[dict[str, Any]] = [
            {"data": wish},
            {"data": {**wish, "form_token": others}},
            {"data": {**wish, "form_token": "0." + good.partition(".")[2]}},
            {"data": {**wish, "form_token": good}, "headers": {"sec-fetch-site": "same-site"}},
            {"data": {**wish, "form_token": good}, "headers": {"origin": "http://evil.example"}},
            {"data": {**wish, "form_token": good}, "headers": {"origin": "null"}},
            {"json": {**wish, "form_token": good}},
            {"content": b"form_token=" + good.encode(), "headers": {"content-type": "text/plain"}},
        ]
        for each in tries:
            assert (await client.post("/telemetry/maintenance", **each)).status_code == 403, each
        assert not (opened.folder / "control.json").exists()
        assert (await client.post("/telemetry/maintenance", data={"x": "y" * 70_000})).status_code == 413
        own = {"origin": "http://127.0.0.1:8501", "sec-fetch-site": "same-origin"}
        done = await client.post("/telemetry/maintenance", data={**wish, "form_token": good}, headers=own)
        assert done.status_code == 303
        assert "upgrade" in (opened.folder / "control.json").read_text()


async def test_leaving_ends_the_session(desktop: Open) -> None:
    """The cookie is forgotten, below the same path."""
    opened = desktop(audience=Audience.TOKEN)
    async with opened.client(peer="10.0.0.9", **HTML) as client:
        await client.get(f"/telemetry/enter?code={opened.links.make()}")
        token = token_in((await client.get("/telemetry/health")).text)
        answer = await client.post("/telemetry/leave", data={"form_token": token})
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert (await client.get("/telemetry/")).status_code == 401


def test_the_lifetime_is_that_of_the_design() -> None:
    """Ten minutes."""
    assert LIFETIME_S == 600
