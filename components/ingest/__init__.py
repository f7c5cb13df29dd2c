"""Ingest: a source of labelled images becomes a dataset version."""
