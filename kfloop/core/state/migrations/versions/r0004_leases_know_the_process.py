"""A lease says when its process began, so that another one that got the same pid is not taken for it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column ``born`` to ``leases``."""
    op.add_column("leases", sa.Column("born", sa.Float))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("leases", "born")
