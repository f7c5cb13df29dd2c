"""Keeping house: removing blobs that nothing names any more, backing state and store up, bringing them back."""

KEPT_RUNS = 20  # newest runs of each loop all of whose blobs stay, unless told otherwise
