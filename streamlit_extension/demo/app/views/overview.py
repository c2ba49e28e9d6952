"""Key figures, work done by week, budget by industry, the next deadlines."""

import altair as alt
import pandas as pd
import streamlit as st
from shared import engine, euros, header, today

from streamlit_extension.demo import queries

header("Overview", f"How the studio is doing, as of {today():%d %B %Y}")

now = queries.figures(engine(), today())
columns = st.columns(4)
with columns[0]:
    st.metric("Clients", f"{now['clients']:.0f}", f"{now['new_clients']:.0f} new this month", border=True)
with columns[1]:
    st.metric("Active projects", f"{now['active']:.0f}", f"{now['completed']:.0f} completed", border=True)
with columns[2]:
    change = now["done"] - now["done_before"]
    st.metric("Tasks done, 4 weeks", f"{now['done']:.0f}", f"{change:+.0f} on before", border=True)
with columns[3]:
    st.metric("Budget under way", euros(now["budget"]), f"{now['active']:.0f} projects", delta_color="off", border=True)

left, right = st.columns([3, 2])
with left, st.container(border=True):
    st.markdown("##### Tasks done by week")
    weeks = pd.DataFrame(queries.throughput(engine(), today()))
    weeks["label"] = pd.to_datetime(weeks["week"]).dt.strftime("%d %b")
    base = alt.Chart(weeks).encode(
        x=alt.X("label:N", sort=None, title=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("tasks:Q", title=None, axis=alt.Axis(tickMinStep=1, grid=True)),
        tooltip=[alt.Tooltip("label", title="Week of"), alt.Tooltip("tasks", title="Tasks")],
    )
    st.altair_chart(base.mark_bar(cornerRadiusEnd=5, size=30, color="#5c73ff").properties(height=270), width="stretch")
with right, st.container(border=True):
    st.markdown("##### Budget by industry")
    budget = pd.DataFrame(queries.budget_by_industry(engine()))
    budget["budget"] = budget["budget"].astype(float) / 1000
    chart = (
        alt.Chart(budget)
        .mark_bar(cornerRadiusEnd=4, color="#5c73ff")
        .encode(
            y=alt.Y("industry:N", sort="-x", title=None, axis=alt.Axis(labelOverlap=False)),
            x=alt.X("budget:Q", title="thousand euros"),
            tooltip=["industry", alt.Tooltip("budget", format=",.0f", title="thousand euros")],
        )
        .properties(height=270)
    )
    st.altair_chart(chart, width="stretch")

with st.container(border=True):
    st.markdown("##### Next deadlines")
    st.dataframe(
        pd.DataFrame(queries.deadlines(engine(), today())),
        hide_index=True,
        width="stretch",
        column_config={
            "project": "Project",
            "client": "Client",
            "due_on": st.column_config.DateColumn("Due", format="D MMM YYYY"),
            "progress": st.column_config.ProgressColumn("Progress", format="percent", min_value=0, max_value=1),
        },
    )
