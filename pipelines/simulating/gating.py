"""Whether a challenger of the replay takes the champion's place: the real evaluation, and the gate's own rules on it.

The gate's conditions about the server (the blessing), the label check and the validation have nothing to judge here and are left out, and so
are rules about what those measure; everything that rests on the evaluation is asked as in a real round.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.components.evaluate import evaluation
from kfloop.components.gate.deciding import decide
from kfloop.components.gate.evidence import collect
from kfloop.components.gate.rules import rules_of
from kfloop.core.artifacts import write_report
from kfloop.core.store import Store
from kfloop.errors import TerminalError, TransientError

if TYPE_CHECKING:
    from kfloop.components.monitor.reporting import MonitorReport
    from kfloop.core.config import LoopConfig
    from kfloop.core.sections import EvaluateConfig, GateConfig
    from kfloop.core.workspace import Workspace
    from kfloop.pipelines.simulating.trainings import Training

NOT_ASKED = frozenset(
    {
        "report of validate",
        "report of labels",
        "report of bless",
        "data validation passed",
        "one challenger",
        "one dataset version",
        "blessed by a real server",
    }
)
MEASURED = ("evaluate", "cost")
MOST_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the gate says of a challenger."""

    promoted: bool
    reason: str


def judge(
    config: LoopConfig, training: Training, champion: str, workspace: Workspace, asked: MonitorReport
) -> Judgement:
    """Compare a challenger with the champion, and decide.

    Args:
        config: The loop.
        training: The challenger's.
        champion: Digest of the champion's package.
        workspace: Places of the replay; dataset version and packages are in its store.
        asked: The round that asked for the training: what it names as moved is judged, too.
    """
    if training.failed:
        return Judgement(promoted=False, reason=f"the training failed: {training.failed}")
    store = Store.of(workspace)
    gate = config.gate
    with tempfile.TemporaryDirectory(prefix="gate-", dir=workspace.root) as scratch:
        places = {name: Path(scratch) / name for name in ("incumbent", "evaluation")}
        for place in places.values():
            place.mkdir()
        cause = {"kind": asked.cause, "reason": asked.reason, "evidence": "", "drifted": asked.drifted}
        write_report(places["incumbent"], {"champion_digest": champion, "cause": cause})
        try:
            evaluation.run(
                _section(config.evaluate, gate),
                dataset=store.require("datasets", training.dataset),
                model=store.require("models", training.model),
                incumbent=places["incumbent"],
                out=places["evaluation"],
                workspace=workspace,
            )
        except TransientError:
            raise
        except TerminalError as error:
            return Judgement(promoted=False, reason=f"the evaluation failed: {error.message}")
        evidence = collect({"evaluate": places["evaluation"]})
    rules = tuple(rule for rule in rules_of(gate, evidence) if rule.source in MEASURED)
    report = decide(gate.model_copy(update={"rules": rules}), evidence)
    blocking = [one for one in report.verdicts if one.blocks and one.rule not in NOT_ASKED]
    if blocking:
        return Judgement(promoted=False, reason="; ".join(one.sentence for one in blocking[:MOST_REASONS]))
    passed = sum(one.verdict == "pass" for one in report.verdicts if one.rule not in NOT_ASKED)
    return Judgement(promoted=True, reason=f"{passed} conditions and rules on the evaluation pass")


def _section(config: EvaluateConfig, gate: GateConfig) -> EvaluateConfig:
    """The section without what no rule asks for: explanations, and rows that are corrupted or searched for segments."""
    asked = {rule.slice.partition(":")[0] for rule in gate.rules or ()}
    update: dict[str, object] = {"explain": 0, "latency_seconds": 0.02}
    update |= {} if "corruption" in asked else {"corrupted_rows": 0}
    update |= {} if "segment" in asked else {"segments": 0}
    return config.model_copy(update=update)
