"""Label issues of many rows and classes: kfloop's filter against cleanlab's on the same probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from data_measure import Case, Work, alternate, in_child, median, summary, table, times, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Flag = Callable[[NDArray[np.int64], NDArray[np.floating]], NDArray[np.bool_]]

FLIPPED = 0.05
TARGET = 3.0  # times faster than cleanlab's default call
AT_ONCE = 50_000
DTYPES = ("float64", "float32")
OURS, DEFAULT = "kfloop find_issues", "cleanlab, default call"


def prepare(folder: Path, work: Work) -> dict[str, Any]:
    """Write labels of which some are wrong, and probabilities of a decent model."""
    count, classes = work.options["rows"], work.options["classes"]
    labels = np.empty(count, dtype=np.int64)
    files = {
        kind: np.lib.format.open_memmap(folder / f"{kind}.npy", mode="w+", dtype=kind, shape=(count, classes))
        for kind in DTYPES
    }
    for start in range(0, count, AT_ONCE):
        random = np.random.default_rng(start)
        size = min(AT_ONCE, count - start)
        truth = random.integers(0, classes, size)
        given = truth.copy()
        wrong = np.flatnonzero(random.random(size) < FLIPPED)
        given[wrong] = (given[wrong] + random.integers(1, classes, len(wrong))) % classes
        chances = np.exp(3.0 * random.random((size, classes)))
        chances[np.arange(size), truth] += np.exp(random.normal(4.5, 1.2, size))
        chances /= chances.sum(axis=1, keepdims=True)
        labels[start : start + size] = given
        for file in files.values():
            file[start : start + size] = chances
    np.save(folder / "labels.npy", labels)
    return {}


def kfloop(folder: Path, work: Work) -> dict[str, Any]:
    """Ours on probabilities in memory."""
    from kfloop.components.check_labels.issues import find_issues

    return _timed(folder, work, "kfloop", find_issues)


def kfloop_mapped(folder: Path, work: Work) -> dict[str, Any]:
    """Ours on probabilities that stay on the disk."""
    from kfloop.components.check_labels.issues import find_issues

    return _timed(folder, work, "kfloop-mapped", find_issues, mapped=True)


def cleanlab_default(folder: Path, work: Work) -> dict[str, Any]:
    """The default call of cleanlab: as many processes as cores."""
    from cleanlab.filter import find_label_issues

    return _timed(folder, work, "default", find_label_issues)


def cleanlab_single(folder: Path, work: Work) -> dict[str, Any]:
    """The same in one process."""
    from cleanlab.filter import find_label_issues

    return _timed(folder, work, "single", lambda labels, chances: find_label_issues(labels, chances, n_jobs=1))


def cleanlab_batched(folder: Path, work: Work) -> dict[str, Any]:
    """The way of cleanlab for large data, with the probabilities on the disk; it flags by a rule of its own."""
    from cleanlab.experimental.label_issues_batched import find_label_issues_batched

    return _timed(
        folder,
        work,
        "batched",
        lambda labels, chances: find_label_issues_batched(labels, chances, verbose=False, return_mask=True),
        mapped=True,
    )


def _timed(folder: Path, work: Work, name: str, flag: Flag, *, mapped: bool = False) -> dict[str, Any]:
    dtype = work.options["dtype"]
    labels = np.load(folder / "labels.npy")
    chances = np.load(folder / f"{dtype}.npy", mmap_mode="r" if mapped else None)
    with work:
        flagged = np.asarray(flag(labels, chances), dtype=np.bool_)
    file = f"flags-{dtype}-{name}.npy"
    np.save(folder / file, flagged)
    return {"flags": int(flagged.sum()), "file": file}


CASES = (
    Case(name=OURS, run=kfloop),
    Case(name="kfloop find_issues, memory-mapped", run=kfloop_mapped),
    Case(name=DEFAULT, run=cleanlab_default, needs="cleanlab", workers=True),
    Case(name="cleanlab, n_jobs=1", run=cleanlab_single, needs="cleanlab"),
    Case(name="cleanlab batched, memory-mapped", run=cleanlab_batched, needs="cleanlab"),
)
PREPARE = Case(name="prepare", run=prepare)


def measure(folder: Path, options: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """Both kinds of numbers, and how the flags agree with those of cleanlab's default call."""
    size = {"rows": options["label_rows"], "classes": options["classes"]}
    done = in_child("labels", PREPARE, folder, size)
    if "failed" in done:
        raise SystemExit(f"the probabilities cannot be made: {done.get('stderr') or done['failed']}")
    kinds: list[dict[str, Any]] = []
    for dtype in DTYPES:
        files = [folder / "labels.npy", folder / f"{dtype}.npy"]
        found = summary(alternate("labels", CASES, folder, {"dtype": dtype}, repeats, files))
        agreement = _agreement(folder, found)
        kinds.append({"dtype": dtype, "cases": found, "agreement": agreement})
    targets = [
        verdict(
            f"label issues of {size['rows']:,} x {size['classes']} ({kind['dtype']}) against cleanlab's default call",
            times(median(kind["cases"], DEFAULT), median(kind["cases"], OURS)),
            TARGET,
            at_most=False,
            unit="times faster",
        )
        for kind in kinds
    ]
    return size | {"kinds": kinds, "targets": targets}


def _agreement(folder: Path, found: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Flags in common with cleanlab's default call: differing rows, and intersection over union."""
    flags = {row["case"]: np.load(folder / row["found"]["file"]) for row in found if "failed" not in row}
    if DEFAULT not in flags:
        return {}
    base = flags[DEFAULT]
    return {
        name: {
            "differ": int((mask != base).sum()),
            "iou": float((mask & base).sum() / max(1, (mask | base).sum())),
        }
        for name, mask in flags.items()
    }


def text(result: Mapping[str, Any]) -> str:
    """The tables for people."""
    blocks = []
    for kind in result["kinds"]:
        agreement = kind["agreement"]
        base = median(kind["cases"], DEFAULT)

        def agree(row: Mapping[str, Any], agreement: Mapping[str, Any] = agreement) -> str:
            found = agreement.get(row["case"])
            return "-" if found is None else f"{found['differ']} differ, IoU {found['iou']:.4f}"

        def faster(row: Mapping[str, Any], base: float | None = base) -> str:
            value = times(base, row["seconds"]["median"])
            return "-" if value is None else f"{value:.1f}"

        extra = {
            "times as fast as the default call": faster,
            "flags": lambda row: f"{row['found']['flags']:,}",
            "against the default's flags": agree,
        }
        title = f"### Label issues: {result['rows']:,} rows, {result['classes']} classes, {kind['dtype']}"
        blocks.append(f"{title}, {FLIPPED:.0%} flipped\n\n{table(kind['cases'], extra)}")
    return "\n\n".join(blocks)
