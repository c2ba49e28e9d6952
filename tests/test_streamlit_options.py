"""Streamlit's options, read and, where the user has not chosen, set."""

from __future__ import annotations

import pytest
from streamlit import config

from streamlit_extension.streamlit_options import log_errors_as_records

RICH = "logger.enableRich"


def test_errors_are_logged_also_after_streamlit_has_read_its_options_anew() -> None:
    """Streamlit's printing by `rich` stays off when a file of options changes, and is put back exactly."""
    before = config.get_option(RICH), config.get_where_defined(RICH)
    undo = log_errors_as_records()
    try:
        assert config.get_option(RICH) is False
        config.get_config_options(force_reparse=True)
        assert config.get_option(RICH) is False
    finally:
        undo()
    assert (config.get_option(RICH), config.get_where_defined(RICH)) == before
    config.get_config_options(force_reparse=True)
    assert (config.get_option(RICH), config.get_where_defined(RICH)) == before


def test_who_asks_for_rich_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that the user has set is the user's."""
    monkeypatch.setitem(config._config_options, RICH, config.get_config_options()[RICH])  # type: ignore[arg-type]
    config.set_option(RICH, True, "command-line argument or environment variable")
    undo = log_errors_as_records()
    assert config.get_option(RICH) is True
    undo()
    assert config.get_option(RICH) is True
    config.get_config_options(force_reparse=True)
