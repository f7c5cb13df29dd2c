"""Autoencoders: what they never saw scores higher, odd rows teach nothing, and the exported graph scores alike."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.metrics import roc_auc_score

from kfloop.components.package.exporting import export_network
from kfloop.core.families import NetworkSpec, build_network, family_module
from kfloop.core.families.heads import Served
from kfloop.core.learning.plan import Batch, Plan
from kfloop.core.learning.reconstruction import Reconstruction, _auroc
from kfloop.core.signature import Port, Signature


def spec_of(modality: str, inputs: tuple[Port, ...], facts: dict[str, Any], **options: Any) -> NetworkSpec:
    checked = family_module("autoencoder").Options.model_validate(options).model_dump(mode="json")
    return NetworkSpec(
        family="autoencoder", objective="anomaly", modality=modality, inputs=inputs, facts=facts, options=checked
    )


def mixed(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers on a curve, one of them missing now and then, and a category that follows them."""
    random = np.random.default_rng(seed)
    place = random.uniform(-2, 2, rows)
    numbers = np.stack([place, place**2, np.sin(2 * place), -place], axis=1) + 0.05 * random.normal(size=(rows, 4))
    numbers[random.random((rows, 4)) < 0.05] = np.nan
    return numbers.astype(np.float32), (2 + (place > 0)).astype(np.int64)[:, None]


def table_spec(**options: Any) -> NetworkSpec:
    numbers, _ = mixed(500)
    ports = (Port(name="number", dtype="float32", shape=(4,)), Port(name="category", dtype="int64", shape=(1,)))
    facts = {
        "mean": np.nanmean(numbers, axis=0).tolist(),
        "std": np.nanstd(numbers, axis=0).tolist(),
        "cardinalities": [4],
    }
    return spec_of("table", ports, facts, **options)


def learner_of(spec: NetworkSpec) -> Reconstruction:
    plan = Plan(epochs=1, batch_size=1, learning_rate=1e-2, weight_decay=0.0, patience=1, seed=0, total_steps=1)
    torch.manual_seed(0)
    return Reconstruction(build_network(spec), spec, plan)


def trained(spec: NetworkSpec, inputs: tuple[np.ndarray, ...], target: np.ndarray, steps: int) -> Reconstruction:
    learner = learner_of(spec).train()
    batch = Batch(
        inputs=tuple(torch.from_numpy(array) for array in inputs),
        rows=None,
        target=torch.from_numpy(target),
        weight=torch.ones(len(target)),
        scale=torch.tensor(1 / len(target)),
    )
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        (learner.losses(batch) * batch.weight).sum().mul(batch.scale).backward()
        optimizer.step()
    return learner.eval()


def scores(learner: Reconstruction, *inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(learner.network(*(torch.from_numpy(array) for array in inputs))[0].numpy())


def test_rows_off_the_curve_score_higher() -> None:
    numbers, codes = mixed(500)
    learner = trained(table_spec(), (numbers, codes), np.zeros(500, np.int64), 250)
    normal, kinds = mixed(200, seed=1)
    odd = np.random.default_rng(2).uniform(-2, 2, (200, 4)).astype(np.float32)
    found = np.concatenate([scores(learner, normal, kinds), scores(learner, odd, kinds)])
    assert roc_auc_score(np.repeat([0, 1], 200), found) > 0.95
    # Far outside of all that was seen, and a category that does not go with the numbers.
    assert (scores(learner, 30 * normal, kinds) > scores(learner, normal, kinds))[
        ~np.isnan(normal).any(1)
    ].mean() > 0.95
    assert scores(learner, normal, 5 - kinds).mean() > scores(learner, normal, kinds).mean() + 0.2
    unknown = scores(learner, normal, np.full_like(kinds, 77))  # a code that cannot be: counted as an unknown one
    assert np.array_equal(unknown, scores(learner, normal, np.ones_like(kinds)))
    assert unknown.mean() > scores(learner, normal, kinds).mean()


def test_a_row_with_nothing_known_has_a_score() -> None:
    learner = trained(table_spec(), mixed(100), np.zeros(100, np.int64), 5)
    found = scores(learner, np.full((2, 4), np.nan, np.float32), np.zeros((2, 1), np.int64))
    assert np.isfinite(found).all()


def test_what_is_missing_does_not_count() -> None:
    """A row without the column that was never in use has the score of one that has it as it should be."""
    numbers, codes = mixed(500)
    learner = trained(table_spec(), (numbers, codes), np.zeros(500, np.int64), 250)
    normal, kinds = mixed(200, seed=1)
    whole = scores(learner, normal, kinds)
    normal[:, 3] = np.nan
    fewer = scores(learner, normal, kinds)
    # What is known scores far below 0: taken as 0, a missing column would lift the row by more than half.
    assert abs(np.median(fewer) - np.median(whole)) < 0.3


def test_odd_rows_teach_nothing() -> None:
    numbers, codes = mixed(60)
    alone = trained(table_spec(noise=0.0), (numbers, codes), np.zeros(60, np.int64), 20)
    more = (np.concatenate([numbers, 9 * numbers]), np.concatenate([codes, codes]))
    learner = learner_of(table_spec(noise=0.0)).train()
    batch = Batch(
        inputs=tuple(torch.from_numpy(array) for array in more),
        rows=None,
        target=torch.tensor([0] * 60 + [1] * 60),
        weight=torch.ones(120),
        scale=torch.tensor(1 / 60),
    )
    assert (learner.losses(batch)[60:] == 0).all()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        (learner.losses(batch) * batch.weight).sum().mul(batch.scale).backward()
        optimizer.step()
    np.testing.assert_allclose(
        scores(learner.eval(), numbers, codes), scores(alone, numbers, codes), rtol=1e-3, atol=1e-4
    )


def test_the_chance_that_an_odd_row_scores_higher() -> None:
    random = np.random.default_rng(0)
    target, found = random.integers(0, 2, 300), random.integers(0, 20, 300) + 0.0
    found += target
    expected = roc_auc_score(target, found)
    tensor = torch.tensor(found)
    assert _auroc(tensor[target == 1], tensor[target == 0]) == pytest.approx(expected)


def test_images_of_another_digit_score_higher() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) / 16 * 255).astype(np.uint8)
    ports = (Port(name="image", dtype="uint8", shape=(8, 8, 1)),)
    spec = spec_of("image", ports, {"mean": [float(images.mean())], "std": [float(images.std())]}, bottleneck=8)
    ones, others = images[labels == 1], images[labels != 1]
    learner = trained(spec, (ones[:120],), np.zeros(120, np.int64), 150)
    found = np.concatenate([scores(learner, ones[120:]), scores(learner, others[:200])])
    assert roc_auc_score(np.repeat([0, 1], [len(ones) - 120, 200]), found) > 0.9


def exported(learner: Reconstruction, example: tuple[np.ndarray, ...], path: Path, width: int) -> Any:
    spec = learner.spec
    signature = Signature(
        objective="anomaly",
        modality=spec.modality,
        family="autoencoder",
        inputs=spec.inputs,
        outputs=(
            Port(name="score", dtype="float32", shape=()),
            Port(name="embedding", dtype="float32", shape=(width,)),
        ),
        labels=(),
        max_batch_size=32,
    )
    export_network(Served(learner.network, "anomaly").eval(), signature, example, path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("shape", [(8, 8, 1), (13, 27, 3)])
def test_images_export(shape: tuple[int, int, int], tmp_path: Path) -> None:
    channels = shape[2]
    spec = spec_of(
        "image",
        (Port(name="image", dtype="uint8", shape=shape),),
        {"mean": [120.0] * channels, "std": [60.0] * channels},
    )
    images = np.random.default_rng(0).integers(0, 256, (32, *shape), dtype=np.uint8)
    learner = learner_of(spec).eval()
    session = exported(learner, (images[:3],), tmp_path / "model.onnx", 32)
    for count in (1, 2, 7, 32):
        observed = session.run(None, {"image": images[:count]})
        np.testing.assert_allclose(observed[0], scores(learner, images[:count]), atol=1e-4)
        assert observed[1].shape == (count, 32)


@pytest.mark.parametrize("names", [("number", "category"), ("category",), ("vector",)])
def test_rows_export(names: tuple[str, ...], tmp_path: Path) -> None:
    numbers, codes = mixed(32)
    arrays = {"number": numbers, "vector": numbers, "category": np.concatenate([codes, codes % 3], axis=1)}
    ports = tuple(Port(name=name, dtype=str(arrays[name].dtype), shape=arrays[name].shape[1:]) for name in names)
    facts = {"mean": [0.0] * 4, "std": [1.0] * 4, "cardinalities": [4, 3]}
    learner = learner_of(spec_of("vector" if names == ("vector",) else "table", ports, facts)).eval()
    inputs = tuple(arrays[name] for name in names)
    session = exported(
        learner,
        tuple(array[:3] for array in inputs),
        tmp_path / "model.onnx",
        2 if names != ("number", "category") else 3,
    )
    for count in (1, 2, 7, 32):
        few = {name: array[:count] for name, array in zip(names, inputs, strict=True)}
        np.testing.assert_allclose(session.run(None, few)[0], scores(learner, *few.values()), atol=1e-4)
