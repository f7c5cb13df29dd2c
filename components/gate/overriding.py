"""Overriding: a rule whose failure does not block for a while, because somebody said so on record.

Only rules of the loop file (or the default ones) can be overridden. The conditions that hold for every decision cannot: without
them a comparison means nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kfloop.core.state import open_state
from kfloop.core.state.database import exists
from kfloop.core.state.standing import active_overrides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.components.gate.verdicts import Verdict
    from kfloop.core.sections import GateConfig
    from kfloop.core.state.standing import Override
    from kfloop.core.workspace import Workspace


def overrides_in_force(config: GateConfig, workspace: Workspace) -> list[Override]:
    """Overrides that this decision may use: those it was started with, as far as the ledger has them and they still last.

    The config holds them so that a cached decision is never one of other overrides; the ledger is what counts. A decision that is never
    cached (null) may use all.
    """
    if config.overrides == () or not exists(workspace.state):
        return []
    last = active_overrides(open_state(workspace.state).ledger.history(workspace.loop))
    if config.overrides is None:
        return last
    asked = {(override.rule, override.row) for override in config.overrides}
    return [override for override in last if (override.rule, override.row) in asked]


def overridden(verdicts: Sequence[Verdict], overrides: Sequence[Override]) -> tuple[list[Verdict], list[str]]:
    """Mark the blocking verdicts of overridden rules.

    Args:
        verdicts: Verdicts of rules; those of implied conditions are never given.
        overrides: Overrides in force.

    Returns:
        The verdicts, and a note for each override.
    """
    by_rule = {override.rule: override for override in overrides}
    marked = [
        replace(verdict, overridden_by=by_rule[verdict.rule].as_dict())
        if verdict.blocks and verdict.rule in by_rule
        else verdict
        for verdict in verdicts
    ]
    used = {verdict.rule for verdict in marked if verdict.overridden_by is not None}
    notes = [
        f"{override.rule} is overridden until {override.ends} by {override.who}: {override.why}"
        + ("" if override.rule in used else " (it did not fail)")
        for override in overrides
    ]
    return marked, notes
