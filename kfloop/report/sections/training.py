"""How the challenger was trained, and the package that it became."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfloop.report import plots
from kfloop.report.sections import graphs, reviewing
from kfloop.report.sources import Context
from kfloop.report.values import compact, count, decimal, duration, mapping, number, rows, short, text, words

_PNG = b"\x89PNG\r\n"
_SIDES = ("train", "validation")
_PANELS = 3
_CURVES = 3  # in one panel
_FOLLOWED_BY_ALL = ("batch_size", "epochs", "patience", "total_steps")
_LARGEST_GRID = 2_000_000  # bytes of a sheet of samples


def build(context: Context) -> Mapping[str, Any]:
    """What the training section shows."""
    source = context.source("train")
    report = source.report
    history = [line for line in rows(report.get("history")) if number(line.get("epoch")) is not None]
    names = [name for name in dict.fromkeys(key for line in history for key in line) if name != "epoch"]
    epochs = [number(line.get("epoch")) or 0.0 for line in history]
    curves = {name: [number(line.get(name)) for line in history] for name in names}
    panels = _panels(curves)
    resumed, processes = report.get("resumed_from_epoch"), number(report.get("processes")) or 1
    return {
        "facts": [
            ("model family", text(report.get("family"))),
            ("learns", text(report.get("objective"))),
            ("parameters", count(report.get("parameters"))),
            ("epochs", count(report.get("epochs"))),
            ("epoch kept", count(report.get("best_epoch"))),
            ("rows learned from", count(report["n_train"]) if "n_train" in report else ""),
            ("rows left out as doubtful", count(report["n_quarantined"]) if "n_quarantined" in report else ""),
            ("device", text(report.get("device"))),
            ("processes", count(processes) if processes > 1 else ""),
            ("time", duration(report.get("seconds"))),
            ("seed", text(report.get("seed"))),
            ("resumed from epoch", "" if resumed is None else count(resumed)),
            ("MLflow run", short(report.get("mlflow_run_id"))),
        ],
        "cost": _cost(mapping(report.get("throughput"))),
        "plan": _plan(report),
        "plot": plots.history(epochs, panels, number(report.get("best_epoch"))) if panels else "",
        "columns": ["epoch", *(words(name) for name in names)],
        "history": [[count(line.get("epoch")), *(decimal(line.get(name), 4) for name in names)] for line in history],
        "trials": [_trial(line) for line in rows(report.get("trials"))],
        "grid": _grid(source.folder),
    }


def _plan(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was trained with; a module of one's own has its own optimiser and loss, so of the plan only the rest counts."""
    plan = {name: value for name, value in mapping(report.get("plan")).items() if name != "seed"}
    options = mapping(report.get("options"))
    if report.get("family") != "custom":
        return flat(plan)
    followed = {name: value for name, value in plan.items() if name in _FOLLOWED_BY_ALL}
    return flat({"module": options.get("model")} | mapping(options.get("hyperparameters")) | followed)


def _panels(curves: Mapping[str, list[float | None]]) -> dict[str, dict[str, list[float | None]]]:
    """Curves by figure, and in each by whose it is: ``validation_mae`` is the validation's ``mae``."""
    panels: dict[str, dict[str, list[float | None]]] = {}
    for name, values in curves.items():
        side, _, metric = name.partition("_")
        if not any(value is not None for value in values):
            continue
        if side in _SIDES and metric:
            panels.setdefault(words(metric), {})[side] = values
        elif name.endswith("loss"):
            panels.setdefault("loss", {})[words(name.removesuffix("loss").strip("_"))] = values
        else:
            panels.setdefault(words(name), {})[words(name)] = values
    return {title: dict(list(found.items())[:_CURVES]) for title, found in list(panels.items())[:_PANELS]}


def _cost(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Speed, waiting, memory and cost, as far as they were measured."""
    known = {
        "samples_per_second": ("samples per second", lambda value: f"{value:,.0f}"),
        "ms_per_step": ("time of a step", lambda value: f"{value:,.1f} ms"),
        "waiting_share": ("waiting for data", lambda value: f"{100 * value:.1f} %"),
        "peak_memory_mb": ("largest memory", lambda value: f"{value:,.0f} MiB"),
        "gpu_memory_mb": ("largest GPU memory", lambda value: f"{value:,.0f} MiB"),
        "gpu_utilisation": ("GPU in use", lambda value: f"{value:.0f} %"),
        "cost": ("cost", lambda value: f"{value:,.4g}"),
        "samples_per_unit": ("samples per unit of cost", compact),
        "samples_per_joule": ("samples per joule", compact),
    }
    found = {name: number(told.get(name)) for name in known}
    return [(known[name][0], known[name][1](value)) for name, value in found.items() if value is not None]


def _trial(line: Mapping[str, Any]) -> list[str]:
    tried = ", ".join(f"{name} {value}" for name, value in flat(mapping(line.get("parameters"))))
    shown = number(line.get("number"))
    return [
        count(None if shown is None else shown + 1),
        words(line.get("state")),
        decimal(line.get("value"), 4),
        count(line.get("epochs")),
        tried,
    ]


def _grid(folder: Path | None) -> str:
    """The sheet of samples that a generator's training left, as a ``data:`` URI."""
    path = None if folder is None else folder / "samples.png"
    try:
        if path is None or path.stat().st_size > _LARGEST_GRID:
            return ""
        found = path.read_bytes()
    except OSError:
        return ""
    if not found.startswith(_PNG):
        return ""
    return "data:image/png;base64," + base64.b64encode(found).decode("ascii")


def build_package(context: Context) -> Mapping[str, Any]:
    """What the package section shows: everything simple in its report, whatever the model family adds."""
    report = dict(context.source("package").report)
    review = reviewing.build(mapping(report.pop("review", None)))
    variants = graphs.build(rows(report.pop("variants", None)))
    report.pop("files", None)  # a digest for each file is for machines
    git = mapping(report.pop("git", None))
    if git.get("commit"):
        report["git_revision"] = short(git["commit"]) + (", with changes" if git.get("dirty") else "")
    return {"facts": flat(report), "review": review, "variants": variants}


def _plain(value: float) -> str:
    return count(value) if isinstance(value, int) else compact(value)


def flat(report: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The numbers and texts of a report as facts, nested objects by dotted names; long lists only by their length."""
    found: list[tuple[str, str]] = []
    for key, value in sorted(report.items()):
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            found += flat(mapping(value), f"{prefix}{key}: ")
        elif isinstance(value, list):
            simple = all(isinstance(item, str | int | float) for item in value)
            found.append((name, ", ".join(text(item) for item in value) if simple else f"{len(value)} entries"))
        elif isinstance(value, bool):
            found.append((name, "yes" if value else "no"))
        elif isinstance(value, int | float):
            found.append((name, duration(value) if key.endswith("seconds") else _plain(value)))
        elif value is not None:
            found.append((name, short(value) if key.endswith("digest") else text(value)))
    return found
