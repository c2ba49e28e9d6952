"""Operations: live figures, and things that go wrong on purpose."""

import logging
from datetime import UTC, datetime

import streamlit as st
from shared import engine, header

from streamlit_extension.demo import queries

log = logging.getLogger("demo.operations")
header("Operations", "Look here while you break things")


@st.fragment(run_every="2s")
def live() -> None:
    """Figures that refresh themselves."""
    columns = st.columns(3)
    columns[0].metric("Open tasks", queries.open_tasks(engine()), border=True)
    columns[1].metric("Connections in use", engine().pool.checkedout(), border=True)  # type: ignore[attr-defined]
    columns[2].metric("Time (UTC)", f"{datetime.now(UTC):%H:%M:%S}", border=True)


live()
left, right = st.columns(2)
with left, st.container(border=True):
    st.markdown("##### Fail")
    st.caption("Raises an error that nobody catches")
    if st.button("Break something", icon=":material/bolt:"):
        raise RuntimeError("This was asked for")
with right, st.container(border=True):
    st.markdown("##### Log")
    st.caption("Writes a line that belongs to this run")
    if st.button("Write a log line", icon=":material/edit_note:"):
        log.warning("somebody pressed the button", extra={"page": "operations"})
        st.toast("Written")
