"""Rolling out: a verified challenger gets traffic, or sees it, while the champion stays champion; and how that ends without a promotion.

What goes on stands in the ledger: a row ``rollout`` with share, salt and the values of ``deploy.rollout`` as they were. ``served.json`` follows the ledger like
everything else, so a restart of any part comes back to the same state. See ``advancing`` for who decides how it ends.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from kfloop.components.deploy.changing import Change, Changed, change_champion, ignore
from kfloop.components.deploy.following import follow
from kfloop.components.deploy.projecting import restore_versions, standing
from kfloop.components.deploy.verifying import verify_version
from kfloop.core.registry import CHALLENGER, Registry
from kfloop.core.state import open_state
from kfloop.core.state.standing import active_rollout
from kfloop.core.store import Store
from kfloop.core.workspace import run_id
from kfloop.errors import KfloopError, StateError
from kfloop.serving.repository import policy, read_policy, set_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.components.deploy.projecting import Standing
    from kfloop.core.sections import DeployConfig
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

AT_ONCE = "all_at_once"
ROLLOUT_STAGES = ("registered", "verified", "begun", "projected")


def carry_out(
    change: Change, workspace: Workspace, config: DeployConfig, at: Callable[[str], None] = ignore
) -> Changed:
    """Promote, or begin to roll out, as ``deploy.rollout`` says; the first champion of a loop is promoted at once.

    Args:
        change: The promotion that is asked for.
        workspace: Places of the loop.
        config: Section ``deploy``.
        at: Called with the name of each stage reached.

    Raises:
        StateError: The champion is another one than expected, or the package is not in the store.
        ServingError: The version did not load or answered wrongly; the champion keeps serving.
    """
    now = standing(open_state(workspace.state).ledger, workspace.loop)
    if config.rollout.strategy == AT_ONCE or now.champion is None or now.champion.model_digest == change.digest:
        if now.rollout is not None and now.rollout.model_digest != change.digest:
            withdraw(workspace, now.rollout, change.actor, "a newer challenger was promoted")
        return change_champion(change, workspace, config, at)
    if now.rollout is not None and now.rollout.model_digest == change.digest:
        return Changed(entry=now.rollout, verification=None, repeated=True, events=tuple(follow(workspace, config)))
    return _begin(change, now, workspace, config, at)


def _begin(
    change: Change, now: Standing, workspace: Workspace, config: DeployConfig, at: Callable[[str], None]
) -> Changed:
    """Verify the challenger, and say in the ledger that it is rolled out."""
    ledger = open_state(workspace.state).ledger
    present = now.champion.model_digest if now.champion else None
    if present != change.expected:
        raise StateError(
            f"the champion is {present or 'none'}, but the decision was made against {change.expected or 'none'}",
            hint="run the loop again: the challenger must be compared with the present champion",
        )
    package = Store.of(workspace).require("models", change.digest)
    if now.rollout is not None:
        withdraw(workspace, now.rollout, change.actor, "a newer challenger is rolled out")
        follow(workspace, config)
    restore_versions(workspace, now)
    registry = Registry(workspace.mlflow, workspace.loop)
    version = registry.register(change.digest, Store.of(workspace).uri("models", change.digest))
    at("registered")
    try:
        verification = verify_version(workspace, config, version, package)
    except (KfloopError, OSError):
        follow(workspace, config)
        raise
    at("verified")
    entry = ledger.note(
        workspace.loop,
        action="rollout",
        actor=change.actor,
        reason=change.reason,
        version=version,
        model_digest=change.digest,
        evidence_digest=change.evidence_digest,
        run_id=run_id(),
        details={
            "decision": change.decision,
            "mode": config.rollout.strategy,
            "share": config.rollout.share,
            "salt": secrets.token_hex(8),
            "champion": change.expected,
            "config": config.model_dump(mode="json"),  # what was promised at the start holds until the end
        },
    )
    at("begun")
    events = follow(workspace, config)
    registry.project({CHALLENGER: version})
    at("projected")
    return Changed(entry=entry, verification=verification, repeated=False, events=tuple(events))


def withdraw(
    workspace: Workspace,
    rollout: Entry,
    actor: str,
    reason: str,
    *,
    figures: dict[str, Any] | None = None,
    down: bool = False,
) -> Entry | None:
    """Say that a challenger gets no more traffic, and let the processes of the model know at once; everything else follows with ``follow``.

    It needs no lease: a run of hours must not keep a challenger that fails in the traffic.

    Args:
        workspace: Places of the loop.
        rollout: The row that began it.
        actor: Who ends it.
        reason: Why.
        figures: The evidence.
        down: Whether from here on only a person may promote it.

    Returns:
        The row; null, and nothing is changed, where the roll-out has ended meanwhile: its challenger may be champion by now.
    """
    entry = open_state(workspace.state).ledger.withdraw(
        rollout, actor=actor, reason=reason, run_id=run_id(), details={"down": down, "figures": figures or {}}
    )
    if entry is not None:
        stop_routing(workspace, rollout)
    return entry


def stop_routing(workspace: Workspace, rollout: Entry) -> None:
    """The policy file without this roll-out; what is loaded stays loaded."""
    told = read_policy(workspace.repository, workspace.loop)
    if told is not None and (told["rollout"] or {}).get("salt") == rollout.details["salt"]:
        others = [number for number in told["versions"] if number != rollout.version or number == told["default"]]
        set_policy(workspace.repository, workspace.loop, policy(others, told["default"]))


def end_rollout(workspace: Workspace, actor: str, reason: str) -> Entry | None:
    """Withdraw the roll-out that is going on, if any, because something else takes its place."""
    rollout = active_rollout(open_state(workspace.state).ledger.history(workspace.loop))
    return None if rollout is None else withdraw(workspace, rollout, actor, reason)
