"""A round of the monitor over a long request log: rows a second and peak memory, beside Evidently's preset on the same rows. Seeded.

    python benchmarks/monitor.py                          250 thousand and 1 million requests with 20 columns, each in one round of `run`
    python benchmarks/monitor.py --peer PYTHON            and Evidently (DataDriftPreset, HTML not rendered) in an environment of its own
    python benchmarks/monitor.py --profile                where the time of the largest round goes

The log is written by the collector's own code: parts of 1000 rows by the hour, and all hours but the last merged as the collector does it. Requests are spread over a
day. Each measurement is a process of its own; its memory is that of the whole process (ru_maxrss). kfloop watches the 20 columns, the answer, and 16 components of an embedding of 32
numbers; Evidently is given the 20 columns alone, as two data frames in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.core.workspace import Workspace

COLUMNS, EMBEDDING, REFERENCE, PART = 20, 32, 5000, 1000
LOOP, VERSION, DAY = "bench", 1, 86_400
BEGIN = 1_760_000_400  # a full hour
NAMES = [f"c{i:02d}" for i in range(COLUMNS)]
PEER = """
import json, resource, sys, time
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
reference, current = pd.read_parquet(sys.argv[1]), pd.read_parquet(sys.argv[2])
start = time.perf_counter()
Report([DataDriftPreset()]).run(current, reference).dict()
print(json.dumps({"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time(), "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def drawn(seed: int, n: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Columns, probabilities of two classes and embeddings of rows that do not drift."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, COLUMNS)).astype(np.float32)
    weights = np.random.default_rng(0).normal(size=(COLUMNS, EMBEDDING)).astype(np.float32)
    hidden = np.tanh(rows @ weights / COLUMNS**0.5)
    one = 1 / (1 + np.exp(-2 * hidden[:, :4].sum(axis=1)))
    return rows, np.stack([1 - one, one], axis=1).astype(np.float32), hidden


def prepare(root: Path, n: int) -> Workspace:
    """A workspace with a champion and `n` logged requests."""
    from kfloop.core.artifacts import write_report
    from kfloop.core.encoding.table import Encoder
    from kfloop.core.scoring import ENCODER
    from kfloop.core.signature import Port, Signature, write_signature
    from kfloop.core.state import open_state
    from kfloop.core.store import Store
    from kfloop.core.workspace import Workspace

    workspace = Workspace(
        loop=LOOP, root=root, state=f"sqlite:///{root}/state.db", store=str(root / "store"), mlflow="unused"
    )
    package = root / "package"
    package.mkdir(parents=True)
    rows, probabilities, hidden = drawn(1, REFERENCE)
    np.savez(package / "reference.npz", **{"input.number": rows}, probabilities=probabilities, embedding=hidden)
    encoder = Encoder([{"name": name, "kind": "number", "offset": 0.0} for name in NAMES], {})
    (package / ENCODER).write_text(json.dumps(encoder.plain()), encoding="utf-8")
    outputs = (
        Port(name="probabilities", dtype="float32", shape=(2,)),
        Port(name="embedding", dtype="float32", shape=(EMBEDDING,)),
    )
    write_signature(
        package,
        Signature(
            objective="classification",
            modality="table",
            family="mlp",
            inputs=(Port(name="number", dtype="float32", shape=(COLUMNS,)),),
            outputs=outputs,
            labels=("no", "yes"),
            max_batch_size=64,
        ),
    )
    write_report(package, {"dataset_digest": "none"})
    Store.of(workspace).publish(package, "models", "champion")
    ledger = open_state(workspace.state).ledger
    intent = ledger.intend(
        LOOP,
        action="promote",
        version=VERSION,
        model_digest="champion",
        expected_champion=None,
        actor="bench",
        reason="bench",
    )
    ledger.close(intent, done=True)
    write_log(workspace.request_log / LOOP, n)
    return workspace


def write_log(folder: Path, n: int) -> None:
    """`n` requests over a day, as the collector writes them."""
    import pyarrow.parquet as pq

    from kfloop.serving.compaction import merge_hour
    from kfloop.serving.packets import as_table, parquet_options

    names = ["input.number", "output.probabilities", "output.embedding"]
    for number, start in enumerate(range(0, n, PART)):
        count = min(PART, n - start)
        times = [int((BEGIN + DAY * (start + i) / n) * 1e9) for i in range(count)]
        head = {
            "model": LOOP,
            "version": VERSION,
            "names": names,
            "ids": [f"r{start + i:09d}" for i in range(count)],
            "ts_ns": times,
        }
        head |= {"latency_us": [900] * count}
        table = as_table([(head, list(drawn(1000 + number, count)))])
        hour = folder / time.strftime("%Y%m%dT%H", time.gmtime(times[-1] / 1e9))
        hour.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, hour / f"{times[-1]:020d}-1-{number:06d}.parquet", **parquet_options(table))
    for hour in sorted(folder.iterdir())[:-1]:
        merge_hour(hour)
        for old in hour.glob("[0-9]*[0-9].parquet"):  # what the collector does an hour later
            if list(hour.glob("*-merged.parquet")):
                old.unlink()


def one_round(root: Path) -> dict[str, Any]:
    """One round of the real `run`, in this process."""
    from kfloop.components.monitor.monitoring import run
    from kfloop.core.sections import MonitorConfig
    from kfloop.core.workspace import Workspace

    workspace = Workspace(
        loop=LOOP, root=root, state=f"sqlite:///{root}/state.db", store=str(root / "store"), mlflow="unused"
    )
    with tempfile.TemporaryDirectory() as out:
        start, busy = time.perf_counter(), time.process_time()
        report = run(MonitorConfig(), out=Path(out), workspace=workspace)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    state = Path(f"{root}/state.db").stat().st_size
    return {
        "rows": report.rows_seen,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(busy, 2),
        "rows_per_second": round(report.rows_seen / seconds),
        "peak_mb": round(peak, 1),
        "state_db_kb": state // 1024,
        "outcome": report.outcome,
        "e_value": report.e_value,
        "blocks": len(report.history),
    }


def peer(python: str, n: int, n_reference: int) -> dict[str, Any]:
    """Evidently on the same rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        reference, current = Path(folder) / "reference.parquet", Path(folder) / "current.parquet"
        pq.write_table(pa.table(dict(zip(NAMES, drawn(1, n_reference)[0].T, strict=True))), reference)
        rows = np.concatenate(
            [drawn(1000 + number, min(PART, n - number * PART))[0] for number in range(-(-n // PART))]
        )
        pq.write_table(pa.table(dict(zip(NAMES, rows.T, strict=True))), current)
        env = {"PATH": os.environ["PATH"], "DO_NOT_TRACK": "1", "HOME": folder}
        done = subprocess.run(
            [python, "-c", PEER, str(reference), str(current)], env=env, capture_output=True, text=True, check=True
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and print one line for each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--peer", help="Python of an environment with Evidently")
    parser.add_argument(
        "--peer-reference", type=int, default=REFERENCE, help="rows of the reference that Evidently is given"
    )
    parser.add_argument("--peer-alone", action="store_true", help="only Evidently")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--round", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.round:
        print(json.dumps(one_round(args.round)))
        return
    for n in () if args.peer_alone else args.rows:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            prepare(root, n)
            if args.profile and n == max(args.rows):
                import cProfile
                import pstats

                with cProfile.Profile() as profile:
                    one_round(root)
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)
                return
            load = os.getloadavg()[0]
            done = subprocess.run(
                [sys.executable, __file__, "--round", folder], capture_output=True, text=True, check=True
            )
            print(f"load {load:.1f}", done.stdout.strip(), flush=True)
    if args.peer:
        print(
            f"load {os.getloadavg()[0]:.1f}",
            "evidently",
            json.dumps(peer(args.peer, max(args.rows), args.peer_reference)),
        )


if __name__ == "__main__":
    main()
