"""Whether the service is well, and whether requests hold what the training rows held."""
