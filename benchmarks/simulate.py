"""Elec2 replayed: the monitor's retrainings beside never, every fourth week and every week, with intervals.

    python benchmarks/simulate.py --data electricity-normalized.csv --out elec2

Half-hourly rows of the electricity market of New South Wales (Harries 1999; 45,312 rows from 7 May 1996 to 5 December 1998), classes UP and DOWN:
the price against its mean over the last 24 hours. Two columns are left out: ``nswprice``, of which the label is made, and ``date``, a clock that
tells every row from all rows before it. The first fifth trains the first model; then windows of a week are answered; a label is known a day
later; a retraining learns from the latest eight weeks. Everything is seeded. The models are small, so that 108 trainings fit into minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from kfloop.core.config import LoopConfig
from kfloop.pipelines.simulating.outcomes import headline, summarise
from kfloop.pipelines.simulating.records import Window
from kfloop.pipelines.simulating.replaying import Replay
from kfloop.pipelines.simulating.settings import POLICIES, Settings
from kfloop.pipelines.simulating.stream import read_stream
from kfloop.report.simulation import render_simulation

WEEK = 336
START = datetime(1996, 5, 7)  # noqa: DTZ001 - local time of the market
LEFT_OUT = ["date", "nswprice"]
LOOP: dict[str, Any] = {
    "name": "elec2",
    "data": {"source": "elec2.parquet", "label": "class", "time": "time", "modality": "table", "corrections": None},
    "train": {
        "family": "mlp",
        "epochs": 8,
        "batch_size": 128,
        "accelerator": "cpu",
        "options": {"width": 64, "depth": 1},
    },
    # Labels come within a day, so that they decide: half-hourly rows hang together, and each week differs from those before it.
    "monitor": {"causes": ["realised"]},
    # So small a network is 3 to 6 points below boosted trees, which kfloop's default rules refuse; here the question is when to train, not what.
    "evaluate": {"baseline": "none"},
    "gate": {
        "rules": [
            {"metric": "accuracy", "at_least": 0.55},
            {"metric": "accuracy", "versus": "champion", "at_least": 0.0},
        ]
    },
}


def prepared(source: Path, out: Path) -> Path:
    """The rows with their times, without the columns that give the label away."""
    table = pyarrow.csv.read_csv(source)
    times = [START + timedelta(minutes=30 * row) for row in range(table.num_rows)]
    path = out / "elec2.parquet"
    pq.write_table(table.drop_columns(LEFT_OUT).append_column("time", pa.array(times)), path)
    return path


def main() -> None:
    """Play, print one line for each figure, and write ``simulation.json`` and ``simulation.html``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="electricity-normalized.csv")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the results, where an interrupted run goes on"
    )
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument(
        "--causes", help="what may start a retraining, such as drift,estimated,realised (the default of kfloop)"
    )
    parser.add_argument("--until", type=int, help="windows that are played at most")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    causes = {"monitor": {"causes": given.causes.split(",")}} if given.causes else {}
    config = LoopConfig.model_validate(LOOP | causes)
    settings = Settings(
        window=WEEK, memory=8 * WEEK, policies=tuple(given.policies.split(",")), until=given.until, every=4
    )
    began = time.monotonic()
    stream = read_stream(prepared(given.data, given.out), config.data, None)
    replay = Replay(config, settings, stream, given.out, given.out)

    def tell(policy: str, window: int, n: int, windows: list[Window]) -> None:
        last = windows[-1]
        if last.trained and policy == "monitor":
            print(
                f"  week {window + 1}: {last.reason}; {'promoted' if last.promoted else 'rejected'}: {last.gate}",
                flush=True,
            )
        if window + 1 == n:
            print(f"{policy}: {n} weeks, {time.monotonic() - began:.0f} s", flush=True)

    played = replay.play(tell)
    summary = summarise(played, stream, settings, config)
    (given.out / "simulation.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    render_simulation(summary, given.out / "simulation.html", made=time.time())
    print(headline(summary))
    for name, found in summary["differences"].items():
        print(f"{name}: {found['value']:+.4f} (95 % {found['low']:+.4f} to {found['high']:+.4f})")
    for name, found in summary["policies"].items():
        print(
            f"{name}: accuracy {found['accuracy']:.4f}, {found['trainings']} retrainings, {found['promoted']} promoted, "
            f"{found['rows_trained']} rows, {found['cpu_seconds']:.0f} CPU s of training, {found['watch_cpu_seconds']:.0f} of watching"
        )
    print(f"baselines: {summary['baselines']}")


if __name__ == "__main__":
    main()
