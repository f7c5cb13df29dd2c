"""mlp and cnn: shapes, ONNX parity, checkpoints (damaged and hostile ones too), and tiny trainings that learn."""

from __future__ import annotations

import csv
import os
import wave
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kfloop.components.ingest.ingestion import run as ingest
from kfloop.components.train.training import TrainReport
from kfloop.components.train.training import run as train
from kfloop.core.encoding.image import Encoder as ImageEncoder
from kfloop.core.encoding.numbers import number_facts
from kfloop.core.encoding.table import Encoder as TableEncoder
from kfloop.core.families import NetworkSpec, build_network, family_module
from kfloop.core.families.checkpoints import Checkpoint, load_checkpoint, read_tensors, save_checkpoint
from kfloop.core.families.heads import Served
from kfloop.core.families.spectrogram import LogMel, masked, mel_filters, moved
from kfloop.core.sections import DataConfig, SplitConfig, TrainConfig
from kfloop.core.signature import Port
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, StateError, TerminalError

if TYPE_CHECKING:
    from pathlib import Path

OBJECTIVES = {"classification": ("a", "b", "c"), "multilabel": ("a", "b"), "regression": ()}
RATE = 8000


def image_spec(shape: tuple[int, ...] = (8, 8, 1), objective: str = "classification", **told: Any) -> NetworkSpec:
    facts = {"mean": [100.0] * shape[2], "std": [50.0] * shape[2], "target_mean": 5.0, "target_std": 2.0}
    defaults: dict[str, Any] = {"family": "cnn", "modality": "image", "labels": OBJECTIVES[objective]}
    inputs = (Port(name="image", dtype="uint8", shape=shape),)
    return NetworkSpec(**(defaults | {"objective": objective, "inputs": inputs, "facts": facts} | told))


def audio_spec(length: int = 4000, objective: str = "classification", rate: int = RATE) -> NetworkSpec:
    inputs = (Port(name="audio", dtype="int16", shape=(length,)),)
    return image_spec(objective=objective, modality="audio", inputs=inputs, facts={"sample_rate": rate})


def table_spec(objective: str = "classification", ports: str = "both", **options: Any) -> NetworkSpec:
    random = np.random.default_rng(0)
    numbers = random.normal(size=(50, 3)).astype(np.float32)
    numbers[::7, 1] = np.nan
    numbers[:, 2] = 4.0
    facts = number_facts(numbers) | {"cardinalities": [4, 7], "target_mean": 5.0, "target_std": 2.0}
    inputs = {"number": Port(name="number", dtype="float32", shape=(3,))}
    inputs |= {"category": Port(name="category", dtype="int64", shape=(2,))}
    kept = tuple(inputs.values()) if ports == "both" else (inputs[ports],)
    return image_spec(
        family="mlp",
        modality="table",
        objective=objective,
        inputs=kept,
        facts=facts,
        options=options,
        labels=OBJECTIVES[objective],
    )


def vector_spec(size: int, objective: str = "classification") -> NetworkSpec:
    facts = number_facts(np.random.default_rng(0).normal(size=(40, size)).astype(np.float32))
    inputs = (Port(name="vector", dtype="float32", shape=(size,)),)
    return image_spec(family="mlp", modality="vector", objective=objective, inputs=inputs, facts=facts)


def examples_of(spec: NetworkSpec, count: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    random = np.random.default_rng(seed)
    arrays = []
    for port in spec.inputs:
        shape = (count, *port.shape)
        if port.dtype == "float32":
            numbers = random.normal(size=shape).astype(np.float32)
            numbers[random.random(shape) < 0.1] = np.nan
            arrays.append(numbers)
        elif port.dtype == "int64":
            arrays.append(random.integers(-2, 9, shape))
        else:
            arrays.append(random.integers(0, 256, shape).astype(port.dtype))
    return tuple(torch.from_numpy(array) for array in arrays)


SPECS = {
    **{f"image {objective}": image_spec(objective=objective) for objective in OBJECTIVES},
    "image 28": image_spec((28, 28, 1)),
    "image colour": image_spec((33, 20, 3)),
    "audio": audio_spec(),
    "audio number": audio_spec(700, "regression"),
    **{f"table {objective}": table_spec(objective) for objective in OBJECTIVES},
    "table numbers": table_spec(ports="number"),
    "table categories": table_spec(ports="category"),
    "table plain": table_spec(intervals=False, depth=0),
    "vector": vector_spec(7),
    "long vector": vector_spec(200, "regression"),
}

EXPORTED_ALWAYS = {"image classification", "audio number", "table multilabel"}


def settled(spec: NetworkSpec) -> torch.nn.Module:
    """A network with statistics of a few batches, as a trained one has."""
    torch.manual_seed(0)
    network = build_network(spec).train()
    for seed in range(3):
        network(*examples_of(spec, 16, seed))
    return network.eval()


@pytest.mark.parametrize(
    "name", [name if name in EXPORTED_ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in SPECS]
)
def test_served_networks_answer_alike_in_onnxruntime(name: str, tmp_path: Path) -> None:
    import onnxruntime

    spec = SPECS[name]
    served = Served(settled(spec), spec.objective).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.onnx.export(
        served,
        examples_of(spec, 3),
        dynamo=True,
        input_names=[port.name for port in spec.inputs],
        dynamic_shapes=(tuple({0: batch} for _ in spec.inputs),),
        opset_version=18,
        verbose=False,
    )
    assert program is not None
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    assert names == [port.name for port in spec.inputs]
    for count in (1, 2, 7, 32):
        inputs = examples_of(spec, count, seed=count)
        with torch.no_grad():
            expected = served(*inputs)
        found = session.run(None, {key: value.numpy() for key, value in zip(names, inputs, strict=True)})
        assert expected[0].shape == ((count,) if spec.objective == "regression" else (count, len(spec.labels)))
        assert expected[1].shape == (count, spec.embedding_size)
        for ours, theirs in zip(expected, found, strict=True):
            assert torch.isfinite(ours).all()
            np.testing.assert_allclose(theirs, ours.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (64, 64, 3), (7, 13, 3), (1, 1, 1), (33, 5, 1), (200, 9, 3)])
def test_the_cnn_adapts_to_the_images(shape: tuple[int, int, int]) -> None:
    network = build_network(image_spec(shape)).eval()
    logits, embedding = network(torch.zeros((2, *shape), dtype=torch.uint8))
    assert logits.shape == (2, 3)
    assert embedding.shape == (2, 64)
    assert torch.isfinite(logits).all()


def test_the_small_cnn_has_less_than_100_000_parameters() -> None:
    assert sum(parameter.numel() for parameter in build_network(image_spec()).parameters()) < 100_000


@pytest.mark.parametrize(("length", "rate"), [(1, 8000), (150, 8000), (4000, 8000), (160_000, 16_000), (1000, 44_100)])
def test_the_cnn_adapts_to_the_sounds(length: int, rate: int) -> None:
    network = build_network(audio_spec(length, rate=rate)).eval()
    silence = torch.zeros((2, length), dtype=torch.int16)
    logits, _ = network(silence)
    assert logits.shape == (2, 3)
    assert torch.isfinite(logits).all()


def test_a_spectrogram_shows_a_tone_in_its_band_and_forgets_loudness() -> None:
    front = LogMel(RATE, RATE, 40, masking=True).eval()
    time = torch.arange(RATE) / RATE
    tone = (8000 * torch.sin(2 * torch.pi * 1000 * time)).to(torch.int16)
    loud, soft = front(tone[None]), front((tone // 4)[None])
    assert loud.shape == (1, 1, 40, front.frames)
    band = int(mel_filters(256, RATE, 40)[:, 32].argmax())  # 1000 Hz is the 32nd of 256 frequencies
    assert int(loud[0, 0].mean(dim=1).argmax()) == band
    assert torch.allclose(loud, soft, atol=0.5)
    assert mel_filters(256, RATE, 40).max(axis=1).min() > 0  # no band is empty


def test_masks_and_moves_change_some_of_a_picture() -> None:
    torch.manual_seed(0)
    picture = torch.randn(4, 40, 60)
    hidden = masked(picture)
    assert (hidden == picture).float().mean() > 0.3
    assert (hidden != picture).any(dim=2).any(dim=1).all()
    assert moved(picture).shape == picture.shape


def test_a_category_that_cannot_be_counts_as_unknown() -> None:
    network = settled(table_spec(ports="category"))
    found = network(torch.tensor([[99, 3], [-5, 3], [1, 3]]))[0]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[2])


def test_defaults_follow_the_size_of_the_data() -> None:
    for name, spec in (("mlp", table_spec()), ("cnn", image_spec((28, 28, 1))), ("cnn", audio_spec())):
        few, many = (family_module(name).defaults(spec, n) for n in (100, 100_000))
        assert few.epochs > many.epochs
        assert few.batch_size < many.batch_size


LEARNERS = {
    "image": image_spec((20, 20, 1), options={"width": 8}),
    "number": table_spec("regression", width=32, depth=1),
    "vector": vector_spec(7),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_networks_learn_their_batch(name: str) -> None:
    """Gradients reach the weights: the loss on one batch falls to nearly nothing."""
    spec = LEARNERS[name]
    torch.manual_seed(0)
    network = build_network(spec).train()
    inputs = examples_of(spec, 24)
    target = torch.arange(24) % 3
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        answer = network(*inputs)[0]
        goal = (target.float() - 1) * 2 + 5
        loss = (
            (answer - goal).square().mean() if spec.labels == () else torch.nn.functional.cross_entropy(answer, target)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.4 * losses[0]


# --- checkpoints


def image_encoder() -> ImageEncoder:
    return ImageEncoder((8, 8, 1), [100.0], [50.0])


def saved(path: Path, spec: NetworkSpec | None = None) -> torch.nn.Module:
    spec = spec or image_spec()
    network = build_network(spec).eval()
    save_checkpoint(path, spec, image_encoder(), network.state_dict())
    return network


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    network = saved(tmp_path / "model.ckpt")
    loaded = load_checkpoint(tmp_path / "model.ckpt")
    image = torch.randint(0, 256, (3, 8, 8, 1), dtype=torch.uint8)
    assert loaded.spec == image_spec()
    assert loaded.encoder.plain() == image_encoder().plain()
    assert torch.equal(loaded.network(image)[0], network(image)[0])


@pytest.mark.parametrize("name", ["audio", "table classification", "vector"])
def test_every_spec_survives_a_checkpoint(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    network = settled(spec)
    save_checkpoint(tmp_path / "model.ckpt", spec, image_encoder(), network.state_dict())
    loaded = load_checkpoint(tmp_path / "model.ckpt")
    inputs = examples_of(spec, 5)
    assert loaded.spec == spec
    assert torch.equal(loaded.network(*inputs)[0], network(*inputs)[0])


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    saved(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF  # inside a weight: torch alone would load it
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(StateError, match=r"model\.ckpt"):
            load_checkpoint(path)
    with pytest.raises(StateError, match=r"absent\.ckpt"):
        load_checkpoint(tmp_path / "absent.ckpt")


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("hostile-code-ran",)


def test_code_in_a_checkpoint_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 2, "spec": Hostile()}, tmp_path / "model.ckpt")
    with pytest.raises(StateError):
        read_tensors(tmp_path / "model.ckpt")
    assert not (tmp_path / "hostile-code-ran").exists()


def test_foreign_files_and_other_networks_are_refused(tmp_path: Path) -> None:
    torch.save({"something": torch.zeros(2)}, tmp_path / "foreign.ckpt")
    with pytest.raises(StateError, match="not a kfloop checkpoint"):
        load_checkpoint(tmp_path / "foreign.ckpt")
    weights = build_network(image_spec()).state_dict()
    save_checkpoint(tmp_path / "mixed.ckpt", image_spec((8, 8, 3)), image_encoder(), weights)
    with pytest.raises(StateError, match="do not fit"):
        load_checkpoint(tmp_path / "mixed.ckpt")


def test_impossible_specs_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown model family 'cmm'") as caught:
        build_network(image_spec(family="cmm"))
    assert "cnn" in caught.value.hint
    with pytest.raises(TerminalError, match="at least 2"):
        image_spec(labels=("a",))
    with pytest.raises(TerminalError, match="no numbers"):
        image_spec((0, 8, 1))


# --- tiny trainings, from a file to a checkpoint


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def trained(root: Path, tracking: str, source: DataConfig, config: TrainConfig) -> tuple[TrainReport, Checkpoint]:
    """Ingest, then train, without any doubt about labels."""
    for name in ("dataset", "labels", "out"):
        (root / name).mkdir()
    workspace = Workspace(loop="t", root=root, state="", store=str(root / "store"), mlflow=tracking)
    ingest(source, out=root / "dataset", workspace=workspace)
    kinds = {"id": pa.string(), "weight": pa.float64(), "quarantined": pa.bool_()}
    empty = pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
    pq.write_table(empty, root / "labels" / "weights.parquet")
    report = train(config, dataset=root / "dataset", labels=root / "labels", out=root / "out", workspace=workspace)
    return report, load_checkpoint(root / "out" / "model.ckpt")


def people(path: Path, count: int, random: np.random.Generator) -> DataConfig:
    """Who is paid more: a jump in one number, a category, gaps; nothing linear alone would find."""
    cities, when = ["ulm", "bonn", "kiel"], ["2024-01-01 08:00:00", "2024-05-01 20:30:00"]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["age", "city", "member", "seen", "income"])
        for row in range(count):
            age, city = float(random.uniform(18, 80)), cities[int(random.integers(3))]
            rich = (30 < age < 55) != (city == "ulm")
            told = "" if row % 17 == 0 else f"{age:.1f}"
            writer.writerow([told, city, bool(row % 2), when[row % 2], "high" if rich else "low"])
    return DataConfig(source=str(path), label="income", modality="table")


def test_an_mlp_learns_a_table(tmp_path: Path, tracking: str) -> None:
    source = people(tmp_path / "people.csv", 700, np.random.default_rng(0))
    config = TrainConfig(accelerator="cpu", epochs=10, options={"width": 48, "depth": 1})
    report, checkpoint = trained(tmp_path, tracking, source, config)
    assert report.family == "mlp"
    assert {port.name for port in checkpoint.spec.inputs} == {"number", "category"}
    assert isinstance(checkpoint.encoder, TableEncoder)
    assert max(row["validation_accuracy"] for row in report.history) > 0.85


@pytest.mark.slow
def test_an_mlp_learns_a_number_from_vectors(tmp_path: Path, tracking: str) -> None:
    from sklearn.datasets import load_diabetes

    features, target = load_diabetes(return_X_y=True)
    np.savez(tmp_path / "diabetes.npz", X=features.astype(np.float32), y=target)
    source = DataConfig(source=str(tmp_path / "diabetes.npz"), task="regression")
    config = TrainConfig(accelerator="cpu", epochs=10, options={"width": 48, "depth": 1})
    report, _ = trained(tmp_path, tracking, source, config)
    assert min(row["validation_rmse"] for row in report.history) < 0.85 * float(target.std())


@pytest.mark.slow
def test_a_cnn_learns_sounds(tmp_path: Path, tracking: str) -> None:
    random = np.random.default_rng(0)
    time = np.arange(1600) / RATE
    for number in range(90):
        name, pitch = (("low", 300), ("middle", 600), ("high", 1200))[number % 3]
        tone = np.sin(2 * np.pi * pitch * random.uniform(0.9, 1.1) * time[: int(random.integers(800, 1600))])
        noisy = random.uniform(2000, 12_000) * tone + random.normal(0, 60, len(tone))
        (tmp_path / "sounds" / name).mkdir(parents=True, exist_ok=True)
        with wave.open(str(tmp_path / "sounds" / name / f"{number}.wav"), "wb") as stream:
            stream.setnchannels(1)
            stream.setsampwidth(2)
            stream.setframerate(RATE)
            stream.writeframes(noisy.astype("<i2").tobytes())
    source = DataConfig(source=str(tmp_path / "sounds"), split=SplitConfig(method="stratified"))
    config = TrainConfig(accelerator="cpu", epochs=8, batch_size=16, options={"width": 8})
    report, checkpoint = trained(tmp_path, tracking, source, config)
    assert checkpoint.spec.modality == "audio"
    assert max(row["validation_accuracy"] for row in report.history) > 0.8


def test_a_cnn_learns_digits(tmp_path: Path, tracking: str) -> None:
    report, _ = trained(tmp_path, tracking, DataConfig(limit=600), TrainConfig(accelerator="cpu", epochs=3))
    assert max(row["validation_accuracy"] for row in report.history) > 0.85


def test_unknown_options_are_refused_by_name(tmp_path: Path, tracking: str) -> None:
    with pytest.raises(ConfigError, match="no option 'widht'") as caught:
        trained(tmp_path, tracking, DataConfig(limit=300), TrainConfig(accelerator="cpu", options={"widht": 3}))
    assert "width" in caught.value.hint
