"""Texts: lines with a label, or a folder of text files."""
