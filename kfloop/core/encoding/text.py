"""Texts: ids of their words, and of the parts of these words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kfloop.core.encoding.bare.texts import Lookup
from kfloop.core.encoding.bare.tokens import RESERVED, known_words, parts_of, tokenise
from kfloop.core.encoding.base import Encoder as Base
from kfloop.core.encoding.base import columns_of, targets
from kfloop.core.encoding.examples import Examples
from kfloop.core.signature import Port
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

MOST_WORDS = 20_000
SEEN = 2  # a word that occurs once teaches nothing that its parts do not
LONGEST = 256  # tokens
COVERED = 0.99  # share of the training texts that are not cut
FEWEST_BUCKETS, MOST_BUCKETS = 1024, 16_384  # ids that parts of words share
PARTS = 16  # parts of a word that are looked at


@dataclass(frozen=True, kw_only=True)
class Texts(Examples):
    """Texts as places in a table of their different tokens, which are looked up when a batch needs them: parts of words are many.

    Attributes:
        tokens: Id of each token, int64 [U]; the first is padding.
        pieces: Ids of its parts, int64 [U, P].
    """

    tokens: NDArray[np.int64]
    pieces: NDArray[np.int64]

    def batch_inputs(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Tokens int64 [B, L] and pieces int64 [B, L, P]."""
        places = self.inputs[0][rows]
        return self.tokens[places], self.pieces[places]


class Encoder(Base):
    """Gives ``tokens`` int64 [L] (0 padding, 1 unknown) and ``pieces`` int64 [L, P] (0 padding). Longer texts are cut at their end.

    Args:
        words: Words with an id of their own, in its order.
        length: Tokens L.
        buckets: Number of ids that parts of words share.
        parts: Parts P of a word.
    """

    modality = "text"

    def __init__(self, words: list[str], length: int, buckets: int, parts: int = PARTS) -> None:
        self.words, self.length, self.buckets, self.parts = words, length, buckets, parts
        self._lookup = Lookup(words, length, buckets, parts)

    @classmethod
    def fit(cls, version: DatasetVersion, **options: Any) -> Self:
        """Words and length of the training texts.

        Args:
            version: Dataset version.
            **options: ``length``: tokens L instead of what covers nearly all texts.
        """
        tokens = [tokenise(text or "") for text in version.table("train", ["text"])["text"].to_pylist()]
        if not any(tokens):
            raise InputError(
                f"the {len(tokens)} texts of the train split have no words", hint="name the column in data.text"
            )
        lengths = np.array([len(row) for row in tokens])
        length = int(options.get("length") or min(LONGEST, max(1, int(np.quantile(lengths, COVERED, method="higher")))))
        return cls(known_words(tokens, MOST_WORDS, SEEN), length, _buckets({token for row in tokens for token in row}))

    @classmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """As ``state`` says."""
        return cls(list(plain["words"]), int(plain["length"]), int(plain["buckets"]), int(plain["parts"]))

    def state(self) -> dict[str, Any]:
        """Words and sizes."""
        return {"words": self.words, "length": self.length, "buckets": self.buckets, "parts": self.parts}

    @property
    def ports(self) -> tuple[Port, ...]:
        """One text."""
        return (
            Port(name="tokens", dtype="int64", shape=(self.length,)),
            Port(name="pieces", dtype="int64", shape=(self.length, self.parts)),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Numbers of different ids in the two tensors."""
        return {"words": RESERVED + len(self.words), "pieces": 1 + self.buckets}

    def encode(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """Ids of the column ``text``; a missing text is an empty one."""
        places, tokens, pieces = self._lookup.found(_texts(table))
        return tokens[places], pieces[places]

    def examples(self, version: DatasetVersion, split: str, objective: str, *, normal: str | None = None) -> Examples:
        """The texts of a split."""
        table = version.table(split)
        places, tokens, pieces = self._lookup.found(_texts(table))
        return Texts(
            inputs=(places,),
            tokens=tokens,
            pieces=pieces,
            target=targets(table, version, objective, normal),
            weights=np.ones(table.num_rows, dtype=np.float32),
            **columns_of(table),
        )


def _buckets(tokens: set[str]) -> int:
    """The power of two that gives nearly every part of these words an id of its own, within limits: small data make small models."""
    parts = {part for token in tokens for part in parts_of(token, MOST_BUCKETS, PARTS)}
    return min(MOST_BUCKETS, max(FEWEST_BUCKETS, 1 << len(parts).bit_length()))


def _texts(table: pa.Table) -> list[str | None]:
    if "text" not in table.column_names:
        raise InputError(
            f"the rows have the columns {table.column_names}, but the model takes texts", hint="name it 'text'"
        )
    found: list[str | None] = table["text"].to_pylist()
    return found
