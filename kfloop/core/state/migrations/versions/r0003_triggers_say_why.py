"""A trigger says what it is for, and how many labels there were."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns ``cause`` and ``labels`` to ``triggers``."""
    op.add_column("triggers", sa.Column("cause", sa.String(32), nullable=False, server_default=""))
    op.add_column("triggers", sa.Column("labels", sa.Integer))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("triggers", "labels")
    op.drop_column("triggers", "cause")
