"""What is shown of one row of a dataset version: a picture, a sound, a text, a curve or a small table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.review import media

if TYPE_CHECKING:
    import pyarrow as pa

    from kfloop.core.versions import DatasetVersion

MOST_FACTS = 24  # values in a small table; a table row of a thousand columns would bury the question
LONGEST_TEXT = 20_000  # characters


class Shower:
    """Shows rows of one dataset version.

    Args:
        version: The dataset version.
    """

    def __init__(self, version: DatasetVersion) -> None:
        self._version = version
        self._tables: dict[str, pa.Table] = {}

    def places(self, wanted: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str], int]:
        """Position of each wanted row inside its split.

        Args:
            wanted: Split, content and id of each row; of several rows with one content the one with that id is taken.

        Returns:
            Position by split and content; rows that are not there are left out.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        by_split: dict[str, dict[str, str]] = {}
        for split, content, row_id in wanted:
            by_split.setdefault(split, {})[content] = row_id
        found: dict[tuple[str, str], int] = {}
        for split, ids in by_split.items():
            if split not in self._version.splits:
                continue
            names = self._version.table(split, ["content", "id"])
            hits = pc.indices_nonzero(pc.is_in(names["content"], value_set=pa.array(list(ids), pa.string())))
            part = names.take(hits)
            contents, row_ids = part["content"].to_pylist(), part["id"].to_pylist()
            for position, content, row_id in zip(hits.to_pylist(), contents, row_ids, strict=True):
                if (split, content) not in found or row_id == ids[content]:
                    found[split, content] = position
        return found

    def label(self, split: str, position: int) -> Any:
        """The label of a row as the version holds it: index, list of indices, or number."""
        return self._table(split)["label"][position].as_py()

    def value(self, split: str, position: int) -> dict[str, Any]:
        """What to show of a row, as JSON types: ``kind`` and what belongs to it."""
        modality = self._version.modality
        kinds = {
            "image": self._image,
            "audio": self._audio,
            "text": self._text,
            "vector": self._vector,
            "nodes": self._vector,
            "series": self._series,
            "graphs": self._graph,
        }
        return kinds.get(modality, self._row)(split, position)

    def _table(self, split: str) -> pa.Table:
        if split not in self._tables:
            self._tables[split] = self._version.table(split)
        return self._tables[split]

    def _numbers(self, split: str, position: int, column: str) -> np.ndarray:
        """The numbers of one cell that holds a list."""
        cell = self._table(split)[column].slice(position, 1).combine_chunks()
        return np.asarray(cell.flatten().to_numpy(zero_copy_only=False))

    def _cells(self, split: str, position: int, columns: Iterable[str]) -> dict[str, Any]:
        table = self._table(split)
        names = [name for name in columns if name in table.column_names]
        return media.plain_row({name: table[name][position].as_py() for name in names})

    def _image(self, split: str, position: int) -> dict[str, Any]:
        pixels = self._numbers(split, position, "image").astype(np.uint8, copy=False)
        facts = self._cells(split, position, ("width", "height", "format"))
        note = f"{facts['width']} x {facts['height']} {facts.get('format', '')}".strip() if "width" in facts else ""
        return {"kind": "image", "uri": media.png_uri(pixels.reshape(self._version.image_shape)), "note": note}

    def _audio(self, split: str, position: int) -> dict[str, Any]:
        rate = int(self._version.card["schema"]["sample_rate"])
        samples = self._numbers(split, position, "audio")
        seconds = len(samples) / rate
        cut = f", the first {media.MOST_SECONDS:g} of them are here" if seconds > media.MOST_SECONDS else ""
        wave = {"loudness": media.envelope(samples)}
        return {
            "kind": "audio",
            "uri": media.wav_uri(samples, rate),
            "plot": media.curves_svg(wave),
            "note": f"{seconds:.2f} seconds{cut}",
        }

    def _text(self, split: str, position: int) -> dict[str, Any]:
        text = str(self._table(split)["text"][position].as_py())
        note = f"{len(text)} characters, the first {LONGEST_TEXT} are here" if len(text) > LONGEST_TEXT else ""
        return {"kind": "text", "text": text[:LONGEST_TEXT], "note": note}

    def _row(self, split: str, position: int) -> dict[str, Any]:
        names = self._version.inputs
        note = f"{len(names)} columns, the first {MOST_FACTS} are here" if len(names) > MOST_FACTS else ""
        return {"kind": "row", "row": self._cells(split, position, names[:MOST_FACTS]), "note": note}

    def _vector(self, split: str, position: int) -> dict[str, Any]:
        vector = self._numbers(split, position, "vector")
        row = self._cells(split, position, ("node", *self._version.facts))
        return _plot({"value": vector}, row, f"{len(vector)} numbers, in their order")

    def _series(self, split: str, position: int) -> dict[str, Any]:
        """The channels before and after a row, inside its own split and group."""
        facts = self._version.card["schema"]["series"]
        table = self._table(split)
        first, last = max(0, position - int(facts["context"])), position + int(facts["horizon"]) + 1
        window = table.slice(first, last - first)
        here = position - first
        keep = np.ones(window.num_rows, dtype=bool)
        if "group" in window.column_names:
            groups = np.array(window["group"].to_pylist(), dtype=object)
            keep = groups == groups[here]
        channels = [name for name in facts["channels"] if name in window.column_names]
        curves = {name: np.asarray(window[name].to_numpy(), dtype=np.float64)[keep] for name in channels}
        row = self._cells(split, position, ("group", "time", *channels[:MOST_FACTS]))
        return _plot(curves, row, "the dashed line is the row that is asked about", mark=int(keep[:here].sum()))

    def _graph(self, split: str, position: int) -> dict[str, Any]:
        width = max(int(self._version.card["schema"]["node_features"]), 1)
        n_nodes = len(self._numbers(split, position, "nodes")) // width
        edges = self._numbers(split, position, "edges").astype(np.int64, copy=False).reshape(-1, 2)
        drawing = media.graph_svg(n_nodes, edges)
        row = media.graph_facts(n_nodes, edges)
        if drawing is None:
            return {"kind": "row", "row": row, "note": "too many nodes to be drawn"}
        return {"kind": "plot", "uri": drawing, "legend": [], "row": row, "note": "nodes on a circle, in their order"}


def _plot(
    curves: Mapping[str, np.ndarray], row: dict[str, Any], note: str, *, mark: int | None = None
) -> dict[str, Any]:
    return {
        "kind": "plot",
        "uri": media.curves_svg(curves, mark=mark),
        "legend": media.curve_legend(curves),
        "row": row,
        "note": note,
    }
