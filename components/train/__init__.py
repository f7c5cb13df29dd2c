"""Training of the challenger."""
