"""How the challenger was trained, and the package that it became."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report import plots
from kfloop.report.sources import Context
from kfloop.report.values import compact, count, decimal, duration, mapping, number, rows, short, text

_CURVES = ("train_loss", "validation_loss", "validation_accuracy")


def build(context: Context) -> Mapping[str, Any]:
    """What the training section shows."""
    report = context.source("train").report
    history = [line for line in rows(report.get("history")) if number(line.get("epoch")) is not None]
    epochs = [number(line.get("epoch")) or 0.0 for line in history]
    curves = {name: [number(line.get(name)) for line in history] for name in _CURVES}
    resumed = report.get("resumed_from_epoch")
    return {
        "facts": [
            ("model family", text(report.get("family"))),
            ("parameters", count(report.get("parameters"))),
            ("epochs", count(report.get("epochs"))),
            ("epoch kept", count(report.get("best_epoch"))),
            ("rows learned from", count(report["n_train"]) if "n_train" in report else ""),
            ("rows left out as doubtful", count(report["n_quarantined"]) if "n_quarantined" in report else ""),
            ("device", text(report.get("device"))),
            ("time", duration(report.get("seconds"))),
            ("seed", text(report.get("seed"))),
            ("resumed from epoch", "" if resumed is None else count(resumed)),
            ("MLflow run", short(report.get("mlflow_run_id"))),
        ],
        "plot": plots.history(epochs, curves, number(report.get("best_epoch"))) if history else "",
        "history": [[count(line.get("epoch")), *(decimal(line.get(name), 4) for name in _CURVES)] for line in history],
    }


def build_package(context: Context) -> Mapping[str, Any]:
    """What the package section shows: everything simple in its report, whatever the model family adds."""
    return {"facts": flat(context.source("package").report)}


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
