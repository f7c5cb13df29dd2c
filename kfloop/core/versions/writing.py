"""Writing a dataset version: rows stream in, are hashed, placed and written; only their hashes stay in memory."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.versions.keys import PLAIN, Hasher
from kfloop.core.versions.splitting import CODES, REST, SPLITS
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from kfloop.core.versions.assigning import Splitter

CARD = "card.json"
QUARANTINE = "quarantine.jsonl"
FORMAT = 2
MOST_SORTED_ROWS = 1_000_000  # larger versions keep the order of their source
_CHUNK = {"image": 1000, "audio": 1000}


class VersionWriter:
    """Writes one version into an empty folder.

    Args:
        out: The folder.
        name: Name of the dataset.
        hasher: Hashes the rows; knows what they are.
        splitter: Places the rows.
    """

    def __init__(self, out: Path, *, name: str, hasher: Hasher, splitter: Splitter) -> None:
        self.out, self.name, self.hasher, self.splitter = out, name, hasher, splitter
        self.head, self.inputs, self.facts = hasher.head, hasher.inputs, hasher.facts
        self._arrow: pa.Schema | None = None
        self._files: dict[str, Any] = {}
        self._keys: dict[str, list[np.ndarray]] = {split: [] for split in CODES}
        self._origins: Counter[str] = Counter()
        self._per_class = np.zeros((len(CODES), max(1, len(self.head["labels"]))), dtype=np.int64)
        self._first: dict[int, str] = {}
        self._corrected = 0

    def add(self, table: pa.Table, hashes: tuple[pa.Array, np.ndarray, np.ndarray] | None = None) -> None:
        """Hash, place and write some rows.

        Args:
            table: Columns ``id``, inputs, facts, ``label`` where there is one, ``origin``, and whatever else is known of
                ``group``, ``time``, ``split``, ``label_by``, ``label_at``; the same columns in each call.
            hashes: ``hasher.contents(table)`` where it is known already.

        Raises:
            InputError: A column changed its type on the way, or the source's splits tear a group apart.
        """
        if not table.num_rows:
            return
        content, lanes, shares = hashes or self.hasher.contents(table)
        codes = self.splitter.assign(table, shares)
        table = self._typed(table.append_column("content", content))
        self._count(table, codes)
        keys = self.hasher.keys(table, lanes)
        for code in np.unique(codes):
            picked = np.flatnonzero(codes == code)
            split = CODES[code]
            self._keys[split].append(keys[picked])
            self._file(split).write_table(table if len(picked) == len(codes) else table.take(picked))

    def finish(
        self,
        *,
        sources: Sequence[Mapping[str, Any]] = (),
        quarantined: Sequence[Mapping[str, Any]] = (),
        lineage: Mapping[str, Any] | None = None,
        extras: Mapping[str, pa.Table] | None = None,
        previous: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Close the splits and write the card.

        Args:
            sources: Where the rows came from.
            quarantined: What was set aside, with the reason.
            lineage: Revisions of code and data.
            extras: Tables beside the rows, such as ``edges``.
            previous: Digests of earlier versions, newest first; the first that is another one is kept: skew is measured against it.

        Returns:
            The card.

        Raises:
            InputError: No rows at all, no rows in a split, or a class without training rows.
        """
        sizes = {split: sum(map(len, self._keys[split])) for split in CODES}
        self._refuse_empty(sizes)
        for split in SPLITS:
            self._file(split).close()
        if sizes[REST]:
            self._file(REST).close()
        for split in self._files:
            self._ordered(split, sum(sizes.values()))
        extra_tables = dict(extras or {})
        for name, table in extra_tables.items():
            _write_table(self.out / f"{name}.arrow", table)
        digest = self.hasher.digest(self._arrow, self._keys, extra_tables)
        card = {
            "format": FORMAT,
            "digest": digest,
            "name": self.name,
            **self.head,
            "inputs": self.inputs,
            "facts": self.facts,
            "n_rows": sum(sizes.values()),
            "splits": {split: size for split, size in sizes.items() if split in SPLITS or size},
            "per_class": self._class_counts(sizes),
            "origins": dict(self._origins),
            "corrected": self._corrected,
            "quarantined": len(quarantined),
            "extras": sorted(extra_tables),
            "split": self.splitter.cutoffs.as_dict(),
            "previous": next((earlier for earlier in previous if earlier != digest), None),
            "sources": [dict(source) for source in sources],
            "lineage": dict(lineage or {}),
        }
        (self.out / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        with (self.out / QUARANTINE).open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(dict(row), sort_keys=True) + "\n" for row in quarantined)
        return card

    def _typed(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        wanted = dict.fromkeys(("id", *self.inputs, *PLAIN, *self.facts))  # a series has its time among its inputs
        table = table.select([name for name in wanted if name in table.column_names])
        if self._arrow is None:
            self._arrow = table.schema.remove_metadata()
        try:
            return table.cast(self._arrow)
        except (pa.ArrowInvalid, ValueError) as error:
            raise InputError(
                f"row '{table['id'][0].as_py()}' and the rows after it have other columns or types than the rows before: {error}",
                hint="give each column one type in the whole source",
            ) from error

    def _count(self, table: pa.Table, codes: np.ndarray) -> None:
        self._origins.update(_counted(table["origin"]))
        if "label_by" in table.column_names:
            self._corrected += table.num_rows - table["label_by"].null_count
        if self.head["task"] == "multiclass":
            labels = table["label"].to_numpy()
            np.add.at(self._per_class, (codes, labels), 1)
            for label, row in zip(*np.unique(labels, return_index=True), strict=True):
                self._first.setdefault(int(label), table["id"][int(row)].as_py())
        elif self.head["task"] == "multilabel":
            lists = table["label"].combine_chunks()
            owners = np.repeat(codes, lists.value_lengths().to_numpy(zero_copy_only=False))
            np.add.at(self._per_class, (owners, lists.flatten().to_numpy(zero_copy_only=False)), 1)

    def _class_counts(self, sizes: Mapping[str, int]) -> dict[str, dict[str, int]]:
        return {
            split: {label: int(self._per_class[code, index]) for index, label in enumerate(self.head["labels"])}
            for code, split in enumerate(CODES)
            if split in SPLITS or sizes[split]
        }

    def _file(self, split: str) -> Any:
        import pyarrow as pa

        if split not in self._files:
            self._files[split] = pa.ipc.new_stream(str(self.out / f"{split}.arrow"), self._arrow)
        return self._files[split]

    def _refuse_empty(self, sizes: Mapping[str, int]) -> None:
        if self._arrow is None:
            raise InputError("the source has no usable row", hint="look at the reasons above, or at another source")
        for split in SPLITS:
            if not sizes[split]:
                raise InputError(
                    f"none of the {sum(sizes.values())} rows falls into the {split} split (method "
                    f"'{self.splitter.cutoffs.method}')",
                    hint="add rows, change the shares in data.split, or choose another data.split.method",
                    split=split,
                )
        if self.head["task"] != "multiclass":
            return
        counts = self._per_class
        by_chance = self.splitter.cutoffs.method in {"random", "stratified"}
        for index, label in enumerate(self.head["labels"]):
            missing = [split for code, split in enumerate(SPLITS) if not counts[code, index]]
            if missing and (by_chance or "train" in missing):
                n, first = counts[:, index].sum(), self._first.get(index)
                raise InputError(
                    f"class '{label}' has {n} usable row{'' if n == 1 else 's'}"
                    + (f" (the first is '{first}')" if first else "")
                    + f", and none of them falls into the {missing[0]} split",
                    hint="add rows of that class (30 or more are safe), set data.split.method: stratified, or remove the class",
                    label=label,
                    split=missing[0],
                )

    def _ordered(self, split: str, total: int) -> None:
        """Rewrite a split in the order of content, so that the same rows are the same file wherever they came from."""
        import pyarrow as pa

        if total > MOST_SORTED_ROWS or self.head["modality"] in {"series", "nodes"}:
            return
        path, staging = self.out / f"{split}.arrow", self.out / f".{split}.sorting"
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
            order = np.lexsort(
                (np.array(table["id"].to_pylist(), dtype=str), np.array(table["content"].to_pylist(), dtype=str))
            )
            step = _CHUNK.get(self.head["modality"], 65_536)
            with pa.ipc.new_stream(str(staging), table.schema) as sink:
                for start in range(0, len(order), step):
                    sink.write_table(table.take(order[start : start + step]))
        staging.replace(path)


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    import pyarrow.compute as pc

    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}


def _write_table(path: Path, table: pa.Table) -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(str(path), table.schema) as sink:
        sink.write_table(table)
