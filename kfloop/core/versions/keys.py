"""What a row is: the hash of its inputs, by which it is recognised and placed, and the hash of all of it, by which a version is named."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.artifacts import DIGEST_LENGTH, canonical_json
from kfloop.core.versions.hashing import content_hash, hash_rows, hexadecimal, sorted_digest, text_lanes
from kfloop.core.versions.splitting import text_shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

PLAIN = ("label", "origin", "content", "group", "time", "label_by", "label_at")
_SHARE_SHIFT = np.uint64(11)
_SHARE_RANGE = float(1 << 53)


class Hasher:
    """Hashes the rows of one version.

    Args:
        modality: What a row is.
        task: What is to be learned.
        labels: Class names by index; empty without classes.
        schema: Facts that readers of the version need, such as ``image_shape``.
        inputs: Input columns.
        facts: Fact columns.
    """

    def __init__(
        self,
        *,
        modality: str,
        task: str,
        labels: Sequence[str],
        schema: Mapping[str, Any],
        inputs: Sequence[str],
        facts: Sequence[str] = (),
    ) -> None:
        self.head: dict[str, Any] = {"modality": modality, "task": task, "labels": list(labels), "schema": dict(schema)}
        self.inputs, self.facts = list(inputs), list(facts)

    @classmethod
    def of(cls, rows: Any) -> Hasher:
        """The hasher of whatever says what its rows are by attributes of these names: an opened source, a version."""
        return cls(
            modality=rows.modality,
            task=rows.task,
            labels=rows.labels,
            schema=rows.schema,
            inputs=rows.inputs,
            facts=rows.facts,
        )

    def contents(self, table: pa.Table) -> tuple[pa.Array, np.ndarray, np.ndarray]:
        """Content of each row as text, as lanes uint64 [N, 2], and its stable share float64 [N]."""
        import pyarrow as pa

        if self.head["modality"] == "image":
            shape = self.head["schema"]["image_shape"]
            flat = table[self.inputs[0]].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            texts = pa.array([content_hash(image) for image in flat.reshape(-1, *shape)], type=pa.string())
            return texts, text_lanes(texts), text_shares(texts)
        timed = ["time"] if self.head["modality"] == "series" else []
        lanes = hash_rows(table, list(dict.fromkeys([*self.inputs, *timed])))
        # The lanes are uniform already: hashing their text again would cost ten seconds for ten million rows.
        return hexadecimal(lanes), lanes, (lanes[:, 0] >> _SHARE_SHIFT) / _SHARE_RANGE

    def keys(self, table: pa.Table, lanes: np.ndarray) -> np.ndarray:
        """Hash of whole rows: content, label by its name, origin, group, time, and who labelled it where somebody did; uint64 [N, 2].

        Facts are left out: they are derived, and the same pixels may come from another kind of file.
        """
        import pyarrow as pa

        columns = [name for name in ("label", "origin", "group", "time") if name in table.column_names]
        if "label" in columns and self.head["task"] == "multiclass":
            names = pa.array(self.head["labels"], type=pa.string()).take(table["label"].combine_chunks())
            table = table.set_column(table.column_names.index("label"), "label", names)
        keys = lanes ^ hash_rows(table, columns)
        if "label_by" in table.column_names:
            answered = table["label_by"].is_valid().to_numpy()
            keys = np.where(answered[:, None], keys ^ hash_rows(table, ["label_by", "label_at"]), keys)
        return keys

    def digest(self, arrow: pa.Schema, keys: Mapping[str, Sequence[np.ndarray]], extras: Mapping[str, pa.Table]) -> str:
        """Content digest of a version: what is in it, whatever the order, the paths or the encoding.

        Args:
            arrow: Schema of its rows.
            keys: Row hashes of each split.
            extras: Tables beside the rows.
        """
        columns = sorted([field.name, str(field.type)] for field in arrow if field.name in self.inputs)
        state = hashlib.sha256(canonical_json([self.head, columns]).encode())
        for split in sorted(name for name, parts in keys.items() if parts):
            state.update(split.encode() + b"\0" + sorted_digest(np.concatenate(list(keys[split]))))
        for name in sorted(extras):
            state.update(name.encode() + b"\0" + sorted_digest(hash_rows(extras[name], extras[name].column_names)))
        return state.hexdigest()[:DIGEST_LENGTH]
