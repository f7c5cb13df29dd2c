"""Time series in CSV or Parquet."""
