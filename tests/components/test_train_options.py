"""How a training is computed: precision, averages, parts of a batch, schedules, and two equal runs."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

import small_digits
from kfloop.components.train import options
from kfloop.components.train.averaging import WeightAverage
from kfloop.components.train.curves import LearningCurve
from kfloop.components.train.fitting import build_learner, fit
from kfloop.components.train.group import Group
from kfloop.components.train.options import extra_callbacks, prepare_module, reproducible, trainer_options
from kfloop.components.train.preparing import replanned
from kfloop.components.train.resuming import last_good
from kfloop.components.train.strategies import chosen_strategy
from kfloop.core.learning.base import WARM_UP
from kfloop.core.learning.plan import Batch
from kfloop.errors import ConfigError

prepared, told = small_digits.prepared, small_digits.told
PLAIN = {"width": 16, "depth": 1, "dropout": 0.0}


def train(work: Path, family: str = "mlp", callbacks: tuple[pl.Callback, ...] = (), **keys: Any) -> LearningCurve:
    work.mkdir(exist_ok=True)
    config = told(**keys)
    return fit(prepared(config, family), config, work=work, resume=last_good(work), listen=None, callbacks=callbacks)[0]


def close(one: dict[str, Tensor], other: dict[str, Tensor], rtol: float) -> None:
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=rtol, atol=1e-6, msg=name)


def test_a_batch_in_parts_gives_the_weights_of_the_whole(tmp_path: Path) -> None:
    whole, parts = (train(tmp_path / str(count), accumulate=count, options=PLAIN) for count in (1, 3))
    assert [row["train_loss"] for row in parts.history] == pytest.approx(
        [row["train_loss"] for row in whole.history], rel=1e-5
    )
    close(whole.best_weights, parts.best_weights, rtol=1e-3)


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_two_deterministic_runs_give_the_same_bits_and_leave_torch_as_it_was(tmp_path: Path, family: str) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    first, second = (train(tmp_path / name, family, deterministic=True, epochs=2, augment=True) for name in "ab")
    assert all(torch.equal(tensor, second.best_weights[name]) for name, tensor in first.best_weights.items())
    assert first.history == second.history
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_reproducible_computes_strictly_on_one_thread_and_only_when_asked() -> None:
    with reproducible(told(deterministic=True)):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
    with reproducible(told()):
        assert not torch.are_deterministic_algorithms_enabled()


def test_half_precision_on_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a GPU"):
        train(tmp_path / "16", precision="16")
    assert trainer_options(told(precision="bf16"), prepared(told()).plan)["precision"] == "bf16-mixed"
    full, half = (train(tmp_path / name, precision=name) for name in ("32", "bf16"))
    assert half.best_loss == pytest.approx(full.best_loss, rel=0.1)
    assert half.best_loss != full.best_loss
    assert {tensor.dtype for tensor in half.best_weights.values() if tensor.is_floating_point()} == {torch.float32}


def test_no_clipping_with_zero() -> None:
    plan = prepared(told()).plan
    assert trainer_options(told(gradient_clip=0), plan)["gradient_clip_val"] is None
    assert trainer_options(told(gradient_clip=2), plan)["gradient_clip_val"] == 2


def test_a_module_that_steps_by_itself_is_neither_clipped_nor_taken_in_parts() -> None:
    config = told()
    learner = build_learner(prepared(config).spec, prepared(config).plan)
    learner.automatic_optimization = False
    assert trainer_options(config, learner.plan, learner)["gradient_clip_val"] is None
    with pytest.raises(ConfigError, match="accumulate is 2"):
        trainer_options(told(accumulate=2), learner.plan, learner)


def test_channels_last_changes_the_layout_and_not_the_answers(tmp_path: Path) -> None:
    config = told(channels_last=True)
    found = prepared(config, "cnn")
    learner = prepare_module(build_learner(found.spec, found.plan), config)
    kernels = [weight for weight in learner.network.parameters() if weight.ndim == 4 and min(weight.shape) > 1]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    flat = prepared(config)
    with pytest.raises(ConfigError, match="no two-dimensional convolution"):
        prepare_module(build_learner(flat.spec, flat.plan), config)


def test_compiling_without_a_compiler_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    config = told(compile=True)
    found = prepared(config)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"g\+\+ or clang\+\+ is not on the PATH"):
        prepare_module(build_learner(found.spec, found.plan), config)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="no-such-compiler"):
        prepare_module(build_learner(found.spec, found.plan), config)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    plain, compiled = (train(tmp_path / str(flag), compile=flag, epochs=1, options=PLAIN) for flag in (False, True))
    assert compiled.best_loss == pytest.approx(plain.best_loss, rel=1e-3)
    assert sorted(compiled.best_weights) == sorted(plain.best_weights)


class Snapshots(pl.Callback):
    """The weights after each step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        del trainer, outputs, batch, batch_idx
        self.seen.append({name: tensor.clone() for name, tensor in pl_module.network.state_dict().items()})


@pytest.mark.parametrize("family", ["mlp", "cnn"])
@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_the_average_is_what_is_kept_and_training_does_not_notice(tmp_path: Path, kind: str, family: str) -> None:
    plain, averaged = Snapshots(), Snapshots()
    train(tmp_path / "plain", family, (plain,), epochs=4)
    curve = train(tmp_path / kind, family, (averaged,), epochs=4, weight_averaging=kind)
    close(plain.seen[-1], averaged.seen[-1], rtol=0)
    per_epoch = len(plain.seen) // 4
    last = per_epoch * (curve.best_epoch + 1)
    states = [{name: tensor.double() for name, tensor in state.items()} for state in plain.seen[:last]]
    if kind == "swa":
        states = states[3 * per_epoch :] or states[-1:]
    for name, tensor in curve.best_weights.items():
        if not tensor.is_floating_point():
            continue
        mean = states[0][name].clone()
        for count, state in enumerate(states):
            share = 1 / (count + 1) if kind == "swa" else 1 - min(0.999, (1 + count) / (10 + count))
            mean += share * (state[name] - mean)
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-4, atol=1e-5)


class Stop(pl.Callback):
    """Fails in the middle of the third epoch."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        del pl_module, outputs, batch
        if trainer.current_epoch == 2 and batch_idx == 1:
            raise RuntimeError("stop")


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_an_average_survives_an_interruption(tmp_path: Path, kind: str) -> None:
    keys = {"weight_averaging": kind, "epochs": 4, "options": PLAIN}
    whole = train(tmp_path / "whole", **keys)
    with pytest.raises(RuntimeError, match="stop"):
        train(tmp_path / "torn", callbacks=(Stop(),), **keys)
    resumed = train(tmp_path / "torn", **keys)
    assert resumed.history == whole.history
    assert all(torch.equal(tensor, resumed.best_weights[name]) for name, tensor in whole.best_weights.items())


def test_averages_are_refused_where_they_cannot_be() -> None:
    found = prepared(told())
    assert [type(one) for one in extra_callbacks(told(weight_averaging="ema"), found)] == [WeightAverage]
    assert extra_callbacks(told(), found) == []
    with pytest.raises(ConfigError, match="fsdp"):
        extra_callbacks(told(weight_averaging="ema", strategy="fsdp"), found)
    generator = replace(found, spec=replace(found.spec, objective="generation"))
    with pytest.raises(ConfigError, match="keeps a moving average anyway"):
        extra_callbacks(told(weight_averaging="ema"), generator)


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    config = told(class_weights="balanced")
    found = prepared(config)
    weights = found.train.weights
    expected = compute_class_weight(
        "balanced", classes=np.arange(10), y=np.repeat(found.train.target, np.rint(weights * 1000).astype(int))
    )
    assert found.plan.class_weights == pytest.approx(expected, rel=1e-2)


def test_smoothed_and_weighted_loss_is_that_of_torch() -> None:
    config = told(class_weights="balanced", label_smoothing=0.2, options=PLAIN)
    found = prepared(config)
    learner = build_learner(found.spec, found.plan)
    rows = torch.from_numpy(found.train.inputs[0][:16])
    target = torch.from_numpy(found.train.target[:16])
    batch = Batch(inputs=(rows,), rows=None, target=target, weight=torch.ones(16), scale=torch.tensor(1 / 16))
    logits = learner.network(rows)[0]
    smooth = torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.2, reduction="none")
    expected = smooth * torch.tensor(found.plan.class_weights)[target]
    torch.testing.assert_close(learner.losses(batch), expected)


def test_shapes_of_the_schedules() -> None:
    steps, rate = 50, 0.01
    found = prepared(told())
    rates = {}
    for name in ("one_cycle", "cosine", "constant"):
        plan = replace(found.plan, schedule=name, total_steps=steps, learning_rate=rate)
        learner = build_learner(found.spec, plan)
        optimizer = torch.optim.SGD(learner.parameters(), lr=rate)
        schedule = learner.schedule(optimizer)
        rates[name] = []
        for _ in range(steps):
            rates[name].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    assert rates["constant"] == [rate] * steps
    for name, rising in (("one_cycle", 0.3), ("cosine", WARM_UP)):
        peak = int(np.argmax(rates[name]))
        assert peak == pytest.approx(rising * steps, abs=1)
        assert max(rates[name]) == pytest.approx(rate, rel=0.01)
        assert (np.diff(rates[name][: peak + 1]) >= 0).all()
        assert (np.diff(rates[name][peak + 1 :]) <= 0).all()
        assert rates[name][-1] < 0.02 * rate
    middle = (steps - WARM_UP * steps) / 2 + WARM_UP * steps
    assert rates["cosine"][round(middle)] == pytest.approx(rate * (1 + math.cos(math.pi / 2)) / 2, rel=0.1)


def test_every_precision_of_the_configuration_is_known() -> None:
    from typing import get_args

    from kfloop.core.sections import TrainConfig

    assert set(options.PRECISIONS) == set(get_args(TrainConfig.model_fields["precision"].annotation))


@pytest.mark.parametrize(("family", "objective"), [("diffusion", "generation"), ("gan", "generation")])
def test_generators_cannot_be_shared_out(family: str, objective: str) -> None:
    learner: Any = SimpleNamespace(
        spec=SimpleNamespace(family=family, objective=objective), automatic_optimization=True
    )
    with pytest.raises(ConfigError, match=f"fsdp' cannot train a '{family}', which trains several networks"):
        chosen_strategy("fsdp", Group(world=2, launched=True), learner)


def test_an_average_that_never_began_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = told(weight_averaging="swa", epochs=20, patience=1, learning_rate=0.3)
    found = prepared(config)
    with caplog.at_level("WARNING", logger="kfloop"):
        curve, _, _ = fit(found, config, work=tmp_path, resume=None, listen=None)
    assert len(curve.history) < 15
    assert "averages from epoch 16 on, but early stopping ended the training" in caplog.text


def test_keys_that_a_training_does_not_follow_are_refused() -> None:
    found = prepared(told())
    numbers = replace(found, spec=replace(found.spec, objective="regression", labels=()))
    for key, value in (("class_weights", "balanced"), ("label_smoothing", 0.1), ("normal", "0")):
        with pytest.raises(ConfigError, match=rf"train.{key} is '?{value}'?, which a training for regression does not"):
            replanned(numbers, told(**{key: value}))
