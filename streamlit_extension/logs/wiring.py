"""Logging as the settings say, with the settings' own secrets known to the guard."""

from __future__ import annotations

from otel.guard import remember_secrets
from streamlit_extension._settings_load import secrets_of
from streamlit_extension.logs.setup import LoggingConfiguration, configure_logging
from streamlit_extension.settings import Settings


def log_as_set(settings: Settings) -> LoggingConfiguration:
    """Let every log line of the process leave as the settings say."""
    know_secrets(settings)
    return configure_logging(
        log_format=settings.log_format,
        log_level=settings.log_level,
        service=settings.service_name,
        gelf_url=settings.gelf_url,
    )


def know_secrets(settings: Settings, *more: str | None) -> None:
    """Never print the settings' secrets; those in files change, so this is said again with every heartbeat."""
    remember_secrets(*secrets_of(settings), *(each for each in more if each))
