"""Facts about texts, computed a column at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = ("characters", "words", "replacement")
REPLACEMENT = "\ufffd"
_FREE_WORDS = 3.0
_FREE_DISTINCT = 0.5


def not_utf8(count: int, what: str, first: str) -> str:
    """A sentence on texts whose bytes are not UTF-8."""
    return (
        f"{what} with bytes that are not UTF-8, which became U+FFFD: {count:,}, the first is {first}; if they are Latin-1: "
        "iconv -f latin1 -t utf-8 OLD > NEW"
    )


def text_facts(texts: pa.Array) -> dict[str, pa.Array]:
    """Characters, words (runs of non-blanks), and the share of U+FFFD among the characters of each text; nulls count 0.

    Args:
        texts: string [N].
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    filled = pc.fill_null(texts, "")
    characters = pc.utf8_length(filled).cast(pa.int64())
    words = pc.count_substring_regex(filled, r"[^\s]+").cast(pa.int64())
    lost = pc.count_substring(filled, REPLACEMENT).cast(pa.float64())
    share = pc.divide(lost, pc.max_element_wise(characters, 1).cast(pa.float64()))
    return {"characters": characters, "words": words, "replacement": share}


def is_free_text(texts: Any) -> bool:
    """Whether a column of texts holds sentences rather than categories: three words or more on average, and most are different."""
    import pyarrow.compute as pc

    present = texts.drop_null()
    if not len(present):
        return False
    words = pc.mean(pc.count_substring_regex(present, r"[^\s]+")).as_py()
    return words >= _FREE_WORDS and pc.count_distinct(present).as_py() > _FREE_DISTINCT * len(present)
