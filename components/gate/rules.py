"""Rules: the default set, and how configured rules become checks on the evidence at hand.

Every enforced rule must pass, so a challenger that breaks any single requirement is let through only if that one rule
errs: the chance of a wrong promotion is at most the error rate of one rule, however many there are (intersection-union
test, R. L. Berger, Technometrics 1982). More rules or slices make the gate stricter, never laxer; no correction is
needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.components.gate.defaults import default_rules
from kfloop.components.gate.evidence import measure, text
from kfloop.components.gate.verdicts import Bar, Verdict, judge

if TYPE_CHECKING:
    from kfloop.components.gate.evidence import Evidence
    from kfloop.core.sections import GateConfig, Rule


def rules_of(config: GateConfig, evidence: Evidence) -> tuple[Rule, ...]:
    """The configured rules, or the defaults; an empty list stays empty (and rejects)."""
    if config.rules is not None:
        return config.rules
    n_test = evidence.at("evaluate", "n_test")
    return default_rules(
        text(evidence.at("evaluate", "objective")) or "classification",
        text(evidence.at("evaluate", "modality")) or "image",
        n_test if isinstance(n_test, int) else 0,
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
            notes.append(f"{rule_name(rule, rule.slice)} is switched off")
        elif rule.versus == "champion" and not evidence.has_champion and "evaluate" in evidence.reports:
            notes.append(f"{rule_name(rule, rule.slice)} does not apply: there is no champion")
        elif rule.when == "slice_exists" and "*" not in rule.slice and rule.slice not in evidence.slices:
            notes.append(f"{rule_name(rule, rule.slice)} does not apply: there are no such test rows")
        else:
            verdicts += [judge(_bar(rule, name), measure(evidence, rule, name)) for name in _slices(rule, evidence)]
    return verdicts, notes


def rule_name(rule: Rule, name: str) -> str:
    """A rule's name, made of what it says: ``accuracy[class:3] vs champion >= -0.05 (interval)``, ``rmse vs champion <= +5%``."""
    place = "" if name == "overall" else f"[{name}]"
    versus = "" if rule.versus == "absolute" else f" vs {rule.versus}"
    sign, number = (">=", rule.at_least) if rule.at_least is not None else ("<=", rule.at_most)
    bound = f"{sign} {100 * (number or 0.0):+g}%" if rule.relative else f"{sign} {number:g}"
    return f"{rule.metric}{place}{versus} {bound}{' (interval)' if rule.use == 'interval' else ''}"


def _slices(rule: Rule, evidence: Evidence) -> list[str]:
    """The slices a rule is about: a wildcard stands for every class, with test rows or without."""
    if rule.slice == "class:*":
        return [f"class:{label}" for label in evidence.classes] or [rule.slice]
    if rule.slice.endswith(":*"):
        prefix = rule.slice.removesuffix("*")
        return sorted(name for name in evidence.slices if name.startswith(prefix)) or [rule.slice]
    return [rule.slice]


def _bar(rule: Rule, name: str) -> Bar:
    bound = rule.at_least if rule.at_least is not None else rule.at_most
    if bound is None:  # the model of a rule demands exactly one
        message = f"rule on {rule.metric!r} has no bound"
        raise AssertionError(message)
    joined = "relative to" if rule.relative else "minus"
    who = "" if rule.versus == "absolute" else f", challenger {joined} {rule.versus},"
    where = "" if name == "overall" else f" on {name}"
    return Bar(
        rule=rule_name(rule, name),
        metric=rule.metric,
        subject=f"{rule.metric}{who}{where}",
        threshold=bound,
        at_least=rule.at_least is not None,
        interval=rule.use == "interval",
        min_n=rule.min_n,
        difference=rule.versus != "absolute",
        relative=rule.relative,
        mode="warn" if rule.mode == "warn" else "enforce",
    )
