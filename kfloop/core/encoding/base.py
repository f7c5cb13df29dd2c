"""What every encoder does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from kfloop.core.encoding.examples import Examples
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.signature import Port
    from kfloop.core.versions import DatasetVersion


class Encoder(ABC):
    """Fitted on training rows; gives the same tensors for the same row, in training, evaluation and serving."""

    modality: ClassVar[str]
    batched: ClassVar[bool] = True  # whether all inputs share a first axis, one entry for each example

    @classmethod
    @abstractmethod
    def fit(cls, version: DatasetVersion, **options: Any) -> Self:
        """Learn from the train split what encoding needs.

        Raises:
            InputError: The rows cannot be encoded.
        """

    @classmethod
    @abstractmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """The encoder that ``state`` described."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain values (JSON) from which ``restore`` makes the same encoder."""

    @property
    @abstractmethod
    def ports(self) -> tuple[Port, ...]:
        """The tensors, without the batch axis where ``batched``."""

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values that networks need: means, standard deviations, sizes of vocabularies."""
        return {}

    @abstractmethod
    def encode(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """The tensors of rows with the version's input columns, in the order of ``ports``.

        Raises:
            InputError: A column is missing or of another type than in training.
        """

    def examples(self, version: DatasetVersion, split: str, objective: str, *, normal: str | None = None) -> Examples:
        """The encoded rows of a split. Series and graphs override this: there a row of the version is no example by itself.

        Args:
            version: Dataset version, whose modality is this encoder's.
            split: Name of the split.
            objective: What is to be learned.
            normal: For anomalies, the label of normal rows.
        """
        table = version.table(split)
        return Examples(
            inputs=self.encode(table),
            target=targets(table, version, objective, normal),
            weights=np.ones(table.num_rows, dtype=np.float32),
            **columns_of(table),
        )

    def plain(self) -> dict[str, Any]:
        """What ``restore_encoder`` reads."""
        return {"modality": self.modality} | self.state()


def columns_of(table: pa.Table) -> dict[str, NDArray[np.str_]]:
    """``ids``, ``content`` and ``origin`` of rows, for ``Examples``."""
    names = {"ids": "id", "content": "content", "origin": "origin"}
    return {key: np.array(table[name].to_pylist(), dtype=str) for key, name in names.items()}


def targets(table: pa.Table, version: DatasetVersion, objective: str, normal: str | None) -> NDArray[Any]:
    """What is to be learned from each row, as ``Examples.target`` has it.

    Raises:
        InputError: ``normal`` is no label of the version.
    """
    if "label" not in table.column_names:
        return np.full(table.num_rows, -1, dtype=np.int64)
    if objective in {"classification", "generation"}:
        return np.asarray(table["label"].to_numpy(), dtype=np.int64)
    if objective == "multilabel":
        found = np.zeros((table.num_rows, len(version.labels)), dtype=np.float32)
        for row, labels in enumerate(table["label"].to_pylist()):
            found[row, labels] = 1.0
        return found
    if objective == "anomaly":
        if normal not in version.labels:
            raise InputError(
                f"train.normal is '{normal}', which is no label of this data: {version.labels}",
                hint="name the label of normal rows in train.normal",
            )
        labels = np.asarray(table["label"].to_numpy(), dtype=np.int64)
        return np.where(labels == version.labels.index(normal), 0, 1)
    return np.asarray(table["label"].to_numpy(), dtype=np.float32)
