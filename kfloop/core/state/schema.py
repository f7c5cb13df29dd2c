"""The SQL schema, the same on sqlite and PostgreSQL. Migrations under ``migrations/`` create and change it."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("loop", String(64), nullable=False),
    Column("pipeline", String(32), nullable=False),
    Column("status", String(32), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("started", Float, nullable=False),
    Column("finished", Float),
    Column("record", Text, nullable=False),
    Index("runs_by_loop", "loop", "started"),
)

steps = Table(
    "steps",
    metadata,
    Column("run_id", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("step", String(64), nullable=False),
    Column("event", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("payload", Text, nullable=False),
    PrimaryKeyConstraint("run_id", "number"),
)

ledger = Table(
    "ledger",
    metadata,
    Column("loop", String(64), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    PrimaryKeyConstraint("loop", "seq"),
)

leases = Table(
    "leases",
    metadata,
    Column("loop", String(64), primary_key=True),
    Column("token", String(64), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("acquired", Float, nullable=False),
    Column("heartbeat", Float, nullable=False),
    Column("born", Float),
)

monitors = Table(
    "monitors",
    metadata,
    Column("loop", String(64), nullable=False),
    Column("champion_digest", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    Column("row_version", Integer, nullable=False),
    PrimaryKeyConstraint("loop", "champion_digest"),
)

triggers = Table(
    "triggers",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("loop", String(64), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("trigger", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("champion_digest", String(64), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("evidence_digest", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("cause", String(32), nullable=False, server_default=""),
    Column("labels", Integer),
    Index("triggers_by_loop", "loop", "at"),
)

looks = Table(
    "looks",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("loop", String(64), nullable=False),
    Column("challenger_digest", String(64), nullable=False),
    Column("test_digest", String(64), nullable=False),
    Column("sketch", Text, nullable=False),
    Column("evidence_digest", String(64), nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("loop", "challenger_digest", "test_digest", name="one_look"),
)
