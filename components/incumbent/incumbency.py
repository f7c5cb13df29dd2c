"""Incumbency: the champion a challenger must be compared with, resolved from the ledger and from nothing else; and what the training is for.

The step is never cached: its answer depends on state. Later steps take the answer as a parameter, so that their caches
are right; a training that the monitor asked for therefore answers with its cause, too: the same challenger is judged on other slices then. An open intent is not a champion; finishing or withdrawing it belongs to
``kfloop.components.deploy.recovery``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import canonical_json, folder_digest, read_report, sha256_text, write_report
from kfloop.core.state import open_state
from kfloop.core.state.anchor import verified
from kfloop.core.state.origins import trigger_of
from kfloop.core.store import Store
from kfloop.core.workspace import run_id
from kfloop.errors import KfloopError, StateError

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.sections import DeployConfig
    from kfloop.core.state import State
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

NONE = "none"
MARK = 12  # digits of a cause's digest


@dataclass(frozen=True, kw_only=True)
class IncumbentReport:
    """Who is champion.

    Attributes:
        outcome: Digest of the champion's package, or ``none``; with a cause also the first digits of its digest.
        champion_digest: The same digest; None without a champion.
        champion_version: Its version in registry and server; None without a champion.
        since: Unix time in seconds of the promotion, None without a champion.
        ledger_row: Number of the ledger row that made it champion; 0 without one.
        previous_digest: Package of the champion before; None when there was none.
        trigger: Latest trigger of the monitor; None when it never ran.
        cause: What the monitor asked for this training for: ``kind``, ``reason``, digest of the ``evidence``, the parts of the requests that ``drifted`` (see
            ``kfloop.core.drifted``), and the ``problem`` where the evidence cannot be read; None where a person asked.
        sentence: All of this for people.
    """

    outcome: str
    champion_digest: str | None
    champion_version: int | None
    since: float | None
    ledger_row: int
    previous_digest: str | None
    trigger: str | None
    cause: dict[str, Any] | None
    sentence: str


def run(config: DeployConfig, *, model: Path, out: Path, workspace: Workspace) -> IncumbentReport:
    """Resolve the champion.

    Args:
        config: Section ``deploy`` (nothing in it matters here).
        model: The challenger's package; taken so that the champion is looked up after training, as late as possible.
        out: Scratch folder of this step.
        workspace: Places of the loop.

    Raises:
        StateError: The ledger is broken, or the champion's package is not in the store.
    """
    del config, model
    state = open_state(workspace.state)
    verified(workspace)
    champion = state.ledger.champion(workspace.loop)
    if champion is not None and not Store.of(workspace).has("models", champion.model_digest):
        raise StateError(
            f"champion version {champion.version} has no package '{champion.model_digest}' in the store '{workspace.store}'",
            hint="bring the store back from a backup; a challenger cannot be compared with a model that is gone",
            digest=champion.model_digest,
        )
    last = state.triggers.last(workspace.loop)
    report = _report(champion, last.trigger if last else None, _cause(state, workspace))
    write_report(out, report)
    return report


def _cause(state: State, workspace: Workspace) -> dict[str, Any] | None:
    """What the monitor asked for this training for, with the parts that drifted as its evidence has them."""
    trigger = trigger_of(state, workspace.loop, run_id())
    if trigger is None:
        return None
    told: dict[str, Any] = {"kind": trigger.cause, "reason": trigger.reason, "evidence": trigger.evidence_digest}
    try:
        folder = Store.of(workspace).require("evidence", trigger.evidence_digest)
        evidence = read_report(folder)
    except (KfloopError, OSError, TypeError, ValueError) as error:
        return told | {"drifted": [], "problem": f"the monitor's evidence cannot be read: {error}"}
    changed = folder_digest(folder) != trigger.evidence_digest
    problem = "the monitor's evidence was changed after its round" if changed else ""
    return told | {"drifted": evidence.get("drifted", []), "problem": problem}


def _report(champion: Entry | None, trigger: str | None, cause: dict[str, Any] | None) -> IncumbentReport:
    mark = f"+{sha256_text(canonical_json(cause))[:MARK]}" if cause else ""
    if champion is None:
        return IncumbentReport(
            outcome=NONE + mark,
            champion_digest=None,
            champion_version=None,
            since=None,
            ledger_row=0,
            previous_digest=None,
            trigger=trigger,
            cause=cause,
            sentence="There is no champion yet.",
        )
    return IncumbentReport(
        outcome=champion.model_digest + mark,
        champion_digest=champion.model_digest,
        champion_version=champion.version,
        since=champion.at,
        ledger_row=champion.seq,
        previous_digest=champion.previous_digest or None,
        trigger=trigger,
        cause=cause,
        sentence=f"Version {champion.version} is champion since its {champion.action} by {champion.actor}.",
    )
