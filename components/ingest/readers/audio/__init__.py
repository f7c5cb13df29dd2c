"""Folders of wav and flac files."""
