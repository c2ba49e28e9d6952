"""Logs and traces that other programs keep, asked as the embedded store is: VictoriaLogs and Jaeger."""

from __future__ import annotations

from streamlit_extension.remote.source import RemoteSource, remote_source

__all__ = ["RemoteSource", "remote_source"]
