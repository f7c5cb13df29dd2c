"""What the benchmarks of the model families share: a dataset version once, a training as ``kfloop`` does it, answers, and a table of figures."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.core.encoding import Examples
    from kfloop.core.families.checkpoints import Checkpoint
    from kfloop.core.sections import DataConfig, TrainConfig
    from kfloop.core.versions import DatasetVersion

AT_ONCE = 256  # examples in one call of the network


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of the table.

    Attributes:
        name: What was measured, such as ``Adult, AUC (mlp)``.
        values: The figure of each seed (or fold).
        baseline: Figure of the simple baseline on the same test rows; null without one.
        baseline_name: What the baseline is.
        target: What the mean must reach; null for figures that are only reported.
        higher: Whether more is better.
        cpu_minutes: Mean CPU time of a training.
        minutes: Mean wall time of a training.
    """

    name: str
    values: tuple[float, ...]
    baseline: float | None
    baseline_name: str
    target: float | None
    higher: bool = True
    cpu_minutes: float = 0.0
    minutes: float = 0.0

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.values))

    @property
    def met(self) -> bool | None:
        """Whether the mean reaches the target; null without one."""
        if self.target is None:
            return None
        return self.mean >= self.target if self.higher else self.mean <= self.target


def workspace_of(folder: Path) -> Workspace:
    """A loop of its own in ``folder``."""
    return Workspace(
        loop="benchmark",
        root=folder,
        state="",
        store=str(folder / "store"),
        mlflow=f"sqlite:///{folder}/mlflow.db",
    )


def ingested(config: DataConfig, folder: Path) -> DatasetVersion:
    """The dataset version of ``config``, made once and kept in ``folder``.

    Args:
        config: Section ``data``.
        folder: Work folder.
    """
    from kfloop.components.ingest.ingestion import run
    from kfloop.core.versions import read_version

    place = folder / "versions" / hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=place.parent))
        run(config, out=part, workspace=workspace_of(folder))
        part.rename(place)  # whole or not there at all
    return read_version(place)


def no_doubts(folder: Path) -> Path:
    """A label check that doubts no row: the figures should be those of the data as they are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = folder / "labels"
    place.mkdir(parents=True, exist_ok=True)
    kinds = {"id": pa.string(), "weight": pa.float64(), "quarantined": pa.bool_()}
    pq.write_table(pa.table({name: pa.array([], kind) for name, kind in kinds.items()}), place / "weights.parquet")
    return place


def train_once(source: DataConfig, train: TrainConfig, folder: Path) -> tuple[Checkpoint, DatasetVersion, float, float]:
    """One training through kfloop's own ``train`` step.

    Args:
        source: Section ``data``.
        train: Section ``train``.
        folder: Work folder; the dataset version stays there for the next call.

    Returns:
        The best checkpoint, the dataset version, wall seconds and CPU seconds of the training (ingestion not counted).
    """
    from kfloop.components.train.training import after_publish, run
    from kfloop.core.families.checkpoints import load_checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    version, workspace = ingested(source, folder), workspace_of(folder)
    labels = no_doubts(folder)
    out = Path(tempfile.mkdtemp(dir=folder))
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        run(train, dataset=version.folder, labels=labels, out=out, workspace=workspace)
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        after_publish(out, workspace)
        return load_checkpoint(out / "model.ckpt"), version, seconds, cpu_seconds
    finally:
        shutil.rmtree(out)


def predict(checkpoint: Checkpoint, version: DatasetVersion, split: str) -> dict[str, Any]:
    """Answers for the rows of a split, as a served model gives them.

    Returns:
        ``examples`` (kfloop's Examples), ``target``, ``ids``, and one array for each output by its name, such as ``probabilities`` and
        ``embedding``.
    """
    spec = checkpoint.spec
    examples = checkpoint.encoder.examples(version, split, spec.objective, normal=spec.facts.get("normal"))
    return {"examples": examples, "target": examples.target, "ids": examples.ids} | answers(checkpoint, examples)


def answers(checkpoint: Checkpoint, examples: Examples) -> dict[str, Any]:
    """One array for each output of the network, by its name, one entry for each example."""
    import torch

    from kfloop.core.families.heads import Served
    from kfloop.core.signature import OUTPUTS

    served = Served(checkpoint.network, checkpoint.spec.objective).eval()
    names = OUTPUTS[checkpoint.spec.objective]
    parts: dict[str, list[Any]] = {name: [] for name in names}
    for start in range(0, len(examples), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(examples)))
        with torch.no_grad():
            outputs = served(*(torch.from_numpy(array) for array in examples.batch_inputs(rows)))
        places = examples.batch_rows(rows)
        for name, output in zip(names, outputs, strict=True):
            parts[name].append(output.numpy()[places])
    return {name: np.concatenate(part) for name, part in parts.items()}


def table(rows: Sequence[Row]) -> str:
    """A table in Markdown: mean and single figures, the baseline beside them, what it cost, and whether the target is met."""
    lines = [
        "| what | mean | each | baseline | CPU min | wall min | target | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        each = " ".join(f"{value:.4f}" for value in row.values)
        baseline = "-" if row.baseline is None else f"{row.baseline:.4f} ({row.baseline_name})"
        target = "-" if row.target is None else f"{'>=' if row.higher else '<='} {row.target:g}"
        verdict = {None: "reported", True: "met", False: "missed"}[row.met]
        lines.append(
            f"| {row.name} | {row.mean:.4f} | {each} | {baseline} | {row.cpu_minutes:.1f} | {row.minutes:.1f} | {target} | {verdict} |"
        )
    return "\n".join(lines)
