"""Tasks on a board of three columns."""

import streamlit as st
from shared import engine, header

from streamlit_extension.demo import queries
from streamlit_extension.demo.models import TaskStatus

header("Tasks", "Move a task on when it is")

person = st.selectbox("Assignee", ["Everybody", *queries.assignees(engine())])
found = queries.tasks(engine(), None if person == "Everybody" else str(person))
titles = {TaskStatus.TODO: "To do", TaskStatus.DOING: "In progress", TaskStatus.DONE: "Done"}
following = {TaskStatus.TODO: (TaskStatus.DOING, "Start"), TaskStatus.DOING: (TaskStatus.DONE, "Done")}

for column, (status, title) in zip(st.columns(3), titles.items(), strict=True):
    cards = [each for each in found if each["status"] == status]
    with column:
        st.markdown(f"##### {title} · {len(cards)}")
        for card in cards[:6]:
            with st.container(border=True):
                st.markdown(f"**{card['title']}**")
                st.caption(f"{card['project']} · {card['assignee']} · {card['hours']:g} h")
                if status in following:
                    target, label = following[status]
                    st.button(
                        label,
                        key=f"move-{card['id']}",
                        on_click=queries.move_task,
                        args=(engine(), card["id"], target),
                    )
        if len(cards) > 6:
            st.caption(f"and {len(cards) - 6} more")
