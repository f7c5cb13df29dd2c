"""The core of ``evaluate``: challenger, champion and a simple baseline on the same test rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.evaluate.baselines import baseline_probabilities
from kfloop.components.evaluate.scoreboard import Board, misclassified, slices_of
from kfloop.core.artifacts import read_report, write_report
from kfloop.core.scoring import PackagedModel
from kfloop.core.statistics.classification import confusion
from kfloop.core.store import Store
from kfloop.errors import StateError, TerminalError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from kfloop.core.sections import EvaluateConfig
    from kfloop.core.versions import DatasetVersion, Split
    from kfloop.core.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Evidence for the gate; every number is an ``Estimate``, NaN (null in JSON) where it could not be computed.

    Attributes:
        dataset_digest: Dataset version whose test rows were scored.
        n_test: Number of test rows.
        challenger: Digest, ``overall`` metrics and ``slices`` of the challenger.
        champion: The same of the champion; null when there is none.
        baseline: The same of the baseline; null when it is switched off.
        differences: Challenger minus ``champion`` and ``baseline``, paired on the same resamples.
        overlap: Test rows that each model was trained on; ``champion`` is null when there is none.
        confusion: Counts, true class by predicted class, of the challenger.
        labels: Class names.
        examples: The challenger's most confident mistakes.
    """

    dataset_digest: str
    n_test: int
    challenger: dict[str, Any]
    champion: dict[str, Any] | None
    baseline: dict[str, Any] | None
    differences: dict[str, Any]
    overlap: dict[str, int | None]
    confusion: list[list[int]]
    labels: list[str]
    examples: list[dict[str, Any]]


def run(
    config: EvaluateConfig, *, dataset: Path, model: Path, incumbent: Path, out: Path, workspace: Workspace
) -> EvaluationReport:
    """Score all models on the test split.

    Args:
        config: Section ``evaluate``.
        dataset: Dataset version.
        model: Package of the challenger.
        incumbent: Folder whose report names the champion.
        out: Empty folder for ``report.json``.
        workspace: The loop's places; the champion's package is taken from its store.

    Raises:
        StateError: A champion is named and its package is not in the store, or a package is damaged.
        TerminalError: A model takes other images or knows other classes than the dataset has; no test rows.
    """
    from kfloop.core.versions import read_version

    version = read_version(dataset)
    test = version.split("test")
    if not len(test.ids):
        raise TerminalError(
            "the test split has no rows, so nothing can be compared", hint="add examples, or raise data.split.test"
        )
    challenger = _opened(model, "challenger", version)
    champion_digest = _champion_digest(incumbent)
    champion = None
    if champion_digest is not None:
        champion = _opened(_champion_folder(workspace, champion_digest), "champion", version)

    board = Board(labels=test.labels, slices=slices_of(test.labels, test.origin, version.labels), config=config)
    probabilities = challenger.score(test.images).probabilities
    ours = board.resample(probabilities)
    theirs = board.resample(champion.score(test.images).probabilities) if champion else None
    simple = _baseline(config, version, test)
    simple_replicates = board.resample(simple) if simple is not None else None
    report = EvaluationReport(
        dataset_digest=version.digest,
        n_test=len(test.ids),
        challenger={"digest": _package_digest(model), **board.scores(ours)},
        champion={"digest": champion_digest, **board.scores(theirs)} if theirs else None,
        baseline={"digest": None, "kind": config.baseline, **board.scores(simple_replicates)}
        if simple_replicates
        else None,
        differences={
            "champion": board.differences(ours, theirs) if theirs else None,
            "baseline": board.differences(ours, simple_replicates) if simple_replicates else None,
        },
        overlap={"challenger": _overlap(challenger, test), "champion": _overlap(champion, test) if champion else None},
        confusion=confusion(test.labels, probabilities).tolist(),
        labels=list(version.labels),
        examples=misclassified(test.ids, test.labels, probabilities, version.labels),
    )
    write_report(out, report)
    return report


def _baseline(config: EvaluateConfig, version: DatasetVersion, test: Split) -> NDArray[np.float64] | None:
    if config.baseline == "none":
        return None
    train = version.split("train")
    return baseline_probabilities(
        config.baseline, train.images, train.labels, test.images, len(version.labels), config.seed
    )


def _opened(folder: Path, role: str, version: DatasetVersion) -> PackagedModel:
    """The package, after a check that it is about this dataset's images and classes."""
    model = PackagedModel(folder)
    if model.image_shape != tuple(version.image_shape):
        raise TerminalError(
            f"the {role} '{folder.name}' takes images {list(model.image_shape)} (height, width, channels), but dataset "
            f"'{version.digest}' has {list(version.image_shape)}: they cannot be compared on the same rows",
            hint="set data.image_size and data.channels back to the model's, or start a new loop under another name",
            role=role,
            expected=list(model.image_shape),
            observed=list(version.image_shape),
        )
    if model.labels != list(version.labels):
        differing = sorted(set(model.labels) ^ set(version.labels)) or "another order"
        raise TerminalError(
            f"the {role} '{folder.name}' knows {len(model.labels)} classes, dataset '{version.digest}' has "
            f"{len(version.labels)}; they differ in {differing}",
            hint="a changed list of classes is another task: start a new loop under another name",
            role=role,
        )
    return model


def _champion_digest(incumbent: Path) -> str | None:
    """The champion named by ``incumbent``; null only when it says so itself."""
    try:
        digest = read_report(incumbent)["champion_digest"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StateError(
            f"'{incumbent}' does not say who is champion ({error!r}), which is not the same as having none",
            hint="run the step 'incumbent' again: kfloop run",
        ) from error
    if digest is not None and not (isinstance(digest, str) and digest):
        raise StateError(
            f"'{incumbent}' names the champion {digest!r}, expected a digest or null", hint="kfloop status"
        )
    return digest


def _champion_folder(workspace: Workspace, digest: str) -> Path:
    store = Store(workspace.store)
    if not store.has("models", digest):
        raise StateError(
            f"the champion '{digest}' is not in the store at '{store.path('models', digest)}'; without it the challenger "
            "cannot be compared",
            hint="bring the store back from a backup, or promote another version with: kfloop rollback",
            digest=digest,
        )
    return store.path("models", digest)


def _package_digest(folder: Path) -> str:
    try:
        return str(read_report(folder)["digest"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StateError(
            f"the package '{folder}' has no readable report: {error!r}", hint="package the checkpoint again: kfloop run"
        ) from error


def _overlap(model: PackagedModel, test: Split) -> int:
    """Number of test rows whose pixels the model was trained on."""
    seen = model.train_content()
    return sum(content in seen for content in test.content.tolist())
