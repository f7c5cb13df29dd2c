"""Decisions in the store: each holds the reports it rests on, so that anybody can see whether something was changed since.

``report.json`` is the gate's report, ``evidence.json`` the reports that it judged. The evidence digest, which a person approves and the
ledger keeps, names both: an edited report, or the report of another run put in its place, does not match it any more.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import REPORT, canonical_json, folder_digest, read_report, sha256_text
from kfloop.core.store import Store
from kfloop.errors import KfloopError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

EVIDENCE = "evidence.json"
KIND = "decisions"
# Prose with the digest in it, and the digest itself. Everything else in a decision is what the digest names.
NOT_NAMED = ("reason", "evidence_digest")
MEND = "run the loop again: kfloop run --force"
# A step whose result is gone is done again; one that is there, edited or not, would be taken from the cache.
REMOVE = "remove that folder, then decide again: kfloop run --force"


def reports_digest(reports: Mapping[str, Any], absent: Iterable[str]) -> str:
    """Content digest of the reports a decision rests on, and of which are absent."""
    return sha256_text(canonical_json({"reports": reports, "absent": sorted(absent)}))


def evidence_digest(report: Mapping[str, Any]) -> str:
    """Digest of a decision: its reports, verdicts, outcome and all else it says but the prose.

    Args:
        report: The gate's report as plain JSON types.
    """
    return sha256_text(canonical_json({key: value for key, value in report.items() if key not in NOT_NAMED}))


def write_evidence(out: Path, reports: Mapping[str, Any], absent: Iterable[str]) -> None:
    """Keep the reports beside the decision."""
    text = canonical_json({"reports": reports, "absent": sorted(absent)})
    (out / EVIDENCE).write_text(text + "\n", encoding="utf-8")


def read_evidence(folder: Path) -> dict[str, dict[str, Any]]:
    """The reports that a decision rests on, by source; empty where they cannot be read."""
    try:
        found = json.loads((folder / EVIDENCE).read_text(encoding="utf-8"))["reports"]
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return found if isinstance(found, dict) else {}


def read_decision(folder: Path) -> dict[str, Any]:
    """The gate's report, after a check that it and its evidence are what its digest names.

    Raises:
        StateError: It is missing, unreadable, names no evidence, or was changed since the gate wrote it.
    """
    try:
        report = read_report(folder)
    except (OSError, ValueError, TypeError) as error:
        raise StateError(f"there is no readable decision in '{folder}': {error}", hint=MEND) from error
    named = report.get("evidence_digest")
    if not named:
        raise StateError(f"the decision in '{folder}' names no evidence", hint=MEND)
    if evidence_digest(report) != named:
        raise StateError(
            f"'{folder / REPORT}' was changed after the gate wrote it: its content no longer gives evidence digest '{named}'",
            hint=REMOVE,
        )
    try:
        kept = json.loads((folder / EVIDENCE).read_text(encoding="utf-8"))
        found = reports_digest(kept["reports"], kept["absent"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StateError(
            f"the reports that decision '{named}' rests on cannot be read: {error!r}", hint=REMOVE
        ) from error
    if found != report.get("reports_digest"):
        raise StateError(
            f"'{folder / EVIDENCE}' was changed after the gate wrote it: it holds reports '{found}', the decision rests on "
            f"'{report.get('reports_digest')}'",
            hint=REMOVE,
        )
    return report


def published(workspace: Workspace, folder: Path) -> str:
    """Content digest of a decision's folder, after a check that a step put exactly that into the store.

    Raises:
        StateError: The store has no such decision: it was edited or written by hand.
    """
    found = folder_digest(folder)
    if not Store.of(workspace).has(KIND, found):
        raise StateError(
            f"the decision in '{folder}' was not made by the gate of this loop: its content '{found}' is no decision of store "
            f"'{workspace.store}'",
            hint="nothing is deployed on it; " + MEND,
        )
    return found


def stored_decision(workspace: Workspace, blob: str, evidence: str) -> tuple[Path, dict[str, Any]]:
    """A decision in the store: its folder and report, both checked.

    Args:
        workspace: Places of the loop.
        blob: Content digest of the decision's folder, as the ledger keeps it.
        evidence: The evidence digest it must have.

    Raises:
        StateError: It is not there, was changed, or is another decision.
    """
    folder = Store.of(workspace).require(KIND, blob)
    found = folder_digest(folder)
    report = read_decision(folder)
    if found != blob or report["evidence_digest"] != evidence:
        raise StateError(
            f"'{folder}' was changed after it was written: it holds evidence '{report['evidence_digest']}' (content {found}), "
            f"expected evidence '{evidence}' (content {blob})",
            hint=REMOVE,
        )
    return folder, report


def find_decision(workspace: Workspace, evidence: str) -> tuple[Path, dict[str, Any]] | None:
    """A decision by its whole evidence digest, for ledger rows that do not name the blob; null where the store has none."""
    store = Store.of(workspace)
    for digest in sorted(store.digests(KIND)):
        folder = store.path(KIND, digest)
        try:
            report = read_decision(folder)
        except StateError:
            continue
        if report["evidence_digest"] == evidence:
            return folder, report
    return None


def reports_behind(workspace: Workspace, entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """The decision of a ledger row and the reports it rests on, by step; both empty where the store has lost it or it was changed.

    Args:
        workspace: Places of the loop.
        entry: The row.
    """
    blob = entry.details.get("decision")
    try:
        found = (
            stored_decision(workspace, str(blob), entry.evidence_digest)
            if blob
            else find_decision(workspace, entry.evidence_digest)
        )
    except (KfloopError, OSError):
        found = None
    return ({}, {}) if found is None else (found[1], dict(read_evidence(found[0])))
