"""The core of ``evaluate``: challenger, champion and a simple baseline on the same test rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kfloop.components.evaluate.costs.costing import costs
from kfloop.components.evaluate.held_out import held_out
from kfloop.components.evaluate.measuring import n_slices, slice_facts, statistics_of, task_of
from kfloop.components.evaluate.new_rows import new_rows
from kfloop.components.evaluate.opening import (
    Contestant,
    cause_of,
    champion_digest,
    champion_folder,
    check_same_task,
    contestant,
)
from kfloop.components.evaluate.scoreboard import Board
from kfloop.components.evaluate.showing import Shown, shown, write_shown
from kfloop.components.evaluate.slices.drifted import Caused, caused
from kfloop.components.evaluate.slices.fairness import groupings
from kfloop.components.evaluate.slices.segments import find_segments
from kfloop.components.evaluate.slices.slicing import column_slices
from kfloop.components.evaluate.tempering import temperature_facts
from kfloop.components.evaluate.testing import OTHERS, PairedTest, paired_tests
from kfloop.core.artifacts import write_report
from kfloop.core.holdout import count_evaluation, sketched
from kfloop.core.statistics.metrics import directions, primary

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.components.evaluate.baselines.fitting import Baseline
    from kfloop.components.evaluate.explanations.explaining import Explained
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
        overlap: Test rows that each model was trained on; ``champion`` is null when there is none, either where nobody knows.
        external: Of ``challenger`` and ``champion``: calls, latency and price of a model that somebody else serves, as ``ExternalSession.cost``
            tells them; null for a model that runs here, or where there is none.
        tests: Paired tests of the challenger against ``champion`` and ``baseline``; null where there is none. They decide nothing.
        confusion: Counts, true class by predicted class, of the challenger; null without classes.
        calibration: Confidence and accuracy of rows of like confidence, by model; null without classes.
        labels: Class names.
        examples: The challenger's worst mistakes.
        slice_facts: Of each slice its ``kind``, number of rows ``n`` and ``text`` in words.
        slice_columns: Columns by which rows were told apart, under ``column`` (``evaluate.slices``) and ``group`` (``evaluate.groups``), as names of
            slices spell them: a slice of another column does not exist, one of these may have no rows.
        left_out: Test rows in no slice of a column, because fewer than 30 are alike, as ``column:NAME``; only where there are some.
        cause: What the monitor asked for this training for, with the slices of it, see ``slices.drifted``; null where a person asked.
        segments: The search for weak segments: ``n_fitted`` validation rows, their mean ``error``, what was ``found``, and a ``note`` where nothing was;
            null for generators.
        temperature: What a temperature does, or would do, to the calibration error; null without classes.
        test_rows: ``digest`` and ``sketch`` of the ids of the test rows, by which looks at a holdout are counted.
        cost: Parameters, size, latency, memory and price by model, see ``costing``; null where unknown.
        robustness: Figures at each severity of a corruption by model, see ``robustness``.
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
    tests: dict[str, list[PairedTest] | None]
    overlap: dict[str, int | None]
    external: dict[str, dict[str, Any] | None]
    confusion: list[list[int]] | None
    calibration: dict[str, list[dict[str, float]]] | None
    labels: list[str]
    examples: list[dict[str, Any]]
    slice_facts: dict[str, dict[str, Any]]
    slice_columns: dict[str, list[str]]
    left_out: dict[str, int]
    cause: dict[str, Any] | None
    segments: dict[str, Any] | None
    temperature: dict[str, Any] | None
    test_rows: dict[str, Any]
    cost: dict[str, dict[str, float | int | None]]
    robustness: dict[str, dict[str, Any]]


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
        facts: ``slice_facts``, ``slice_columns``, ``left_out``, ``cause``, ``segments`` and ``temperature`` of the report.
        baseline: The baseline, where it answers rows.
        robustness: Figures on corrupted rows.
        explained: Why the challenger answers as it does; null when nothing is explained.
        tests: Paired tests by other model.
    """

    board: Board
    ours: Found
    theirs: Found | None
    simple: Found | None
    simple_facts: dict[str, Any]
    shown: Shown
    facts: dict[str, Any] = field(default_factory=dict)
    baseline: Baseline | None = None
    robustness: dict[str, dict[str, Any]] = field(default_factory=dict)
    explained: Explained | None = None
    tests: dict[str, list[PairedTest] | None] = field(default_factory=lambda: dict.fromkeys(OTHERS))


def run(
    config: EvaluateConfig, *, dataset: Path, model: Path, incumbent: Path, out: Path, workspace: Workspace
) -> EvaluationReport:
    """Score all models on the test split.

    Args:
        config: Section ``evaluate``.
        dataset: Dataset version.
        model: Package of the challenger.
        incumbent: Folder whose report names the champion, and the cause of the training.
        out: Empty folder for ``report.json`` and what the report shows beside it.
        workspace: The loop's places; the champion's package is taken from its store.

    Raises:
        StateError: A champion is named and its package is not in the store, or a package is damaged.
        TerminalError: A model takes other rows or knows other classes than the dataset has; challenger and champion do different
            things; no test rows.
        ConfigError: The baseline does not fit the task; a column to slice or group by is not there.
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
    cause = caused(version, cause_of(incumbent), challenger.test.ids)
    if objective == "generation":
        from kfloop.components.evaluate.generating import compare_generators

        found = compare_generators(config, version, challenger, champion)
    else:
        found = _compare(config, version, challenger, champion, cause, workspace)
    found = replace(found, facts=found.facts | {"cause": cause.facts})
    models = {one.role: one for one in (challenger, champion) if one is not None}
    report = _report(version, challenger, champion, digest, found, costs(config, version, models, found.baseline))
    write_shown(out, found.shown)
    if found.explained is not None:
        found.explained.write(out)
    write_report(out, report)
    return report


def _compare(
    config: EvaluateConfig,
    version: DatasetVersion,
    challenger: Contestant,
    champion: Contestant | None,
    cause: Caused,
    workspace: Workspace,
) -> Comparison:
    """All models on the test rows."""
    from kfloop.components.evaluate.baselines.fitting import fit_baseline
    from kfloop.components.evaluate.corruptions.robustness import corrupted
    from kfloop.components.evaluate.explanations.explaining import explain

    objective, test = challenger.model.signature.objective, challenger.test
    task = task_of(version, objective, test)
    odd = task.target == 1 if objective == "anomaly" else None
    by_column = column_slices(version, config.slices, test.ids, odd)
    task = replace(task, groupings=groupings(version, config.groups, test.ids, config.smallest_group))
    answers = {"challenger": challenger.answer()}
    if any(one.model.external for one in (challenger, champion) if one is not None):
        # Each row asked for these would be sent to somebody else, and paid.
        config = config.model_copy(update={"corrupted_rows": 0, "explain": 0, "segments": 0})
    held = None if challenger.model.external else held_out(version, challenger)
    segments = find_segments(version, config.segments, held, test, objective, task.std, config.seed)
    task = replace(task, slices=(*(part for one in by_column for part in one.parts), *segments.found, *cause.slices))
    if champion is not None:
        answers["champion"] = champion.answer()
        task = replace(task, new=new_rows(test, version, champion, workspace))
    baseline = fit_baseline(config.baseline, version, challenger, seed=config.seed)
    if baseline is not None:
        answers["baseline"] = baseline.answer
    models = {one.role: one for one in (challenger, champion) if one is not None}
    stress = corrupted(config, version, task, models, answers, baseline)
    statistics = {name: statistics_of(task, answer) | stress.slices[name] for name, answer in answers.items()}
    common, families = n_slices(statistics["challenger"])
    board = Board(
        objective=objective,
        n=len(task.target),
        n_slices=common,
        config=config,
        block=task.block,
        groups=task.groups,
        families=families,
    )
    found = {name: board.resample(item) for name, item in statistics.items()}
    return Comparison(
        board=board,
        ours=found["challenger"],
        theirs=found.get("champion"),
        simple=found.get("baseline"),
        simple_facts=baseline.facts if baseline else {},
        shown=shown(task, test, answers),
        facts={
            "slice_facts": slice_facts(task, statistics["challenger"]) | stress.slice_facts(),
            "slice_columns": {
                "column": [one.name for one in by_column],
                "group": [one.name.partition(":")[2] for one in task.groupings],
            },
            "left_out": {
                f"column:{one.name}": one.left_out
                for one in by_column
                if one.left_out and (one.parts or config.slices is not None)
            },
            "segments": segments.facts,
            "temperature": temperature_facts(board, challenger, held, task.target, answers["challenger"]),
        },
        baseline=baseline,
        robustness=stress.report(board),
        explained=explain(config, version, challenger, task, answers["challenger"], board),
        tests=paired_tests(task, answers),
    )


def _report(
    version: DatasetVersion,
    challenger: Contestant,
    champion: Contestant | None,
    digest: str | None,
    found: Comparison,
    cost: dict[str, dict[str, float | int | None]],
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
        tests=found.tests,
        overlap={"challenger": challenger.overlap(), "champion": champion.overlap() if champion else None},
        external={"challenger": challenger.asked(), "champion": champion.asked() if champion else None},
        confusion=found.shown.confusion,
        calibration=found.shown.calibration,
        labels=list(version.labels),
        examples=found.shown.examples,
        slice_facts=found.facts.get("slice_facts", {}),
        slice_columns=found.facts.get("slice_columns", {"column": [], "group": []}),
        left_out=found.facts.get("left_out", {}),
        cause=found.facts.get("cause"),
        segments=found.facts.get("segments"),
        temperature=found.facts.get("temperature"),
        test_rows=sketched(challenger.test.ids),
        cost=cost,
        robustness=found.robustness,
    )


def _is_measured(metric: str, found: Found) -> bool:
    return any(name.rsplit("/", 1)[-1] == metric for name in found)


after_publish = count_evaluation  # a look is one also where nothing is decided on it: `kfloop run --until evaluate`
