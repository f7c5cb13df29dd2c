"""What kfloop costs beyond the work itself: one round on digits against one process that calls the same functions.

    python benchmarks/loop.py                 3 repeats, a table
    python benchmarks/loop.py --repeats 1 --json

Two things are timed in turns, each in a fresh folder and a fresh process, so imports, new databases and a cold cache count on both sides:

* run: ``kfloop run --json``, from the start of its process to its end.
* core: one process that calls the cores of the same steps one after the other with the same configuration. It publishes their outputs, because
  ``deploy`` wants to find them in the store; it tracks nothing with DVC, records no step and writes no report: those are kfloop's cost.

A step's seconds in the run are counted from the end of the step before to its own end: the start of its process and everything the
runner does in between are charged to it (of the first step, to "before the first"). Its core seconds are the core function alone, imports it triggers included. The exit status is 1 when
a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LOOP = "name: digits\ndata:\n  source: digits\n"
TARGETS = {"total": 25.0, "step": 5.0, "help": 0.5}  # seconds
INPUTS = {
    "dataset": "ingest",
    "validation": "validate_data",
    "labels": "check_labels",
    "checkpoint": "train",
    "model": "package",
    "incumbent": "incumbent",
    "evaluation": "evaluate",
    "blessing": "bless",
    "decision": "gate",
}
BEFORE, AFTER = "(before the first)", "(after the last)"
HELPS = 5


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    """Wall seconds and standard output of a command that must succeed."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return seconds, done.stdout


def environment() -> dict[str, str]:
    """The caller's environment, without a run that this benchmark might stand in."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KFLOOP_RUN")}


def measure_run(folder: Path) -> dict[str, Any]:
    """One ``kfloop run`` in a fresh folder: total seconds, and seconds of each step from the end of the one before."""
    (folder / "loop.yaml").write_text(LOOP, encoding="utf-8")
    began = time.time()
    total, text = timed([sys.executable, "-m", "kfloop", "run", "--json"], folder)
    record = json.loads(text)
    worked = [step for step in record["steps"] if step["started"]]
    if record["status"] != "succeeded" or any(step["status"] != "succeeded" for step in worked):
        sys.exit(f"the run ended as {record['status']}: {record['message']}")
    worked.sort(key=lambda step: step["started"])
    steps, inside, last = {BEFORE: worked[0]["started"] - began}, {}, worked[0]["started"]
    for step in worked:
        # The step reports its start and its own seconds; its process was started before that, after the step before ended.
        ended = step["started"] + step["seconds"]
        steps[step["name"]] = ended - last
        inside[step["name"]] = step["seconds"]
        last = ended
    return {"total": total, "steps": steps | {AFTER: began + total - last}, "inside": inside}


def measure_core(folder: Path) -> dict[str, Any]:
    """One process that calls the cores: total seconds, and seconds of each core."""
    (folder / "loop.yaml").write_text(LOOP, encoding="utf-8")
    total, text = timed([sys.executable, str(Path(__file__).resolve()), "--core", str(folder)], folder)
    return {"total": total, "steps": json.loads(text.splitlines()[-1])}


def call_cores(folder: Path) -> dict[str, float]:
    """Call the cores of one training round in this process (the other side of the comparison)."""
    from kfloop.core.config import STEP_SECTIONS, load_config
    from kfloop.core.execution import KINDS, prepare_process

    prepare_process()
    from kfloop.core.artifacts import folder_digest
    from kfloop.core.store import Store
    from kfloop.pipelines.steps import STEPS, core_of

    config = load_config(folder / "loop.yaml")
    workspace = config.workspace(folder)
    store = Store.of(workspace)
    made: dict[str, Path] = {}
    seconds: dict[str, float] = {}
    for name in (step for step in STEPS if step != "monitor"):
        inputs = {key: made[INPUTS[key]] for key in STEPS[name]}
        out = folder / "out" / name
        out.mkdir(parents=True)
        started = time.perf_counter()
        step, core = core_of(name, inputs)
        report = core(config.section(STEP_SECTIONS[step]), **inputs, out=out, workspace=workspace)
        seconds[step] = time.perf_counter() - started
        digest = getattr(report, "digest", None) or folder_digest(out)
        made[name] = store.publish(out, KINDS[step], digest)
    return seconds


def measure_help(folder: Path) -> float:
    """Median seconds of ``kfloop --help``, warm, by the installed script where there is one."""
    script = Path(sys.executable).with_name("kfloop")
    command = [*([str(script)] if script.exists() else [sys.executable, "-m", "kfloop"]), "--help"]
    timed(command, folder)
    return statistics.median(timed(command, folder)[0] for _ in range(HELPS))


def measure(repeats: int) -> dict[str, Any]:
    """Both sides in turns, ``repeats`` times; the figures are medians."""
    runs: list[dict[str, Any]] = []
    cores: list[dict[str, Any]] = []
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(prefix="kfloop-bench-") as name:
        root = Path(name)
        help_seconds = measure_help(root)
        for number in range(repeats):
            sides = [("run", measure_run, runs), ("core", measure_core, cores)]
            for side, work, results in sides if number % 2 == 0 else reversed(sides):
                folder = root / f"{number}-{side}"
                folder.mkdir()
                results.append(work(folder))
                loads.append(os.getloadavg()[0])
                sys.stderr.write(f"repeat {number + 1}: {side} {results[-1]['total']:.1f} s\n")
    return summary(runs, cores, help_seconds) | {"load_average": loads, "processors": os.cpu_count()}


def summary(runs: list[dict[str, Any]], cores: list[dict[str, Any]], help_seconds: float) -> dict[str, Any]:
    """Medians, shares, differences, and which targets are missed."""

    def middle(results: list[dict[str, Any]], part: str, step: str) -> float:
        return statistics.median(float(result[part].get(step, 0.0)) for result in results)

    run_total = statistics.median(result["total"] for result in runs)
    core_total = statistics.median(result["total"] for result in cores)
    steps = []
    for name in runs[0]["steps"]:
        seconds, core = middle(runs, "steps", name), middle(cores, "steps", name)
        steps.append(
            {
                "step": name,
                "share": seconds / run_total,
                "run_seconds": seconds,
                "inside_seconds": middle(runs, "inside", name),
                "core_seconds": core,
                "excess_seconds": seconds - core,
            }
        )
    missed = [f"step {row['step']}" for row in steps if row["excess_seconds"] > TARGETS["step"]]
    missed += ["total"] * (run_total - core_total > TARGETS["total"]) + ["--help"] * (help_seconds > TARGETS["help"])
    return {
        "repeats": len(runs),
        "run_seconds": run_total,
        "core_seconds": core_total,
        "difference_seconds": run_total - core_total,
        "run_all": [result["total"] for result in runs],
        "core_all": [result["total"] for result in cores],
        "help_seconds": help_seconds,
        "targets": TARGETS,
        "missed": missed,
        "steps": steps,
    }


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        f"{'step':<20}{'share':>8}{'in the run':>12}{'its process':>13}{'core':>8}{'excess':>9}  (s, target {TARGETS['step']:g})"
    ]
    for row in result["steps"]:
        numbers = f"{row['run_seconds']:>12.2f}{row['inside_seconds']:>13.2f}{row['core_seconds']:>8.2f}"
        lines.append(f"{row['step']:<20}{row['share']:>8.1%}{numbers}{row['excess_seconds']:>9.2f}")
    spread = ", ".join(
        f"{run:.1f} against {core:.1f}" for run, core in zip(result["run_all"], result["core_all"], strict=True)
    )
    loads = ", ".join(f"{load:.1f}" for load in result["load_average"])
    totals = f"kfloop run {result['run_seconds']:.1f} s, cores in one process {result['core_seconds']:.1f} s"
    lines += [
        f"{totals}: {result['difference_seconds']:.1f} s more (target {TARGETS['total']:g})",
        f"each repeat: {spread}",
        f"load average {loads} on {result['processors']} processors; this benchmark alone makes about 1",
        f"kfloop --help {result['help_seconds']:.2f} s (target {TARGETS['help']:g})",
        "missed: " + (", ".join(result["missed"]) or "none"),
    ]
    return "\n".join(lines)


def main() -> int:
    """Parse the command line and do one of the two jobs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="how often each side is timed (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--core", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    if options.core:
        print(json.dumps(call_cores(options.core)))
        return 0
    result = measure(options.repeats)
    print(json.dumps(result, indent=1) if options.json else table(result))
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
