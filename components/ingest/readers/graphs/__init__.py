"""Graphs: one with labelled nodes, or a folder of small ones."""
