"""Explanations of tables: which columns the model relies on over all rows, and what moved single answers.

Columns are changed before the encoder, so that a category or a time is one column, whatever it is encoded as.

Source: Breiman, "Random forests", Machine Learning 45, 2001 (permutation importance); Fisher, Rudin & Dominici, "All models are wrong, but many
are useful", JMLR 20, 2019 (of any model).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.corruptions.altered import with_column
from kfloop.components.evaluate.explanations.explaining import Explained, Job, described
from kfloop.components.evaluate.main_figure import figure, pooled
from kfloop.core.statistics.intervals import percentile
from kfloop.core.statistics.metrics import METRICS, primary

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

REPEATS = 5
COLUMNS = 60  # that are shuffled; the first of a wider table
ROWS = 100_000  # that are encoded for all shuffles together
MOST_ROWS, FEWEST_ROWS = 500, 50


def explain(job: Job, rows: list[int]) -> Explained:
    """Importance of the columns, and for some rows what each column did."""
    table = job.version.table("test", job.version.inputs)
    typical = {name: typical_value(job.version.table("train", [name])[name]) for name in job.version.inputs}
    examples = [described(job, row) | {"kind": "bars", "bars": _local(job, table, row, typical)} for row in rows]
    caption = (
        "Each column in turn is set to its typical value of the training rows (the median, or the most frequent category): where that lowers "
        "the output, the value pushed it up, where it raises it, down."
    )
    return Explained(
        told={"kind": "bars", "caption": caption, "examples": examples, "importance": importance(job, table)}
    )


def importance(job: Job, table: pa.Table) -> dict[str, Any]:
    """How much worse the main figure is when a column is shuffled over the test rows; the mean of 5 shuffles, with its interval.

    The interval is that of the paired bootstrap over the rows. A column that says the same as another one counts for little, because the
    model still has the other.
    """
    names = job.version.inputs[:COLUMNS]
    n = len(job.task.target)
    count = min(n, MOST_ROWS, max(FEWEST_ROWS, ROWS // (len(names) * REPEATS)))
    rows = np.sort(np.random.default_rng(job.config.seed).permutation(n)[:count])
    part = table.take(rows)
    shuffled = {}
    for name in names:
        random = np.random.default_rng([job.config.seed, zlib.crc32(name.encode())])
        orders = [random.permutation(count) for _ in range(REPEATS)]
        repeated = part.take(np.tile(np.arange(count), REPEATS))
        other = with_column(repeated, name, part[name].take(np.concatenate(orders)))
        answers = np.split(_answers(job, other), REPEATS)
        shuffled[name] = pooled([figure(job.task, rows, answer) for answer in answers])
    clean = figure(job.task, rows, job.answer[rows])
    metric = primary(job.task.objective)
    higher = METRICS[job.task.objective][metric].better == "higher"
    found = job.board.resample({f"{name}/{metric}": item for name, item in shuffled.items()} | {metric: clean})
    lines = []
    for name in names:
        other_figure = found[f"{name}/{metric}"]
        drop = percentile(
            found[metric] - other_figure if higher else other_figure - found[metric], job.board.config.level
        )
        lines.append(
            {"name": name, "value": drop.value, "low": drop.low, "high": drop.high, "n": drop.n, "level": drop.level}
        )
    return {
        "metric": metric,
        "n": count,
        "repeats": REPEATS,
        "left_out": len(job.version.inputs) - len(names),
        "columns": sorted(lines, key=lambda line: -np.nan_to_num(line["value"])),
        "caption": f"How much worse {metric.replace('_', ' ')} becomes when the values of a column are shuffled among {count} test rows: the "
        f"mean of {REPEATS} shuffles, with its interval over the rows. Columns that say the same share their importance.",
    }


def typical_value(column: pa.ChunkedArray) -> Any:
    """The median of numbers and times, as one of them, the most frequent of everything else; None for a column without values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = column.drop_null()
    if not len(known):
        return None
    if pa.types.is_integer(known.type) or pa.types.is_floating(known.type) or pa.types.is_temporal(known.type):
        return known[pc.sort_indices(known)[len(known) // 2].as_py()].as_py()
    counts = sorted(known.value_counts().to_pylist(), key=lambda item: (-item["counts"], str(item["values"])))
    return counts[0]["values"]


def _local(job: Job, table: pa.Table, row: int, typical: dict[str, Any]) -> list[dict[str, Any]]:
    """What each column did to one answer, the strongest first."""
    import pyarrow as pa

    names = job.version.inputs
    copies = table.take(np.full(len(names) + 1, row))
    own = {name: table[name][row].as_py() for name in names}
    for place, name in enumerate(names):
        values = [own[name]] * (len(names) + 1)
        values[place] = typical[name]
        copies = with_column(copies, name, pa.array(values, type=table.schema.field(name).type))
    of, _ = job.output(row)
    outputs = np.asarray(of(_answers(job, copies)), dtype=np.float64)
    lines = [
        {
            "name": name,
            "own": _plain(own[name]),
            "typical": _plain(typical[name]),
            "weight": float(outputs[-1] - output),
        }
        for name, output in zip(names, outputs[:-1], strict=True)
    ]
    return sorted(lines, key=lambda line: -abs(line["weight"]))


def _answers(job: Job, table: pa.Table) -> NDArray[Any]:
    model = job.model.model
    return model.run(model.encoder.encode(table))[model.signature.answer]


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
