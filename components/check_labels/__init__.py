"""Find the labels that are probably wrong."""
