"""What a replay found: accuracy and cost of each policy, the differences with their intervals, and what needs no model at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.pipelines.simulating.settings import ALWAYS, MONITOR, NEVER, Settings

if TYPE_CHECKING:
    from kfloop.core.config import LoopConfig
    from kfloop.pipelines.simulating.records import Window
    from kfloop.pipelines.simulating.replaying import Played
    from kfloop.pipelines.simulating.stream import Stream

RESAMPLES = 4000
LEVEL = 0.95
FEWEST_WINDOWS = 8  # below, an interval over windows would say more than it knows
COMPARED = (NEVER, ALWAYS)


def summarise(played: Played, stream: Stream, settings: Settings, config: LoopConfig) -> dict[str, Any]:
    """Everything that ``simulation.json`` holds, in plain values.

    Args:
        played: What became of each window.
        stream: The rows.
        settings: What was asked.
        config: The loop.
    """
    rows = range(played.first_row, max((one.last for windows in played.windows.values() for one in windows), default=0))
    return {
        "loop": config.name,
        "settings": {**settings.identity(), "policies": list(settings.policies), "until": settings.until},
        "data": {
            "rows": len(stream),
            "first_row": played.first_row,
            "answered": len(rows),
            "windows": played.n_windows,
            "start": stream.when(rows[0]) if rows else None,
            "end": stream.when(rows[-1]) if rows else None,
            "digest": stream.digest,
            "notes": list(stream.notes),
        },
        "baselines": baselines(stream, rows, settings.label_delay),
        "policies": {name: _policy(windows, played, config) for name, windows in played.windows.items()},
        "differences": _differences(played.windows),
        "windows": {name: [one.as_dict() for one in windows] for name, windows in played.windows.items()},
        "trainings": {str(moment): training for moment, training in played.trainings.items()},
    }


def baselines(stream: Stream, rows: range, label_delay: float) -> dict[str, float | None]:
    """Accuracy of answers that need no model.

    Args:
        stream: All rows.
        rows: Those that were answered.
        label_delay: Seconds after which a label is known.

    Returns:
        ``repeat_last``: the label of the labelled row before, as if it were known at once; ``repeat_known``: the latest label that is known by
        then; ``majority``: the most frequent class before the first answered row. Null where nothing can be said.
    """
    labelled = np.array([row for row, label in enumerate(stream.truth) if label is not None], dtype=np.int64)
    judged = labelled[(labelled >= rows.start) & (labelled < rows.stop)]
    if not len(judged):
        return dict.fromkeys(("repeat_last", "repeat_known", "majority"))
    truth = stream.truth
    before = np.searchsorted(labelled, judged) - 1
    known = np.searchsorted(stream.times_ns[labelled] + int(label_delay * 1e9), stream.times_ns[judged], side="right")
    known = np.minimum(known - 1, before)  # never the row's own label

    def share(places: Any) -> float:
        return float(
            np.mean([at >= 0 and truth[labelled[at]] == truth[row] for at, row in zip(places, judged, strict=True)])
        )

    early = [label for label in truth[: rows.start] if label is not None]
    most = max(sorted(set(early)), key=early.count) if early else None
    majority = float(np.mean(truth[judged] == most)) if most is not None else None
    return {"repeat_last": share(before), "repeat_known": share(known), "majority": majority}


def paired(ours: Sequence[Window], theirs: Sequence[Window], seed: int = 0) -> dict[str, Any]:
    """Difference of accuracy of two policies on the same rows, with an interval by a circular block bootstrap over windows.

    Neighbouring windows are alike, so blocks of about n^(1/3) of them are drawn together (Politis and Romano, 1992).

    Args:
        ours: Windows of one policy.
        theirs: The same windows of the other.
        seed: Seed of the resamples.

    Returns:
        ``value``, ``low``, ``high`` (null for fewer than 8 windows with labels), ``level``, ``n`` windows, ``block``.
    """
    both = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.labelled]
    gained = np.array([a.hits - b.hits for a, b in both], dtype=np.float64)
    counts = np.array([a.labelled for a, _ in both], dtype=np.float64)
    n, block = len(both), max(1, round(len(both) ** (1 / 3)))
    value = float(gained.sum() / counts.sum()) if n else None
    found: dict[str, Any] = {"value": value, "low": None, "high": None, "level": LEVEL, "n": n, "block": block}
    if n < FEWEST_WINDOWS:
        return found
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, n, (RESAMPLES, math.ceil(n / block)))
    places = ((starts[:, :, None] + np.arange(block)) % n).reshape(RESAMPLES, -1)[:, :n]
    drawn = gained[places].sum(axis=1) / counts[places].sum(axis=1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return found | {"low": float(low), "high": float(high)}


def headline(summary: dict[str, Any]) -> str:
    """The replay in a sentence."""
    policies = summary["policies"]
    told = [
        f"{name} {_share(policies[name]['accuracy'])} with {policies[name]['trainings']} retrainings"
        for name in policies
    ]
    return f"accuracy over {summary['data']['windows']} windows: {', '.join(told)}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _policy(windows: Sequence[Window], played: Played, config: LoopConfig) -> dict[str, Any]:
    labelled, hits = sum(one.labelled for one in windows), sum(one.hits for one in windows)
    trained = [played.trainings[one.index] for one in windows if one.trained]
    cpu, price = sum(one["cpu_seconds"] for one in trained), config.train.price_per_hour
    watch = sum(one.watch_cpu_seconds for one in windows)
    return {
        "accuracy": hits / labelled if labelled else None,
        "labelled": labelled,
        "hits": hits,
        "trainings": len(trained),
        "failed": sum(bool(one["failed"]) for one in trained),
        "promoted": sum(one.promoted for one in windows),
        "rows_trained": sum(one["rows"] for one in trained),
        "cpu_seconds": cpu,
        "watch_cpu_seconds": watch,
        "price": None if price is None else price * (cpu + watch) / 3600,
    }


def _differences(windows: dict[str, list[Window]]) -> dict[str, dict[str, Any]]:
    """Each policy minus ``never`` and minus ``always``, where both were played."""
    return {
        f"{name} minus {other}": paired(windows[name], windows[other])
        for other in COMPARED
        if other in windows
        for name in windows
        if name != other and (other == NEVER or name == MONITOR)
    }
