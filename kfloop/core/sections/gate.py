"""Section ``gate``: the rules that a challenger must pass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kfloop.core.sections.base import Positive, Section
from kfloop.core.sections.rule import Rule


class OverriddenRule(Section):
    """An override of a rule that lasts when a round starts; ``kfloop override`` makes them."""

    rule: str
    """Name of the rule, as the report prints it."""
    row: Positive
    """Number of the ledger's row that says who, why and until when."""


class GateConfig(Section):
    """Rules that a challenger must pass."""

    rules: tuple[Rule, ...] | None = None
    """The rules; null means the defaults of the task. An empty list rejects everything."""
    approval: Literal["auto", "manual"] = "auto"
    """``manual`` holds a challenger that passed until a person decides."""
    approval_days: Annotated[float, Field(gt=0)] = 14.0
    """Days after which a challenger on hold can no longer be approved."""
    looks: Annotated[float, Field(gt=0)] = 20.0
    """Challengers that the same test rows may judge before they count as worn out."""
    worn_holdout: Literal["warn", "reject"] = "warn"
    """What worn-out test rows do."""
    overrides: tuple[OverriddenRule, ...] | None = ()
    """Filled from the ledger. Null on a cluster, where the gate is never cached: those that the ledger has when the gate decides."""
    champion_row: int = 0
    """Filled from the ledger: number of the row that made the champion."""
    turned_down: tuple[int, ...] = ()
    """Filled from the ledger: numbers of the rows by which people turned challengers down."""

    @model_validator(mode="after")
    def _told_apart(self) -> GateConfig:
        """An override names a rule, so no two may have one name."""
        names = [rule.name() for rule in self.rules or ()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            message = f"two rules are called {twice[0]!r}: keep one of them, or give them different bounds"
            raise ValueError(message)
        return self
