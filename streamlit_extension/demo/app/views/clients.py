"""Clients: find them, add one."""

import logging

import pandas as pd
import streamlit as st
from shared import engine, header
from sqlalchemy.exc import IntegrityError

from streamlit_extension.demo import queries

log = logging.getLogger("demo.clients")
header("Clients", "Everybody the studio works for")

left, right = st.columns([2, 1])
search = left.text_input("Search", placeholder="Part of a name")
industry = right.selectbox("Industry", ["All", *queries.industries(engine())])
found = pd.DataFrame(queries.clients(engine(), None if industry == "All" else industry, search))
if found.empty:
    st.info("No client matches. Try fewer letters, or all industries.", icon=":material/search_off:")
else:
    found["budget"] = found["budget"].astype(float)
    st.dataframe(
        found,
        hide_index=True,
        width="stretch",
        column_config={
            "name": "Client",
            "industry": "Industry",
            "contact": "Contact",
            "projects": st.column_config.NumberColumn("Projects"),
            "budget": st.column_config.NumberColumn("Budget", format="euro"),
            "created_at": st.column_config.DateColumn("Client since", format="MMM YYYY"),
        },
    )

with st.form("add", clear_on_submit=True):
    st.markdown("##### Add a client")
    columns = st.columns(3)
    name = columns[0].text_input("Name")
    sector = columns[1].text_input("Industry of the client")
    contact = columns[2].text_input("Contact")
    if st.form_submit_button("Add client", type="primary", icon=":material/add:"):
        if not (name.strip() and sector.strip() and contact.strip()):
            st.error("Name, industry and contact are all needed.", icon=":material/error:")
        else:
            try:
                queries.add_client(engine(), name.strip(), sector.strip(), contact.strip())
            except IntegrityError:
                st.error(f"There is already a client named {name.strip()}.", icon=":material/error:")
            else:
                log.info("client added", extra={"client_industry": sector.strip()})
                st.success(f"{name.strip()} was added.", icon=":material/check_circle:")
