"""Texts to ids of their words and of the parts of these words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .tokens import PADDING, RESERVED, UNKNOWN, parts_of, tokenise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Lookup:
    """Looks words up.

    Args:
        words: Words with an id of their own, in its order.
        length: Tokens L of a text; longer texts are cut at their end.
        buckets: Number of ids that parts of words share.
        parts: Parts P of a word.
    """

    def __init__(self, words: Sequence[str], length: int, buckets: int, parts: int) -> None:
        self.length, self.buckets, self.parts = length, buckets, parts
        self._ids = {word: RESERVED + number for number, word in enumerate(words)}

    def found(self, texts: Sequence[str | None]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Place of each token [N, L] in a table of the different ones, their ids [U] and those of their parts [U, P].

        The first entry of the table is padding; a missing text is an empty one.
        """
        known: dict[str, int] = {}
        places = np.zeros((len(texts), self.length), dtype=np.int32)
        for row, text in enumerate(texts):
            cut = [known.setdefault(token, len(known) + 1) for token in tokenise(text or "", self.length)]
            places[row, : len(cut)] = cut
        tokens = np.array([PADDING, *(self._ids.get(token, UNKNOWN) for token in known)], dtype=np.int64)
        pieces = np.zeros((len(tokens), self.parts), dtype=np.int64)
        for number, token in enumerate(known, start=1):
            parts = parts_of(token, self.buckets, self.parts)
            pieces[number, : len(parts)] = parts
        return places, tokens, pieces
