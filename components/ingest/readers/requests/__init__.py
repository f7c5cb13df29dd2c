"""The request log, joined with feedback."""
