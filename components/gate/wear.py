"""Wear of the holdout: how often these test rows have judged a challenger before, and what that does to the best result.

Choosing the best of k challengers by their results on the same rows favours the lucky one. The largest of k independent normal errors with
standard error se is near se * sqrt(2 ln k) (e.g. Boucheron, Lugosi, Massart, Concentration Inequalities, 2013, theorem 2.5: at most that).
Dwork et al., "The reusable holdout", Science 2015, describe the effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.gate.evidence import estimated, text
from kfloop.components.gate.levels import standard_error
from kfloop.components.gate.verdicts import Verdict, condition
from kfloop.core.holdout import count_look, named_rows, shared
from kfloop.core.state import open_state

if TYPE_CHECKING:
    from kfloop.components.gate.evidence import Evidence
    from kfloop.core.sections import GateConfig
    from kfloop.core.workspace import Workspace

FRESH = (
    "For a fresh holdout label new rows (a share of them joins the test split; see: kfloop review export), or start a new loop under "
    "another name with another data.split.seed."
)


@dataclass(frozen=True, kw_only=True)
class Wear:
    """How worn the test rows are.

    Attributes:
        looks: Challengers judged on these rows before, each counted by the share of the present rows it was judged on; null when the
            evaluation does not name its rows.
        worn: Whether that is as many as ``gate.looks`` allows.
        sentence: For people.
    """

    looks: float | None
    worn: bool
    sentence: str


def wear_of(config: GateConfig, evidence: Evidence, workspace: Workspace) -> Wear:
    """Count the earlier looks at the present test rows."""
    rows, challenger = _rows(evidence), evidence.challenger_digest
    if rows is None or challenger is None:
        return Wear(
            looks=None,
            worn=False,
            sentence="The evaluation does not name its test rows: the looks at them are not counted.",
        )
    shares: dict[str, float] = {}
    for look in open_state(workspace.state).looks.before(workspace.loop, challenger, rows[0]):
        share = 1.0 if look.test_digest == rows[0] else shared(rows[1], look.sketch)
        shares[look.challenger_digest] = max(share, shares.get(look.challenger_digest, 0.0))
    looks = sum(shares.values())
    worn = looks >= config.looks
    return Wear(looks=looks, worn=worn, sentence=_sentence(config, evidence, looks, worn=worn))


def remember_look(evidence: Evidence, workspace: Workspace, evidence_digest: str) -> None:
    """Record that the present challenger was judged on the present test rows; twice is one look."""
    count_look(evidence.reports.get("evaluate", {}), evidence.challenger_digest, workspace, evidence_digest)


def wear_verdicts(config: GateConfig, wear: Wear) -> list[Verdict]:
    """With ``worn_holdout: reject`` one more condition of every decision; else none, the notes warn."""
    if config.worn_holdout != "reject":
        return []
    met = None if wear.looks is None else not wear.worn
    return [condition("holdout not worn out", met=met, good=wear.sentence, bad=wear.sentence, advice=FRESH)]


def _rows(evidence: Evidence) -> tuple[str, tuple[str, ...]] | None:
    return named_rows(evidence.reports.get("evaluate", {}))


def _sentence(config: GateConfig, evidence: Evidence, looks: float, *, worn: bool) -> str:
    if not looks:
        return "These test rows have judged no other challenger before."
    text_ = f"These test rows have judged {looks:.3g} other challengers before"
    if worn:
        text_ += f", and {config.looks:g} are allowed (gate.looks): they are worn out"
    return f"{text_}.{_optimism(evidence, looks + 1)}" + (f" {FRESH}" if worn else "")


def _optimism(evidence: Evidence, k: float) -> str:
    """By how much the best of ``k`` equally good challengers looks better on these rows; empty where no error is known."""
    metric = text(evidence.at("evaluate", "primary"))
    if metric is None:
        return ""
    compared = evidence.at("evaluate", "differences", "champion", "overall", metric)
    error = _error(compared) or _error(evidence.at("evaluate", "challenger", "overall", metric))
    if error is None:
        return ""
    gain = error * math.sqrt(2 * math.log(k))
    return (
        f" By chance alone the best of {k:.3g} equally good challengers looks better by up to about {gain:.2g} in {metric} "
        f"(standard error {error:.2g} times the root of 2 ln {k:.3g})."
    )


def _error(estimate: Any) -> float | None:
    return standard_error(estimated(estimate, "")) if isinstance(estimate, dict) else None
