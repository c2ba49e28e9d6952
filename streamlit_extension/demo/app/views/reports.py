"""Reports: a cached query, and one that takes its time."""

import time

import altair as alt
import pandas as pd
import streamlit as st
from shared import engine, header

from streamlit_extension.demo import queries


@st.cache_data(ttl=300, show_spinner="Asking the database …")
def workload() -> pd.DataFrame:
    """Hours by person; asked at most every five minutes."""
    return pd.DataFrame(queries.workload(engine())).astype({"open": float, "done": float})


header("Reports", "Figures for the monthly meeting")
with st.container(border=True):
    st.markdown("##### Workload")
    hours = workload()
    long = hours.melt("assignee", var_name="state", value_name="hours")
    chart = (
        alt.Chart(long)
        .mark_bar(cornerRadiusEnd=4)
        .encode(
            x=alt.X("hours:Q", title="hours"),
            y=alt.Y("assignee:N", title=None),
            color=alt.Color("state:N", title=None, scale=alt.Scale(range=["#3d5afe", "#b3c0ff"])),
            tooltip=["assignee", "state", alt.Tooltip("hours", format=".1f")],
        )
        .properties(height=260)
    )
    st.altair_chart(chart, width="stretch")
    st.download_button("Download as CSV", hours.to_csv(index=False), "workload.csv", "text/csv")

with st.container(border=True):
    st.markdown("##### Forecast")
    st.caption("A slow computation, on purpose")
    if st.button("Compute forecast", type="primary"):
        bar = st.progress(0.0, "Simulating …")
        for step in range(20):
            time.sleep(0.12)
            bar.progress((step + 1) / 20, f"Simulating week {step + 1} of 20")
        bar.empty()
        weeks = -(-queries.open_tasks(engine()) // 11)
        st.success(f"At this pace the open tasks are done in about {weeks} weeks.", icon=":material/event_available:")
