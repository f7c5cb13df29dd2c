"""Generators: shapes, export, checkpoints, and a training that learns to draw digits."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_digits

from kfloop.components.package.exporting import export_network
from kfloop.components.train.fitting import build_learner, fit
from kfloop.components.train.preparing import prepare
from kfloop.components.train.training import TrainReport, run
from kfloop.core.encoding.image import Encoder
from kfloop.core.families import NetworkSpec, build_network, family_module
from kfloop.core.families.checkpoints import load_checkpoint, save_checkpoint
from kfloop.core.families.diffusion import Diffusion
from kfloop.core.families.heads import Served
from kfloop.core.generation import GaussianBaseline, frechet_distance
from kfloop.core.learning.plan import Batch
from kfloop.core.sections import TrainConfig
from kfloop.core.signature import Port, Signature
from kfloop.core.versions import Rows, read_version, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, TerminalError

FAMILIES = ("gan", "diffusion")
PARITY = {"gan": 1e-3, "diffusion": 1e-2}  # grey levels of 255


def spec_of(family: str, shape: tuple[int, int, int] = (8, 8, 1), **options: Any) -> NetworkSpec:
    ports = (Port(name="noise", dtype="float32", shape=shape), Port(name="label", dtype="int64", shape=()))
    return NetworkSpec(
        family=family, objective="generation", modality="image", inputs=ports, labels=("a", "b", "c"), options=options
    )


def rough(spec: NetworkSpec) -> torch.nn.Module:
    """A network whose every weight matters: fresh ones begin with zeros."""
    torch.manual_seed(0)
    network = build_network(spec).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def drawing(spec: NetworkSpec, rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((rows, *spec.inputs[0].shape), generator=generator)
    return noise, torch.arange(rows) % len(spec.labels)


def arrays(spec: NetworkSpec) -> list[np.ndarray[Any, Any]]:
    return [item.numpy() for item in drawing(spec, 3)]


def signature_of(spec: NetworkSpec) -> Signature:
    return Signature(
        objective="generation",
        modality="image",
        family=spec.family,
        inputs=spec.inputs,
        outputs=(Port(name="sample", dtype="float32", shape=spec.inputs[0].shape),),
        labels=spec.labels,
        max_batch_size=32,
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 20, 3), (17, 31, 1), (5, 3, 3)])
def test_generators_adapt_to_the_images(family: str, shape: tuple[int, int, int]) -> None:
    spec = spec_of(family, shape, width=8)
    network = rough(spec)
    noise, label = drawing(spec, 4)
    with torch.inference_mode():
        sample = network(noise, label)[0]
        assert sample.shape == (4, *shape)
        assert sample.dtype == torch.float32
        assert torch.isfinite(sample).all()
        assert sample.min() >= -1e-3
        assert sample.max() <= 255.001
        assert torch.equal(sample, network(noise, label)[0])
        assert not torch.allclose(sample, network(noise, (label + 1) % 3)[0])
        assert not torch.allclose(sample, network(-noise, label)[0])
        alone = network(noise[:1], label[:1])[0]
    assert torch.allclose(alone, sample[:1], atol=0.05)  # nothing leaks between the rows of a batch


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_draws_what_torch_draws(family: str, tmp_path: Path) -> None:
    spec = spec_of(family, width=8)
    network = rough(spec)
    path = tmp_path / "model.onnx"
    export_network(Served(network, "generation"), signature_of(spec), arrays(spec), path)
    session = onnxruntime.InferenceSession(path)
    names = [port.name for port in session.get_inputs()]
    for rows in (1, 2, 7, 32):
        inputs = drawing(spec, rows, seed=rows)
        with torch.inference_mode():
            expected = network(*inputs)[0].numpy()
        found = session.run(None, dict(zip(names, (item.numpy() for item in inputs), strict=True)))[0]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < PARITY[family], rows
    assert path.stat().st_size < 3_000_000


@pytest.mark.slow
def test_the_graph_of_a_sampler_holds_one_step(tmp_path: Path) -> None:
    sizes = []
    for steps in (2, 40):
        spec = spec_of("diffusion", width=8, steps=steps)
        path = tmp_path / f"{steps}.onnx"
        export_network(Served(rough(spec), "generation"), signature_of(spec), arrays(spec), path)
        sizes.append(path.stat().st_size)
    assert sizes[1] < sizes[0] + 40 * 7 * 8 + 100  # a longer table of numbers, nothing else


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_draws_the_same(family: str, tmp_path: Path) -> None:
    spec = spec_of(family, width=8)
    network = rough(spec)
    path = tmp_path / "model.ckpt"
    save_checkpoint(path, spec, Encoder((8, 8, 1), [1.0], [1.0]), network.state_dict())
    found = load_checkpoint(path)
    assert found.spec == spec
    assert torch.equal(found.network(*drawing(spec, 3))[0], network(*drawing(spec, 3))[0])


def test_the_sampler_finds_the_only_image_there_is() -> None:
    """With one image the best velocity is known, and every noise must lead to that image."""
    spec = spec_of("diffusion")
    network = Diffusion(spec)
    image = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)

    class Known(torch.nn.Module):
        def forward(self, pixels: torch.Tensor, time: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            del label
            own = torch.cos(time * torch.acos(torch.tensor(0.02)))
            loud = (1 - own * own).sqrt()
            return own * (pixels - own * image) / loud - loud * image

    network.velocity = Known()
    sample = network(*drawing(spec, 3))[0]
    assert torch.allclose(sample, ((image + 1) * 127.5).permute(0, 2, 3, 1).expand(3, -1, -1, -1), atol=0.01)


def test_the_critic_gets_no_gradient_from_the_generator_and_the_reverse(tmp_path: Path) -> None:
    spec = spec_of("gan", width=8)
    plan = prepare(TrainConfig(family="gan"), read_version(digits(tmp_path / "data", 200)), checked(tmp_path)).plan
    learner = build_learner(spec, plan)
    learner.train()
    assert not learner.network.training
    real = torch.randint(0, 256, (6, 8, 8, 1), dtype=torch.uint8)
    batch = Batch(
        inputs=(real,), rows=None, target=torch.arange(6) % 3, weight=torch.ones(6), scale=torch.tensor(1 / 6)
    )
    torch.manual_seed(0)
    learner.losses(batch).sum().backward()
    both = {
        name: parameter.grad.clone() for name, parameter in learner.named_parameters() if parameter.grad is not None
    }
    assert {name.split(".")[0] for name in both} == {"critic", "trained"}
    learner.zero_grad()
    torch.manual_seed(0)
    for item in learner.trained.parameters():
        item.requires_grad_(requires_grad=False)
    losses = learner.losses(batch).sum()
    losses.backward()
    for name, parameter in learner.named_parameters():
        if name.startswith("critic"):
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, both[name], rtol=1e-4, atol=1e-6), name


def digits(folder: Path, limit: int) -> Path:
    folder.mkdir(parents=True)
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels[:limit].reshape(-1, 8, 8, 1) / 16 * 255).round().astype(np.uint8)
    rows = Rows(
        ids=[f"r{row}" for row in range(limit)],
        images=images,
        labels=labels[:limit].astype(np.int64),
        origin=["base"] * limit,
    )
    write_version(
        folder, name="digits", rows=rows, labels=[str(digit) for digit in range(10)], validation=0.15, test=0.25
    )
    return folder


def tiny(family: str, **keys: Any) -> TrainConfig:
    return TrainConfig.model_validate({"family": family, "options": {"width": 8}, "accelerator": "cpu"} | keys)


def checked(root: Path) -> Path:
    folder = root / "labels"
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"id": pa.string(), "weight": pa.float64(), "quarantined": pa.bool_()}
    pq.write_table(pa.table({name: pa.array([], kind) for name, kind in kinds.items()}), folder / "weights.parquet")
    return folder


def trained(config: TrainConfig, dataset: Path, root: Path) -> tuple[TrainReport, Path]:
    out = root / "out"
    out.mkdir(parents=True)
    workspace = Workspace(
        loop="digits", root=root, state="", store=str(root / "store"), mlflow=f"sqlite:///{root}/mlflow.db"
    )
    return run(config, dataset=dataset, labels=checked(root), out=out, workspace=workspace), out


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_short_training_draws_better_than_none(family: str, tmp_path: Path) -> None:
    dataset = digits(tmp_path / "data", 600)
    epochs = 12
    config = tiny(family, epochs=epochs)
    report, out = trained(config, dataset, tmp_path / "loop")
    assert report.epochs == epochs  # never ended early
    losses = [row["validation_loss"] for row in report.history]
    assert min(losses) < 0.7 * losses[0]
    assert all(np.isfinite(row["train_loss"]) for row in report.history)
    found = load_checkpoint(out / "model.ckpt")
    version = read_version(dataset)
    test = found.encoder.examples(version, "test", "generation")
    noise = np.random.default_rng(0).standard_normal((len(test), 8, 8, 1)).astype(np.float32)
    with torch.inference_mode():
        sample = found.network(torch.from_numpy(noise), torch.tensor(test.target))[0].numpy()
    real = test.inputs[0].reshape(len(test), -1).astype(np.float64)
    mean, spread = real.mean(0), np.cov(real, rowvar=False)
    distances = []
    for drawn in (sample, 127.5 + 40 * noise):
        flat = drawn.reshape(len(test), -1).astype(np.float64)
        distances.append(frechet_distance(flat.mean(0), np.cov(flat, rowvar=False), mean, spread))
    assert distances[0] < 0.5 * distances[1]


def fitted(config: TrainConfig, dataset: Path, work: Path) -> dict[str, torch.Tensor]:
    """The best weights, without MLflow."""
    prepared = prepare(config, read_version(dataset), checked(work))
    curve, _, _ = fit(prepared, config, work=work, resume=None, listen=None)
    return curve.best_weights


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_is_the_same_again(family: str, tmp_path: Path) -> None:
    dataset = digits(tmp_path / "data", 200)
    first, second = (fitted(tiny(family, epochs=2), dataset, tmp_path / name) for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loss_that_is_no_number_ends_the_training(family: str, tmp_path: Path) -> None:
    with pytest.raises(TerminalError, match=r"loss is (nan|-?inf)"):
        fitted(tiny(family, epochs=3, learning_rate=1e30), digits(tmp_path / "data", 300), tmp_path / "work")


def test_options_that_no_generator_has_are_refused(tmp_path: Path) -> None:
    dataset = read_version(digits(tmp_path / "data", 200))
    with pytest.raises(ConfigError, match="step"):
        prepare(TrainConfig(family="diffusion", options={"step": 3}), dataset, checked(tmp_path))
    with pytest.raises(ConfigError, match="width"):
        prepare(TrainConfig(family="diffusion", options={"width": 9}), dataset, checked(tmp_path))


def test_defaults_give_about_the_same_number_of_steps() -> None:
    for family, side in itertools.product(FAMILIES, (8, 28)):
        module = family_module(family)
        wanted = module.STEPS_SMALL if (family, side) == ("diffusion", 8) else module.STEPS
        for rows in (100, 5000, 1_000_000):
            found = module.defaults(spec_of(family, (side, side, 1)), rows)
            assert found.patience == found.epochs  # no early stop by accident
            steps = found.epochs * -(-rows // found.batch_size)
            assert rows > 500_000 or 0.5 * wanted <= steps <= 2 * wanted


def test_a_baseline_needs_no_network() -> None:
    pixels, labels = load_digits(return_X_y=True)
    simple = GaussianBaseline(pixels.reshape(-1, 8, 8, 1), labels.astype(np.int64), n_classes=10)
    assert simple.sample(np.array([1, 2]), seed=0).shape == (2, 8, 8, 1)
    assert replace(spec_of("gan"), labels=("x", "y")).n_outputs == 1
