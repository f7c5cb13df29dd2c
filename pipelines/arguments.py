"""From a loop's configuration to the arguments of a pipeline: the same for every engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.core.artifacts import canonical_json, sha256_text
from kfloop.core.sections import OverriddenRule
from kfloop.serving.log_mirror import bring

if TYPE_CHECKING:
    from kfloop.core.config import LoopConfig
    from kfloop.core.sections import GateConfig, ValidationConfig
    from kfloop.core.workspace import Workspace

ROUND_SECTIONS = {
    "data": "data",
    "validation": "validation",
    "labels": "labels",
    "train_config": "train",
    "package_config": "package",
    "evaluate_config": "evaluate",
    "bless_config": "bless",
    "gate_config": "gate",
    "deploy_config": "deploy",
}
PIPELINE_SECTIONS = {
    "training": ROUND_SECTIONS | {"notify_config": "notify"},
    "monitoring": ROUND_SECTIONS | {"monitor_config": "monitor", "notify_config": "notify"},
    "approval": {"deploy_config": "deploy", "gate_config": "gate", "notify_config": "notify"},
}


def pipeline_arguments(
    pipeline: str, config: LoopConfig, workspace: Workspace, *, ledger: bool = True
) -> dict[str, str]:
    """Arguments of ``pipeline``, each section as one canonical JSON string.

    Of ``approval`` the evidence digest, the actor and the reason are still to be added.

    Args:
        pipeline: ``training``, ``monitoring`` or ``approval``.
        config: The loop.
        workspace: Its places.
        ledger: Add what the ledger says now. Without it the gate asks the ledger when it decides, so that the arguments are those of any
            later time too: for a cluster, where it is never cached.
    """
    sections = PIPELINE_SECTIONS[pipeline]
    values = {name: canonical_json(config.section(key).model_dump(mode="json")) for name, key in sections.items()}
    if "validation" in values:
        values["validation"] = canonical_json(_with_requests(config.validation, workspace).model_dump(mode="json"))
    gate = gate_section(config, workspace) if ledger else config.gate.model_copy(update={"overrides": None})
    values["gate_config"] = canonical_json(gate.model_dump(mode="json"))
    return {"workspace": workspace.to_json()} | values


def gate_section(config: LoopConfig, workspace: Workspace) -> GateConfig:
    """The section with what the ledger says now: overrides that last, the champion's row, and who was turned down.

    A decision depends on each of them, so that none that is cached must outlive it.
    """
    from kfloop.core.state import open_state
    from kfloop.core.state.database import exists
    from kfloop.core.state.entries import champion_of
    from kfloop.core.state.standing import active_overrides, turned_down_rows

    if not exists(workspace.state):
        return config.gate
    history = open_state(workspace.state).ledger.history(workspace.loop)
    champion = champion_of(history)
    rules = tuple(OverriddenRule(rule=override.rule, row=override.row) for override in active_overrides(history))
    return config.gate.model_copy(
        update={
            "overrides": rules,
            "champion_row": champion.seq if champion else 0,
            "turned_down": turned_down_rows(history),
        }
    )


def _with_requests(validation: ValidationConfig, workspace: Workspace) -> ValidationConfig:
    """The section with the request log to compare with, and its state: the cache of the step must not outlive it."""
    if validation.requests is not None:
        folder = Path(validation.requests)
    else:  # a loop that is submitted has its folder elsewhere
        folder = bring(workspace) if workspace.root.is_dir() else workspace.request_log
    files = sorted(folder.rglob("*.parquet")) if folder.is_dir() else []
    if not files:
        return validation
    lines = "".join(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n" for path in files)
    return validation.model_copy(update={"requests": str(folder), "requests_digest": sha256_text(lines)})
