"""What an expectation means and how polars judges it: for the rows that are trained on, and for those that are asked about."""
