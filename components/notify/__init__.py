"""Notify: says how a run ended: in its folder always, to a webhook when one is configured."""
