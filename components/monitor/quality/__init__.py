"""What the answers are worth: estimated without labels, and realised with late ones."""
