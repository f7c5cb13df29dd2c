"""Section ``notify``: who is told how a run ended."""

from __future__ import annotations

from kfloop.core.sections.base import Section


class NotifyConfig(Section):
    """Who is told how a run ended."""

    webhook_env: str | None = None
    """NAME of the environment variable that holds a Slack-style webhook URL (the URL itself is a secret)."""
