"""Arrays: npz and IDX."""
