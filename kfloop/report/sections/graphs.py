"""The graph that is served beside smaller or larger ones of the same network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kfloop.report.values import compact, count, decimal, estimate, mapping, number, percent, text

NOTE = (
    "How far outputs are off is measured against torch on real test examples, absolute for probabilities, else in units of the largest magnitude. "
    "Agreement is the share of validation rows with the same class as fp32; the main figure is of validation rows, too. Milliseconds are medians "
    "for one row on one thread of the machine that packaged, all graphs in turn. Gate, bless and monitor are about the served graph."
)


def build(variants: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The table of graphs; without rows where there is but one.

    Args:
        variants: Entry ``variants`` of the package's report.
    """
    if not variants:
        return {"rows": [], "columns": [], "note": "", "problems": []}
    outputs = _keys(variants, "max_abs_diff")
    sizes = sorted(_keys(variants, "ms_per_row"), key=lambda size: (len(size), size))
    metric = next((text(line["metric"]) for line in variants if line.get("metric")), "score")
    columns = ["graph", "", "size", "small weights", *(f"{name} off" for name in outputs), "agreement", metric]
    columns += [f"ms, batch {' / '.join(sizes)}"]
    problems = [f"{text(line.get('name'))}: {text(line['problem'])}" for line in variants if line.get("problem")]
    table = [_row(line, outputs, sizes) for line in variants]
    return {"columns": columns, "rows": table, "note": NOTE, "problems": problems}


def _row(line: Mapping[str, Any], outputs: Sequence[str], sizes: Sequence[str]) -> list[str]:
    size = number(line.get("bytes"))
    small, same = number(line.get("small")), mapping(line.get("agreement"))
    worst, spent = mapping(line.get("max_abs_diff")), mapping(line.get("ms_per_row"))
    return [
        text(line.get("name")),
        "served" if line.get("served") else "did not pass" if line.get("problem") else "passed",
        "" if size is None else f"{count(round(size / 1000))} kB",
        "" if small is None else percent(small),
        *(_brief(worst.get(name)) if worst else "" for name in outputs),
        estimate(same) if same else "",
        "" if number(line.get("score")) is None else compact(line.get("score")),
        " / ".join(decimal(spent.get(size)) for size in sizes) if spent else "",
    ]


def _brief(value: Any) -> str:
    """A difference; one that is not finite stands in a report as null."""
    found = number(value)
    return "not finite" if found is None else f"{found:.2g}"


def _keys(variants: Sequence[Mapping[str, Any]], entry: str) -> list[str]:
    """Names that stand in an entry of any graph, in their order."""
    return list(dict.fromkeys(name for line in variants for name in mapping(line.get(entry))))
