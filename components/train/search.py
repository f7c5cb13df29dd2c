"""A small search for hyper-parameters: short trainings, judged on the validation split alone."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pydantic import ValidationError

from kfloop.components.train.group import Group
from kfloop.components.train.preparing import replanned
from kfloop.components.train.search_space import Dimension, default_values, dimensions
from kfloop.core.sections import TrainConfig
from kfloop.errors import ConfigError, TerminalError

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.components.train.preparing import Prepared
    from kfloop.core.sections import SearchConfig

STUDY = "search.db"  # in the work folder: a killed search goes on
RANDOM_SHARE = 3  # one trial in so many is drawn at random before the sampler trusts what it saw
MOST_RANDOM = 10
REASON = "reason"  # why a trial failed; one without a reason was killed and is not counted
logger = logging.getLogger("kfloop")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One short training.

    Attributes:
        number: Number of the trial, from 0.
        state: ``complete``, ``pruned`` (worse than the median of the others at the same epoch) or ``failed``.
        value: Lowest validation loss; null where there is none.
        parameters: What was tried, by key of ``train``.
        epochs: Epochs trained.
    """

    number: int
    state: str
    value: float | None
    parameters: dict[str, Any]
    epochs: int


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The best hyper-parameters, ready for the training proper.

    Attributes:
        config: Section ``train`` with the best values in it.
        prepared: The training with the best values in its plan and options.
        trials: Every trial, as plain values for the report.
    """

    config: TrainConfig
    prepared: Prepared
    trials: list[dict[str, Any]]


class Watch(pl.Callback):
    """Tells the study the validation loss of each epoch, and ends a trial that is not worth going on.

    Args:
        trial: The trial of the study; null on processes that have no study.
        group: The processes that train together.
    """

    def __init__(self, trial: Any, group: Group) -> None:
        self.trial, self.group = trial, group
        self.epochs = 0
        self.pruned = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the learning curve has closed its row."""
        self.epochs += 1
        if self.trial is not None:
            metrics: Any = pl_module
            self.trial.report(metrics.epoch_metrics["validation_loss"], trainer.current_epoch)
            self.pruned = self.trial.should_prune()
        self.pruned = self.group.agree(self.pruned)
        if self.pruned:
            trainer.should_stop = True


def search(prepared: Prepared, config: TrainConfig, *, work: Path, group: Group | None = None) -> SearchResult:
    """Try hyper-parameters on the training rows and take those with the lowest validation loss.

    The first trial has the values that would be used without a search. Further ones come from Optuna's TPE (Bergstra et al. 2011); a trial
    whose loss is above the median of the others at the same epoch is ended. Whether a search was interrupted changes nothing but the
    time it took, as long as ``search.minutes`` does not cut it short: each trial has a sampler seeded with its place in the order.

    Args:
        prepared: The training as it would be without a search.
        config: Section ``train`` with its key ``search`` set.
        work: Folder of the training, where the study is kept.
        group: The processes that train together; null for this one alone.

    Raises:
        ConfigError: Optuna is missing, or the space names what cannot be searched.
        TerminalError: No trial ended with a loss.
    """
    group = group or Group()
    told = config.search
    if told is None:
        raise ConfigError("train.search is not set", hint="set train.search, for example train.search: {trials: 12}")
    space = dimensions(told, config, prepared)
    study = _study(work, config, space, prepared) if group.first else None
    folder = work / "trial"
    while group.agree(study is not None and _goes_on(study, told)):
        trial, values = None, {}
        if study is not None:
            study.sampler = _sampler(told, len(_finished(study)))
            trial = study.ask()
            values = {one.key: one.suggest(trial) for one in space}
        values = group.agree(values)
        watch = Watch(trial, group)
        value, reason = _train(prepared, _trial_config(config, told, values), folder, watch, group)
        if study is not None:
            _tell(study, trial, watch, value, reason)
    found = group.agree(_result(study) if study is not None else None)
    if found is None:
        raise TerminalError(
            f"none of the {told.trials} trials of train.search ended with a validation loss",
            hint="narrow train.search.space, give it more minutes, or remove train.search",
        )
    best, trials = found
    logger.info("the search takes %s after %d trials", best, len(trials))
    chosen = merged(config, best)
    return SearchResult(config=chosen, prepared=replanned(prepared, chosen), trials=trials)


def merged(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """The section with some values set; ``options.x`` goes into ``options``, ``hyperparameters.x`` into ``hyperparameters``.

    Raises:
        ConfigError: A value is not allowed for its key.
    """
    plain = config.model_dump() | {"search": None}
    for key, value in values.items():
        place, _, name = key.rpartition(".")
        if place:
            plain[place] = plain[place] | {name: value}
        else:
            plain[key] = value
    try:
        return TrainConfig.model_validate(plain)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"train.search.space tries {place} = {problem['input']!r}: {problem['msg']}") from error


def _trial_config(config: TrainConfig, told: SearchConfig, values: dict[str, Any]) -> TrainConfig:
    return merged(config, values | ({"epochs": told.epochs} if told.epochs else {}))


def _study(work: Path, config: TrainConfig, space: list[Dimension], prepared: Prepared) -> Any:
    """The study in the work folder; what a kill left running is closed."""
    if find_spec("optuna") is None:
        raise ConfigError("train.search needs Optuna, which is not installed", hint="pip install 'kfloop[search]'")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    work.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{work / STUDY}",
        study_name="train",
        direction="minimize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=1),
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    if not _finished(study):
        first = {one.key: one.inside(value) for one, value in default_values(space, config, prepared)}
        study.enqueue_trial(first, skip_if_exists=False)
    return study


def _sampler(told: SearchConfig, place: int) -> Any:
    import optuna

    random = min(MOST_RANDOM, max(2, told.trials // RANDOM_SHARE))
    return optuna.samplers.TPESampler(seed=told.seed * 100_003 + place, n_startup_trials=random)


def _finished(study: Any) -> list[Any]:
    """Trials that came to an end, in order; a killed one is not among them."""
    trials = study.get_trials(deepcopy=False)
    return [one for one in trials if one.state.name in {"COMPLETE", "PRUNED"} or REASON in one.user_attrs]


def _goes_on(study: Any, told: SearchConfig) -> bool:
    """Whether there is another trial; the time of an interrupted search counts."""
    done = _finished(study)
    spent = sum(one.duration.total_seconds() for one in done if one.duration is not None)
    return len(done) < told.trials and (not done or spent < 60 * told.minutes)


def _train(
    prepared: Prepared, config: TrainConfig, folder: Path, watch: Watch, group: Group
) -> tuple[float | None, str]:
    """Lowest validation loss of one trial, or why there is none."""
    from kfloop.components.train.fitting import fit

    if group.first:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    group.agree(0)  # nobody writes before the folder is there
    started = time.monotonic()
    try:
        curve, _, _ = fit(
            replanned(prepared, config),
            config,
            work=folder,
            resume=None,
            listen=None,
            group=group,
            callbacks=[watch],
        )
    except TerminalError as error:
        if group.world > 1 or isinstance(error, ConfigError):  # of several processes, the others do not know of it
            raise
        logger.warning("a trial failed after %.1f s: %s", time.monotonic() - started, error.message)
        return None, error.message
    finally:
        if group.first:
            shutil.rmtree(folder, ignore_errors=True)
    return curve.best_loss, ""


def _tell(study: Any, trial: Any, watch: Watch, value: float | None, reason: str) -> None:
    from optuna.trial import TrialState

    trial.set_user_attr("epochs", watch.epochs)
    if value is None:
        trial.set_user_attr(REASON, reason)
        study.tell(trial, state=TrialState.FAIL)
    elif watch.pruned:
        trial.set_user_attr("best", value)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value)
    told = "failed" if value is None else f"{'stopped early' if watch.pruned else 'validation loss'} {value:.4g}"
    logger.info("search: trial %d with %s: %s", trial.number + 1, trial.params, told)


def _result(study: Any) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """The best values and every trial, or null where no trial was completed."""
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    done = _finished(study)
    trials = [
        Trial(
            number=place,
            state=names[one.state.name],
            value=one.value if one.state.name == "COMPLETE" else one.user_attrs.get("best"),
            parameters=dict(one.params),
            epochs=int(one.user_attrs.get("epochs", 0)),
        )
        for place, one in enumerate(done)
    ]
    complete = [one for one in trials if one.state == "complete"]
    if not complete:
        return None
    best = min(complete, key=lambda one: (one.value, one.number))
    return best.parameters, [asdict(one) for one in trials]
