"""Generators: samples of each are drawn from the same noise for the same classes, and judged against the same real rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.evaluate.baselines.fitting import kind_of
from kfloop.components.evaluate.evaluation import Comparison
from kfloop.components.evaluate.measuring import groups_of
from kfloop.components.evaluate.scoreboard import Board
from kfloop.components.evaluate.showing import Shown
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.components.evaluate.opening import Contestant
    from kfloop.core.scoring import PackagedModel
    from kfloop.core.sections import EvaluateConfig
    from kfloop.core.versions import DatasetVersion

SHOWN = 64  # samples beside as many real rows
BASELINE_SEED = 1


def compare_generators(
    config: EvaluateConfig, version: DatasetVersion, challenger: Contestant, champion: Contestant | None
) -> Comparison:
    """Challenger, champion and a normal distribution for each class in the space of main components.

    Raises:
        InputError: Samples are no finite numbers, or there are too few rows to judge by.
        ConfigError: Columns are named to slice or group by.
    """
    from kfloop.core.generation import GaussianBaseline, Judge

    for key, told in (("slices", config.slices), ("groups", config.groups)):
        if told:
            raise ConfigError(
                f"evaluate.{key} names {', '.join(map(repr, told))}, but a generator answers no rows that could be told apart",
                hint=f"leave evaluate.{key} out",
            )
    train, test = version.split("train"), version.split("test")
    classes = len(version.labels)
    asked = _labels(test.labels, config.samples)
    judge = Judge(train.images, train.labels, test.images, test.labels, n_classes=classes, seed=config.seed)
    drawn = {"challenger": draw(challenger.model, asked, config.seed)}
    if champion is not None:
        drawn["champion"] = draw(champion.model, asked, config.seed)
    kind = kind_of(config.baseline, "generation", version.modality, len(train))
    if kind is not None:
        simple = GaussianBaseline(train.images, train.labels, n_classes=classes)
        drawn["baseline"] = simple.sample(asked, seed=config.seed + BASELINE_SEED)
    groups = groups_of(version, test.ids)
    found = {
        name: judge.judge(samples, asked, resamples=config.bootstrap, seed=config.seed, groups=groups)
        for name, samples in drawn.items()
    }
    return Comparison(
        board=Board(objective="generation", n=len(test), n_slices=0, config=config, groups=groups),
        ours=found["challenger"],
        theirs=found.get("champion"),
        simple=found.get("baseline"),
        simple_facts={"kind": kind, "n_fitted": len(train), "n_train": len(train)} if kind else {},
        shown=Shown(samples=_grid(drawn, asked, test.images, test.labels)),
    )


def draw(model: PackagedModel, labels: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """One sample for each label, from noise that depends on the seed alone."""
    shape = model.signature.inputs[0].shape
    noise = np.random.default_rng(seed).standard_normal((len(labels), *shape)).astype(np.float32)
    return np.asarray(model.run((noise, labels))[model.signature.answer], dtype=np.float32)


def _labels(test: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """``count`` classes in the proportions of the test rows, mixed evenly."""
    ordered = np.sort(test)
    chosen = ordered[(np.arange(count) * len(ordered)) // count]
    return np.random.default_rng(0).permutation(chosen)


def _grid(
    drawn: dict[str, NDArray[np.float32]], asked: NDArray[np.int64], real: NDArray[np.uint8], given: NDArray[np.int64]
) -> dict[str, NDArray[np.uint8]]:
    """Real rows and samples of each model, of the same classes in the same order."""
    rows = _by_class(asked)
    found = {name: np.clip(np.rint(samples[rows]), 0, 255).astype(np.uint8) for name, samples in drawn.items()}
    beside = np.empty_like(rows)
    for label in np.unique(asked[rows]):
        places = np.flatnonzero(asked[rows] == label)
        beside[places] = np.resize(np.flatnonzero(given == label), len(places))
    return {"real": real[beside]} | found


def _by_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most 64 rows, as many of each class, ordered by class."""
    known = np.unique(labels)[:SHOWN]
    share = max(1, SHOWN // len(known))
    return np.concatenate([np.flatnonzero(labels == label)[:share] for label in known])
