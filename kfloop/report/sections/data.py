"""The data of the run: rows by split and class, what was set aside, and what the examples look like."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfloop.report import plots
from kfloop.report.sources import Context
from kfloop.report.values import count, items, mapping, percent, rows, short, text

_PER_CLASS = 8
_CLASSES_SHOWN = 30
_QUARANTINE_FILE = "quarantine.jsonl"


def build(context: Context) -> Mapping[str, Any]:
    """What the data section shows."""
    pictures = context.pictures
    report = context.source("ingest").report
    card = pictures.card or report
    labels = pictures.labels
    counts = pictures.class_counts()
    return {
        "facts": [
            ("dataset version", short(card.get("digest") or report.get("digest"))),
            ("name", text(card.get("name"))),
            ("classes", count(len(labels)) if labels else ""),
            ("shape of a row", " x ".join(text(side) for side in card.get("image_shape") or ())),
        ],
        "warnings": [text(line) for line in items(report.get("warnings"))],
        "splits": [_split(name, pictures.origins(name)) for name in counts],
        "plot": plots.class_counts(
            labels[:_CLASSES_SHOWN], {name: sizes[:_CLASSES_SHOWN] for name, sizes in counts.items()}
        )
        if counts
        else "",
        "classes_left_out": max(0, len(labels) - _CLASSES_SHOWN),
        "labels": labels,
        "counts": counts,
        "sources": [_source(line) for line in rows(card.get("sources"))],
        "quarantine": _quarantine(pictures.folder),
        "sample": [
            {"label": labels[label], "pictures": found}
            for label, found in list(pictures.sample(_PER_CLASS).items())[:_CLASSES_SHOWN]
            if found
        ],
        "pictures_problem": pictures.problem,
    }


def _split(name: str, origins: Mapping[str, int]) -> dict[str, Any]:
    total = sum(origins.values())
    return {
        "name": name,
        "rows": count(total),
        "origins": ", ".join(f"{count(size)} {origin}" for origin, size in origins.items()),
        "share_fresh": percent(origins.get("fresh", 0) / total) if total else "",
    }


def _source(line: Mapping[str, Any]) -> dict[str, str]:
    return {"kind": text(line.get("kind")), "uri": text(line.get("uri")), "digest": short(line.get("digest"))}


def _quarantine(folder: Path | None) -> dict[str, Any]:
    """Rows set aside at the ingest, by reason; the file may be missing or damaged like any other."""
    if folder is None:
        return {"total": "", "reasons": [], "problem": ""}
    reasons: Counter[str] = Counter()
    problem = ""
    try:
        with (folder / _QUARANTINE_FILE).open(encoding="utf-8") as stream:
            for line in stream:
                if line.strip():
                    reasons[text(mapping(json.loads(line)).get("reason")) or "no reason given"] += 1
    except FileNotFoundError:
        problem = f"there is no {_QUARANTINE_FILE}"
    except (OSError, ValueError) as error:
        problem = text(error)
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return {
        "total": count(sum(reasons.values())),
        "reasons": [{"reason": reason, "rows": count(size)} for reason, size in ordered],
        "problem": problem,
    }
