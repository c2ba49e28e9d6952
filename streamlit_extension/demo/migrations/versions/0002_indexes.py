"""Indexes for what the pages filter and sort by."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDEXES = (
    ("clients", "industry"),
    ("clients", "created_at"),
    ("projects", "client_id"),
    ("projects", "status"),
    ("projects", "due_on"),
    ("tasks", "project_id"),
    ("tasks", "assignee"),
    ("tasks", "status"),
    ("tasks", "done_at"),
)


def upgrade() -> None:
    for table, column in INDEXES:
        op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    for table, column in INDEXES:
        op.drop_index(f"ix_{table}_{column}", table_name=table)
