"""From a loop's configuration to the arguments of a pipeline: the same for every engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.core.artifacts import canonical_json

if TYPE_CHECKING:
    from kfloop.core.config import LoopConfig
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
}


def pipeline_arguments(pipeline: str, config: LoopConfig, workspace: Workspace) -> dict[str, str]:
    """Arguments of ``pipeline`` (``training`` or ``monitoring``), each section as one canonical JSON string."""
    sections = PIPELINE_SECTIONS[pipeline]
    values = {name: canonical_json(config.section(key).model_dump(mode="json")) for name, key in sections.items()}
    return {"workspace": workspace.to_json()} | values
