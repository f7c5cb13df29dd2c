"""The request log as the monitor needs it: read in chunks, unpacked into columns, each row once."""
