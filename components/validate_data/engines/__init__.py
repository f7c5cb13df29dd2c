"""Evaluating a suite: Great Expectations, or polars for big tables; the same verdicts."""
