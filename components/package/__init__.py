"""Export of a checkpoint to the folder that is scored, blessed and served."""
