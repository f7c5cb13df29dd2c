"""Texts: which words, pairs of words and pieces of words they use, folded into 256 numbers.

TF-IDF with logarithmic counts, then truncated singular value decomposition (Deerwester et al., "Indexing by latent semantic analysis", JASIS 1990).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

DIMENSIONS = 256
MOST_TERMS = 50_000
MOST_CHARACTERS = 20_000  # of a text that are looked at
MOST_FITTED = 50_000  # texts that the folding is learned from


def describe(version: DatasetVersion, splits: Sequence[str]) -> NDArray[np.float64]:
    """Features of all texts, in order, each of length one where it has any known term, float64 [N, D]."""
    return folded(terms(read_texts(version, splits)))


def read_texts(version: DatasetVersion, splits: Sequence[str]) -> list[str]:
    """The texts of some splits, cut at 20 000 characters."""
    texts: list[str] = []
    for split in splits:
        texts += [str(text or "")[:MOST_CHARACTERS] for text in version.table(split, ["text"])["text"].to_pylist()]
    return texts


def terms(texts: Sequence[str]) -> Any:
    """TF-IDF of words, pairs of words and pieces of 3 to 5 characters, a sparse matrix float32 [N, terms]."""
    from scipy.sparse import csr_matrix, hstack

    step = max(1, len(texts) // MOST_FITTED)
    parts = [part for part in (_terms(texts, step, **kind) for kind in _kinds()) if part is not None]
    return csr_matrix(hstack(parts)) if parts else csr_matrix((len(texts), 1), dtype=np.float32)


def folded(matrix: Any) -> NDArray[np.float64]:
    """Rows of a sparse matrix folded into at most 256 numbers, float64 [N, D]."""
    from sklearn.decomposition import TruncatedSVD

    step = max(1, matrix.shape[0] // MOST_FITTED)
    dimensions = min(DIMENSIONS, matrix.shape[1] - 1, matrix.shape[0] - 1)
    if dimensions < 1 or not matrix.nnz:
        return np.asarray(matrix.toarray(), dtype=np.float64)
    result = TruncatedSVD(dimensions, random_state=0).fit(matrix[::step]).transform(matrix)
    return np.asarray(result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-9))


def _kinds() -> list[dict[str, Any]]:
    return [
        {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
        {"analyzer": "char_wb", "ngram_range": (3, 5)},
    ]


def _terms(texts: Sequence[str], step: int, **kind: Any) -> Any:
    """TF-IDF of one kind of terms, or null when no text has any."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    few = len(texts) < 100  # noqa: PLR2004 - with so few texts, a term of a single one may matter
    vectorizer = TfidfVectorizer(
        sublinear_tf=True, min_df=1 if few else 2, max_features=MOST_TERMS, dtype=np.float32, **kind
    )
    try:
        vectorizer.fit(texts[::step])
    except ValueError:  # scikit-learn's word for an empty vocabulary
        return None
    return vectorizer.transform(texts)
