"""Texts that are the same but for case, spaces, punctuation or a few letters.

Texts are compared by the cosine of their 4-letter pieces, once with all pieces alike and once with rare ones weighing more, so that neither different
questions about one thing nor one question about different things pass. Only texts that share pieces which few texts have are compared at all.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Pairs = tuple[Ints, Ints, NDArray[np.float64]]

LETTERS = 4  # of a piece
READ = 2000  # letters of a text that are looked at
SAME = 0.85  # least cosine
SAME_RARE = 0.7  # least cosine where rare pieces weigh more: one mould, another thing
RARE = 30  # a piece that more texts have brings no candidates
SHARED = 0.3  # least share of a text's rare pieces that a candidate has too
ROWS = 1000  # texts compared at a time
FEATURES = 2**20


def near_texts(texts: Sequence[str | None]) -> Pairs:
    """Near duplicates among texts of different content.

    Args:
        texts: The texts; null counts as empty. Texts without a letter or digit are like no other.

    Returns:
        Positions (left < right) and the distance, 1 - cosine.
    """
    plain = [_plain(text or "") for text in texts]
    distinct, first, inverse = np.unique(np.array(plain, dtype=object), return_index=True, return_inverse=True)
    home = first[inverse.ravel()]
    again = np.flatnonzero((home != np.arange(len(plain))) & np.array([bool(text) for text in plain], dtype=bool))
    left, right, distance = _search([str(text) for text in distinct])
    pairs = np.concatenate([np.column_stack([home[again], again]), np.column_stack([first[left], first[right]])])
    pairs = np.sort(pairs.astype(np.int64), axis=1)
    return pairs[:, 0], pairs[:, 1], np.concatenate([np.zeros(len(again)), distance])


def _plain(text: str) -> str:
    """Letters and digits in one case, single spaces between."""
    folded = unicodedata.normalize("NFKC", text[: 2 * READ]).casefold()
    return " ".join(re.sub(r"[\W_]+", " ", folded).split())[:READ]


def _search(texts: Sequence[str]) -> Pairs:
    """Near pairs among distinct plain texts."""
    from scipy import sparse
    from sklearn.feature_extraction.text import HashingVectorizer

    nothing = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    if sum(bool(text) for text in texts) < 2:  # noqa: PLR2004
        return nothing
    pieces = HashingVectorizer(
        analyzer="char_wb",
        ngram_range=(LETTERS, LETTERS),
        n_features=FEATURES,
        alternate_sign=False,
        norm=None,
        lowercase=False,
    ).transform(texts)
    pieces.data = 1 + np.log(pieces.data)
    common = np.bincount(pieces.indices, minlength=FEATURES)
    even = _unit(pieces)
    weighted = _unit(pieces @ sparse.diags(1 + np.log(len(texts) / np.maximum(common, 1))))
    bearing = np.flatnonzero((common > 1) & (common <= RARE))
    rare = pieces[:, bearing]
    rare.data = np.ones_like(rare.data)
    number = np.diff(rare.indptr)
    turned = rare.T.tocsr()
    found = []
    for start in range(0, len(texts), ROWS):
        shared = (rare[start : start + ROWS] @ turned).tocoo()
        left, right = shared.row.astype(np.int64) + start, shared.col.astype(np.int64)
        likely = (left < right) & (shared.data >= SHARED * np.minimum(number[left], number[right]))
        left, right = left[likely], right[likely]
        for low in range(0, len(left), 100 * ROWS):
            part = slice(low, low + 100 * ROWS)
            cosine = np.asarray(even[left[part]].multiply(even[right[part]]).sum(axis=1)).ravel()
            telling = np.asarray(weighted[left[part]].multiply(weighted[right[part]]).sum(axis=1)).ravel()
            near = (cosine >= SAME) & (telling >= SAME_RARE)
            found.append((left[part][near], right[part][near], np.maximum(0.0, 1 - cosine[near])))
    if not found:
        return nothing
    lefts, rights, distances = zip(*found, strict=True)
    return np.concatenate(lefts), np.concatenate(rights), np.concatenate(distances)


def _unit(pieces: Any) -> Any:
    """Rows of length 1, sparse."""
    from scipy import sparse

    sizes = np.sqrt(np.asarray(pieces.multiply(pieces).sum(axis=1)).ravel())
    return (sparse.diags(1 / np.maximum(sizes, 1e-12)) @ pieces).tocsr()
