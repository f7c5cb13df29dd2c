"""What a model answers to the rows of a window: the packaged graph, run as it is served."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.scoring import PackagedModel
from kfloop.core.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.pipelines.simulating.stream import Stream

OPEN = 8  # models kept open


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """Answers to some rows.

    Attributes:
        inputs: What the model was given, by the name of its port.
        outputs: What it gave, by name.
        hits: Whether each labelled row was answered rightly, bool [labelled].
    """

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]
    hits: NDArray[np.bool_]


class Models:
    """Opens the packages of a replay.

    Args:
        store: Where they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.opened = lru_cache(maxsize=OPEN)(self._open)

    def _open(self, digest: str) -> PackagedModel:
        return PackagedModel(self._store.require("models", digest), threads=1)

    def answer(self, digest: str, stream: Stream, rows: slice) -> Answers:
        """Answers of a package to rows of the stream.

        Args:
            digest: The package.
            stream: All rows.
            rows: Which of them.
        """
        model = self.opened(digest)
        part = stream.table.slice(rows.start, rows.stop - rows.start)
        tensors = model.encoder.encode(part)
        outputs = model.run(tensors)
        names = np.array(model.labels, dtype=object)[outputs[model.signature.answer].argmax(axis=1)]
        truth = stream.truth[rows]
        labelled = np.array([label is not None for label in truth], dtype=bool)
        inputs = {port.name: array for port, array in zip(model.signature.inputs, tensors, strict=True)}
        return Answers(inputs=inputs, outputs=outputs, hits=np.asarray(names[labelled] == truth[labelled], dtype=bool))
