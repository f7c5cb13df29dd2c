"""Replaying a table in the order of time: what the monitor would have done, at what cost, with what accuracy, beside simpler policies."""
