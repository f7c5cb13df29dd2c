"""How much worse the answers become on corrupted rows: challenger, champion and baseline on the same ones.

Each kind becomes a slice ``corruption:KIND`` with the main figure over all severities together, resampled with everything else, so that the
differences between models are paired; and a curve, figure by severity, of which severity 0 is the same rows as they are.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.corruptions.kinds import SEVERITIES, altered, kinds_of, numbers_for
from kfloop.components.evaluate.main_figure import figure, pooled, unknown
from kfloop.components.evaluate.scoreboard import SLICE
from kfloop.core.statistics.metrics import primary
from kfloop.errors import InputError, KfloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from kfloop.components.evaluate.baselines.fitting import Baseline
    from kfloop.components.evaluate.corruptions.kinds import Kind
    from kfloop.components.evaluate.measuring import Statistics, Task
    from kfloop.components.evaluate.opening import Contestant
    from kfloop.components.evaluate.scoreboard import Board
    from kfloop.core.encoding import Examples
    from kfloop.core.sections import EvaluateConfig
    from kfloop.core.statistics.bootstrap import AnyStatistic
    from kfloop.core.versions import DatasetVersion

    Answers = Mapping[str, NDArray[Any]]
    Asker = Callable[[], NDArray[Any]]  # gives a model's answers

# Numbers that go through one model for all corruptions of all rows; how long that takes is not asked, so that a slow day changes no result.
NUMBERS = 16_000_000
NUMBERS_OF = {"text": 2_000_000}  # attention does more with each number than any other network here
FEWEST_ROWS = 32  # whatever their size; fewer tell nothing
LARGEST_GRAPH = 20_000_000  # features and edges of a graph of nodes, which is run as a whole
# What odd data may make numpy, Arrow, an encoder or a graph raise; the report says it.
DAMAGE = (
    KfloopError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(kw_only=True)
class Robustness:
    """What corrupted rows did to the answers.

    Attributes:
        metric: Name of the main figure.
        slices: By model, the figure over all severities of a kind, as ``slice/corruption:KIND/METRIC``.
        points: By model, the figure at each severity, as ``KIND/SEVERITY/METRIC``; severity 0 is the rows as they are.
        facts: By kind: ``severities``, ``amounts``, ``unit``, ``n`` and ``failed``, why by model that gave no answers to such rows; or the
            ``problem`` for which the rows could not be corrupted, and the kind was left out.
    """

    metric: str = ""
    slices: dict[str, Statistics] = field(default_factory=dict)
    points: dict[str, Statistics] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def slice_facts(self) -> dict[str, dict[str, Any]]:
        """Of each slice its kind, rows and text."""
        return {
            f"corruption:{name}": {
                "kind": "corruption",
                "n": facts["n"],
                "text": f"{facts['n']} rows with {name.replace('_', ' ')}, at {len(facts['severities']) - 1} severities together",
            }
            for name, facts in self.facts.items()
            if facts["severities"]
        }

    def report(self, board: Board) -> dict[str, Any]:
        """``facts`` with the estimates of each model in the order of the severities."""
        found = {name: board.scores(board.resample(items))["overall"] for name, items in self.points.items() if items}
        return {
            kind: facts
            | {
                name: [items[f"{kind}/{severity}/{self.metric}"] for severity in facts["severities"]]
                for name, items in found.items()
                if facts["severities"]
            }
            for kind, facts in self.facts.items()
        }


def corrupted(
    config: EvaluateConfig,
    version: DatasetVersion,
    task: Task,
    models: Mapping[str, Contestant],
    answers: Answers,
    baseline: Baseline | None,
) -> Robustness:
    """Score all models on corrupted rows. Never raises: what cannot be applied is left out and named.

    A model that fails on corrupted rows is not excused from them: its figures there are unknown, and those of the others stay.

    Args:
        config: Section ``evaluate``: number of rows and seed.
        version: Dataset version.
        task: The truth about the test rows.
        models: Challenger and champion.
        answers: Answers for the rows as they are, by model.
        baseline: The baseline, if there is one.
    """
    found = Robustness(metric=primary(task.objective), slices={n: {} for n in answers}, points={n: {} for n in answers})
    kinds = kinds_of(version.modality)
    if not config.corrupted_rows or not kinds:
        return found
    try:
        rows = chosen_rows(config, models["challenger"].test, version.modality, len(kinds))
    except DAMAGE as error:
        found.facts |= {name: {"severities": [], "problem": _said(error)} for name in kinds}
        return found
    clean = {name: figure(task, rows, answer[rows]) for name, answer in answers.items()}
    for name, kind in kinds.items():
        failed: dict[str, str] = {}
        scored: dict[str, list[AnyStatistic]] = {model: [] for model in answers}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # means over nothing: a column without values stays without
                for severity in SEVERITIES:
                    random = numbers_for(config.seed, name, severity)
                    askers = _askers(version, kind, severity, random, rows, models, baseline)
                    for model, items in scored.items():
                        items.append(_figure_of(model, askers[model], task, rows, failed))
        except DAMAGE as error:
            found.facts[name] = {"severities": [], "problem": _said(error)}
            continue
        for model, item in clean.items():
            found.points[model] |= {f"{name}/{at}/{found.metric}": one for at, one in enumerate([item, *scored[model]])}
            over_all = unknown(task, rows) if model in failed else pooled(scored[model])
            found.slices[model][f"{SLICE}corruption:{name}/{found.metric}"] = over_all
        found.facts[name] = {
            "severities": [0, *SEVERITIES],
            "amounts": list(kind.amounts),
            "unit": kind.unit,
            "metric": found.metric,
            "n": len(rows),
            "failed": failed,
        }
    return found


def _figure_of(model: str, ask: Asker, task: Task, rows: NDArray[np.int64], failed: dict[str, str]) -> AnyStatistic:
    """The main figure of one model at one severity; unknown, and told in ``failed``, where it gives no answers."""
    try:
        return figure(task, rows, ask())
    except DAMAGE as error:
        failed.setdefault(model, _said(error))
        return unknown(task, rows)


def chosen_rows(config: EvaluateConfig, test: Examples, modality: str, n_kinds: int) -> NDArray[np.int64]:
    """Test rows that are corrupted: at random by the seed, fewer of large inputs; of the nodes of one graph all.

    Raises:
        InputError: The graph of the nodes is too large to be run once for each corruption.
    """
    size = sum(array.size for array in test.inputs)
    if modality == "nodes":
        if size > LARGEST_GRAPH:
            raise InputError(
                f"the graph has {size:,} features and ends of edges, more than {LARGEST_GRAPH:,}: it is not run for each corruption",
                hint="nothing to do",
            )
        return np.arange(len(test))
    every = np.arange(len(test))
    each = size / len(test) if modality == "graphs" else sum(a[0].size for a in test.batch_inputs(every[:1]))
    affordable = max(FEWEST_ROWS, int(NUMBERS_OF.get(modality, NUMBERS) / (max(each, 1) * n_kinds * len(SEVERITIES))))
    count = min(len(test), config.corrupted_rows, affordable)
    return np.sort(np.random.default_rng(config.seed).permutation(len(test))[:count])


def _askers(
    version: DatasetVersion,
    kind: Kind,
    severity: int,
    random: np.random.Generator,
    rows: NDArray[np.int64],
    models: Mapping[str, Contestant],
    baseline: Baseline | None,
) -> dict[str, Asker]:
    """The corrupted rows, as a question to each model: what raises here could not be corrupted, what raises there is the model's failure."""
    if version.modality == "series":
        return _of_windows(kind, severity, random, rows, models, baseline)
    other = altered(version, kind, severity, random, rows)

    def ask(one: Contestant) -> NDArray[Any]:
        signature = one.model.signature
        examples = one.model.encoder.examples(other, "test", signature.objective, normal=one.normal)
        return one.model.score(examples)[signature.answer]

    found: dict[str, Asker] = {name: partial(ask, one) for name, one in models.items()}
    if baseline is not None:
        found["baseline"] = lambda: baseline.predict(other.table("test"))
    return found


def _of_windows(
    kind: Kind,
    severity: int,
    random: np.random.Generator,
    rows: NDArray[np.int64],
    models: Mapping[str, Contestant],
    baseline: Baseline | None,
) -> dict[str, Asker]:
    """The same for windows: the longest ones are corrupted, and shorter ones are their ends."""
    windows = {name: one.test.batch_inputs(rows)[0] for name, one in models.items()}
    longest = max(windows, key=lambda name: windows[name].shape[1])
    std = np.asarray(models[longest].model.encoder.facts["std"])
    changed = kind.apply(windows[longest], kind.amounts[severity - 1], random, std).astype(np.float32)

    def ask(name: str, one: Contestant) -> NDArray[Any]:
        own = np.ascontiguousarray(changed[:, -windows[name].shape[1] :])
        examples: Any = one.test.take(rows)
        examples = replace(examples, inputs=(own,), starts=np.arange(len(own)))
        return one.model.score(examples)[one.model.signature.answer]

    found: dict[str, Asker] = {name: partial(ask, name, one) for name, one in models.items()}
    if baseline is not None:
        found["baseline"] = lambda: baseline.predict(changed[:, -windows["challenger"].shape[1] :])
    return found


def _said(error: BaseException) -> str:
    if isinstance(error, KfloopError):
        return error.message
    return f"{type(error).__name__}: {error}".splitlines()[0]
