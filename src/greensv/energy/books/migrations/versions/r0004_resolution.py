"""How often the counter behind a window's figure changes."""

from alembic import op
from sqlalchemy import Column, Double

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; windows of before have none."""
    op.add_column("greensv_windows", Column("resolution_s", Double))
