"""What people are asked when labels are missing: the requests worth labelling most, beside the monitor's report."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.monitor.policy.concluding import NEEDS_LABELS
from kfloop.core.ground_truth import truth_file
from kfloop.core.quality.answers import answer_times
from kfloop.core.review.choosing import worth_labelling, write_questions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kfloop.core.sections import MonitorConfig
    from kfloop.core.workspace import Workspace


def ask(config: MonitorConfig, concluded: Mapping[str, Any], *, version: int, out: Path, workspace: Workspace) -> int:
    """Write ``questions.jsonl`` when labels are needed; ``kfloop review export`` asks about these first.

    Args:
        config: Section ``monitor``.
        concluded: What ``circumstances.judge`` gave.
        version: Version of the champion.
        out: Folder of the report.
        workspace: Places of the loop.

    Returns:
        Number of questions.
    """
    if concluded["outcome"] != NEEDS_LABELS:
        return 0
    since = next((cause.since for cause in concluded["causes"] if cause.kind == concluded["cause"]), "")
    questions = worth_labelling(
        workspace.request_log / workspace.loop,
        version=version,
        count=config.queue,
        since_ns=round(datetime.fromisoformat(since).timestamp() * 1e9) if since else 0,
        answered=answer_times(truth_file(config.feedback, workspace.root)),
    )
    write_questions(out, questions)
    return len(questions)
