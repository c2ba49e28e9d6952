"""Alembic's environment: the connection comes from the caller, who holds the lock."""

from alembic import context

from streamlit_extension.demo.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
