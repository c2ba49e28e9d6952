"""Adapters to the libraries that an application is made of."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"


def stable_names_opt_in(environ: MutableMapping[str, str]) -> None:
    """Ask for the stable names of HTTP and databases, beside what the user asks for already.

    To be called before anything is instrumented: the contributed instrumentations read nothing but `os.environ`, once.
    """
    given = environ.get(_OPT_IN, "").strip()
    named = {each.strip().partition("/")[0] for each in given.split(",")}
    environ[_OPT_IN] = ",".join(
        [*([given] if given else []), *(each for each in ("http", "database") if each not in named)]
    )


def ask_for_stable_names() -> None:
    """The entry point that `opentelemetry-instrument` calls before it instruments anything."""
    stable_names_opt_in(os.environ)
