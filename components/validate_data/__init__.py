"""Hold a dataset version against its expectations."""
