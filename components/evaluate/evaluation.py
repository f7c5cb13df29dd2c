"""The core of ``evaluate``: challenger, champion and a simple baseline on the same test rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.components.evaluate.measuring import n_slices, statistics_of, task_of
from kfloop.components.evaluate.opening import (
    Contestant,
    champion_digest,
    champion_folder,
    check_same_task,
    contestant,
)
from kfloop.components.evaluate.scoreboard import Board
from kfloop.components.evaluate.showing import Shown, shown, write_shown
from kfloop.core.artifacts import write_report
from kfloop.core.statistics.metrics import directions, primary

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.sections import EvaluateConfig
    from kfloop.core.statistics.bootstrap import Replicates
    from kfloop.core.versions import DatasetVersion
    from kfloop.core.workspace import Workspace

    Found = dict[str, Replicates]


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Evidence for the gate; every number is an ``Estimate``, NaN (null in JSON) where it could not be computed.

    Attributes:
        dataset_digest: Dataset version whose test rows were scored.
        objective: What was learned.
        modality: What an example is.
        primary: Name of the main figure.
        direction: ``higher`` or ``lower`` is better, by figure.
        n_test: Number of test rows.
        block: Neighbouring rows that were resampled together, because their windows overlap; 1 for independent ones.
        resampling: ``by`` what rows were resampled (``row``, ``block``, ``group``), how many ``units`` there are, and the ``fewest`` that an
            interval needs.
        challenger: Digest, ``overall`` metrics and ``slices`` of the challenger.
        champion: The same of the champion; null when there is none.
        baseline: The same of the baseline, its ``kind`` and the rows it was fitted on; null when it is switched off.
        differences: Challenger minus ``champion`` and ``baseline``, paired on the same resamples; ``relative`` holds errors as shares
            of the other's error.
        overlap: Test rows that each model was trained on; ``champion`` is null when there is none.
        confusion: Counts, true class by predicted class, of the challenger; null without classes.
        calibration: Confidence and accuracy of rows of like confidence, by model; null without classes.
        labels: Class names.
        examples: The challenger's worst mistakes.
    """

    dataset_digest: str
    objective: str
    modality: str
    primary: str
    direction: dict[str, str]
    n_test: int
    block: int
    resampling: dict[str, Any]
    challenger: dict[str, Any]
    champion: dict[str, Any] | None
    baseline: dict[str, Any] | None
    differences: dict[str, Any]
    overlap: dict[str, int | None]
    confusion: list[list[int]] | None
    calibration: dict[str, list[dict[str, float]]] | None
    labels: list[str]
    examples: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What every model scored.

    Attributes:
        board: How it was resampled.
        ours: Replicates of the challenger.
        theirs: Those of the champion.
        simple: Those of the baseline.
        simple_facts: ``kind`` of the baseline and what it was fitted on.
        shown: What the report shows of it.
    """

    board: Board
    ours: Found
    theirs: Found | None
    simple: Found | None
    simple_facts: dict[str, Any]
    shown: Shown


def run(
    config: EvaluateConfig, *, dataset: Path, model: Path, incumbent: Path, out: Path, workspace: Workspace
) -> EvaluationReport:
    """Score all models on the test split.

    Args:
        config: Section ``evaluate``.
        dataset: Dataset version.
        model: Package of the challenger.
        incumbent: Folder whose report names the champion.
        out: Empty folder for ``report.json`` and what the report shows beside it.
        workspace: The loop's places; the champion's package is taken from its store.

    Raises:
        StateError: A champion is named and its package is not in the store, or a package is damaged.
        TerminalError: A model takes other rows or knows other classes than the dataset has; challenger and champion do different
            things; no test rows.
        ConfigError: The baseline does not fit the task.
    """
    from kfloop.core.versions import read_version

    version = read_version(dataset)
    challenger = contestant(model, "challenger", version)
    digest = champion_digest(incumbent)
    champion = None
    if digest is not None:
        champion = contestant(champion_folder(workspace, digest), "champion", version)
        check_same_task(challenger, champion)
    objective = challenger.model.signature.objective
    if objective == "generation":
        from kfloop.components.evaluate.generating import compare_generators

        found = compare_generators(config, version, challenger, champion)
    else:
        found = _compare(config, version, challenger, champion)
    report = _report(version, challenger, champion, digest, found)
    write_shown(out, found.shown)
    write_report(out, report)
    return report


def _compare(
    config: EvaluateConfig, version: DatasetVersion, challenger: Contestant, champion: Contestant | None
) -> Comparison:
    """All models on the test rows."""
    from kfloop.components.evaluate.baselines import fit_baseline

    task = task_of(version, challenger.model.signature.objective, challenger.test)
    answers = {"challenger": challenger.answer()}
    if champion is not None:
        answers["champion"] = champion.answer()
    baseline = fit_baseline(config.baseline, version, challenger, seed=config.seed)
    if baseline is not None:
        answers["baseline"] = baseline.answer
    statistics = {name: statistics_of(task, answer) for name, answer in answers.items()}
    board = Board(
        objective=task.objective,
        n=len(task.target),
        n_slices=n_slices(statistics["challenger"]),
        config=config,
        block=task.block,
        groups=task.groups,
    )
    found = {name: board.resample(item) for name, item in statistics.items()}
    return Comparison(
        board=board,
        ours=found["challenger"],
        theirs=found.get("champion"),
        simple=found.get("baseline"),
        simple_facts=baseline.facts if baseline else {},
        shown=shown(task, challenger.test, answers),
    )


def _report(
    version: DatasetVersion,
    challenger: Contestant,
    champion: Contestant | None,
    digest: str | None,
    found: Comparison,
) -> EvaluationReport:
    board, objective = found.board, found.board.objective
    measured = found.ours
    return EvaluationReport(
        dataset_digest=version.digest,
        objective=objective,
        modality=version.modality,
        primary=primary(objective),
        direction={name: way for name, way in directions(objective).items() if _is_measured(name, measured)},
        n_test=board.n,
        block=board.block,
        resampling=board.resampling,
        challenger={"digest": challenger.digest, **board.scores(found.ours)},
        champion={"digest": digest, **board.scores(found.theirs)} if found.theirs else None,
        baseline={"digest": None, **found.simple_facts, **board.scores(found.simple)} if found.simple else None,
        differences={
            "champion": board.differences(found.ours, found.theirs) if found.theirs else None,
            "baseline": board.differences(found.ours, found.simple) if found.simple else None,
        },
        overlap={"challenger": challenger.overlap(), "champion": champion.overlap() if champion else None},
        confusion=found.shown.confusion,
        calibration=found.shown.calibration,
        labels=list(version.labels),
        examples=found.shown.examples,
    )


def _is_measured(metric: str, found: Found) -> bool:
    return any(name.rsplit("/", 1)[-1] == metric for name in found)
