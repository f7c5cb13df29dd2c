"""Simple models that a deep one is compared with."""
