"""Ingest of a Parquet table: kfloop's step against the library datasets."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_expectations import COLUMNS, LABEL, rows
from data_measure import Case, Work, alternate, in_child, median, summary, table, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

AT_ONCE = 1_000_000
PARQUET = "table.parquet"
TARGET = 2e9 / (1 << 20)  # 2 GB in the MB of the tables
JUDGED = 10_000_000  # rows from which the target counts
MOST_SHUFFLED = 1_000_000  # datasets saves a shuffled table row by row: ten million take many minutes
OURS, SHUFFLED = "kfloop ingest", "datasets, encoded, split and saved"


def prepare(folder: Path, work: Work) -> dict[str, Any]:
    """Write the table, a row group for each million rows, as pandas and polars users have them."""
    import pyarrow.parquet as pq

    count, file = work.options["rows"], None
    for start in range(0, count, AT_ONCE):
        part = rows(start, min(AT_ONCE, count - start))
        file = file or pq.ParquetWriter(folder / PARQUET, part.schema)
        file.write_table(part, row_group_size=AT_ONCE)
    if file is not None:
        file.close()
    return {}


def kfloop(folder: Path, work: Work) -> dict[str, Any]:
    """The step: labels counted and encoded, ids checked, every row hashed, placed in a split and written."""
    from kfloop.components.ingest.ingestion import run
    from kfloop.core.sections import DataConfig
    from kfloop.core.workspace import Workspace

    with _place(folder) as place:
        out = place / "out"
        out.mkdir()
        workspace = Workspace(
            loop="bench", root=place, state=f"sqlite:///{place}/s.db", store=str(place / "s"), mlflow=""
        )
        config = DataConfig(source=str(folder / PARQUET), label=LABEL, id=COLUMNS[0])
        with work:
            report = run(config, out=out, workspace=workspace)
        return {"rows": report.n_rows, "splits": report.splits, "digest": report.digest}


def datasets_alone(folder: Path, work: Work) -> dict[str, Any]:
    """``load_dataset``: the rows copied to Arrow, no more."""
    from datasets import load_dataset

    with _place(folder) as place, work:
        found = load_dataset("parquet", data_files=str(folder / PARQUET), split="train", cache_dir=str(place))
    return {"rows": len(found)}


def datasets_split(folder: Path, work: Work) -> dict[str, Any]:
    """The same, then what a dataset version has beside: encoded labels, three splits, saved."""
    from datasets import DatasetDict, load_dataset

    with _place(folder) as place, work:
        found = load_dataset("parquet", data_files=str(folder / PARQUET), split="train", cache_dir=str(place / "cache"))
        work.part("load")
        found = found.class_encode_column(LABEL)
        work.part("encode")
        first = found.train_test_split(test_size=0.25, seed=0)
        second = first["train"].train_test_split(test_size=0.2, seed=0)
        splits = DatasetDict(train=second["train"], validation=second["test"], test=first["test"])
        splits.save_to_disk(str(place / "out"))
        work.part("split, save")
        count = sum(len(split) for split in splits.values())
    return {"rows": count}


@contextmanager
def _place(folder: Path) -> Iterator[Path]:
    """A folder for what is written, gone afterwards."""
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
CASES = (
    Case(name=OURS, run=kfloop, quiet=_QUIET),
    Case(name="datasets, load_dataset", run=datasets_alone, needs="datasets", quiet=_QUIET),
    Case(name=SHUFFLED, run=datasets_split, needs="datasets", quiet=_QUIET),
)
PREPARE = Case(name="prepare", run=prepare)


def measure(folder: Path, options: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """One table for each number of rows; the target is memory."""
    sizes, targets = [], []
    for count in options["rows"]:
        place = folder / f"rows-{count}"
        place.mkdir()
        done = in_child("ingest", PREPARE, place, {"rows": count})
        if "failed" in done:
            raise SystemExit(f"the table cannot be made: {done.get('stderr') or done['failed']}")
        cases = [case for case in CASES if case.name != SHUFFLED or count <= MOST_SHUFFLED]
        found = summary(alternate("ingest", cases, place, {}, repeats, [place / PARQUET]))
        sizes.append({"rows": count, "parquet_mb": (place / PARQUET).stat().st_size / (1 << 20), "cases": found})
        if count >= JUDGED:
            name = f"peak memory of ingesting {count:,} rows"
            targets.append(verdict(name, median(found, OURS, "peak_mb"), TARGET, at_most=True, unit="MB"))
        shutil.rmtree(place)
    return {"sizes": sizes, "targets": targets}


def text(result: Mapping[str, Any]) -> str:
    """The tables for people."""
    blocks = []
    for size in result["sizes"]:
        extra = {
            "rows/s": lambda row, count=size["rows"]: f"{count / row['seconds']['median']:,.0f}",
            "parts, s": lambda row: ", ".join(f"{name} {seconds:.2f}" for name, seconds in row["parts"].items()),
        }
        title = f"### Ingest: {size['rows']:,} rows, {len(COLUMNS)} columns, Parquet of {size['parquet_mb']:.0f} MB"
        blocks.append(f"{title}\n\n{table(size['cases'], extra)}")
    return "\n\n".join(blocks)
