"""Knowing: whether the slice that a rule names can exist at all, so that a misspelt one does not switch the rule off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.errors import nearest

if TYPE_CHECKING:
    from kfloop.components.gate.evidence import Evidence
    from kfloop.core.sections import Rule

ORIGINS = ("base", "fresh", "new")


def unknown_slice(rule: Rule, evidence: Evidence) -> str:
    """Why the slice of a rule can be none of this evaluation's; empty where it can.

    A slice without rows is not unknown: its class, column or group is there, and ``when`` says what that means.
    """
    kind, _, rest = rule.slice.partition(":")
    if rule.source != "evaluate" or rule.slice == "overall" or rest in {"", "*"} or rule.slice in evidence.slices:
        return ""
    if kind in {"column", "group"}:
        known = evidence.columns(kind)
        name = _column(rest, known)
        return "" if name in known else f"the evaluation knows no {kind} '{name}' ({_near(name, known)})"
    # A channel has rows whenever there are any: the ones with a figure are all there are.
    channels = sorted(name.partition(":")[2] for name in evidence.slices if name.startswith("channel:"))
    others = {
        "class": evidence.classes,
        "origin": list(ORIGINS),
        "corruption": evidence.corruptions,
        "channel": channels,
    }
    begun = rest.endswith("*") and any(name.startswith(rest[:-1]) for name in others.get(kind, []))
    if kind not in others or begun or rest in others[kind]:
        return ""
    return f"the evaluation knows no {kind} '{rest}' ({_near(rest, others[kind])})"


def _column(rest: str, known: list[str]) -> str:
    """The column of ``sex=F`` or ``sex=*``; the longest that is known, since a name may hold an equals sign."""
    found = [name for name in known if rest == name or rest.startswith(f"{name}=")]
    return max(found, key=len) if found else rest.partition("=")[0].removesuffix("*")


def _near(word: str, known: list[str]) -> str:
    return nearest(word, known) if known else "it knows none"
