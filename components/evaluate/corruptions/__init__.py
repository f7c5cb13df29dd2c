"""Test rows with noise, gaps and the like, and what becomes of the answers."""
