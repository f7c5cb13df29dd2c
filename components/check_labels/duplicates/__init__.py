"""Exact and near duplicates: contradictions, and leakage across splits."""
