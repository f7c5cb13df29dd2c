"""Sounds: samples as they are, cut or filled with silence to one length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kfloop.core.encoding.base import Encoder as Base
from kfloop.core.signature import Port
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

COVERED = 0.98  # share of the training rows that are not cut
SHORTEST = 0.1  # seconds
HINT = "give sounds like those of the training, or train the model anew"


class Encoder(Base):
    """Gives ``audio`` int16 [T]: the first T samples of a sound, with silence after its end.

    Args:
        length: Samples T.
        sample_rate: Samples per second.
    """

    modality = "audio"

    def __init__(self, length: int, sample_rate: int) -> None:
        self.length, self.sample_rate = length, sample_rate

    @classmethod
    def fit(cls, version: DatasetVersion, **options: Any) -> Self:
        """The length: nearly every training row fits."""
        del options
        rate = int(version.schema["sample_rate"])
        lengths = [table["audio"].combine_chunks().value_lengths().fill_null(0) for table in version.batches("train")]
        found = np.concatenate([part.to_numpy(zero_copy_only=False) for part in lengths]) if lengths else np.empty(0)
        if not len(found):
            raise InputError("the train split has no sounds", hint="add examples, or lower data.split")
        covered = int(np.quantile(found, COVERED, method="higher"))
        return cls(max(covered, round(SHORTEST * rate), 1), rate)

    @classmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """As ``state`` says."""
        return cls(int(plain["length"]), int(plain["sample_rate"]))

    def state(self) -> dict[str, Any]:
        """Length and rate."""
        return {"length": self.length, "sample_rate": self.sample_rate}

    @property
    def ports(self) -> tuple[Port, ...]:
        """One sound."""
        return (Port(name="audio", dtype="int16", shape=(self.length,)),)

    @property
    def facts(self) -> dict[str, Any]:
        """``sample_rate``; a sound is normalised by the network."""
        return {"sample_rate": self.sample_rate}

    def encode(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """Samples int16 [N, T]."""
        import pyarrow as pa

        if "audio" not in table.column_names:
            raise InputError(f"column 'audio' is missing: the rows have {table.column_names}", hint=HINT)
        column = table["audio"].combine_chunks()
        if not pa.types.is_list(column.type) or column.type.value_type != pa.int16():
            raise InputError(f"column 'audio' is of type {column.type}, expected a list of int16", hint=HINT)
        samples = column.flatten().to_numpy(zero_copy_only=False)
        ends = np.cumsum(column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
        sounds = np.zeros((table.num_rows, self.length), dtype=np.int16)
        for row, (start, end) in enumerate(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)):
            kept = min(end - start, self.length)
            sounds[row, :kept] = samples[start : start + kept]
        return (sounds,)
