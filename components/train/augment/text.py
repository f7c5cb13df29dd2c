"""Texts: some words are hidden, so that no answer hangs on a single one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.core.encoding.bare.tokens import PADDING, UNKNOWN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HIDDEN = 0.1  # share of the words


def without_words(inputs: tuple[NDArray[Any], ...], generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """A tenth of the tokens [B, L] become the unknown one, and their parts [B, L, ...] in the other inputs nothing (word dropout, Iyyer et al. 2015)."""
    tokens, *others = inputs
    hidden = (generator.random(tokens.shape) < HIDDEN) & (tokens != PADDING)
    hidden[:, 0] &= (tokens != PADDING).sum(axis=1) > 1  # the only word of a text stays
    found = [tokens.copy(), *(other.copy() for other in others)]
    found[0][hidden] = UNKNOWN
    for other in found[1:]:
        if other.shape[:2] == tokens.shape:
            other[hidden] = 0
    return tuple(found)
