"""Readers of sources, one for each layout."""
