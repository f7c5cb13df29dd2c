"""A champion of a table in real state and a real store, with a request log that is written as the collector does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kfloop.components.monitor.monitoring import run
from kfloop.core.artifacts import read_report, write_report
from kfloop.core.encoding.table import Encoder
from kfloop.core.execution import perform
from kfloop.core.scoring import ENCODER
from kfloop.core.sections import MonitorConfig
from kfloop.core.signature import Port, Signature, write_signature
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOOP, DIGEST, N_REFERENCE = "table", "champion", 1000
NUMBERS = ["age", "income", "score"]
ENCODED = Encoder(
    [
        {"name": "age", "kind": "number", "offset": 0.0},
        {"name": "city", "kind": "category", "names": ["Rome", "Oslo", "Lima"]},
        {"name": "income", "kind": "number", "offset": 1000.0},
        {"name": "score", "kind": "number", "offset": 0.0},
    ],
    {},
)
SIGNATURE = Signature(
    objective="classification",
    modality="table",
    family="mlp",
    inputs=(Port(name="number", dtype="float32", shape=(3,)), Port(name="category", dtype="int64", shape=(1,))),
    outputs=(
        Port(name="probabilities", dtype="float32", shape=(2,)),
        Port(name="embedding", dtype="float32", shape=(4,)),
    ),
    labels=("no", "yes"),
    max_batch_size=16,
)
Rows = dict[str, "NDArray[Any]"]


def draw(seed: int, n: int) -> Rows:
    """Rows that do not drift: numbers, codes of cities from 2 on, and what a model makes of them."""
    rng = np.random.default_rng([7, seed])
    numbers = np.column_stack([rng.normal(40, 10, n), rng.normal(0, 300, n), rng.normal(size=n)])
    return answered({"number": numbers.astype(np.float32), "category": rng.integers(2, 5, (n, 1))})


def answered(rows: Rows) -> Rows:
    z = np.nan_to_num(np.column_stack([(rows["number"] - [40, 0, 0]) / [10, 300, 1], rows["category"] - 3]))
    one = 1 / (1 + np.exp(-z @ np.array([1.0, -0.5, 0.3, 0.2])))
    return {**rows, "probabilities": np.stack([1 - one, one], axis=1), "embedding": np.tanh(z)}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A workspace with a champion of a table."""

    workspace: Workspace

    @property
    def package(self) -> Path:
        return Store(self.workspace.store).path("models", DIGEST)

    def log(self, rows: Rows, start: int = 0, *, step: float = 18.0, without: tuple[str, ...] = ()) -> None:
        """Write rows as one file, one each `step` seconds."""
        n = len(rows["number"])
        columns = {
            "request_id": [f"r{start + i:06d}" for i in range(n)],
            "ts_ns": [1_760_000_400_000_000_000 + int((start + i) * step * 1e9) for i in range(n)],
            "version": [1] * n,
            "input.number": pa.FixedSizeListArray.from_arrays(pa.array(rows["number"].reshape(-1)), 3),
            "input.category": pa.FixedSizeListArray.from_arrays(pa.array(rows["category"].reshape(-1)), 1),
            "output.probabilities": list(rows["probabilities"].astype(np.float32)),
            "output.embedding": list(rows["embedding"].astype(np.float32)),
            "latency_us": [900] * n,
        }
        folder = self.workspace.request_log / LOOP / "20251009T09"
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.table({name: cells for name, cells in columns.items() if name not in without})
        pq.write_table(table, folder / f"{start:06d}.parquet")

    def monitor(self, **settings: Any) -> dict[str, Any]:
        return read_report(perform("monitor", run, self.workspace, MonitorConfig(**settings), {}).path)

    def memory(self) -> dict[str, Any]:
        payload, _ = open_state(self.workspace.state).monitors.load(LOOP, DIGEST)
        assert payload is not None
        return payload

    def remember(self, payload: dict[str, Any]) -> None:
        monitors = open_state(self.workspace.state).monitors
        monitors.save(LOOP, DIGEST, payload, monitors.load(LOOP, DIGEST)[1])


def make_bench(root: Path, *, without: tuple[str, ...] = (), **more: Any) -> Bench:
    workspace = Workspace(
        loop=LOOP, root=root, state=f"sqlite:///{root}/state.db", store=str(root / "store"), mlflow="-"
    )
    package = root / "package"
    package.mkdir(parents=True)
    rows = draw(0, N_REFERENCE)
    tensors = {f"input.{name}": rows[name] for name in ("number", "category")}
    arrays = {**tensors, "probabilities": rows["probabilities"], "embedding": rows["embedding"], **more}
    np.savez(package / "reference.npz", **{name: cells for name, cells in arrays.items() if name not in without})
    (package / ENCODER).write_text(json.dumps(ENCODED.plain()), encoding="utf-8")
    write_signature(package, SIGNATURE)
    write_report(package, {"dataset_digest": "none"})
    Store(workspace.store).publish(package, "models", DIGEST)
    ledger = open_state(workspace.state).ledger
    ledger.close(
        ledger.intend(
            LOOP, action="promote", version=1, model_digest=DIGEST, expected_champion=None, actor="test", reason="test"
        ),
        done=True,
    )
    return Bench(workspace=workspace)


def cause(report: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(found for found in report["causes"] if found["kind"] == kind)
