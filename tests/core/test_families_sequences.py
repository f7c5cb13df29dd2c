"""``rnn`` and ``transformer``: they learn from texts, series and images, export as they are, and stand what they are not made for."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kfloop.components.ingest.ingestion import run as ingest
from kfloop.components.package.exporting import export_network
from kfloop.components.train.training import run as train
from kfloop.core.families import NetworkSpec, build_network
from kfloop.core.families.checkpoints import load_checkpoint, save_checkpoint
from kfloop.core.families.heads import Served
from kfloop.core.families.sequences import Level, Segments, pool
from kfloop.core.families.transformer import Options
from kfloop.core.sections import DataConfig, SeriesConfig, SplitConfig, TrainConfig
from kfloop.core.signature import OUTPUTS, Port, Signature
from kfloop.core.versions import read_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.families.checkpoints import Checkpoint

TEXT = {
    "modality": "text",
    "inputs": (Port(name="tokens", dtype="int64", shape=(9,)), Port(name="pieces", dtype="int64", shape=(9, 6))),
    "facts": {"words": 50, "pieces": 101},
    "labels": ("a", "b", "c"),
    "objective": "classification",
}
SERIES = {
    "modality": "series",
    "inputs": (Port(name="window", dtype="float32", shape=(30, 3)),),
    "facts": {"mean": [1.0, 2.0, 3.0], "std": [1.0, 2.0, 0.5]},
}
FORECAST = SERIES | {"objective": "forecasting", "target_shape": (7, 3)}
NUMBER = SERIES | {"objective": "regression"}
IMAGE = {
    "modality": "image",
    "inputs": (Port(name="image", dtype="uint8", shape=(9, 11, 1)),),
    "facts": {"mean": [100.0], "std": [50.0]},
    "labels": ("a", "b"),
    "objective": "multilabel",
}
KINDS = {
    "rnn-text": ("rnn", TEXT, {"cell": "lstm", "depth": 2}),
    "rnn-text-gru": ("rnn", TEXT, {"cell": "gru"}),
    "rnn-forecast": ("rnn", FORECAST, {"cell": "gru"}),
    "rnn-forecast-lstm": ("rnn", FORECAST, {"cell": "lstm", "level": "mean"}),
    "rnn-number": ("rnn", NUMBER, {}),
    "transformer-text": ("transformer", TEXT, {}),
    "transformer-image": ("transformer", IMAGE, {}),
    "transformer-forecast": ("transformer", FORECAST, {"level": "none"}),
    "transformer-number": ("transformer", NUMBER, {}),
}
SHORT = ("rnn-text", "rnn-forecast", "transformer-text", "transformer-image")
SPECS = {name: NetworkSpec(family=family, options=options, **told) for name, (family, told, options) in KINDS.items()}


def network_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(SPECS[name]).eval()


def batch_of(spec: NetworkSpec, n: int) -> list[NDArray[Any]]:
    """Inputs with everything odd that may come: empty texts, ids out of range, missing, infinite and absurd values."""
    rng = np.random.default_rng(n)
    found: list[NDArray[Any]] = []
    for port in spec.inputs:
        shape = (n, *port.shape)
        if port.dtype == "uint8":
            found.append(rng.integers(0, 256, shape).astype(np.uint8))
        elif port.dtype == "int64":
            ids = rng.integers(0, 150, shape)
            if port.name == "tokens":
                ids[np.arange(9) >= rng.integers(0, 10, (n, 1))] = 0
                ids[0] = 0
            found.append(ids)
        else:
            window = rng.normal(size=shape).astype(np.float32)
            window[0, :, 0], window[-1, 3], window[-1, 4, 1], window[-1, 5, 2] = np.nan, np.nan, np.inf, 1e38
            window[-1, -1, 0] = np.nan
            found.append(window)
    return found


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def test_an_export_answers_like_the_network_at_any_batch_size(name: str, tmp_path: Path) -> None:
    import onnxruntime

    spec = SPECS[name]
    served = Served(network_of(name), spec.objective)
    with torch.no_grad():
        outputs = served(*map(torch.from_numpy, batch_of(spec, 2)))
    named = zip(OUTPUTS[spec.objective], outputs, strict=True)
    signature = Signature(
        objective=spec.objective,
        modality=spec.modality,
        family=spec.family,
        inputs=spec.inputs,
        outputs=tuple(Port(name=key, dtype="float32", shape=tuple(value.shape[1:])) for key, value in named),
        labels=spec.labels,
        max_batch_size=64,
    )
    export_network(served, signature, batch_of(spec, 2), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for n in (1, 2, 7, 32):
        inputs = batch_of(spec, n)
        got = session.run(None, {port.name: array for port, array in zip(spec.inputs, inputs, strict=True)})
        with torch.no_grad():
            wanted = served(*map(torch.from_numpy, inputs))
        for one, other in zip(got, wanted, strict=True):
            assert np.isfinite(one).all()
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_odd_inputs_have_finite_answers_and_gradients_of_the_right_shape(name: str) -> None:
    spec, network = SPECS[name], network_of(name).train()
    answer, embedding = network(*map(torch.from_numpy, batch_of(spec, 5)))
    axes = {"forecasting": (5, 7, 3), "regression": (5,)}.get(spec.objective, (5, len(spec.labels)))
    assert answer.shape == axes
    assert embedding.shape == (5, spec.embedding_size)
    assert torch.isfinite(answer).all()
    assert torch.isfinite(embedding).all()
    (answer / answer.detach().abs().max().clamp(min=1)).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{key} is not used"
        assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", ["rnn-text", "rnn-text-gru", "transformer-text"])
def test_padding_beyond_the_text_changes_nothing(name: str) -> None:
    network = network_of(name)
    tokens, pieces = torch.randint(1, 50, (4, 5)), torch.randint(0, 101, (4, 5, 6))
    longer = torch.nn.functional.pad(tokens, (0, 4)), torch.nn.functional.pad(pieces, (0, 0, 0, 4))
    garbage = longer[0], torch.where(longer[0][:, :, None] > 0, longer[1], 77)
    with torch.no_grad():
        wanted = network(tokens, pieces)[0]
        for inputs in (longer, garbage):
            torch.testing.assert_close(network(*inputs)[0], wanted)


@pytest.mark.parametrize("name", KINDS)
def test_an_answer_does_not_hang_on_its_neighbours(name: str) -> None:
    network, inputs = network_of(name), list(map(torch.from_numpy, batch_of(SPECS[name], 6)))
    with torch.no_grad():
        together = network(*inputs)[0]
        alone = torch.cat([network(*(tensor[row : row + 1] for tensor in inputs))[0] for row in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["rnn-text", "transformer-image", "transformer-forecast"])
def test_a_checkpoint_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    from kfloop.core.encoding.image import Encoder

    network, inputs = network_of(name), list(map(torch.from_numpy, batch_of(SPECS[name], 3)))
    save_checkpoint(tmp_path / "model.ckpt", SPECS[name], Encoder((9, 11, 1), [0.0], [1.0]), network.state_dict())
    found = load_checkpoint(tmp_path / "model.ckpt")
    assert found.spec == SPECS[name]
    with torch.no_grad():
        assert torch.equal(found.network(*inputs)[0], network(*inputs)[0])


@pytest.mark.parametrize("mode", ["mean", "last"])
def test_a_shift_of_the_series_shifts_the_forecast(mode: str) -> None:
    spec = NetworkSpec(family="rnn", options={"level": mode}, **FORECAST)
    network = build_network(spec).eval()
    window = torch.randn(2, 30, 3)
    with torch.no_grad():
        torch.testing.assert_close(network(window + 8)[0], network(window)[0] + 8, rtol=1e-3, atol=1e-3)


def test_levels_are_those_of_the_known_values() -> None:
    spec = SPECS["rnn-forecast"]
    window = torch.full((1, 30, 3), torch.nan)
    window[0, 10, 1], window[0, 20, 1] = 4.0, 6.0
    values, level, spread = Level(spec, "last")(window)
    assert level.flatten().tolist() == [0.0, 2.0, 0.0]  # (6 - 2) / 2; the training mean where nothing is known
    back = Level(spec, "last").back(values, level, spread)
    assert (back[0, 10, 1], back[0, 20, 1], back[0, 0, 1]) == (4.0, 6.0, 5.0)
    assert Level(spec, "mean")(window)[1].flatten().tolist() == [0.0, 1.5, 0.0]


@pytest.mark.parametrize(
    ("steps", "size", "stride"), [(10, 3, 3), (10, 4, 2), (5, 5, 5), (1, 1, 1), (7, 4, 4), (9, 1, 1)]
)
def test_segments_end_with_the_last_step_and_hold_every_step(steps: int, size: int, stride: int) -> None:
    found = Segments(steps, size, stride)(torch.arange(1.0, steps + 1)[None, :, None])[0, :, :, 0]
    assert found[-1, -1] == steps
    assert set(found.flatten().tolist()) == set(range(1, steps + 1))


def test_a_pool_without_places_is_zero() -> None:
    states = torch.randn(2, 3, 4)
    present = torch.tensor([[False] * 3, [True, False, True]])
    found = pool(states, present)
    assert not found[0].any()
    torch.testing.assert_close(found[1], torch.cat([states[1, [0, 2]].amax(0), states[1, [0, 2]].mean(0)]))


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="width 30 is not a multiple of heads 4"):
        Options(width=30)


@pytest.mark.parametrize("shape", [(1, 1, 1), (28, 28, 1), (64, 48, 3), (5, 33, 1)])
def test_images_of_any_shape_are_cut_into_patches(shape: tuple[int, int, int]) -> None:
    facts = {"mean": [0.0] * shape[2], "std": [1.0] * shape[2]}
    port = Port(name="image", dtype="uint8", shape=shape)
    spec = NetworkSpec(family="transformer", **(IMAGE | {"inputs": (port,), "facts": facts}))
    answer, _ = build_network(spec).eval()(torch.zeros((2, *shape), dtype=torch.uint8))
    assert answer.shape == (2, 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sequences")


def trained(root: Path, name: str, data: DataConfig, **told: Any) -> tuple[Checkpoint, NDArray[Any], NDArray[Any]]:
    """Train through kfloop's own steps; the checkpoint, its answers for the test rows, and the truth."""
    folder = root / f"{name}-{told['family']}"
    folder.mkdir()
    tracking = f"sqlite:///{root}/mlflow.db"
    workspace = Workspace(loop=name, root=folder, state="", store=str(folder / "store"), mlflow=tracking)
    dataset, labels, out = (folder / part for part in ("dataset", "labels", "out"))
    for place in (dataset, labels, out):
        place.mkdir()
    ingest(data, out=dataset, workspace=workspace)
    kinds = {"id": pa.string(), "weight": pa.float64(), "quarantined": pa.bool_()}
    pq.write_table(pa.table({key: pa.array([], kind) for key, kind in kinds.items()}), labels / "weights.parquet")
    train(TrainConfig(accelerator="cpu", **told), dataset=dataset, labels=labels, out=out, workspace=workspace)
    checkpoint = load_checkpoint(out / "model.ckpt")
    test = checkpoint.encoder.examples(read_version(dataset), "test", checkpoint.spec.objective)
    with torch.no_grad():
        answers = checkpoint.network(*map(torch.from_numpy, test.batch_inputs(np.arange(len(test)))))[0].numpy()
    return checkpoint, answers, test.target


def reviews(folder: Path) -> DataConfig:
    """The opinion is one word of eight; which word tells it, and not how often."""
    rng = np.random.default_rng(0)
    words = (("awful", "boring", "poor"), ("great", "lovely", "superb"))
    with (folder / "reviews.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for number in range(240):
            other = " ".join(rng.choice(["film", "plot", "cast", "scene", "end"], 3))
            writer.writerow(
                [f"The {other} was {rng.choice(words[number % 2])}, {number}!", ("bad", "good")[number % 2]]
            )
    return DataConfig(source=str(folder / "reviews.csv"), text="text", label="label")


def waves(folder: Path, label: str | None = None) -> DataConfig:
    """Two waves of 12 steps with noise; the label is which half of its wave the first is in."""
    rng = np.random.default_rng(0)
    with (folder / f"waves-{label}.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["time", "up", "down", *([label] if label else [])])
        for step in range(400):
            wave = np.sin(step / 12 * 2 * np.pi)
            values = [f"{50 + 5 * wave + rng.normal() / 4:.3f}", f"{-3 * wave:.3f}"]
            writer.writerow([step, *values, *([("low", "high")[step % 12 < 6]] if label else [])])
    return DataConfig(
        source=str(folder / f"waves-{label}.csv"),
        modality="series",
        label=label,
        series=SeriesConfig(context=24, horizon=6),
    )


@pytest.mark.parametrize("family", ["rnn", "transformer"])
def test_opinions_are_learned_from_words(family: str, root: Path) -> None:
    checkpoint, answers, truth = trained(root, "reviews", reviews(root), family=family, epochs=8, patience=8)
    assert (answers.argmax(1) == truth).mean() >= 0.95
    assert checkpoint.spec.inputs == checkpoint.encoder.ports


@pytest.mark.parametrize("family", ["rnn", "transformer"])
def test_waves_are_forecast(family: str, root: Path) -> None:
    checkpoint, answers, truth = trained(root, "waves", waves(root), family=family, epochs=6, batch_size=16)
    std = np.array(checkpoint.spec.facts["std"])
    assert np.square((answers - truth) / std).mean() < 0.1, "repeating the last value has above 0.8"
    assert len(truth) == 100 - 6 + 1, "the first test windows look back into validation rows"


@pytest.mark.parametrize("family", ["rnn", "transformer"])
def test_the_label_of_a_step_is_learned(family: str, root: Path) -> None:
    data = waves(root, "half")
    _, answers, truth = trained(root, "halves", data, family=family, epochs=6, patience=6)
    assert (answers.argmax(1) == truth).mean() >= 0.9
    assert len(truth) == 100


def test_digits_are_learned_from_patches(root: Path) -> None:
    data = DataConfig(limit=500, split=SplitConfig(validation=0.1, test=0.2))
    _, answers, truth = trained(root, "digits", data, family="transformer", epochs=30, patience=30)
    assert (answers.argmax(1) == truth).mean() >= 0.65


def test_an_unknown_option_is_named(root: Path) -> None:
    with pytest.raises(ConfigError, match="family 'rnn' has no option 'heads'"):
        trained(root, "option", reviews(root), family="rnn", options={"heads": 2})
