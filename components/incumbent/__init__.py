"""Incumbent: who is champion now, by the ledger."""
