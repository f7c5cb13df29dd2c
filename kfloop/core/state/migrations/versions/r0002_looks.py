"""Looks at the holdout: which challenger was judged on which test rows."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the table ``looks``."""
    op.create_table(
        "looks",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("loop", sa.String(64), nullable=False),
        sa.Column("challenger_digest", sa.String(64), nullable=False),
        sa.Column("test_digest", sa.String(64), nullable=False),
        sa.Column("sketch", sa.Text, nullable=False),
        sa.Column("evidence_digest", sa.String(64), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.UniqueConstraint("loop", "challenger_digest", "test_digest", name="one_look"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("looks")
