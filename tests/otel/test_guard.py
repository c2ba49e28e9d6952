"""Redaction: what is a secret is replaced, what is none stays readable, in linear time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel.guard import (
    REDACTED,
    forget_secrets,
    is_sensitive,
    looks_clean,
    redact_fields,
    redact_text,
    redact_url,
    redact_value,
    remember_secret,
)
from otel.plain import text_of

S = "Zq7wK9pL2x"  # stands for a secret

SECRET = [
    f"password={S}", f"password: {S}", f"Password = '{S} with words'", f'{{"password": "{S}", "user": "ada"}}',
    f"{{'api_key': '{S}'}}", f'"{{\\"token\\": \\"{S}\\"}}"', f"config: db_password={S}, user=ada", f"connect(pwd={S})",
    f"SECRET_KEY={S}", f"AWS_SECRET_ACCESS_KEY={S}", f"X-Auth-Token: {S}", f"clientSecret: {S}", f"password=[{S}]",
    f"Authorization: Bearer {S}", f"authorization: Token {S}", f"Authorization: Digest username=a, response={S}",
    f"Proxy-Authorization: Basic {S}==", f"Cookie: a={S}; b={S}", f"set-cookie: id={S}; Path=/", f"bearer {S}", f"Basic {S}==",
    f"postgresql+psycopg://app:{S}@db:5432/app", f"redis://:{S}@cache/0", f"amqp://u:p/{S}@host/x", f"https://{S}@host/",
    f"mysql://u:a@{S}@host/db", f"see https://host/reset?code={S}&x=1", f"GET /page?session={S} HTTP/1.1",
    f"https://host/?next=http://u:{S}@inner/", f"postgres://u:p#{S}@h/d",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{S}", f"x\\neyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{S}",
    f"-----BEGIN RSA PRIVATE KEY-----\nMII{S}\n-----END RSA PRIVATE KEY-----", f"-----BEGIN PRIVATE KEY-----\nMII{S}",
    f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{S}\n-----END PGP PRIVATE KEY BLOCK-----",
    f"ghp_{S}{S}{S}", f"github_pat_{S}{S}", f"xoxb-{S}-{S}", f"sk_live_{S}", f"glpat-{S}{S}", f"AIza{S}{S}{S}", f"sk-proj-{S}{S}{S}{S}",
]  # fmt: skip

HARMLESS = [
    "Enter your password: ", "the password was changed", "max_tokens=512", "tokens=512 used", "prompt_tokens: 12", "token_count=3",
    "basic authentication is used here", "bearer of bad news", "Bearer tokens are supported", "a token expired yesterday",
    "client 42 saved: ok", "ratio=0.5 user=ada", "https://example.org/@user/post", "http://host:8080/a/@b", "user@example.org wrote",
    "what? yes=no", "took 12.5 ms: 3 rows", "at 10:30:00 in main.py:42", "session.id=5f1c", "2025-01-15T10:30:00Z", "eyJ is how JWTs begin",
    "ask-me-anything-about-the-risk-management", "key=value", "has_password=True", "password_length: 12", "C:\\temp\\x", "-----BEGIN CERTIFICATE-----",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    yield
    forget_secrets()


@pytest.mark.parametrize("text", SECRET)
def test_a_secret_is_replaced_in_a_text(text: str) -> None:
    """Keys, DSNs, URLs, headers, tokens and key blocks lose their secret and nothing is replaced twice."""
    found = redact_text(text)
    assert S not in found and REDACTED in found
    assert not looks_clean(text)
    assert redact_text(found) == found


@pytest.mark.parametrize("text", HARMLESS)
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    """Prose about passwords, counts of tokens, times, paths and addresses are no secrets."""
    assert redact_text(text) == text


def test_what_is_around_a_secret_stays_readable() -> None:
    """Only the secret is replaced: names, hosts and what follows are still there."""
    assert redact_text(f"user=ada password={S}, tries=3") == f"user=ada password={REDACTED}, tries=3"
    assert redact_text(f"connect(host=db, pwd={S}) failed") == f"connect(host=db, pwd={REDACTED}) failed"
    assert (
        redact_url(f"https://u:{S}@host:8/p?a={S}&b={S}#f")
        == f"https://{REDACTED}@host:8/p?a={REDACTED}&b={REDACTED}#f"
    )
    assert redact_text(f"Authorization: Bearer {S}\nHost: x") == f"Authorization: {REDACTED}\nHost: x"


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "apiKey",
        "X-Auth-Token",
        "DB_PASSWORD",
        "client_secret",
        "dsn",
        "Set-Cookie",
        "auth",
        "refresh_token",
        "privateKey",
        "jwt",
        "sessionid",
        "db.password",
    ],
)
def test_sensitive_names(name: str) -> None:
    """Whatever its spelling, a name of a secret is one."""
    assert is_sensitive(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens",
        "tokens",
        "token_count",
        "prompt_tokens",
        "author",
        "keyboard",
        "monkey",
        "session.id",
        "primary_key",
        "user",
        "passenger",
        "has_password",
        "token_expires_at",
        "password_length",
        "bypass",
        "compass",
        "cookie_count",
    ],
)
def test_harmless_names(name: str) -> None:
    """Counts, ages and words that happen to hold a part of another word are no secrets."""
    assert not is_sensitive(name)


@dataclass
class Account:
    user: str
    password: str


class Row(msgspec.Struct):
    user: str
    api_key: str


class Model:
    """As pydantic's models do."""

    def model_dump(self) -> dict[str, str]:
        return {"user": "ada", "token": S}


class Pair(NamedTuple):
    user: str
    secret: str


@pytest.mark.parametrize(
    "value",
    [
        {"password": S}, [{"password": S}], {"a": [{"b": ({"token": S},)}]}, Account("ada", S), [Row("ada", S)], Model(), Pair("ada", S),
        {"list": [Account("ada", S)]}, {"x": f"password={S}"}, ValueError(f"password={S}"), f"password={S}".encode(), {f"token={S}": 1},
    ],
)  # fmt: skip
def test_secrets_are_found_at_any_depth(value: Any) -> None:
    """In lists of mappings, dataclasses, structs, models, named tuples, exceptions, bytes and names."""
    found = redact_fields({"value": value})
    assert S not in repr(found) and REDACTED in repr(found)
    msgspec.json.encode(found)


def test_flags_and_nothing_are_shown_under_sensitive_names() -> None:
    """That there is a password, or none, is no secret."""
    assert redact_fields({"password": None, "token": True, "secret": S, "pwd": 1234}) == {
        "password": None, "token": True, "secret": REDACTED, "pwd": REDACTED,
    }  # fmt: skip


def test_known_values_are_replaced_wherever_they_turn_up() -> None:
    """A remembered value is replaced in texts, names and nested values, percent-encoded too."""
    assert remember_secret("p@ss/wörd 1")
    for text in ("x p@ss/wörd 1 y", "glued-p@ss/wörd 1-on", "p%40ss%2Fw%C3%B6rd%201"):
        assert redact_text(text).count(REDACTED) == 1 and not looks_clean(text)
    assert "p@ss" not in repr(redact_fields({"a": ["p@ss/wörd 1"], "p@ss/wörd 1": 1}))
    forget_secrets()
    assert redact_text("x p@ss/wörd 1 y") == "x p@ss/wörd 1 y"


def test_short_and_plain_words_do_not_make_mush_of_texts() -> None:
    """A value of fewer than six characters is not remembered; a plain word is replaced only where it stands alone."""
    assert not remember_secret("abc") and redact_text("abcdef") == "abcdef"
    assert remember_secret("postgres")
    assert redact_text("postgresql at postgres") == f"postgresql at {REDACTED}"


def test_the_number_of_remembered_values_is_bounded() -> None:
    """Secrets rotate: the oldest of too many goes, the newest stays."""
    for number in range(1000):
        remember_secret(f"secret-value-{number}")
    assert redact_text("secret-value-999") == REDACTED
    assert redact_text("secret-value-0 ") == "secret-value-0 "


def test_a_slow_type_is_named_from_then_on() -> None:
    """A text that took long once is not asked for again."""
    calls = []

    class Slow:
        def __str__(self) -> str:
            calls.append(1)
            end = time.perf_counter() + 0.05
            while time.perf_counter() < end:
                pass
            return "slow"

    assert text_of(Slow()) == "slow"
    assert text_of(Slow()) == "<Slow>" and len(calls) == 1


PIECES = [
    "password=",
    "token: ",
    "://",
    "@",
    "?",
    "&",
    "=",
    ":",
    "/",
    "eyJ",
    ".",
    "-",
    "-----BEGIN ",
    "PRIVATE KEY-----",
    "bearer ",
    '"',
    "'",
    "\\",
    " ",
    "\n",
    "a",
    "Z9",
    "ghp_",
    "xoxb-",
    "sk-",
    S,
    REDACTED,
    "é",
    "\ud800",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_redaction_is_stable_and_never_raises(text: str) -> None:
    """What passes as clean is not changed, and a second pass over what was replaced leaks and raises nothing."""
    found = redact_text(text)
    if looks_clean(text):
        assert found == text
    redact_text(found)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.sampled_from(["password", "api_key", "authToken", "DSN"]), st.text(max_size=40))
def test_a_sensitive_field_never_shows_whatever_is_around_it(before: str, name: str, after: str) -> None:
    """As a field, nested, and as `name="value"` behind and before any text that ends its line."""
    assert S not in repr(redact_value("x", [{name: S, "before": before, "after": after}]))
    assert S not in redact_text(f'{before}\n{name}="{S}"\n{after}')


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(_json)
def test_what_comes_out_is_plain_data(value: Any) -> None:
    """Whatever goes in, JSON takes what comes out, and decoding it gives the same again."""
    found = redact_fields({"value": value})
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


ADVERSARIAL = {
    "names": "password ", "assignments": "password=", "quotes": 'password="', "urls": "a://", "users": "a://b:", "at": "://@", "jwt": "eyJ", "jwts": "eyJaaaaa-", "dots": "eyJaaaaaa.",
    "begin": "-----BEGIN ", "keys": "-----BEGIN PRIVATE KEY-----", "bearer": "bearer ", "spaces": "password    ", "query": "?a=b&", "questions": "?", "word": "a", "dashes": "a-", "xox": "xoxb-", "colons": "a:", "escapes": 'token\\\\\\\\"',
    "backslashes": "\\", "equals": "=",
}  # fmt: skip


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_time_grows_with_the_length_and_not_with_its_square(name: str) -> None:
    """Sixteen times the text takes about sixteen times the time; a quadratic pattern would take 256 times."""
    piece = ADVERSARIAL[name]
    small, large = (f"x=eyJ://?bearer -----BEGIN {piece * (size // len(piece))} " for size in (8_000, 128_000))

    def cost(text: str) -> float:
        best = float("inf")
        for _ in range(5):
            began = time.thread_time()
            redact_text(text)
            best = min(best, time.thread_time() - began)
        return best

    assert cost(large) < 80 * max(cost(small), 20e-6)
