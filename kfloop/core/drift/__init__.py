"""Sequential evidence of drift: what is bet on, what pays for it, and what is promised. See README.md."""
