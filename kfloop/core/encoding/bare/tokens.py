"""Texts to numbers: words known from training, and hashed parts of words for all others.

A word is looked up whole and as its character n-grams (Bojanowski et al., "Enriching word vectors with subword information", TACL 2017), so
that a word that was never seen still resembles those that are spelt like it. Everything here is plain Python and gives the same numbers
on every machine.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PADDING, UNKNOWN = 0, 1
RESERVED = 2  # ids below are no words
SHORTEST, LONGEST = 3, 5  # characters of a part, the marks of the word's ends included
LONGEST_NUMBER = 4  # digits of a number that are told apart
LONGEST_WORD = 40  # characters of a word that are looked at: nobody writes longer ones, machines do
_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")


def tokenise(text: str, at_most: int | None = None) -> list[str]:
    """Words, numbers and marks of a text in lower case and Unicode form KC, the first ``at_most``; of a number only its length is kept."""
    words = _WORD.finditer(unicodedata.normalize("NFKC", text).lower())
    found = (match.group() for match in islice(words, at_most))
    return ["0" * min(len(token), LONGEST_NUMBER) if token.isdecimal() else token[:LONGEST_WORD] for token in found]


def known_words(texts: Iterable[Sequence[str]], at_most: int, seen: int) -> list[str]:
    """The words worth an own id, the most frequent first, equals by alphabet.

    Args:
        texts: Tokens of each text.
        at_most: Largest number of words.
        seen: How often a word must occur.
    """
    counts = Counter(token for tokens in texts for token in tokens)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [word for word, count in ordered[:at_most] if count >= seen]


def parts_of(word: str, buckets: int, at_most: int) -> list[int]:
    """Ids (1 to ``buckets``) of the character n-grams of a word between marks of its ends, short ones first, at most so many."""
    marked = f"<{word}>"
    grams = [marked[at : at + n] for n in range(SHORTEST, LONGEST + 1) for at in range(len(marked) - n + 1)]
    return [1 + zlib.crc32(gram.encode()) % buckets for gram in grams[:at_most]]
