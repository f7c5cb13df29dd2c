"""How a champion's rows stand in its request log, and how its tensors turn back into named columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.encoding.bare.columns import DAY, FIRST, MISSING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kfloop.core.signature import Signature

ANOTHER = "(another)"
"""A category that had no code of its own in training."""
MOST_VECTOR_COLUMNS = 64
"""Longer vectors are not watched number by number: their embedding is."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Shapes and names of a champion's rows.

    Attributes:
        answer: Name of the output that is the model's answer.
        answers: Length of an answer, flat, K.
        embedding: Length of an embedding, D; 0 where the model has none.
        tensors: Length of a row of each input tensor that is made of columns, flat; none where inputs are no columns.
        columns: The encoder's columns of a table; empty for vectors.
        images: Whether images are read.
    """

    answer: str
    answers: int
    embedding: int
    tensors: tuple[tuple[str, int], ...] = ()
    columns: tuple[Mapping[str, Any], ...] = ()
    images: bool = False

    @property
    def kinds(self) -> dict[str, str]:
        """The columns that `unpacked` gives, each ``numeric`` or ``categorical``."""
        if self.columns:
            kinds = {"category": "categorical"}
            return {str(column["name"]): kinds.get(column["kind"], "numeric") for column in self.columns}
        return {f"{name} {place + 1}": "numeric" for name, size in self.tensors for place in range(size)}

    def unpacked(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Columns by name: numbers as float64, NaN where missing; times in seconds since 1970; categories as text, None where missing.

        Args:
            tensors: Input tensors by name, each [n, size]; those that were not logged are absent, and so are their columns.
        """
        if not self.columns:
            parts = ((name, tensors[name]) for name, _ in self.tensors if name in tensors)
            return {
                f"{name} {i + 1}": found[:, i].astype(float) for name, found in parts for i in range(found.shape[1])
            }
        return {
            str(column["name"]): _categories(tensors["category"][:, slot], column["names"])
            if column["kind"] == "category"
            else _numbers(tensors["number"][:, slot], column)
            for column, slot in zip(self.columns, _slots(self.columns), strict=True)
            if ("category" if column["kind"] == "category" else "number") in tensors
        }


def layout_of(signature: Signature, encoder: Any, answers: int, embedding: int) -> Layout:
    """The layout of a champion's rows.

    Args:
        signature: Its signature.
        encoder: Its encoder; None where the package has none.
        answers: Length of an answer.
        embedding: Length of an embedding.
    """
    sizes = tuple((port.name, int(np.prod(port.shape))) for port in signature.inputs)
    modality = "" if encoder is None else encoder.modality
    table = modality == "table"
    readable = table or (modality == "vector" and sum(size for _, size in sizes) <= MOST_VECTOR_COLUMNS)
    return Layout(
        answer=signature.answer,
        answers=answers,
        embedding=embedding,
        tensors=sizes if readable else (),
        columns=tuple(encoder.columns) if table else (),
        images=(signature.modality, signature.objective) == ("image", "classification"),
    )


def _slots(columns: tuple[Mapping[str, Any], ...]) -> list[int]:
    """Where the first slot of each column stands in its tensor, as `kfloop.core.encoding.table` lays them out."""
    number, category, slots = 0, 0, []
    for column in columns:
        if column["kind"] == "category":
            slots.append(category)
            category += 1
        else:
            slots.append(number)
            number += 1 + 2 * len(column.get("periods", ()))
    return slots


def _categories(codes: NDArray[Any], names: Any) -> NDArray[Any]:
    known = np.array([None, ANOTHER, *names], dtype=object)
    inside = (codes >= MISSING) & (codes < len(names) + FIRST)
    return np.asarray(known[np.where(inside, codes, FIRST - 1).astype(np.intp)])


def _numbers(values: NDArray[Any], column: Mapping[str, Any]) -> NDArray[np.float64]:
    found, offset = values.astype(float), float(column.get("offset", 0.0))
    if column["kind"] == "time":
        found *= DAY
    if offset:
        found += offset
    return found
