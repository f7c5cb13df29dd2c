"""Model cards: what a version is, what it was judged by and who let it through, one for each version that was promoted or held."""

from kfloop.core.cards.keeping import ensure_card, find_card

__all__ = ["ensure_card", "find_card"]
