"""Deciding: reports in, one decision out, with every verdict behind it.

The decision is ``promote`` only when every implied condition and every enforced rule passes. Whatever cannot be judged
rejects, unless a person has overridden that rule on record. With ``approval: manual`` a challenger that passed is on ``hold`` until a
person decides; one that a person turned down before always is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from kfloop.components.gate.evidence import Evidence, collect, text
from kfloop.components.gate.integrity import implied_verdicts
from kfloop.components.gate.measurement import number
from kfloop.components.gate.overriding import overridden, overrides_in_force
from kfloop.components.gate.past import Past, past_of
from kfloop.components.gate.rules import apply_rules, rules_of
from kfloop.components.gate.verdicts import Verdict
from kfloop.components.gate.wear import Wear, remember_look, wear_of, wear_verdicts
from kfloop.core.artifacts import plain, write_report
from kfloop.core.decisions import evidence_digest, write_evidence
from kfloop.core.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kfloop.core.sections import GateConfig
    from kfloop.core.state.standing import Override
    from kfloop.core.workspace import Workspace

MAX_REASONS = 3  # failed rules quoted in the one-line reason; the report holds all


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """A decision and everything it rests on.

    Attributes:
        outcome: ``promote``, ``reject`` or ``hold``.
        reason: Why, in one line.
        code: The same for programs: ``all_passed``, ``overridden`` (all others passed), ``approval_needed``, ``turned_down`` (by a
            person before), ``same_model``, ``not_evaluated`` or ``rules_failed``.
        verdicts: Every implied condition and every rule.
        blocking: Names of those that forbade the promotion, the weightiest first.
        notes: Rules that did not apply, and why.
        champion_digest: Champion the challenger was compared with; None without one.
        challenger_digest: The challenger; None when no report names it.
        dataset_digest: Dataset version of the comparison.
        triton_version: Server that blessed the challenger.
        reports_digest: The reports it rests on, which stand beside it in ``evidence.json``.
        overrides: Overrides of rules that were in force: ``rule``, ``who``, ``why``, ``until``, ``ends``, ``row`` of the ledger.
        looks: Challengers that these test rows judged before, by the share of the rows; None where it is not known.
        holdout: What that means, in a sentence.
        champion_row: Number of the ledger's row that made the champion; 0 for none. A decision is for one promotion.
        evidence_digest: Names exactly this evidence, rules and decision; what a person approves.
    """

    outcome: Literal["promote", "reject", "hold"]
    reason: str
    code: str
    verdicts: tuple[Verdict, ...]
    blocking: tuple[str, ...]
    notes: tuple[str, ...]
    champion_digest: str | None
    challenger_digest: str | None
    dataset_digest: str | None
    triton_version: str | None
    reports_digest: str
    overrides: tuple[dict[str, Any], ...]
    looks: float | None
    holdout: str
    champion_row: int
    evidence_digest: str


def run(
    config: GateConfig,
    *,
    validation: Path,
    labels: Path,
    evaluation: Path,
    blessing: Path,
    out: Path,
    workspace: Workspace,
) -> GateReport:
    """Decide about a challenger, and record the look at the test rows. A report that is missing or unreadable rejects."""
    folders = {"validate": validation, "labels": labels, "evaluate": evaluation, "bless": blessing}
    evidence = collect(folders, Store.of(workspace) if workspace.store else None)
    report = decide(
        config,
        evidence,
        overrides=overrides_in_force(config, workspace),
        wear=wear_of(config, evidence, workspace),
        past=past_of(workspace, evidence.challenger_digest),
    )
    remember_look(evidence, workspace, report.evidence_digest)
    write_evidence(out, evidence.reports, evidence.absent)
    write_report(out, report)
    return report


def decide(
    config: GateConfig,
    evidence: Evidence,
    *,
    overrides: Sequence[Override] = (),
    wear: Wear | None = None,
    past: Past | None = None,
) -> GateReport:
    """The decision on a set of reports; pure.

    Args:
        config: Section ``gate``.
        evidence: The reports.
        overrides: Overrides of rules that are in force.
        wear: How worn the test rows are; null where nobody counts.
        past: What the ledger says of earlier promotions and of this challenger; null where nobody asked.
    """
    past = past or Past()
    wear = wear or Wear(looks=None, worn=False, sentence="")
    judged, notes = apply_rules(rules_of(config, evidence), evidence)
    judged, told = overridden(judged, overrides)
    # An overridden rule decides nothing, so that at least one other must.
    enforced = sum(verdict.mode == "enforce" and verdict.overridden_by is None for verdict in judged)
    verdicts = (*implied_verdicts(evidence, enforced), *wear_verdicts(config, wear), *judged)
    if not evidence.has_champion and "evaluate" in evidence.reports:
        notes.insert(0, "There is no champion: only rules about the challenger alone and the baseline decide.")
    if unjudged := _unjudged_cause(evidence, judged):
        notes.append(unjudged)
    outcome, code, reason = _outcome(config, verdicts, past)
    if outcome != "reject" and (silent := _uncompared(evidence, judged)):
        reason, told = f"{reason}; {silent}", [*told, silent]
    report = GateReport(
        outcome=outcome,
        reason=reason,
        code=code,
        verdicts=verdicts,
        blocking=tuple(verdict.rule for verdict in _blocking(verdicts)),
        notes=(
            *notes,
            *told,
            *([f"{past.turned_down}."] if past.turned_down else []),
            *([wear.sentence] if wear.worn else []),
        ),
        champion_digest=evidence.champion_digest,
        challenger_digest=evidence.challenger_digest,
        dataset_digest=text(evidence.at("evaluate", "dataset_digest")),
        triton_version=text(evidence.at("bless", "triton_version")),
        reports_digest=evidence.digest,
        overrides=tuple(override.as_dict() for override in overrides),
        looks=wear.looks,
        holdout=wear.sentence,
        champion_row=past.champion_row,
        evidence_digest="",
    )
    # Approval names this digest, so it covers the verdicts too: a changed rule needs a new approval.
    digest = evidence_digest(plain(report))
    told_reason = f"{reason}: kfloop approve {digest[:12]}" if outcome == "hold" else reason
    return replace(report, evidence_digest=digest, reason=told_reason)


def _outcome(
    config: GateConfig, verdicts: tuple[Verdict, ...], past: Past
) -> tuple[Literal["promote", "reject", "hold"], str, str]:
    """Outcome, code and reason."""
    blocking = _blocking(verdicts)
    if blocking:
        return "reject", _code(blocking), _reasons(blocking)
    passed = sum(verdict.verdict == "pass" for verdict in verdicts)
    warned = [verdict.rule for verdict in verdicts if verdict.mode == "warn" and verdict.verdict != "pass"]
    excused = [verdict.rule for verdict in verdicts if verdict.overridden_by is not None]
    everything = f"all {passed}" if passed == len(verdicts) else f"{passed} of {len(verdicts)}"
    reason = f"{everything} conditions and rules pass"
    reason += f", only warned: {', '.join(warned[:MAX_REASONS])}" if warned else ""
    reason += f", overridden: {', '.join(excused[:MAX_REASONS])}" if excused else ""
    if past.turned_down:
        return "hold", "turned_down", f"{reason}; but {past.turned_down}, so only a person may promote it"
    if config.approval == "manual":
        return "hold", "approval_needed", f"{reason}; approval is manual, so a person decides"
    return "promote", "overridden" if excused else "all_passed", reason


def _uncompared(evidence: Evidence, judged: Sequence[Verdict]) -> str:
    """What to say where no enforced rule asks how the challenger does beside the champion; empty where one does, or there is none."""
    compared = any(verdict.versus == "champion" and verdict.mode == "enforce" for verdict in judged)
    metric = text(evidence.at("evaluate", "primary"))
    if compared or not evidence.has_champion or metric is None:
        return ""
    found = evidence.at("evaluate", "differences", "champion", "overall", metric)
    value, low, high = (number(found.get(key)) if isinstance(found, dict) else None for key in ("value", "low", "high"))
    between = f" ({low:+.3g} to {high:+.3g})" if low is not None and high is not None else ""
    amount = f": {metric} differs by {value:+.3g}{between}" if value is not None else ""
    return f"NO RULE COMPARES IT WITH THE CHAMPION{amount}"


def _unjudged_cause(evidence: Evidence, judged: Sequence[Verdict]) -> str:
    """What to say where drift named what moved and no rule of the loop's own asks about it; empty where one does, or nothing moved."""
    left = [
        kind
        for kind in ("drifted", "old")
        if evidence.of_cause(kind) and not any(f"[{kind}:" in verdict.rule for verdict in judged)
    ]
    told = " and ".join(f"{kind}:*" for kind in left)
    return (
        f"No rule judges {told}, the slices of what caused this training: add rules on them to gate.rules."
        if left
        else ""
    )


def _code(blocking: list[Verdict]) -> str:
    if any(verdict.rule == "challenger is another model" and verdict.verdict == "fail" for verdict in blocking):
        return "same_model"
    return "rules_failed" if any(verdict.verdict == "fail" for verdict in blocking) else "not_evaluated"


def _blocking(verdicts: tuple[Verdict, ...]) -> list[Verdict]:
    """What forbids the promotion: the same-model sentence, which explains every tie that follows from it, then clear failures."""
    found = [verdict for verdict in verdicts if verdict.blocks]
    return sorted(found, key=lambda verdict: (verdict.rule != "challenger is another model", verdict.verdict != "fail"))


def _reasons(blocking: list[Verdict]) -> str:
    more = f" (and {len(blocking) - MAX_REASONS} more)" if len(blocking) > MAX_REASONS else ""
    return "; ".join(verdict.sentence for verdict in blocking[:MAX_REASONS]) + more
