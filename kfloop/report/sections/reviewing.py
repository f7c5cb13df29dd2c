"""Which answers of a packaged classifier are flagged for a person, and what the others are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report import answer_plots
from kfloop.report.values import count, decimal, estimate, interval, items, number, percent, rows, text

COLUMNS = ["predicted class", "accepted from", "test rows", "precision of accepted", "accepted"]


def build(review: Mapping[str, Any]) -> dict[str, Any]:
    """The table of thresholds and the risk-coverage plot; without rows where nothing is flagged.

    Args:
        review: Entry ``review`` of the package's report.
    """
    asked = number(review.get("asked"))
    if asked is None:
        return {"rows": [], "plot": "", "note": "", "columns": COLUMNS}
    table = [
        [
            text(line.get("label")),
            decimal(line.get("threshold")) if number(line.get("threshold")) is not None else "all are flagged",
            count(line.get("n_test")),
            estimate(line.get("precision")),
            estimate(line.get("coverage")),
        ]
        for line in rows(review.get("classes"))
    ]
    precision, coverage = (estimate(review.get(key)) for key in ("precision", "coverage"))
    table.append(["all", "", count(review.get("n_test")), precision, coverage])
    return {"columns": COLUMNS, "rows": table, "note": _note(review, asked), "plot": _plot(review, asked)}


def _note(review: Mapping[str, Any], asked: float) -> str:
    level = percent(review.get("level"), 0)
    return (
        f"Asked for: {percent(asked)} right among the accepted answers of each class, at {level} for each. The thresholds were found on "
        f"{count(review.get('n_validation'))} validation rows, with a test that is corrected for the search; these figures are from test rows, "
        "which had no part in it. A class with too few validation rows to prove it is flagged whole."
    )


def _plot(review: Mapping[str, Any], asked: float) -> str:
    curve = [(number(point[0]), number(point[1])) for point in items(review.get("curve")) if len(items(point)) > 1]
    known = [(kept, wrong) for kept, wrong in curve if kept is not None and wrong is not None]
    known = [point for point in known if _shares(*point)]
    precision, coverage = interval(review.get("precision")), interval(review.get("coverage"))
    here = None
    if precision and coverage and precision.value is not None and coverage.value is not None:
        here = (coverage.value, 1 - precision.value)
    here = here if here and _shares(*here) else None
    return answer_plots.risk_coverage(known, 1 - asked, here) if known and _shares(asked) else ""


def _shares(*values: float) -> bool:
    """Whether these are shares: a damaged report may hold anything."""
    return all(0 <= value <= 1 for value in values)
