"""Tables: CSV, Parquet, JSON lines."""
