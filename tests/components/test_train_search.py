"""Searches: what they may change, that they go on after a kill, and that they only look at validation rows."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl

import small_digits
from kfloop.components.train import search as search_module
from kfloop.components.train.batch_size import FOUND, _fastest, found_batch_size
from kfloop.components.train.search import STUDY, SearchResult, merged, search
from kfloop.components.train.search_space import dimensions
from kfloop.core.sections import SearchConfig, TrainConfig
from kfloop.errors import ConfigError, TerminalError

SPACE: dict[str, Any] = {"learning_rate": [1e-4, 1e-2], "options.width": [8, 16]}


def told(space: dict[str, Any] | None = None, **keys: Any) -> TrainConfig:
    inner = {"trials": 3, "epochs": 2, "space": SPACE if space is None else space} | keys
    config: TrainConfig = small_digits.told(search=inner, epochs=2, options={"width": 16, "depth": 1})
    return config


def look(work: Path, config: TrainConfig) -> SearchResult:
    return search(small_digits.prepared(config), config, work=work)


def test_the_best_values_go_into_the_training_proper(tmp_path: Path) -> None:
    config = told()
    found = look(tmp_path, config)
    assert [trial["number"] for trial in found.trials] == [0, 1, 2]
    assert found.trials[0]["parameters"] == {"learning_rate": 0.01, "options.width": 16}
    complete = [trial for trial in found.trials if trial["state"] == "complete"]
    best = min(complete, key=lambda trial: trial["value"])["parameters"]
    assert found.prepared.plan.learning_rate == found.config.learning_rate == best["learning_rate"]
    assert found.prepared.spec.options["width"] == found.config.options["width"] == best["options.width"]
    assert found.config.search is None
    assert all(8 <= trial["parameters"]["options.width"] <= 16 for trial in found.trials)
    assert json.loads(json.dumps(found.trials)) == found.trials
    assert look(tmp_path, config).trials == found.trials  # the study is there: nothing is trained again
    assert sorted(path.name for path in tmp_path.iterdir()) == [STUDY]


class KilledError(BaseException):
    """As sudden as a kill."""


def test_a_killed_search_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = told()
    whole = look(tmp_path / "whole", config)
    epochs = 0

    class Deadly(search_module.Watch):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            nonlocal epochs
            epochs += 1
            if epochs == 3:  # in the second trial
                raise KilledError
            super().on_train_epoch_end(trainer, pl_module)

    with monkeypatch.context() as patch:
        patch.setattr(search_module, "Watch", Deadly)
        with pytest.raises(KilledError):
            look(tmp_path / "killed", config)
    assert look(tmp_path / "killed", config).trials == whole.trials


def test_a_trial_without_a_finite_loss_counts_as_failed(tmp_path: Path) -> None:
    config = told({"learning_rate": [1e-3, 1e30]}, trials=4)
    found = look(tmp_path, config)
    assert len(found.trials) == 4
    assert {"failed"} <= {trial["state"] for trial in found.trials}
    assert found.prepared.plan.learning_rate < 1e3


def test_no_trial_with_a_loss_is_an_error(tmp_path: Path) -> None:
    config = told({"learning_rate": [1e28, 1e30]}, trials=1)
    with pytest.raises(TerminalError, match="none of the 1 trials"):
        look(tmp_path, config)


def test_only_training_and_validation_rows_are_at_hand() -> None:
    """What a search is given has no other rows."""
    fields = {field.name for field in dataclasses.fields(small_digits.Prepared)}
    assert fields == {"spec", "encoder", "train", "validation", "plan", "n_quarantined"}


def test_an_empty_space_looks_around_the_defaults_of_what_is_not_set() -> None:
    config = TrainConfig(search=SearchConfig(), learning_rate=0.02, accelerator="cpu")
    found = small_digits.prepared(config)
    space = {one.key: one for one in dimensions(SearchConfig(), config, found)}
    assert sorted(space) == ["batch_size", "weight_decay"]
    assert found.plan.batch_size in space["batch_size"].choices
    decay = space["weight_decay"]
    assert decay.low == pytest.approx(found.plan.weight_decay / 10)
    assert decay.high == pytest.approx(found.plan.weight_decay * 10)
    fixed = TrainConfig(search=SearchConfig(), learning_rate=0.02, weight_decay=0.1, batch_size=8)
    with pytest.raises(ConfigError, match="all three are set"):
        dimensions(SearchConfig(), fixed, found)


@pytest.mark.parametrize(
    ("space", "message", "hint"),
    [
        ({"learning_rat": [0.1, 1.0]}, "'learning_rat'", "learning_rate"),
        ({"options.widht": [8, 16]}, "'options.widht'", "options.width"),
        ({"seed": [1, 5]}, "'seed'", ""),
        ({"learning_rate": [0.1, 0.01]}, "low < high", ""),
        ({"batch_size": [8.5, 16.5]}, "whole numbers", ""),
        ({"schedule": []}, "is empty", ""),
    ],
)
def test_a_wrong_space_is_refused(space: dict[str, Any], message: str, hint: str) -> None:
    config = told(space)
    assert config.search is not None
    with pytest.raises(ConfigError, match=message) as error:
        dimensions(config.search, config, small_digits.prepared(config))
    assert hint in error.value.hint


def test_a_value_that_its_key_does_not_take_is_named() -> None:
    with pytest.raises(ConfigError, match="schedule = 'wavy'"):
        merged(told(), {"schedule": "wavy"})


def test_whole_numbers_and_choices() -> None:
    config = told({"batch_size": [8, 64], "schedule": ["cosine", "constant"], "options.depth": [1, 2, 3]})
    assert config.search is not None
    space = {one.key: one for one in dimensions(config.search, config, small_digits.prepared(config))}
    assert (space["batch_size"].low, space["batch_size"].high, space["batch_size"].whole) == (8.0, 64.0, True)
    assert space["schedule"].choices == ("cosine", "constant")
    assert space["options.depth"].choices == (1, 2, 3)
    assert space["batch_size"].inside(100) == 64


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="Optuna") as error:
        look(tmp_path, told())
    assert error.value.hint == "pip install 'kfloop[search]'"


def test_the_batch_size_is_found_once_and_kept(tmp_path: Path) -> None:
    config: TrainConfig = small_digits.told(find_batch_size=True, options={"width": 8, "depth": 1})
    chosen, found = found_batch_size(small_digits.prepared(config), config, work=tmp_path)
    told_speeds = json.loads((tmp_path / FOUND).read_text())
    assert str(found.plan.batch_size) in told_speeds["examples_per_second"]
    assert chosen.batch_size == found.plan.batch_size
    assert found.plan.total_steps == found.plan.epochs * -(-200 // found.plan.batch_size)
    (tmp_path / FOUND).write_text(json.dumps({"batch_size": 17}))
    assert found_batch_size(small_digits.prepared(config), config, work=tmp_path)[1].plan.batch_size == 17
    strict = config.model_copy(update={"deterministic": True})
    with pytest.raises(ConfigError, match="deterministic"):
        found_batch_size(small_digits.prepared(config), strict, work=tmp_path)


def test_a_larger_batch_must_be_faster_by_a_tenth() -> None:
    assert _fastest({8: 100.0, 16: 105.0, 32: 109.0}) == 8
    assert _fastest({8: 100.0, 16: 150.0, 32: 160.0, 64: 170.0}) == 64


def test_whole_batches_of_few_rows_are_timed(tmp_path: Path) -> None:
    config = small_digits.told(find_batch_size=True, epochs=1, batch_size=512)
    prepared = small_digits.prepared(config)
    few = dataclasses.replace(prepared, train=prepared.train.take(np.arange(10)))
    assert found_batch_size(few, config, work=tmp_path)[1].plan.batch_size == 8


def test_choices_stay_what_they_are() -> None:
    config = told({"augment": [True, False], "batch_size": [16, 32, 64], "learning_rate": [0, 1]})
    assert config.search is not None
    assert config.search.space["augment"] == (True, False)
    assert all(isinstance(value, bool) for value in config.search.space["augment"])
    found = {one.key: one for one in dimensions(config.search, config, small_digits.prepared(config))}
    assert found["augment"].choices == (True, False)
    assert found["batch_size"].choices == (16, 32, 64)
    assert (found["learning_rate"].low, found["learning_rate"].high) == (0, 1)
