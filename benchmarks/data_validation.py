"""Validation of a table: the measures, the target, and whether all find the same in damaged data."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from data_expectations import COLUMNS, DAMAGED, EXPECTATIONS
from data_measure import alternate, in_child, median, parts_cell, summary, table, times, verdict
from data_validators import BARE, CASES, OURS, PARQUET, PREPARE, VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DAMAGED_ROWS = 20_000
FEWEST = 20_000  # with fewer rows a mean may leave its range by chance
TARGET = 1.5  # times polars alone
JUDGED = 10_000_000  # rows from which the target counts: below, milliseconds decide


def measure(folder: Path, options: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """One table for each number of rows, the targets, and whether all agree on damaged data."""
    agreement = _agreement(folder / "damaged")
    sizes = []
    for count in options["rows"]:
        place = folder / f"rows-{count}"
        _made(place, {"rows": count})
        files = [place / PARQUET, *(place / VERSION).glob("*.arrow")]
        found = summary(alternate("validation", CASES, place, {}, repeats, files))
        wrong = [row["case"] for row in found if "failed" not in row and not all(row["found"]["verdicts"])]
        ratios = {name: _ratios(found, name) for name in ("seconds", "cpu")}
        shutil.rmtree(place)
        sizes.append({"rows": count, "cases": found, "ratios": ratios, "wrong_verdicts": wrong})
    return {"sizes": sizes, "agreement": agreement, "targets": [_alike(agreement), *_targets(sizes)]}


def _made(place: Path, options: Mapping[str, Any]) -> None:
    if (place / PARQUET).exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    done = in_child("validation", PREPARE, place, options)
    if "failed" in done:
        raise SystemExit(f"the table cannot be made: {done.get('stderr') or done['failed']}")


def _agreement(place: Path) -> dict[str, Any]:
    """Which of the twenty each finds missed in damaged data."""
    _made(place, {"rows": DAMAGED_ROWS, "damaged": True})
    missed = {}
    for case in CASES:
        answer = in_child("validation", case, place, {})
        found = answer.get("found", {}).get("verdicts")
        missed[case.name] = answer["failed"] if found is None else [n for n, fine in enumerate(found) if not fine]
    return {"rows": DAMAGED_ROWS, "planted": list(DAMAGED), "missed": missed}


def _ratios(found: list[dict[str, Any]], measure: str) -> dict[str, float | None]:
    """In times the faster of the two polars cases on the version's Arrow data."""
    bare = [value for value in (median(found, name, measure) for name in BARE) if value]
    best = min(bare, default=None)
    return {row["case"]: times(median(found, row["case"], measure), best) for row in found}


def _alike(agreement: Mapping[str, Any]) -> dict[str, Any]:
    found = agreement["missed"][OURS]
    wrong = None if isinstance(found, str) else float(len(set(found) ^ set(agreement["planted"])))
    return verdict("wrong verdicts of kfloop on damaged data", wrong, 0, at_most=True)


def _targets(sizes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        verdict(
            f"validation of {size['rows']:,} rows against the faster polars on the same Arrow data",
            size["ratios"]["seconds"][OURS],
            TARGET,
            at_most=True,
            unit="times",
        )
        for size in sizes
        if size["rows"] >= JUDGED
    ]


def text(result: Mapping[str, Any]) -> str:
    """The tables for people."""
    blocks = []
    for size in result["sizes"]:
        ratios = size["ratios"]
        extra = {
            "times polars": lambda row, ratios=ratios: _number(ratios["seconds"][row["case"]]),
            "in CPU s": lambda row, ratios=ratios: _number(ratios["cpu"][row["case"]]),
            "parts, s": parts_cell,
        }
        blocks.append(
            f"### Validation: {size['rows']:,} rows, {len(COLUMNS)} columns, {len(EXPECTATIONS)} expectations\n\n"
            + table(size["cases"], extra)
            + (f"\n\nWRONG VERDICTS: {', '.join(size['wrong_verdicts'])}" if size["wrong_verdicts"] else "")
        )
    found = result["agreement"]
    lines = [f"Damaged data ({found['rows']:,} rows): expectations that are missed, planted {found['planted']}"]
    lines += [
        f"- {name}: {'the same' if missed == found['planted'] else missed}" for name, missed in found["missed"].items()
    ]
    return "\n\n".join([*blocks, "\n".join(lines)])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
