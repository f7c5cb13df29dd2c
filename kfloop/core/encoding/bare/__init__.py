"""What encoding does once a column is a list or an array: Python and NumPy alone, one definition for training and serving.

Nothing here imports kfloop or pyarrow: this folder is copied beside each served version of texts and tables, and runs in the server's own
environment, where neither is.
"""
