"""The command that opens the telemetry page of a running process."""

from __future__ import annotations

from urllib.parse import urlsplit

import click

from streamlit_extension.cli import UserError, load_settings
from streamlit_extension.data_folder import make_data_folder
from streamlit_extension.viewer.front import ROOT
from streamlit_extension.viewer.links import LinkBox, link_of


@click.command("link")
@click.option("--url", help="Where the application is reached, e.g. https://app.example.com; by default what it said.")
def link(url: str | None) -> None:
    """Print a link that opens the telemetry page of a running process once, within ten minutes."""
    settings = load_settings()
    folder = make_data_folder(settings)
    if folder.path is None:
        raise UserError(folder.reason)
    links = LinkBox(folder.path)
    page = _page(url, settings.path_prefix) if url is not None else links.address()
    if page is None:
        raise UserError(
            f"no process has said where its telemetry page is (data folder {folder.path}); start it with `run`, or "
            "give --url http://host:port"
        )
    try:
        click.echo(link_of(page, links.make()))
    except OSError as error:
        raise UserError(f"no link can be made in {folder.path}: {error.strerror}") from None


def _page(url: str, prefix: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"--url is {url!r}; allowed is http://host:port or https://host, with the base path if any")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{prefix}{ROOT}/"
