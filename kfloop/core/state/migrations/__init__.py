"""Alembic migrations of the state schema; each released version can be brought to the next."""
