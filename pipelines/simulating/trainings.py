"""The trainings of a replay: the same recipe for every policy, each made once and kept.

What a training learns from depends on the moment alone, never on who asks: the latest labelled rows whose labels were known by then. So
two policies that retrain at the same moment get the same model, which is trained once and charged to both.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.artifacts import write_report
from kfloop.core.store import Store
from kfloop.errors import InputError, TerminalError, TransientError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.config import LoopConfig
    from kfloop.core.sections import DataConfig
    from kfloop.core.workspace import Workspace
    from kfloop.pipelines.simulating.settings import Settings
    from kfloop.pipelines.simulating.stream import Stream

FIRST = -1  # the moment of the first model, before any window


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training.

    Attributes:
        moment: Window at whose end it began; -1 for the first model.
        model: Digest of the package in the store; empty when the training failed.
        dataset: Digest of its dataset version.
        rows: Labelled rows it was given.
        newest: The last of them, a row of the stream.
        cpu_seconds: CPU time of ingest, training and packaging in this process.
        failed: Why there is no model; empty when there is one.
    """

    moment: int
    model: str
    dataset: str
    rows: int
    newest: int
    cpu_seconds: float
    failed: str


class Trainings:
    """Makes a model of what was known at a moment, or brings back the one that was made.

    Args:
        config: The loop.
        settings: The replay.
        stream: Its rows.
        workspace: Places of the replay.
    """

    def __init__(self, config: LoopConfig, settings: Settings, stream: Stream, workspace: Workspace) -> None:
        self._config, self._settings, self._stream = config, settings, stream
        self._workspace, self._store = workspace, Store.of(workspace)
        self._folder = workspace.root / "trainings"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.first_row = first_row(settings, len(stream))

    def known_rows(self, moment: int) -> NDArray[np.int64]:
        """Rows whose label was known at the end of a window, the oldest first; the first model knows all of its period.

        Args:
            moment: Number of the window; -1 for the first model.
        """
        rows = np.flatnonzero(self._stream.learnable)
        if moment == FIRST:
            return rows[rows < self.first_row]
        last = min(self.first_row + (moment + 1) * self._settings.window, len(self._stream)) - 1
        now = self._stream.times_ns[last]
        delay = int(self._settings.label_delay * 1e9)
        return rows[(rows <= last) & (self._stream.times_ns[rows] + delay <= now)]

    def at(self, moment: int) -> Training:
        """The training at a moment.

        Raises:
            KeyboardInterrupt: Somebody interrupts it; the next call begins it anew.
        """
        place = self._folder / f"{moment}.json"
        if place.is_file():
            return Training(**json.loads(place.read_text(encoding="utf-8")))
        done = self._train(moment)
        staging = place.with_suffix(".tmp")
        staging.write_text(json.dumps(asdict(done), sort_keys=True), encoding="utf-8")
        staging.replace(place)
        return done

    def _train(self, moment: int) -> Training:
        rows = self.known_rows(moment)
        if moment != FIRST:
            rows = rows[-(self._settings.memory or len(self.known_rows(FIRST))) :]
        began = time.process_time()
        model = dataset = failed = ""
        with tempfile.TemporaryDirectory(prefix="training-", dir=self._workspace.root) as scratch:
            try:
                dataset, model = make_model(
                    self._config, self._stream.table.take(rows), Path(scratch), self._workspace, self._store
                )
            except TransientError:
                raise
            except (InputError, TerminalError) as error:  # as in life: the champion stays, and the effort is lost
                failed = error.message
        newest = int(rows[-1]) if len(rows) else -1
        spent = time.process_time() - began
        return Training(
            moment=moment,
            model=model,
            dataset=dataset,
            rows=len(rows),
            newest=newest,
            cpu_seconds=spent,
            failed=failed,
        )


def first_row(settings: Settings, n: int) -> int:
    """The first row that is answered; those before it train the first model."""
    return int(np.ceil(settings.initial * n))


def make_model(
    config: LoopConfig, table: pa.Table, scratch: Path, workspace: Workspace, store: Store
) -> tuple[str, str]:
    """Ingest, train and package rows with the loop's own components, in this process.

    Left out is what says nothing about a policy: the label check, MLflow, and the trial on Triton.

    Args:
        config: The loop.
        table: Labelled rows, an Arrow table.
        scratch: Empty folder.
        workspace: Places of the replay.
        store: Its store.

    Returns:
        Digests of the dataset version and of the package, both in the store.

    Raises:
        TerminalError: The rows cannot be learned from, or the training fails.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from kfloop.components.ingest import ingestion
    from kfloop.components.package import packaging
    from kfloop.components.train.fitting import fit
    from kfloop.components.train.preparing import prepare
    from kfloop.components.train.training import CHECKPOINT, TRAIN_CONTENT
    from kfloop.core.families.checkpoints import save_checkpoint
    from kfloop.core.versions import read_version

    places = {name: scratch / name for name in ("dataset", "labels", "work", "checkpoint", "package")}
    for place in places.values():
        place.mkdir()
    pq.write_table(table, scratch / "rows.parquet")
    ingestion.run(data_section(config, scratch / "rows.parquet"), out=places["dataset"], workspace=workspace)
    version = read_version(places["dataset"])
    nothing = pa.schema([("id", pa.string()), ("weight", pa.float64()), ("quarantined", pa.bool_())])
    pq.write_table(nothing.empty_table(), places["labels"] / "weights.parquet")
    train = config.train.model_copy(update={"deterministic": True, "search": None})
    prepared = prepare(train, version, places["labels"])
    try:
        curve, _, _ = fit(prepared, train, work=places["work"], resume=None, listen=None)
    except SystemExit as stopped:  # Lightning's answer to Ctrl-C, which it then leaves ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from stopped
    save_checkpoint(places["checkpoint"] / CHECKPOINT, prepared.spec, prepared.encoder, curve.best_weights)
    content = sorted(set(prepared.train.content.tolist()))
    (places["checkpoint"] / TRAIN_CONTENT).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    write_report(places["checkpoint"], {"dataset_digest": version.digest})
    report = packaging.run(
        config.package,
        dataset=places["dataset"],
        checkpoint=places["checkpoint"],
        out=places["package"],
        workspace=workspace,
    )
    store.publish(places["dataset"], "datasets", version.digest)
    store.publish(places["package"], "models", report.digest)
    shutil.rmtree(places["work"])
    return version.digest, report.digest


def data_section(config: LoopConfig, rows: Path) -> DataConfig:
    """Section ``data`` of a training: the loop's own, with the rows of that moment as its source."""
    nothing = dict.fromkeys(("limit", "fresh", "votes", "corrections", "feedback", "dvc", "delimiter"))
    return config.data.model_copy(update=nothing | {"source": str(rows), "modality": "table"})
