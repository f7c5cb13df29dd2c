"""The file that Triton's python backend runs; it is copied into the model repository and never imported from here."""
