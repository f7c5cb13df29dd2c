"""Statistics that decisions rest on: estimates with intervals, bootstrap, betting tests, effect sizes."""
