"""The figures by which models are judged, by objective: which is the main one, which way is better, and what values are possible."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

Direction = Literal["higher", "lower"]


class Metric(NamedTuple):
    """One figure.

    Attributes:
        better: Which way is better; null for a figure that is not about the model.
        low: Least possible value.
        high: Largest possible value.
    """

    better: Direction | None
    low: float = 0.0
    high: float = 1.0


_SHARE = Metric("higher")
_ERROR = Metric("lower", 0.0, math.inf)
# The first figure of each objective is its main one.
METRICS: dict[str, dict[str, Metric]] = {
    "classification": {
        "accuracy": _SHARE,
        "macro_f1": _SHARE,
        "log_loss": _ERROR,
        "ece": Metric("lower"),
        "auc": _SHARE,
        "recall": _SHARE,  # of the second of two classes, as the next two
        "precision": _SHARE,
        "f1": _SHARE,
        "selection_rate": Metric(None),  # of a group: no share of it is good in itself
        "tpr": _SHARE,
        "fpr": Metric("lower"),
        "accuracy_gap": Metric("lower"),
        "selection_rate_gap": Metric("lower"),
        "tpr_gap": Metric("lower"),
        "fpr_gap": Metric("lower"),
        "ece_gap": Metric("lower"),
    },
    "multilabel": {
        "micro_f1": _SHARE,
        "macro_f1": _SHARE,
        "accuracy": _SHARE,
        "f1": _SHARE,
        "accuracy_gap": Metric("lower"),
    },
    "regression": {
        "rmse": _ERROR,
        "mae": _ERROR,
        "r2": Metric("higher", -math.inf, 1.0),
        "rmse_gap": _ERROR,
        "rmse_ratio": Metric("lower", 1.0, math.inf),
    },
    "forecasting": {"mse": _ERROR, "mae": _ERROR},
    "anomaly": {"auroc": _SHARE, "average_precision": _SHARE},
    "generation": {
        "frechet_distance": _ERROR,
        "train_on_samples": _SHARE,
        "train_on_real": Metric(None),  # of the real rows: the ceiling of train_on_samples
        "coverage": _SHARE,
        "classes": _SHARE,
        "copies": Metric("lower"),
    },
}
# What a rule may be about, by report; a figure of several objectives means the same in each.
FIGURES: dict[str, dict[str, Metric]] = {
    "evaluate": {name: metric for metrics in METRICS.values() for name, metric in metrics.items()},
    "bless": {
        "p50_ms": _ERROR,
        "p95_ms": _ERROR,
        "p99_ms": _ERROR,
        "memory_mb": _ERROR,
        "load_seconds": _ERROR,
        "throughput_rps": Metric("higher", 0.0, math.inf),
        "max_abs_diff": _ERROR,
    },
    "cost": {
        "parameters": _ERROR,
        "size_mb": _ERROR,
        "cpu_ms_1": _ERROR,
        "cpu_ms_batch": _ERROR,
        "gpu_ms_1": _ERROR,
        "call_ms_p50": _ERROR,
        "call_ms_p95": _ERROR,
        "memory_mb": _ERROR,
        "train_seconds": _ERROR,
        "train_cost": _ERROR,
        "price_per_1000": _ERROR,
    },
    "labels": {
        "noise": Metric("lower"),
        "leakage": Metric("lower"),
        "accuracy": _SHARE,
        "n": Metric("higher", 0.0, math.inf),
        "n_flagged": _ERROR,
        "n_unchecked": _ERROR,
        "queued": _ERROR,
    },
}


def primary(objective: str) -> str:
    """Name of the main figure."""
    return next(iter(METRICS[objective]))


def directions(objective: str) -> dict[str, Direction]:
    """Which way is better, by figure that is about the model."""
    return {name: metric.better for name, metric in METRICS[objective].items() if metric.better}
