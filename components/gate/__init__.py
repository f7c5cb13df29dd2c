"""Gate: reports in, one verdict per rule and one decision out; fails closed."""
