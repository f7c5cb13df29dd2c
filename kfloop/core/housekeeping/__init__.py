"""Keeping house: removing blobs that nothing names any more, backing state and store up, bringing them back."""
