"""Scoring of challenger, champion and baseline on the same test rows."""
