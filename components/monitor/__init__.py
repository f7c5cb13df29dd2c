"""Watch the champion's traffic and conclude one trigger."""
