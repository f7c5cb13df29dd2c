"""Data checks at size, each case in a process of its own, with its peak memory: validation, label issues, ingest, image facts.

    python benchmarks/data.py                                    everything, 1 and 10 million rows, 3 repeats
    python benchmarks/data.py --only validation --rows 1000000
    python benchmarks/data.py --repeats 1 --out data.json

kfloop and the libraries it is compared with take turns, each time in a fresh process. "seconds" is the wall clock of the work alone (median, smallest
and largest), without imports; "CPU s" counts all threads and children; "peak MB" is the largest resident memory of the whole process, pages of
mapped files included, and "own MB" the same without these (sampled). The peers pandera and cleanvision come with kfloop[bench]; a row
says so where one is missing. The exit status is 1 when a target is missed; those of validation and ingest count from 10 million rows on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import data_images
import data_ingest
import data_labels
import data_measure
import data_validation

GROUPS: dict[str, Any] = {
    "validation": data_validation,
    "labels": data_labels,
    "ingest": data_ingest,
    "images": data_images,
}
PACKAGES = (
    "kfloop",
    "polars",
    "pyarrow",
    "great-expectations",
    "pandas",
    "pandera",
    "cleanlab",
    "datasets",
    "cleanvision",
    "pillow",
)


def versions() -> dict[str, str]:
    """Versions of everything that is compared."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def run_child(options: argparse.Namespace) -> None:
    """The other end of ``data_measure.in_child``."""
    group, name = options.child.split(":", 1)
    cases = {case.name: case for case in (*GROUPS[group].CASES, GROUPS[group].PREPARE)}
    data_measure.child(cases[name], options.folder, options.answer, json.loads(options.options))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every group asked for, in a temporary folder."""
    told = {
        "rows": options.rows,
        "label_rows": options.label_rows,
        "classes": options.classes,
        "images": options.images,
    }
    result: dict[str, Any] = {
        "versions": versions(),
        "processors": os.cpu_count(),
        "load_average": [os.getloadavg()[0]],
    }
    with tempfile.TemporaryDirectory(prefix="kfloop-bench-", dir=options.temporary) as name:
        for group in options.only:
            # Each group cleans up when it is done: the tables of two groups need not lie on the disk together.
            with tempfile.TemporaryDirectory(dir=name) as place:
                result[group] = GROUPS[group].measure(Path(place), told, options.repeats)
            result["load_average"].append(os.getloadavg()[0])
            if options.out:
                options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(GROUPS[group].text(result[group]) + "\n", flush=True)
    return result


def told_targets(result: dict[str, Any]) -> tuple[str, bool]:
    """The targets for people, and whether one is missed."""
    targets = [target for group in GROUPS if group in result for target in result[group]["targets"]]
    words = {True: "met", False: "MISSED", None: "not measured"}
    lines = ["### Targets", "", "| target | measured | asked for | |", "|---|---|---|---|"]
    for target in targets:
        value = "-" if target["value"] is None else f"{target['value']:.2f} {target['unit']}".strip()
        limit = f"{'at most' if target['at_most'] else 'at least'} {target['limit']:g} {target['unit']}".strip()
        lines.append(f"| {target['target']} | {value} | {limit} | {words[target['met']]} |")
    loads = ", ".join(f"{load:.1f}" for load in result["load_average"])
    lines += ["", f"load average {loads} on {result['processors']} processors"]
    lines += [", ".join(f"{name} {number}" for name, number in result["versions"].items())]
    return "\n".join(lines), any(target["met"] is False for target in targets)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000], help="rows of the tables")
    made.add_argument("--label-rows", type=int, default=1_000_000, help="rows of the label check")
    made.add_argument("--classes", type=int, default=100, help="classes of the label check")
    made.add_argument("--images", type=int, default=1000, help="image files")
    made.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="what to measure")
    made.add_argument("--repeats", type=int, default=3, help="how often each case is measured (default 3)")
    made.add_argument("--out", type=Path, help="file for all figures as JSON")
    made.add_argument("--temporary", type=Path, help="folder for temporary files (10 million rows take 6 GB)")
    for name, kind in (("--child", str), ("--folder", Path), ("--answer", Path), ("--options", str)):
        made.add_argument(name, type=kind, help=argparse.SUPPRESS)
    return made


def main() -> int:
    """Parse the command line and do one of the two jobs."""
    options = parser().parse_args()
    if options.child:
        run_child(options)
        return 0
    if (
        options.repeats < 1
        or min(options.rows) < data_validation.FEWEST
        or options.label_rows < 1
        or options.images < 1
    ):
        parser().error(
            f"--repeats, --label-rows and --images must be at least 1, --rows at least {data_validation.FEWEST}"
        )
    for folder in (options.temporary, options.out and options.out.parent):
        if folder is not None and not folder.is_dir():
            parser().error(f"there is no folder '{folder}'")
    result = measure(options)
    words, missed = told_targets(result)
    print(words)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
