"""Files of a folder, and what says their labels."""
