"""What is measured of one graph of a network beside the others: size, differences, decisions, main figure, time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.package.proving import Parity, compare
from kfloop.core.judging import main_statistic, point
from kfloop.core.scoring import MODEL, open_session, run_session
from kfloop.core.statistics.classification import predictions
from kfloop.core.statistics.estimate import Estimate, wilson
from kfloop.core.statistics.metrics import primary
from kfloop.core.timing import medians_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.encoding import Examples
    from kfloop.core.scoring import PackagedModel
    from kfloop.core.sections import PackageConfig

    Arrays = tuple[NDArray[Any], ...]
    Outputs = dict[str, NDArray[Any]]

WHOLE = "fp32"
SECONDS = 0.5  # for the timing at one batch size
SMALL_TYPES = {"fp16": ("FLOAT16",), "int8": ("INT8", "UINT8")}
WEIGHT_TYPES = ("FLOAT", "DOUBLE", "FLOAT16", "INT8", "UINT8")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One graph, and how it stands beside the one in single precision.

    Attributes:
        name: ``fp32``, ``fp16`` or ``int8``.
        served: Whether it is the package's ``model.onnx``.
        problem: Why it must not be served; null where it may.
        bytes: Size of the file; null where it could not be made, as are the rest.
        small: Share of the weights that are kept in the small type; null for ``fp32``.
        parity: Largest difference to torch of each output at each batch size.
        max_abs_diff: Largest of them by output, in the unit of ``kfloop.core.scoring.unit_of``.
        agreement: Share of validation rows with the same class as ``fp32``; null for ``fp32`` and where there are no classes.
        metric: Name of the main figure.
        score: Its value on validation rows whose truth is known; null where there are none.
        ms_per_row: Median time of a row in milliseconds, by batch size, on one thread of the machine that packaged. No part of the digest.
    """

    name: str
    served: bool
    problem: str | None = None
    bytes: int | None = None
    small: float | None = None
    parity: tuple[Parity, ...] = ()
    max_abs_diff: dict[str, float] | None = None
    agreement: Estimate | None = None
    metric: str | None = None
    score: float | None = None
    ms_per_row: dict[str, float] | None = None

    def plain(self) -> dict[str, Any]:
        """As the report has it: without the parity at each batch size."""
        found = asdict(self)
        del found["parity"]
        return found


@dataclass(frozen=True, kw_only=True)
class Weighing:
    """What every graph of a network is held against.

    Attributes:
        config: Section ``package``: what a variant must hold.
        proofs: Real test examples of several sizes, the largest last.
        expected: Torch's answers to them.
        held: Validation rows.
        answers: The answers of the graph in single precision to these.
        std: Of a forecast, standard deviation of each channel in the training rows, [C].
    """

    config: PackageConfig
    proofs: Sequence[Arrays]
    expected: Sequence[Outputs]
    held: Examples
    answers: NDArray[Any]
    std: NDArray[np.float64]

    def weigh(self, variant: Variant, model: PackagedModel) -> Variant:
        """The variant with everything but its time, and with its ``problem``.

        Raises:
            TerminalError: The graph fails on an input.
        """
        path, signature, small = model.folder / MODEL, model.signature, variant.name != WHOLE
        parity = tuple(compare(open_session(path, threads=1), signature, self.proofs, self.expected))
        worst: dict[str, float] = {}
        for row in parity:
            worst[row.output] = max(worst.get(row.output, 0.0), row.max_abs_diff)
        answers = model.score(self.held)[signature.answer]
        decides = small and signature.objective == "classification"
        found = replace(
            variant,
            bytes=path.stat().st_size,
            small=_small_share(path, variant.name) if small else None,
            parity=parity,
            max_abs_diff=worst,
            agreement=agreement(self.answers, answers) if decides else None,
            metric=primary(signature.objective),
            score=self._score(signature.objective, answers),
        )
        return replace(found, problem=problem_of(self.config, found)) if small else found

    def _score(self, objective: str, answers: NDArray[Any]) -> float | None:
        """The main figure over the rows whose truth is known; null where there is none."""
        target = self.held.target
        known = np.ones(len(target), dtype=bool) if target.dtype.kind == "f" else target >= 0
        if not known.any() or not np.isfinite(answers).all():
            return None
        found = point(main_statistic(objective, target[known], answers[known], self.std))
        return found if math.isfinite(found) else None


def agreement(whole: NDArray[Any], small: NDArray[Any]) -> Estimate:
    """Share of equal classes in answers [N, K]; an answer that is no number agrees with nothing."""
    same = (predictions(whole) == predictions(small)) & np.isfinite(small).all(axis=1)
    return wilson(int(same.sum()), len(same))


def problem_of(config: PackageConfig, variant: Variant) -> str | None:
    """Why a variant does not pass; null where it does."""
    for output, worst in (variant.max_abs_diff or {}).items():
        if not math.isfinite(worst):
            return f"its output '{output}' is not finite where torch's is"
        if worst > config.variant_tolerance:
            return f"its output '{output}' differs from torch by {worst:.3g}, package.variant_tolerance is {config.variant_tolerance:g}"
    same = variant.agreement
    if same is not None and not same.value >= config.variant_agreement:
        return (
            f"it gives the same class as fp32 to {same.value:.2%} of {same.n} validation rows ({same.low:.2%} to {same.high:.2%}), "
            f"package.variant_agreement is {config.variant_agreement:.2%}"
        )
    return None


def times_of(models: Mapping[str, PackagedModel], proofs: Sequence[Arrays]) -> dict[str, dict[str, float]]:
    """Milliseconds for a row, by model and batch size, all in turn."""
    found: dict[str, dict[str, float]] = {name: {} for name in models}
    sessions = {name: open_session(model.folder / MODEL, threads=1) for name, model in models.items()}
    signature = models[WHOLE].signature
    for inputs in (proofs[0], proofs[-1]):
        calls = {
            name: lambda session=session, inputs=inputs: run_session(session, signature, inputs)
            for name, session in sessions.items()
        }
        for name, spent in medians_ms(calls, SECONDS).items():
            found[name][str(len(inputs[0]))] = spent / len(inputs[0])
    return found


def _small_share(path: Path, name: str) -> float:
    """Share of the weights, counted in numbers, that are of the small type."""
    import onnx

    counts = dict.fromkeys(WEIGHT_TYPES, 0)
    for tensor in onnx.load(path).graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        if kind in counts:
            counts[kind] += math.prod(tensor.dims)
    return sum(counts[kind] for kind in SMALL_TYPES[name]) / max(1, sum(counts.values()))
