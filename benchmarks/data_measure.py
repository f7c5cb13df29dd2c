"""Measuring one piece of work in a process of its own: seconds, CPU seconds, peak memory."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

MEGABYTE = 1 << 20
MEASURES = ("seconds", "cpu", "peak_mb", "own_mb", "child_mb")
NOT_INSTALLED = "not installed: pip install kfloop[bench]"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to do the work.

    Attributes:
        name: What the table calls it.
        run: The work: gets a folder and a ``Work``; returns what it found, as JSON can hold it.
        needs: Module that must be installed.
        quiet: Environment of its process.
        workers: It spreads the work over processes, whose memory is told too.
    """

    name: str
    run: Callable[[Path, Work], dict[str, Any]]
    needs: str = "kfloop"
    quiet: Mapping[str, str] = field(default_factory=dict)
    workers: bool = False


class Work:
    """Times the block that it surrounds; what a case imports or loads before the block is left out, but for its memory.

    Args:
        options: What the parent tells every case, such as the number of rows.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.parts: dict[str, float] = {}
        self.figures: dict[str, float] = {}
        self._stop = threading.Event()
        self._own = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        self.figures["before_mb"] = _status("VmRSS")
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        self._cpu, self._wall = _cpu_seconds(), time.perf_counter()
        self._lap = self._wall
        return self

    def part(self, name: str) -> None:
        """Note the seconds since the part before."""
        now = time.perf_counter()
        self.parts[name], self._lap = now - self._lap, now

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self.figures["seconds"] = time.perf_counter() - self._wall
        self.figures["cpu"] = _cpu_seconds() - self._cpu
        self._stop.set()
        self._watch.join()
        self.figures |= {
            "peak_mb": _status("VmHWM"),
            "own_mb": max(self._own, _status("RssAnon")),
            "child_mb": _child_peak(),
        }

    def _look(self) -> None:
        """Memory that is not pages of files: the kernel keeps no peak of it, so it is sampled."""
        while not self._stop.wait(0.05):
            self._own = max(self._own, _status("RssAnon"))


def _cpu_seconds() -> float:
    """User and system seconds of this process and of its children that have ended."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def _status(name: str) -> float:
    """A line of /proc/self/status in MB (2^20 bytes)."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(found.group(1)) / 1024 if found else float("nan")


def _child_peak() -> float:
    """Peak of the largest child process in MB, 0 without children."""
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def in_child(group: str, case: Case, folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Run a case in a fresh process; its measures and findings, or why there are none."""
    if find_spec(case.needs) is None:
        return {"failed": NOT_INSTALLED}
    program = str(Path(__file__).with_name("data.py"))
    command = [sys.executable, program, "--child", f"{group}:{case.name}", "--folder", str(folder)]
    with tempfile.NamedTemporaryFile("r", dir=folder, suffix=".json") as answer:
        command += ["--answer", answer.name, "--options", json.dumps(options)]
        done = subprocess.run(
            command, env=os.environ | dict(case.quiet), capture_output=True, text=True, check=False, cwd=folder
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            return {"failed": lines[-1][:200], "stderr": done.stderr[-4000:]}
        return dict(json.load(answer))


def child(case: Case, folder: Path, answer: Path, options: Mapping[str, Any]) -> None:
    """Do the work of a case in this process and write down what came out."""
    work = Work(options)
    found = case.run(folder, work)
    if not case.workers:  # a helper such as git, which counts the pages it was forked with
        work.figures["child_mb"] = 0.0
    answer.write_text(json.dumps(work.figures | {"parts": work.parts, "found": found}), encoding="utf-8")


def alternate(
    group: str, cases: Sequence[Case], folder: Path, options: Mapping[str, Any], repeats: int, warm: Iterable[Path] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Every case once, then every case again the other way round, ``repeats`` times; a case that failed is not repeated."""
    results: dict[str, list[dict[str, Any]]] = {case.name: [] for case in cases}
    for number in range(repeats):
        for case in cases if number % 2 == 0 else reversed(cases):
            if any("failed" in result for result in results[case.name]):
                continue
            read_through(warm)
            result = in_child(group, case, folder, options)
            results[case.name].append(result)
            told = result.get("failed") or f"{result['seconds']:.2f} s, {result['peak_mb']:.0f} MB"
            sys.stderr.write(f"{group}, repeat {number + 1}: {case.name}: {told}\n")
    return results


def read_through(files: Iterable[Path]) -> None:
    """Read files so that each case finds them in the page cache."""
    for path in files:
        with path.open("rb") as stream:
            while stream.read(16 * MEGABYTE):
                pass


def summary(results: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """For each case the median, smallest and largest of each measure, the medians of the parts, and what was found at first."""
    rows = []
    for name, runs in results.items():
        failed = next((run for run in runs if "failed" in run), None)
        if failed:
            rows.append({"case": name, "failed": failed["failed"], "stderr": failed.get("stderr", "")})
            continue
        row: dict[str, Any] = {"case": name, "repeats": len(runs), "found": runs[0]["found"]}
        for measure in MEASURES:
            values = [run[measure] for run in runs]
            row[measure] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        row["parts"] = {part: statistics.median(run["parts"][part] for run in runs) for part in runs[0]["parts"]}
        rows.append(row)
    return rows


def median(rows: Sequence[Mapping[str, Any]], case: str, measure: str = "seconds") -> float | None:
    """Median of a measure of one case; null where it did not run."""
    row = next((row for row in rows if row["case"] == case and "failed" not in row), None)
    return None if row is None else float(row[measure]["median"])


def table(rows: Sequence[Mapping[str, Any]], extra: Mapping[str, Callable[[Mapping[str, Any]], str]]) -> str:
    """The measures as a Markdown table.

    Args:
        rows: By ``summary``.
        extra: Further columns: heading, and the cell of a row.
    """
    heads = ["case", "seconds (min-max)", "CPU s", "peak MB", "own MB", *extra]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['case']} | {row['failed']} |" + " |" * (len(heads) - 2))
            continue
        seconds, children = row["seconds"], row["child_mb"]["median"]
        peak = f"{row['peak_mb']['median']:.0f}" + (f" + child {children:.0f}" if children else "")
        cells = [
            row["case"],
            f"{seconds['median']:.2f} ({seconds['min']:.2f}-{seconds['max']:.2f})",
            f"{row['cpu']['median']:.2f}",
            peak,
            f"{row['own_mb']['median']:.0f}",
            *(cell(row) for cell in extra.values()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parts_cell(row: Mapping[str, Any]) -> str:
    """Seconds of each part."""
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in row["parts"].items())


def times(value: float | None, base: float | None) -> float | None:
    """How many times ``base`` a value is; null where one is missing."""
    return None if not value or not base else value / base


def verdict(name: str, value: float | None, limit: float, *, at_most: bool, unit: str = "") -> dict[str, Any]:
    """Whether a target is met; null where nothing was measured."""
    met = None if value is None else bool(value <= limit if at_most else value >= limit)
    return {"target": name, "value": value, "limit": limit, "at_most": at_most, "unit": unit, "met": met}
