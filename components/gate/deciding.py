"""Deciding: reports in, one decision out, with every verdict behind it.

The decision is ``promote`` only when every implied condition and every enforced rule passes. Whatever cannot be judged
rejects. With ``approval: manual`` a challenger that passed is on ``hold`` until a person decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kfloop.components.gate.evidence import Evidence, collect, text
from kfloop.components.gate.integrity import implied_verdicts
from kfloop.components.gate.rules import apply_rules, rules_of
from kfloop.components.gate.verdicts import Verdict
from kfloop.core.artifacts import canonical_json, plain, sha256_text, write_report

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.sections import GateConfig
    from kfloop.core.workspace import Workspace

MAX_REASONS = 3  # failed rules quoted in the one-line reason; the report holds all


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """A decision and everything it rests on.

    Attributes:
        outcome: ``promote``, ``reject`` or ``hold``.
        reason: Why, in one line.
        code: The same for programs: ``all_passed``, ``approval_needed``, ``same_model``, ``not_evaluated`` or
        ``rules_failed``. verdicts: Every implied condition and every rule.
        notes: Rules that did not apply, and why.
        champion_digest: Champion the challenger was compared with; None without one.
        challenger_digest: The challenger; None when no report names it.
        dataset_digest: Dataset version of the comparison.
        triton_version: Server that blessed the challenger.
        evidence_digest: Names exactly this evidence, rules and decision; what a person approves.
    """

    outcome: Literal["promote", "reject", "hold"]
    reason: str
    code: str
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    champion_digest: str | None
    challenger_digest: str | None
    dataset_digest: str | None
    triton_version: str | None
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
    """Decide about a challenger. A report that is missing or unreadable rejects; it raises nothing."""
    del workspace  # every step's core takes it; a decision depends on the reports alone
    evidence = collect({"validate": validation, "labels": labels, "evaluate": evaluation, "bless": blessing})
    report = decide(config, evidence)
    write_report(out, report)
    return report


def decide(config: GateConfig, evidence: Evidence) -> GateReport:
    """The decision on a set of reports; pure."""
    judged, notes = apply_rules(rules_of(config, evidence), evidence)
    enforced = sum(verdict.mode == "enforce" for verdict in judged)
    verdicts = (*implied_verdicts(evidence, enforced), *judged)
    if not evidence.has_champion and "evaluate" in evidence.reports:
        notes.insert(0, "There is no champion: only rules about the challenger alone and the baseline decide.")
    outcome, code, reason = _outcome(config, verdicts)
    # Approval names this digest, so it covers the verdicts too: a changed rule needs a new approval.
    digest = sha256_text(
        canonical_json({"evidence": evidence.digest, "verdicts": plain(list(verdicts)), "outcome": outcome})
    )
    return GateReport(
        outcome=outcome,
        reason=f"{reason}: kfloop approve {digest[:12]}" if outcome == "hold" else reason,
        code=code,
        verdicts=verdicts,
        notes=tuple(notes),
        champion_digest=evidence.champion_digest,
        challenger_digest=evidence.challenger_digest,
        dataset_digest=text(evidence.at("evaluate", "dataset_digest")),
        triton_version=text(evidence.at("bless", "triton_version")),
        evidence_digest=digest,
    )


def _outcome(
    config: GateConfig, verdicts: tuple[Verdict, ...]
) -> tuple[Literal["promote", "reject", "hold"], str, str]:
    """Outcome, code and reason."""
    blocking = [verdict for verdict in verdicts if verdict.blocks]
    if blocking:
        return "reject", _code(blocking), _reasons(blocking)
    passed = sum(verdict.verdict == "pass" for verdict in verdicts)
    warned = sum(verdict.verdict != "pass" for verdict in verdicts)
    reason = f"all {passed} conditions and rules pass" + (f", {warned} only warn" if warned else "")
    if config.approval == "manual":
        return "hold", "approval_needed", f"{reason}; approval is manual, so a person decides"
    return "promote", "all_passed", reason


def _code(blocking: list[Verdict]) -> str:
    if any(verdict.rule == "challenger is another model" and verdict.verdict == "fail" for verdict in blocking):
        return "same_model"
    return "rules_failed" if any(verdict.verdict == "fail" for verdict in blocking) else "not_evaluated"


def _reasons(blocking: list[Verdict]) -> str:
    # The same-model sentence explains every tie that follows from it; otherwise clear failures come first.
    ordered = sorted(blocking, key=lambda v: (v.rule != "challenger is another model", v.verdict != "fail"))
    more = f" (and {len(ordered) - MAX_REASONS} more)" if len(ordered) > MAX_REASONS else ""
    return "; ".join(verdict.sentence for verdict in ordered[:MAX_REASONS]) + more
