"""What people watch: speed and cost of a training, its progress, and the pictures of a generator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kfloop.components.train.grids import Grids, grid, save_grid
from kfloop.components.train.watching import WARM_UP, Watch
from kfloop.core.families import NetworkSpec
from kfloop.core.sections import TrainConfig
from kfloop.core.signature import Port


@dataclasses.dataclass
class Told:
    """A teller that keeps what it was told."""

    due: bool = True
    lines: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    closed: int = 0

    def tell(self, done: int, total: int, **told: Any) -> None:
        self.lines.append({"done": done, "total": total} | told)

    def close(self) -> None:
        self.closed += 1


def watched(config: TrainConfig, steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Watch, Told]:
    """A watch that saw steps of 20 ms, each 5 ms after the one before, 4 ms of which its batch took to make."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("kfloop.components.train.watching.time.perf_counter", lambda: clock.now)
    told = Told()
    watch = Watch(config, told)
    loader = SimpleNamespace(seconds=0.0, rows=0)
    trainer: Any = SimpleNamespace(
        num_training_batches=10, max_epochs=4, current_epoch=1, is_global_zero=True, train_dataloader=loader
    )
    module: Any = None
    watch.on_fit_start(trainer, module)
    watch.on_train_epoch_start(trainer, module)
    for number in range(steps):
        clock.now += 0.005
        loader.seconds += 0.004
        loader.rows += 32
        watch.on_train_batch_start(trainer, module, None, number)
        clock.now += 0.020
        watch.on_train_batch_end(trainer, module, None, None, number)
    return watch, told


def test_speed_and_waiting_are_those_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, told = watched(TrainConfig(price_per_hour=2.0, watts=50), 8, monkeypatch)
    found = watch.summary()
    assert found["ms_per_step"] == pytest.approx(25)
    assert found["samples_per_second"] == pytest.approx(32 / 0.025)
    assert found["waiting_share"] == pytest.approx(0.16)
    assert found["cost"] == pytest.approx(2.0 * 8 * 0.025 / 3600)
    assert found["samples_per_unit"] == pytest.approx(32 / 0.025 * 3600 / 2)
    assert found["samples_per_joule"] == pytest.approx(32 / 0.025 / 50)
    last = told.lines[-1]
    assert (last["done"], last["total"], last["text"]) == (18, 40, "epoch 2 of 4")
    assert last["seconds_left"] == pytest.approx(0.025 * 22)


def test_a_batch_in_parts_is_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    found = watched(TrainConfig(accumulate=4), 11, monkeypatch)[0].summary()
    assert found["ms_per_step"] == pytest.approx(100)
    assert found["samples_per_second"] == pytest.approx(32 / 0.025)  # rows that the loader handed out, in any parts


def test_without_price_power_or_steps_the_figures_are_null(monkeypatch: pytest.MonkeyPatch) -> None:
    found = watched(TrainConfig(), WARM_UP, monkeypatch)[0].summary()
    assert found["peak_memory_mb"] > 0
    null = ("samples_per_second", "ms_per_step", "waiting_share", "cost", "samples_per_unit", "samples_per_joule")
    assert [name for name in null if found[name] is not None] == []


def test_the_end_and_a_failure_wipe_the_progress_away() -> None:
    told = Told()
    watch: Any = Watch(TrainConfig(), told)  # type: ignore[arg-type]
    watch.on_fit_end(None, None)
    watch.on_exception(None, None, ValueError())
    assert told.closed == 2


class Painter(torch.nn.Module):
    """Draws each class in its own grey, whatever the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, noise: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor]:
        assert not self.training
        return (noise * 0 + 300.0 * label.reshape(-1, 1, 1, 1),)


SPEC = NetworkSpec(
    family="gan",
    objective="generation",
    modality="image",
    inputs=(Port(name="noise", dtype="float32", shape=(8, 8, 1)), Port(name="label", dtype="int64", shape=())),
    labels=("a", "b"),
)


def test_a_grid_has_a_row_for_each_class(tmp_path: Path) -> None:
    from PIL import Image

    network = Painter().train()
    save_grid(network, SPEC, tmp_path / "g.png")
    assert network.training
    picture = np.asarray(Image.open(tmp_path / "g.png"))
    assert picture.shape == (2 * 9 * 3, 8 * 9 * 3)
    assert picture[0, 0] == 0
    assert picture[9 * 3, 0] == 255  # clipped, not wrapped around


def test_grids_are_drawn_now_and_then(tmp_path: Path) -> None:
    listened: list[Path] = []
    grids = Grids(SPEC, 24, tmp_path, listened.append)
    module: Any = SimpleNamespace(network=Painter())
    for epoch in range(24):
        trainer: Any = SimpleNamespace(current_epoch=epoch, is_global_zero=True)
        grids.on_train_epoch_end(trainer, module)
    assert [path.name for path in listened] == [f"samples-{epoch:05d}.png" for epoch in range(0, 24, 3)]
    assert all(path.is_file() for path in listened)


def test_pictures_stand_side_by_side() -> None:
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1) * np.ones((3, 2, 2, 3), np.uint8)
    sheet = grid(images, 2)
    assert sheet.shape == (6, 6, 3)
    assert [int(sheet[0, 0, 0]), int(sheet[0, 3, 0]), int(sheet[3, 0, 0]), int(sheet[3, 3, 0])] == [0, 1, 2, 128]
