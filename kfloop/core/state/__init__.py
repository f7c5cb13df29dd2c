"""State of a loop: runs, steps, ledger, leases, triggers and monitor state in one SQL schema."""

from kfloop.core.state.database import State, open_state

__all__ = ["State", "open_state"]
