"""Projects: where they stand, and completing one."""

import logging

import pandas as pd
import streamlit as st
from shared import engine, euros, header

from streamlit_extension.demo import queries
from streamlit_extension.demo.models import ProjectStatus

log = logging.getLogger("demo.projects")
header("Projects", "Progress is the share of a project's tasks that is done")

choice = st.segmented_control("Status", ["all", *ProjectStatus], default="active", label_visibility="collapsed")
found = queries.projects(engine(), None if choice in (None, "all") else str(choice))
columns = st.columns(3)
columns[0].metric("Projects", len(found), border=True)
columns[1].metric("Budget", euros(float(sum(each["budget"] for each in found))), border=True)
average = sum(each["progress"] for each in found) / len(found) if found else 0
columns[2].metric("Average progress", f"{average:.0%}", border=True)

table = pd.DataFrame(found)
if not table.empty:
    table["budget"] = table["budget"].astype(float)
    st.dataframe(
        table.drop(columns="id"),
        hide_index=True,
        width="stretch",
        column_config={
            "project": "Project",
            "client": "Client",
            "status": "Status",
            "budget": st.column_config.NumberColumn("Budget", format="euro"),
            "due_on": st.column_config.DateColumn("Due", format="D MMM YYYY"),
            "progress": st.column_config.ProgressColumn("Progress", format="percent", min_value=0, max_value=1),
        },
    )

open_projects = {
    f"{each['project']} — {each['client']}": each["id"] for each in found if each["status"] != ProjectStatus.COMPLETED
}
if open_projects:
    with st.form("complete"):
        st.markdown("##### Complete a project")
        name = st.selectbox("Project to complete", list(open_projects))
        if st.form_submit_button("Complete project", icon=":material/task_alt:"):
            queries.complete_project(engine(), open_projects[str(name)])
            log.info("project completed", extra={"project_id": open_projects[str(name)]})
            st.toast(f"{name} is completed", icon=":material/celebration:")
            st.rerun()
