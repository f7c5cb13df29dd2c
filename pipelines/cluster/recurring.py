"""Recurring runs that kfloop made, told from those of others by the label in their description."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfloop.pipelines.cluster.client import Server
    from kfloop.pipelines.cluster.transport import JSON

LABEL = re.compile(r"kfloop-schedule set=(?P<set>[a-z0-9-]+) name=(?P<name>[a-z0-9-]+) digest=(?P<digest>[0-9a-f]+)")


@dataclass(frozen=True, kw_only=True)
class Recurring:
    """A recurring run that kfloop made.

    Attributes:
        id: KFP's id.
        set: Set of schedules it belongs to.
        name: Name in that set.
        digest: Digest of what it was made from.
        enabled: Whether it runs.
        made: The recurring run as the API gives it.
    """

    id: str
    set: str
    name: str
    digest: str
    enabled: bool
    made: JSON

    @property
    def cron(self) -> str:
        """When it runs."""
        return str(((self.made.get("trigger") or {}).get("cron_schedule") or {}).get("cron", ""))


def list_recurring(server: Server, namespace: str) -> list[Recurring]:
    """Recurring runs of a namespace that kfloop made, by name."""
    found = [made for made in map(recurring_of, server.recurring(namespace)) if made is not None]
    return sorted(found, key=lambda one: (one.name, not one.enabled, str(one.made.get("created_at", "")), one.id))


def recurring_of(made: JSON) -> Recurring | None:
    """The recurring run, if kfloop made it."""
    label = LABEL.search(str(made.get("description", "")))
    if label is None or not made.get("recurring_run_id"):
        return None
    return Recurring(
        id=str(made["recurring_run_id"]), enabled=made.get("status") == "ENABLED", made=made, **label.groupdict()
    )
