"""What the pages share: the engine, the day, and how figures are written."""

import sys
from datetime import UTC, date, datetime

import streamlit as st
from sqlalchemy import Engine, create_engine


@st.cache_resource
def engine() -> Engine:
    """The one engine of the application; its URL is the script's first argument."""
    return create_engine(sys.argv[1], pool_pre_ping=True)


def today() -> date:
    """The day in UTC."""
    return datetime.now(UTC).date()


def euros(amount: float) -> str:
    """An amount for people: `€ 1.28 M`, `€ 96 k`."""
    if amount >= 1_000_000:
        return f"€ {amount / 1_000_000:.2f} M"
    return f"€ {amount / 1000:,.0f} k"


def header(title: str, subtitle: str) -> None:
    """The head of a page."""
    st.title(title)
    st.caption(subtitle)
