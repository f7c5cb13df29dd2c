"""Test rows by a small sketch: how much of the present test set an earlier one shared, without keeping every row's id.

A bottom-k sketch keeps the k smallest hashes of a set (Bar-Yossef et al., "Counting distinct elements in a data stream", RANDOM 2002;
Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007). Below the largest hash that both sketches know completely, the
share of one set's hashes that the other has too is an unbiased estimate of the share of its rows that the other held.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import read_report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from kfloop.core.workspace import Workspace

SKETCH_SIZE = 128  # the standard error of a share is at most .5 / sqrt(128) = .044 where the sets are of like size
HASH_DIGITS = 16  # 64 bits: two rows in a billion collide by chance less than once in ten thousand sets of a million


def sketched(ids: Iterable[Any]) -> dict[str, Any]:
    """Digest and sketch of test rows, for the evaluation report.

    Args:
        ids: Ids of the rows, in any order; each counts once.

    Returns:
        ``digest``: sha256 of the sorted ids; ``sketch``: the smallest hashes of ids, ascending, at most ``SKETCH_SIZE``.
    """
    known = sorted({str(name) for name in ids})
    hashes = sorted({hashlib.sha256(name.encode()).hexdigest()[:HASH_DIGITS] for name in known})
    return {"digest": hashlib.sha256("\n".join(known).encode()).hexdigest(), "sketch": hashes[:SKETCH_SIZE]}


def shared(now: Sequence[str], then: Sequence[str]) -> float:
    """Estimated share of the present test rows that an earlier test set held too.

    Args:
        now: Sketch of the present rows.
        then: Sketch of the earlier rows.

    Returns:
        Between 0 and 1; 1 where the sketches have no hash in common range, since an unknown look counts as a whole one.
    """
    limits = [sketch[-1] for sketch in (now, then) if len(sketch) >= SKETCH_SIZE]
    comparable = [name for name in now if not limits or name <= min(limits)]
    if not comparable:
        return 1.0
    return len(set(comparable) & set(then)) / len(comparable)


def named_rows(evaluation: Mapping[str, Any]) -> tuple[str, tuple[str, ...]] | None:
    """Digest and sketch of the test rows of an evaluation report; null where it does not name them."""
    rows = evaluation.get("test_rows")
    digest, sketch = (rows.get("digest"), rows.get("sketch")) if isinstance(rows, dict) else (None, None)
    if not isinstance(digest, str) or not digest or not isinstance(sketch, list) or not sketch:
        return None
    return digest, tuple(str(name) for name in sketch)


def count_look(
    evaluation: Mapping[str, Any], challenger: str | None, workspace: Workspace, evidence_digest: str = ""
) -> None:
    """Record that a challenger was judged on the test rows of an evaluation; twice is one look.

    Args:
        evaluation: The evaluation's report.
        challenger: Digest of the challenger's package; null is not counted.
        workspace: Places of the loop.
        evidence_digest: The decision made on it; empty for none yet.
    """
    from kfloop.core.state import open_state

    rows = named_rows(evaluation)
    if rows is not None and challenger:
        open_state(workspace.state).looks.add(
            workspace.loop,
            challenger_digest=challenger,
            test_digest=rows[0],
            sketch=rows[1],
            evidence_digest=evidence_digest,
        )


def count_evaluation(path: Path, workspace: Workspace) -> None:
    """Count the look of an evaluation once it is in the store: whoever runs no further has seen its figures all the same."""
    report = read_report(path)
    challenger = report.get("challenger")
    count_look(report, challenger.get("digest") if isinstance(challenger, dict) else None, workspace)
