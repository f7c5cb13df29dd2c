"""Bless: a real Triton tries the packaged model before anything is decided."""
