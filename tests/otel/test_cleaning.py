"""What was found clean is not looked at again, until there is another secret."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from otel import cleaning, guard
from otel.cleaning import clean_attributes, clean_span
from otel.guard import REDACTED, forget_secrets, remember_secret

NAMED = "quite ordinary words"


@pytest.fixture(autouse=True)
def no_secrets() -> Iterator[None]:
    """No secret is known, before and after."""
    forget_secrets()
    yield
    forget_secrets()


def span(text: str) -> ReadableSpan:
    """A finished span that says it."""
    made = TracerProvider(shutdown_on_exit=False).get_tracer("scope").start_span(text, attributes={"said": text})
    made.end()
    assert isinstance(made, ReadableSpan)
    return made


def test_a_text_that_was_clean_is_replaced_once_it_is_a_secret() -> None:
    """A password that is learnt late was said before: what was found then counts no more, also in names."""
    for _ in range(2):
        assert clean_span(span(NAMED)).name == NAMED
    remember_secret(NAMED)
    clean = clean_span(span(NAMED))
    assert (clean.name, dict(clean.attributes or {})) == (REDACTED, {"said": REDACTED})


def test_a_secret_that_is_learnt_meanwhile_is_not_taken_for_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread looks at a value, another learns that it is a secret: the first one's word is for nobody."""
    look = guard.redact_value

    def look_slowly(key: str, value: object) -> object:
        found = look(key, value)
        remember_secret(NAMED)
        cleaning._known_clean()  # somebody else asks with the new secret in mind
        return found

    monkeypatch.setattr(cleaning, "redact_value", look_slowly)
    clean_attributes({"said": NAMED})
    monkeypatch.undo()
    assert clean_attributes({"said": NAMED}) == {"said": REDACTED}


def test_the_same_text_is_told_apart_by_its_name() -> None:
    """A value is replaced for its attribute's name, whatever other attribute has said it before."""
    assert clean_attributes({"said": NAMED}) == {"said": NAMED}
    assert clean_attributes({"password": NAMED}) == {"password": REDACTED}


def test_what_is_remembered_as_clean_is_bounded() -> None:
    """Values that never come again are forgotten, and long ones are not kept at all."""
    for number in range(cleaning.MAX_KEPT + 10):
        clean_attributes({"said": str(number)})
    assert 0 < len(cleaning._known_clean()) <= cleaning.MAX_KEPT
    long = "x" * (cleaning.MAX_KEPT_TEXT + 1)
    clean_attributes({"said": long})
    assert ("said", long) not in cleaning._known_clean()
