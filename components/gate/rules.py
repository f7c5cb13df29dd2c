"""Rules: how configured rules, or the default ones, become checks on the evidence at hand.

Every enforced rule must pass, so a challenger that breaks any single requirement is let through only if that one rule errs: the chance of
a wrong promotion is at most the error rate of one rule, however many there are (intersection-union test, R. L. Berger, Technometrics 1982).
More rules make the gate stricter, never laxer, and need no correction.

A rule about several slices makes a claim about each. Holm's correction over the slices of that rule keeps the chance of any false claim
among them at that of one: with ``use: interval`` of any slice falsely called good, with ``use: unless_refuted`` of any falsely called bad. A
rule that names one slice is judged at the level of a single interval, although the report shows slices at a higher one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kfloop.components.gate.defaults import default_rules
from kfloop.components.gate.evidence import measure, text
from kfloop.components.gate.knowing import unknown_slice
from kfloop.components.gate.levels import at_level, holm_levels, standard_errors_beyond
from kfloop.components.gate.measurement import Measurement
from kfloop.components.gate.verdicts import Bar, Verdict, judge

if TYPE_CHECKING:
    from kfloop.components.gate.evidence import Evidence
    from kfloop.core.sections import GateConfig, Rule

NAMED = "name a slice that the report lists (section Comparison, Slices)"
OF_CAUSE = ("drifted:", "old:")
GAPS = ("_gap", "_ratio")


def rules_of(config: GateConfig, evidence: Evidence) -> tuple[Rule, ...]:
    """The configured rules, or the defaults; an empty list stays empty (and rejects)."""
    if config.rules is not None:
        return config.rules
    n_test = evidence.at("evaluate", "n_test")
    return default_rules(
        text(evidence.at("evaluate", "objective")) or "classification",
        text(evidence.at("evaluate", "modality")) or "image",
        n_test if isinstance(n_test, int) else 0,
        drifted=bool(evidence.of_cause("drifted")),
    )


def apply_rules(rules: tuple[Rule, ...], evidence: Evidence) -> tuple[list[Verdict], list[str]]:
    """Judge every rule.

    Returns:
        The verdicts in the order of the rules, and one note for each rule that does not apply.
    """
    verdicts: list[Verdict] = []
    notes: list[str] = []
    for rule in rules:
        if rule.mode == "off":
            notes.append(f"{rule.name()} is switched off")
        elif rule.versus == "champion" and not evidence.has_champion and "evaluate" in evidence.reports:
            notes.append(f"{rule.name()} does not apply: there is no champion")
        elif problem := unknown_slice(rule, evidence):
            verdicts.append(judge(_bar(rule, rule.slice), Measurement(missing=problem, todo=NAMED)))
        elif rule.when != "always" and rule.slice.startswith(OF_CAUSE) and not _exists(rule, evidence):
            notes.append(f"{rule.name()} does not apply: no drift caused this training")
        elif rule.when == "slice_exists" and not _exists(rule, evidence):
            notes.append(f"{rule.name()} does not apply: there are no such test rows")
        elif rule.slice == "overall":
            verdicts.append(judge(_bar(rule, rule.slice), measure(evidence, rule, rule.slice)))
        else:
            found, note = _judged_slices(rule, evidence)
            verdicts += found
            notes += note
    return verdicts, notes


def _exists(rule: Rule, evidence: Evidence) -> bool:
    if not rule.slice.endswith("*"):
        return rule.slice in _named(evidence)
    return any(name.startswith(rule.slice[:-1]) for name in _named(evidence))


def _named(evidence: Evidence) -> set[str]:
    """Every slice that the evaluation names; those of the cause are there without test rows, too, so that none of them passes unseen."""
    return evidence.slices.union(evidence.of_cause("drifted"), evidence.of_cause("old"))


def _judged_slices(rule: Rule, evidence: Evidence) -> tuple[list[Verdict], list[str]]:
    """The verdict on each slice that the rule is about, at its level by Holm; and a note on slices that are too small to count."""
    found = {name: measure(evidence, rule, name) for name in _slices(rule, evidence)}
    small = [
        name for name, item in found.items() if rule.when == "large_enough" and _too_small(rule, name, item, evidence)
    ]
    kept = {name: item for name, item in found.items() if name not in small}
    notes = []
    if small:
        rest = f"{len(kept)} were judged" if kept else "none is left, so the rule decides nothing"
        told = ", ".join(f"{name} ({found[name].n or 0})" for name in small)
        notes.append(f"{rule.name()}: fewer than {rule.min_n} test rows in {told}; {rest}")
    return [judge(_bar(rule, name), item) for name, item in _corrected(rule, kept, evidence).items()], notes


def _too_small(rule: Rule, name: str, item: Measurement, evidence: Evidence) -> bool:
    """Whether a slice is known to hold fewer rows than the rule asks for; a slice whose rows nobody counted is not."""
    return name not in evidence.slices or (item.n is not None and item.n < rule.min_n)


def _corrected(rule: Rule, found: dict[str, Measurement], evidence: Evidence) -> dict[str, Measurement]:
    """The measurements with their intervals at the levels at which they are judged."""
    bar = _bar(rule, rule.slice)
    sign = -1.0 if rule.use == "unless_refuted" else 1.0  # what is claimed is that the slice is bad
    distances = [
        sign * standard_errors_beyond(item, bar.threshold, at_least=bar.at_least)
        if item.n is None or item.n >= rule.min_n
        else math.nan
        for item in found.values()
    ]
    levels = holm_levels(distances, evidence.level) if rule.use != "point" else [evidence.level] * len(found)
    return {name: at_level(item, level) for (name, item), level in zip(found.items(), levels, strict=True)}


def _slices(rule: Rule, evidence: Evidence) -> list[str]:
    """The slices a rule is about: a wildcard stands for every class and for every slice of the cause, with test rows or without."""
    if rule.slice == "class:*":
        return [f"class:{label}" for label in evidence.classes] or [rule.slice]
    if not rule.slice.endswith("*"):
        return [rule.slice]
    found = sorted(name for name in _named(evidence) if name.startswith(rule.slice[:-1]))
    # A group without a value (group:sex) holds the gaps between its values, the others hold figures.
    gaps = rule.metric.endswith(GAPS)
    return [name for name in found if not name.startswith("group:") or ("=" in name) is not gaps] or [rule.slice]


def _bar(rule: Rule, name: str) -> Bar:
    bound = rule.at_least if rule.at_least is not None else rule.at_most
    if bound is None:  # the model of a rule demands exactly one
        message = f"rule on {rule.metric!r} has no bound"
        raise AssertionError(message)
    joined = "relative to" if rule.relative else "minus"
    who = "" if rule.versus == "absolute" else f", challenger {joined} {rule.versus},"
    where = "" if name == "overall" else f" on {name}"
    return Bar(
        rule=rule.name(name),
        metric=rule.metric,
        subject=f"{rule.metric}{who}{where}",
        threshold=bound,
        at_least=rule.at_least is not None,
        use=rule.use,
        min_n=rule.min_n,
        versus=rule.versus,
        relative=rule.relative,
        mode="warn" if rule.mode == "warn" else "enforce",
    )
