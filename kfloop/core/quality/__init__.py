"""How good the answers of a champion are: estimated without labels, and measured when labels come late and biased."""
