"""Which requests are worth labelling most: doubtful ones, but such that differ and stand for the others.

The least certain requests alone are odd ones, and often the same question many times: on pictures of a new kind their labels taught a model less than
those of requests drawn at random (``benchmarks/review_queue.py``). So the requests are cut into as many clusters of embeddings as there are questions, each
request weighing as much as its answer is in doubt, and the one next to the middle of each cluster is asked about (F. Zhdanov, "Diverse mini-batch Active
Learning", arXiv 1901.05954, without its preselection). Nothing of it is random: the same log gives the same questions.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.request_files import model_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.workspace import Workspace

    Rows = tuple[list[str], NDArray[np.float64], NDArray[np.float64]]

QUESTIONS = "questions.jsonl"  # beside the monitor's report
CANDIDATES = 5000  # requests that are looked at, those with the smallest hashes of their ids
LEAST = 1e-3  # weight of an answer beyond all doubt
FALLBACK = "output.probabilities"
NEEDS_LABELS, RETRAIN = "needs_labels", "retrain"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request that is worth labelling.

    Attributes:
        request_id: Its id in the log.
        margin: Lead of the model's answer over its best rival, in [0, 1].
    """

    request_id: str
    margin: float


def worth_labelling(
    log: Path, *, version: int, count: int, since_ns: int = 0, answered: Collection[str] = ()
) -> list[Question]:
    """Choose requests out of the log; its size does not matter for the memory this takes.

    Args:
        log: Request log of one model, ``<hour>/*.parquet``.
        version: Version whose requests are meant: embeddings of another one mean something else.
        count: Number of questions.
        since_ns: Only requests from then on, nanoseconds since 1970.
        answered: Ids of requests whose truth is known.

    Returns:
        At most ``count`` questions, the closest call first; none where the model has no classes, or the log no answers.
    """
    found: dict[str, tuple[bytes, float, NDArray[np.float64]]] = {}
    for ids, margins, embedding in _rows(log, version, since_ns):
        for place, name in enumerate(ids):
            if name not in answered and name not in found:
                found[name] = (blake2b(name.encode(), digest_size=8).digest(), float(margins[place]), embedding[place])
        if len(found) > CANDIDATES:
            found = dict(sorted(found.items(), key=lambda item: item[1][0])[:CANDIDATES])
    ranked = sorted(found.items(), key=lambda item: (item[1][1], item[0]))
    if not ranked:
        return []
    width = len(ranked[0][1][2])
    ranked = [item for item in ranked if len(item[1][2]) == width]
    margins = np.array([margin for _, (_, margin, _) in ranked])
    chosen = most_telling(np.stack([row for _, (_, _, row) in ranked]), 1 - margins, count)
    return [Question(request_id=ranked[place][0], margin=ranked[place][1][1]) for place in chosen.tolist()]


def write_questions(folder: Path, questions: Sequence[Question]) -> None:
    """Write questions as JSON lines; no file where there are none."""
    if questions:
        lines = [json.dumps(asdict(question), sort_keys=True) for question in questions]
        (folder / QUESTIONS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def open_questions(workspace: Workspace) -> list[Question]:
    """What the monitor last asked about the present champion; nothing once a retraining started."""
    from kfloop.core.state.database import exists, open_state
    from kfloop.core.store import Store

    if not exists(workspace.state):
        return []
    state = open_state(workspace.state)
    champion = state.ledger.champion(workspace.loop)
    told = [item for item in state.triggers.history(workspace.loop) if item.trigger in (NEEDS_LABELS, RETRAIN)]
    if (
        not told
        or champion is None
        or (told[-1].trigger, told[-1].champion_digest) != (NEEDS_LABELS, champion.model_digest)
    ):
        return []
    path = Store.of(workspace).path("evidence", told[-1].evidence_digest) / QUESTIONS
    if not path.is_file():
        return []
    return [Question(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def most_telling(embedding: NDArray[np.float64], doubt: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Choose rows that differ: the one next to the middle of each cluster.

    Args:
        embedding: Embeddings [N, D], the most doubtful row first.
        doubt: How doubtful each row is, in [0, 1], [N].
        count: Number of rows wanted.

    Returns:
        Places, ascending, at most ``count``.
    """
    from sklearn.cluster import KMeans

    if len(embedding) <= count:
        return np.arange(len(embedding))
    spread = embedding.std(axis=0)
    scaled = ((embedding - embedding.mean(axis=0)) / np.where(spread > 0, spread, 1.0))[:, spread > 0]
    distinct = len(np.unique(scaled, axis=0)) if scaled.shape[1] else 1
    if distinct <= count:  # too alike to be told apart: the most doubtful ones
        return np.arange(count)
    found = KMeans(n_clusters=count, n_init=1, random_state=0).fit(scaled, sample_weight=np.maximum(doubt, LEAST))
    distance = np.linalg.norm(scaled - found.cluster_centers_[found.labels_], axis=1)
    order = np.lexsort((np.arange(len(scaled)), distance))
    _, first = np.unique(found.labels_[order], return_index=True)
    return np.sort(order[first])


def _rows(log: Path, version: int, since_ns: int) -> Iterator[Rows]:
    """Ids, margins [n] and embeddings [n, D] of each file; what cannot be read is named by the monitor."""
    import pyarrow as pa

    for path in model_files(log):
        try:
            found = _of_file(path, version, since_ns)
        except (OSError, ValueError, TypeError, pa.ArrowException):
            continue
        if found is not None:
            yield found


def _of_file(path: Path, version: int, since_ns: int) -> Rows | None:
    """The rows of one file; None where it has none that can be asked about."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names
    column = "probabilities" if "probabilities" in names else FALLBACK
    wanted = ["request_id", "ts_ns", "version", column, *(["embedding"] if "embedding" in names else [])]
    if column not in names:
        return None
    table = pq.read_table(path, columns=wanted)
    kept = (table["version"].to_numpy() == version) & (table["ts_ns"].to_numpy() >= since_ns)
    table = table.filter(pa.array(kept))
    shares = _matrix(table, column)
    if shares is None or shares.shape[1] < 2:  # noqa: PLR2004 - a rival is needed
        return None
    top = np.sort(shares, axis=1)
    margins = top[:, -1] - top[:, -2]
    embedding = _matrix(table, "embedding") if "embedding" in names else None
    usable = np.isfinite(margins) & (True if embedding is None else np.isfinite(embedding).all(axis=1))
    ids = table["request_id"].to_numpy()[usable].tolist()
    return ids, margins[usable], (shares if embedding is None else embedding)[usable]


def _matrix(table: Any, column: str) -> NDArray[np.float64] | None:
    """Rows [n, K] of a list column; None where they have different lengths, or there are none."""
    flat = table[column].combine_chunks()
    n = len(flat)
    values = flat.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return values.reshape(n, -1) if n and not flat.null_count and len(values) and len(values) % n == 0 else None
