"""Smaller graphs of the same network: made, held against the one in single precision, and one of them chosen to be served."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.package.halving import make_fp16
from kfloop.components.package.quantizing import make_int8
from kfloop.components.package.weighing import WHOLE, Variant, Weighing, times_of
from kfloop.core.judging import forecast_channels, spread
from kfloop.core.scoring import ENCODER, MODEL, PackagedModel
from kfloop.core.signature import SIGNATURE
from kfloop.errors import ConfigError, StateError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.encoding import Examples
    from kfloop.core.sections import PackageConfig
    from kfloop.core.signature import Signature
    from kfloop.core.versions import DatasetVersion

    Feeds = list[dict[str, NDArray[Any]]]
    Arrays = tuple[NDArray[Any], ...]
    Outputs = dict[str, NDArray[Any]]

MAKERS = {"fp16": make_fp16, "int8": make_int8}
FEED_ROWS = 32  # training rows in one call
MOST_ROWS = 3000  # validation rows; more would add seconds and no knowledge


def asked_variants(config: PackageConfig) -> list[str]:
    """Names of the graphs that are made besides ``fp32``."""
    return [name for name in MAKERS if name in {*config.variants, config.serve}]


def check_variants(config: PackageConfig, objective: str, *, batched: bool, external: bool = False) -> None:
    """Refuse variants of models that cannot have one.

    Raises:
        ConfigError: They are asked for, and the model is served by somebody else, a generator, or asked about one graph at a time.
    """
    asked = asked_variants(config)
    if not asked or not (external or not batched or objective == "generation"):
        return
    what = "somebody else serves this model" if external else f"this model learned {objective}"
    if not external and objective != "generation":
        what = "this model answers for a graph of nodes, not for rows"
    raise ConfigError(
        f"package.variants and package.serve ask for {', '.join(asked)}, which are for models that answer row by row here, but {what}",
        hint="set package.variants: [] and package.serve: fp32",
    )


def compare_variants(
    config: PackageConfig,
    version: DatasetVersion,
    package: PackagedModel,
    proofs: Sequence[Arrays],
    expected: Sequence[Outputs],
    normal: str | None,
) -> list[Variant]:
    """Make the variants, judge them, and put the one that is to be served in the place of the package's graph.

    Args:
        config: Section ``package``, which asks for at least one.
        version: Dataset version: ranges are measured on its training rows, decisions compared on its validation rows.
        package: The package so far: graph in single precision, signature, encoder.
        proofs: Real test examples of several sizes, the largest last.
        expected: Torch's answers to them.
        normal: For anomalies, the label of normal rows.

    Raises:
        TerminalError: The variant that is to be served cannot be made, or does not pass.
    """
    signature, encoder = package.signature, package.encoder
    train, held = (
        encoder.examples(version, split, signature.objective, normal=normal) for split in ("train", "validation")
    )
    held = held.take(_spread_out(len(held), MOST_ROWS))
    weighing = Weighing(
        config=config,
        proofs=proofs,
        expected=expected,
        held=held,
        answers=package.score(held)[signature.answer],
        std=spread(version, forecast_channels(version, signature.objective)),
    )
    feeds, models = _feeds(signature, train, config.variant_rows), {WHOLE: package}
    found = [weighing.weigh(Variant(name=WHOLE, served=config.serve == WHOLE), package)]
    with tempfile.TemporaryDirectory() as place:
        for name in asked_variants(config):
            variant = Variant(name=name, served=config.serve == name)
            try:
                models[name] = _made(name, package, Path(place) / name, feeds)
                variant = weighing.weigh(variant, models[name])
            except (StateError, TerminalError) as error:
                variant = replace(variant, problem=error.message)
            if variant.served and variant.problem:
                raise _refused(name, variant.problem)
            found.append(variant)
        times = times_of(models, proofs)
        if config.serve != WHOLE:
            shutil.copyfile(models[config.serve].folder / MODEL, package.folder / MODEL)
    return [replace(one, ms_per_row=times.get(one.name)) for one in found]


def _feeds(signature: Signature, train: Examples, most: int) -> Feeds:
    """Training rows as inputs by name, evenly spread, a few in each call."""
    rows = _spread_out(len(train), most)
    names = [port.name for port in signature.inputs]
    return [
        dict(zip(names, train.batch_inputs(rows[start : start + FEED_ROWS]), strict=True))
        for start in range(0, len(rows), FEED_ROWS)
    ]


def _spread_out(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of ``count`` rows, evenly spread."""
    return np.arange(count) if count <= most else (np.arange(most) * count) // most


def _made(name: str, package: PackagedModel, folder: Path, feeds: Feeds) -> PackagedModel:
    """A package with another graph: what is scored, judged and timed like any other."""
    folder.mkdir()
    for file in (SIGNATURE, ENCODER):
        shutil.copyfile(package.folder / file, folder / file)
    MAKERS[name](package.folder / MODEL, folder / MODEL, feeds)
    return PackagedModel(folder, threads=1)


def _refused(name: str, problem: str) -> TerminalError:
    rows = ", raise package.variant_rows" if name == "int8" else ""
    return TerminalError(
        f"the {name} graph cannot be served: {problem}",
        hint=f"serve fp32{rows}, or state what difference is fine in package.variant_tolerance and package.variant_agreement",
        variant=name,
    )
