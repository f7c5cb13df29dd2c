"""Texts as a pretrained model's own tokenizer cuts them; the tokenizer travels with the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kfloop.core.encoding.base import Encoder as Base
from kfloop.core.signature import Port
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

MOST = 0.995  # share of the training texts that are not cut
LOOKED_AT = 20_000  # training texts, evenly spread, whose length is taken
AT_ONCE = 1000


class Encoder(Base):
    """Gives ``ids`` int64 [L] and ``mask`` int64 [L] (1 where there is a piece); longer texts are cut.

    Args:
        tokenizer: ``tokenizer.json`` of the model, as text.
        length: Pieces L that the model sees.
        pad: Id of the piece that fills up.
    """

    modality = "pieces"

    def __init__(self, tokenizer: str, length: int, pad: int) -> None:
        self.tokenizer, self.length, self.pad = tokenizer, length, pad
        self._ready: Any = None

    @classmethod
    def fit(cls, version: DatasetVersion, **options: Any) -> Self:
        """As long as nearly all training texts.

        Args:
            version: Dataset version.
            **options: ``tokenizer``, ``pad`` and ``most``, the pieces that the model can see at most.
        """
        encoder = cls(str(options["tokenizer"]), int(options["most"]), int(options["pad"]))
        texts = version.table("train", ["text"])["text"].to_pylist()
        if not texts:
            raise InputError("the train split has no texts", hint="add examples, or lower data.split")
        counts = [len(found.ids) for found in encoder._cut(texts[:: max(1, len(texts) // LOOKED_AT)])]
        encoder.length = int(min(encoder.length, max(4, np.quantile(counts, MOST))))
        encoder._ready = None
        return encoder

    @classmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """As ``state`` says."""
        return cls(str(plain["tokenizer"]), int(plain["length"]), int(plain["pad"]))

    def state(self) -> dict[str, Any]:
        """The tokenizer and the length."""
        return {"tokenizer": self.tokenizer, "length": self.length, "pad": self.pad}

    @property
    def ports(self) -> tuple[Port, ...]:
        """Pieces and their mask."""
        return tuple(Port(name=name, dtype="int64", shape=(self.length,)) for name in ("ids", "mask"))

    def encode(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """Ids and mask int64 [N, L]."""
        if "text" not in table.column_names:
            raise InputError(
                f"column 'text' is missing: the rows have {table.column_names}", hint="give a column 'text'"
            )
        texts = table["text"].to_pylist()
        ids = np.full((len(texts), self.length), self.pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for start in range(0, len(texts), AT_ONCE):
            for row, found in enumerate(self._cut(texts[start : start + AT_ONCE]), start):
                ids[row, : len(found.ids)] = found.ids
                mask[row, : len(found.ids)] = 1
        return ids, mask

    def _cut(self, texts: Sequence[str | None]) -> list[Any]:
        if self._ready is None:
            from tokenizers import Tokenizer

            self._ready = Tokenizer.from_str(self.tokenizer)
            self._ready.no_padding()
            self._ready.enable_truncation(self.length)
        found: list[Any] = self._ready.encode_batch([text or "" for text in texts])
        return found
