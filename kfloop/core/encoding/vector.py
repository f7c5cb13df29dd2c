"""Vectors: numbers as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kfloop.core.encoding.base import Encoder as Base
from kfloop.core.encoding.numbers import number_facts
from kfloop.core.signature import Port
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion


class Encoder(Base):
    """Gives ``vector`` float32 [n]: all numbers of a row in one line, NaN where one is missing.

    Args:
        size: Numbers in a row.
        facts: What ``number_facts`` tells of them.
    """

    modality = "vector"

    def __init__(self, size: int, facts: Mapping[str, Any]) -> None:
        self.size = size
        self._facts = dict(facts)

    @classmethod
    def fit(cls, version: DatasetVersion, **options: Any) -> Self:
        """Means, standard deviations and quantiles."""
        del options
        encoder = cls(int(np.prod(version.schema["vector_shape"])), {})
        values = encoder.encode(version.table("train", ["vector"]))[0]
        if not len(values):
            raise InputError("the train split has no vectors", hint="add examples, or lower data.split")
        encoder._facts = number_facts(values)
        return encoder

    @classmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """As ``state`` says."""
        return cls(int(plain["size"]), plain["facts"])

    def state(self) -> dict[str, Any]:
        """Size and constants."""
        return {"size": self.size, "facts": self._facts}

    @property
    def ports(self) -> tuple[Port, ...]:
        """One vector."""
        return (Port(name="vector", dtype="float32", shape=(self.size,)),)

    @property
    def facts(self) -> dict[str, Any]:
        """Constants of the columns; see ``number_facts``."""
        return self._facts

    def encode(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """Numbers float32 [N, n], without a copy where the rows lie in one piece."""
        import pyarrow as pa

        if "vector" not in table.column_names:
            raise InputError(f"column 'vector' is missing: the rows have {table.column_names}", hint=HINT)
        flat = table["vector"].combine_chunks()
        if not pa.types.is_fixed_size_list(flat.type) or flat.type.value_type != pa.float32():
            raise InputError(f"column 'vector' is of type {flat.type}, expected float32 [{self.size}]", hint=HINT)
        if flat.type.list_size != self.size:
            raise InputError(
                f"the vectors have {flat.type.list_size} numbers each, but the model takes {self.size}", hint=HINT
            )
        numbers = flat.flatten().to_numpy(zero_copy_only=False).reshape(table.num_rows, self.size)
        if np.isinf(numbers).any():
            numbers = np.where(np.isinf(numbers), np.float32(np.nan), numbers)
        return (numbers,)


HINT = "give rows like those of the training, or train the model anew"
