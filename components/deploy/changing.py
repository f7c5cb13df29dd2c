"""Changing the champion: one order of events for promotion, approval and rollback, safe to kill at any point.

1. register the package (same package, same version)   4. ledger: close the intent: from here on it is champion
2. ledger: intent, compare-and-set on the champion     5. repository, server, aliases, model card follow
3. load beside the champion, verify by golden answers

A kill before 4, or a server that is away for a moment, leaves an open intent and the old champion answering; a kill after 4 leaves
followers that lag behind. Both are mended by ``recovery.recover``, which every command calls first, and by running the same command again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfloop.components.deploy.following import follow
from kfloop.components.deploy.projecting import restore_versions, standing
from kfloop.components.deploy.verifying import Verification, verify_version
from kfloop.core.registry import CHALLENGER, Registry
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.core.workspace import run_id
from kfloop.errors import KfloopError, StateError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.core.sections import DeployConfig
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

STAGES = ("registered", "intended", "verified", "closed", "projected")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of champion that somebody asks for.

    Attributes:
        action: ``promote`` or ``rollback``.
        digest: Package that is to become champion.
        expected: Champion the decision was made against; None for none.
        actor: Who asks.
        reason: Why, in one sentence.
        evidence_digest: Decision that allows it.
        decision: Blob of that decision in the store.
    """

    action: str
    digest: str
    expected: str | None
    actor: str
    reason: str
    evidence_digest: str = ""
    decision: str = ""


@dataclass(frozen=True, kw_only=True)
class Changed:
    """What a change did.

    Attributes:
        entry: The ledger's closing row.
        verification: Golden answers; None when the package was champion already.
        repeated: Whether there was nothing to do but let the followers catch up.
        events: What was changed, in order.
    """

    entry: Entry
    verification: Verification | None
    repeated: bool
    events: tuple[str, ...]


def ignore(stage: str) -> None:
    """Default of the ``at`` parameter, which tests use to end the process at a stage."""
    del stage


def change_champion(
    change: Change, workspace: Workspace, config: DeployConfig, at: Callable[[str], None] = ignore
) -> Changed:
    """Make a package champion.

    Args:
        change: What is asked for.
        workspace: Places of the loop.
        config: Tolerance and patience.
        at: Called with the name of each stage that has been reached.

    Raises:
        StateError: The champion is another one than expected, or the package is not in the store.
        ServingError: The version did not load or answered wrongly; the intent is withdrawn, the champion keeps serving.
        TransientError: Server or store are away; a promotion stays open and the next command finishes it.
    """
    ledger = open_state(workspace.state).ledger
    store = Store.of(workspace)
    store.require("models", change.digest)
    now = standing(ledger, workspace.loop)
    if now.champion is not None and now.champion.model_digest == change.digest:
        events = follow(workspace, config)
        return Changed(entry=now.champion, verification=None, repeated=True, events=tuple(events))
    restore_versions(workspace, now)
    registry = Registry(workspace.mlflow, workspace.loop)
    version = registry.register(change.digest, store.uri("models", change.digest))
    at("registered")
    intent = ledger.intend(
        workspace.loop,
        action=change.action,
        version=version,
        model_digest=change.digest,
        expected_champion=change.expected,
        actor=change.actor,
        reason=change.reason,
        evidence_digest=change.evidence_digest,
        run_id=run_id(),
        details={"decision": change.decision} if change.decision else {},
    )
    registry.project({CHALLENGER: version})  # after the intent, so that recovery takes it away again
    at("intended")
    closed, verification, events = finish(intent, workspace, config, at)
    return Changed(entry=closed, verification=verification, repeated=False, events=tuple(events))


def finish(
    intent: Entry, workspace: Workspace, config: DeployConfig, at: Callable[[str], None] = ignore, note: str = ""
) -> tuple[Entry, Verification, list[str]]:
    """Verify and close an open intent, and let everything follow.

    Args:
        intent: The open intent.
        workspace: Places of the loop.
        config: Tolerance and patience.
        at: Called with the name of each stage.
        note: Appended to the reason of the closing row.

    Raises:
        TransientError: Server or store are away; a promotion stays open, a rollback is withdrawn: whoever asked for it is there to ask again.
        KfloopError: Any other reason; the intent is withdrawn.
    """
    ledger = open_state(workspace.state).ledger
    try:
        package = Store.of(workspace).require("models", intent.model_digest)
        verification = verify_version(workspace, config, intent.version, package)
    except (KfloopError, OSError) as error:
        if intent.action == "promote" and may_pass(error):
            raise _still_open(intent, error) from error
        ledger.close(intent, done=False, reason=f"withdrawn: {error}")
        follow(workspace, config)
        raise
    at("verified")
    closed = ledger.close(intent, done=True, reason=f"{intent.reason}{note}")
    if closed.phase != "done":
        follow(workspace, config)
        raise StateError(
            f"version {intent.version} was withdrawn from its roll-out meanwhile", hint="see: kfloop status --ledger"
        )
    at("closed")
    events = follow(workspace, config)
    at("projected")
    return closed, verification, events


def may_pass(error: Exception) -> bool:
    """Whether the same may work later, so that it says nothing about the version."""
    return isinstance(error, TransientError | ConnectionError | TimeoutError)


def _still_open(intent: Entry, error: Exception) -> TransientError:
    kind = type(error) if isinstance(error, TransientError) else TransientError
    name = intent.evidence_digest[:12] or intent.run_id
    return kind(
        f"the promotion of version {intent.version} is not finished: {error}",
        hint="it stays open, and the next command finishes it"
        + (f"; to give it up: kfloop reject {name}" if name else ""),
        version=intent.version,
    )
