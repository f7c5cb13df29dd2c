"""What was measured and asked before the champion was promoted: the suite of its training rows, its latency when it was blessed, its price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.monitor.health.requirements import Requirements
from kfloop.core.artifacts import report_if_any
from kfloop.core.decisions import reports_behind
from kfloop.core.store import Store

if TYPE_CHECKING:
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

VALIDATIONS = "validations"


@dataclass(frozen=True, kw_only=True)
class Promises:
    """What health is compared with; each part is empty or None where the store does not know it.

    Attributes:
        requirements: Expectations that the training rows were held against.
        ms_p95: 95th percentile of the latency under the blessing's load, milliseconds.
        price_per_1000: What 1000 answers cost.
    """

    requirements: Requirements
    ms_p95: float | None = None
    price_per_1000: float | None = None


def promises(champion: Entry, workspace: Workspace) -> Promises:
    """Read them from the store; a part that is missing or unreadable is left out, and never stops a round.

    Args:
        champion: The ledger's row that made it champion.
        workspace: Places of the loop.
    """
    store = Store.of(workspace)
    dataset = report_if_any(store.path("models", champion.model_digest)).get("dataset_digest")
    _, reports = reports_behind(workspace, champion)
    cost = _mapping(_mapping(_mapping(reports.get("evaluate")).get("cost")).get("challenger"))
    return Promises(
        requirements=Requirements.of(_suite(store, dataset)),
        ms_p95=_number(_mapping(_mapping(reports.get("bless")).get("latency_ms")).get("p95")),
        price_per_1000=_number(cost.get("price_per_1000")),
    )


def _suite(store: Store, dataset: Any) -> list[Any]:
    """The suite of the latest validation of a dataset version; validations of older kfloops did not keep it."""
    found = (report_if_any(store.path(VALIDATIONS, digest)) for digest in reversed(store.digests(VALIDATIONS)))
    match = next((report for report in found if report.get("dataset_digest") == dataset and dataset), {})
    suite = match.get("suite")
    return suite if isinstance(suite, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
