"""LightningModules: how the families are trained. The networks themselves are in ``kfloop.core.families``."""
