"""Granting: somebody lets a rule's failure not block for a while, or ends that; each is a row of the ledger."""

from __future__ import annotations

import getpass
import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.core.artifacts import read_report
from kfloop.core.state import open_state
from kfloop.core.state.anchor import anchor, verified
from kfloop.core.state.standing import Override, active_overrides
from kfloop.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection

    from kfloop.core.sections import GateConfig
    from kfloop.core.state import State
    from kfloop.core.workspace import Workspace

LONGEST_DAYS = 90
DAY_SECONDS = 86400.0
UNITS = {"h": 3600.0, "d": DAY_SECONDS, "w": 7 * DAY_SECONDS}
LONGEST_TOLD = 40  # letters of a wrong --until that its error quotes
RUNS_SEEN = 20  # runs back in which a decision is looked for


def grant(workspace: Workspace, config: GateConfig, rule: str, *, until: str, reason: str, actor: str = "") -> Override:
    """Override a rule.

    Args:
        workspace: Places of the loop.
        config: Section ``gate``.
        rule: Name of the rule as the report prints it, or a beginning that names one.
        until: When it ends: an ISO date or time, or a length such as ``7d``.
        reason: Why.
        actor: Who; the user's name when empty.

    Raises:
        ConfigError: There is no such rule, it is a condition of every decision, there is no reason, or the end is not within 90 days.
    """
    if not reason.strip():
        raise ConfigError("an override needs a reason", hint="say why: kfloop override RULE --reason '...' --until 7d")
    state, end = open_state(workspace.state), moment(until)
    verified(workspace)
    named = resolve(rule, *known_rules(state, workspace, config))
    row = state.ledger.note(
        workspace.loop,
        action="override",
        actor=actor or getpass.getuser(),
        reason=reason.strip(),
        details={"rule": named, "until": end},
    )
    anchor(workspace)
    return Override(rule=named, who=row.actor, why=row.reason, until=end, row=row.seq)


def end(workspace: Workspace, rule: str, *, reason: str = "", actor: str = "") -> Override:
    """End an override before its time.

    Raises:
        ConfigError: No override that lasts is called so.
    """
    state = open_state(workspace.state)
    lasting = {override.rule: override for override in active_overrides(state.ledger.history(workspace.loop))}
    if not lasting:
        raise ConfigError(f"no rule is overridden, so '{rule}' cannot be ended", hint="see: kfloop override --list")
    verified(workspace)
    named = resolve(rule, set(lasting), set())
    state.ledger.note(
        workspace.loop,
        action="end_override",
        actor=actor or getpass.getuser(),
        reason=reason.strip() or "ended by hand",
        details={"rule": named},
    )
    anchor(workspace)
    return lasting[named]


def known_rules(state: State, workspace: Workspace, config: GateConfig) -> tuple[set[str], set[str]]:
    """Names of rules (of the loop file and of the last decision), and of the conditions of every decision."""
    rules = {rule.name() for rule in config.rules or () if "*" not in rule.slice}
    conditions: set[str] = set()
    for record in state.runs.last(workspace.loop, RUNS_SEEN):
        places = [step["artifact"]["path"] for step in record["steps"] if step["name"] == "gate" and step["artifact"]]
        for place in places:
            try:
                verdicts = read_report(Path(place))["verdicts"]
            except (OSError, ValueError, TypeError, KeyError):
                continue
            # A condition is not about a number, a rule always is.
            rules |= {line["rule"] for line in verdicts if line["threshold"] is not None}
            conditions |= {line["rule"] for line in verdicts if line["threshold"] is None}
            return rules, conditions
    return rules, conditions


def resolve(name: str, rules: Collection[str], conditions: Collection[str]) -> str:
    """The rule that ``name`` means: its whole name, or a beginning that no other rule has.

    Raises:
        ConfigError: None, or several, or a condition that cannot be overridden.
    """
    asked = " ".join(name.split())
    if asked in rules:
        return asked
    found = sorted(rule for rule in rules if asked and rule.startswith(asked))
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"{len(found)} rules begin with '{asked}': {'; '.join(found)}", hint="give more of the name, in quotes"
        )
    held = sorted(condition for condition in conditions if asked and condition.startswith(asked))
    if held:
        raise ConfigError(
            f"'{held[0]}' is a condition of every decision, not a rule: without it the comparison means nothing",
            hint="it cannot be overridden; mend what it complains of",
        )
    if not rules:
        raise ConfigError(
            f"no rule is called '{asked}': nothing was decided yet, and the loop file names no rules",
            hint="first: kfloop run",
        )
    raise ConfigError(f"no rule is called '{asked}'", hint=nearest(asked, rules))


def moment(until: str, now: float | None = None) -> float:
    """Unix time at which an override ends.

    Args:
        until: ``7d``, ``12h``, ``2w``, an ISO date (to its end, local time) or an ISO time.
        now: Unix time; the present when null.

    Raises:
        ConfigError: It is none of these, has passed, or is more than 90 days ahead.
    """
    present = time.time() if now is None else now
    length = re.fullmatch(r"(\d+)\s*([hdw])", until.strip())
    try:
        if length:
            found = present + int(length[1]) * UNITS[length[2]]
        else:
            at = datetime.fromisoformat(until.strip())
            found = at.timestamp() + (DAY_SECONDS if re.fullmatch(r"[\d-]+", until.strip()) else 0.0)
    except (ValueError, OverflowError, OSError) as error:  # no date, or one that no clock of this machine can tell
        raise ConfigError(
            f"--until is '{until[:LONGEST_TOLD]}', expected a date such as {_day(present + 7 * DAY_SECONDS)} or a length such as 7d"
        ) from error
    if found <= present:
        raise ConfigError(f"--until is '{until[:LONGEST_TOLD]}', which has passed", hint="an override looks ahead")
    if found > present + (LONGEST_DAYS + 1) * DAY_SECONDS or (length and found > present + LONGEST_DAYS * DAY_SECONDS):
        raise ConfigError(
            f"--until is '{until[:LONGEST_TOLD]}', more than {LONGEST_DAYS} days ahead",
            hint=f"the latest is {_day(present + LONGEST_DAYS * DAY_SECONDS)}; a rule that never fits belongs out of the loop file",
        )
    return found


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))
