"""What a decision must be, besides unchanged, before it may make a champion: passed in every verdict, still resting on what it rested on,
used for no other promotion, and about a challenger that nobody turned down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.core.state.entries import champion_of
from kfloop.core.state.standing import active_overrides, told_down, turned_down
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.core.state.entries import Entry

AGAIN = "decide again: kfloop run --force"
PROMOTING = ("all_passed", "overridden")


def refuse_unpassed(report: dict[str, Any]) -> None:
    """Refuse a decision whose own verdicts do not allow a promotion.

    Raises:
        StateError: There is no verdict, or an enforced one that nobody overrode is not ``pass``.
    """
    verdicts = report.get("verdicts") or []
    if not verdicts:
        raise StateError(f"decision '{_short(report)}' has no verdicts, so nothing allows a promotion", hint=AGAIN)
    failed = [
        line
        for line in verdicts
        if line.get("verdict") != "pass" and line.get("mode", "enforce") == "enforce" and not line.get("overridden_by")
    ]
    if failed:
        raise StateError(
            f"decision '{_short(report)}' says '{report.get('outcome')}', but {len(failed)} of its verdicts forbid a promotion: "
            f"{failed[0].get('rule')} is '{failed[0].get('verdict')}'",
            hint=AGAIN,
        )


def refuse_ended(history: Sequence[Entry], report: dict[str, Any]) -> None:
    """Refuse a decision that rests on an override which lasts no more.

    Args:
        history: All rows of the loop, oldest first.
        report: The decision.

    Raises:
        StateError: An override that it used was ended, replaced or is over.
    """
    lasting = {(override.rule, override.row) for override in active_overrides(history)}
    used = [line["overridden_by"] for line in report.get("verdicts") or [] if line.get("overridden_by")]
    gone = [line for line in used if (line.get("rule"), line.get("row")) not in lasting]
    if gone:
        row = gone[0]
        raise StateError(
            f"decision '{_short(report)}' rests on the override of '{row.get('rule')}' by {row.get('who')} (until {row.get('ends')}, ledger "
            f"row {row.get('row')}), which lasts no more",
            hint=f"override it again (kfloop override RULE) or mend it, then {AGAIN}",
        )


def refuse_spent(history: Sequence[Entry], report: dict[str, Any]) -> None:
    """Refuse a decision to promote that was used before, or whose challenger only a person may promote.

    Args:
        history: All rows of the loop, oldest first.
        report: The decision.

    Raises:
        StateError: It made a champion before, was held, or somebody turned its challenger down.
    """
    code = report.get("code", PROMOTING[0])
    held = any(row.action == "hold" and row.evidence_digest == report["evidence_digest"] for row in history)
    if held or code not in PROMOTING:
        raise StateError(
            f"decision '{_short(report)}' was held ('{code}'): only a person promotes its challenger",
            hint="see who waits: kfloop status; then: kfloop approve RUN",
        )
    done = [row for row in history if row.phase == "done" and row.evidence_digest == report["evidence_digest"]]
    if done:
        now = champion_of(list(history))
        raise StateError(
            f"decision '{_short(report)}' made version {done[-1].version} champion before (ledger row {done[-1].seq}), and version "
            f"{now.version if now else 0} is champion since: a decision is for one promotion",
            hint=AGAIN,
        )
    down = turned_down(history, str(report.get("challenger_digest")))
    if down is not None:
        raise StateError(
            f"{told_down(down)}: only a person may promote it again",
            hint="kfloop run --force holds it, then: kfloop approve RUN",
        )


def _short(report: dict[str, Any]) -> str:
    return str(report.get("evidence_digest"))[:12]
