"""Labels: which column, which classes, how they are encoded."""
