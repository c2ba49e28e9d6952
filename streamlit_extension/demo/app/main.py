"""The sample application: clients, projects and tasks. A plain Streamlit script."""

from pathlib import Path

import streamlit as st

LOGO = Path(__file__).parent / "logo.svg"
st.set_page_config(page_title="Studio Ledger", page_icon=LOGO, layout="wide")

pages = st.navigation(
    {
        "": [
            st.Page("views/overview.py", title="Overview", icon=":material/space_dashboard:", default=True),
        ],
        "Work": [
            st.Page("views/clients.py", title="Clients", icon=":material/handshake:"),
            st.Page("views/projects.py", title="Projects", icon=":material/folder_open:"),
            st.Page("views/tasks.py", title="Tasks", icon=":material/checklist:"),
        ],
        "Insight": [
            st.Page("views/reports.py", title="Reports", icon=":material/query_stats:"),
            st.Page("views/operations.py", title="Operations", icon=":material/monitor_heart:"),
        ],
    }
)
st.logo(LOGO, size="large")
with st.sidebar:
    st.caption("Studio Ledger, a sample with invented data")
pages.run()
