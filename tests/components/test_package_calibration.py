"""A temperature in the exported graph: what it does to the answers, and when there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch

import packages
from kfloop.components.package.packaging import PackageReport, run
from kfloop.core.artifacts import read_report, write_report
from kfloop.core.encoding import fit_encoder
from kfloop.core.families import NetworkSpec, build_network
from kfloop.core.families.checkpoints import load_checkpoint, save_checkpoint
from kfloop.core.families.heads import Head
from kfloop.core.scoring import PackagedModel
from kfloop.core.sections import PackageConfig
from kfloop.core.statistics.classification import calibration_error, predictions
from kfloop.core.versions import DatasetVersion, Rows, read_version, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, TerminalError

SHAPE = (8, 8, 1)
LABELS = [str(digit) for digit in range(10)]
COOLER = PackageConfig(calibration="temperature")


def digits(folder: Path, limit: int) -> DatasetVersion:
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True)
    pixels, labels = load_digits(return_X_y=True)
    rows = Rows(
        ids=[f"r{row}" for row in range(limit)],
        images=(pixels[:limit].reshape(-1, *SHAPE) / 16 * 255).round().astype(np.uint8),
        labels=labels[:limit].astype(np.int64),
        origin=["base"] * limit,
    )
    write_version(folder, name="digits", rows=rows, labels=LABELS, validation=0.25, test=0.35)
    return read_version(folder)


def overconfident(folder: Path, version: DatasetVersion) -> Path:
    """A network after a few steps, whose logits are then made too large."""
    folder.mkdir(parents=True)
    encoder = fit_encoder(version)
    spec = NetworkSpec(
        family="cnn",
        objective="classification",
        modality="image",
        inputs=encoder.ports,
        labels=tuple(LABELS),
        facts=encoder.facts,
    )
    torch.manual_seed(0)
    network = build_network(spec)
    train = version.split("train")
    images, labels = torch.from_numpy(train.images.copy()), torch.from_numpy(train.labels)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(6):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(images)[0], labels).backward()
        optimiser.step()
    (head,) = (part for part in network.modules() if isinstance(part, Head))
    with torch.no_grad():
        head.linear.weight *= 100
        head.linear.bias *= 100
    save_checkpoint(folder / "model.ckpt", spec, encoder, network.eval().state_dict())
    (folder / "train_content.txt").write_text("".join(f"{name}\n" for name in sorted(set(train.content.tolist()))))
    write_report(folder, {"dataset_digest": version.digest})
    return folder


def packaged(root: Path, name: str, config: PackageConfig) -> tuple[PackageReport, PackagedModel]:
    out = root / name
    out.mkdir()
    workspace = Workspace(loop="digits", root=root, state="", store="", mlflow="")
    report = run(config, dataset=root / "dataset", checkpoint=root / "checkpoint", out=out, workspace=workspace)
    return report, PackagedModel(out)


def test_the_graph_answers_with_softmax_of_logits_over_the_temperature(tmp_path: Path) -> None:
    version = digits(tmp_path / "dataset", 700)
    overconfident(tmp_path / "checkpoint", version)
    report, model = packaged(tmp_path, "calibrated", COOLER)
    assert report.temperature is not None
    assert report.temperature == read_report(model.folder)["temperature"]
    assert report.temperature["n_fitted"] == len(version.split("validation"))
    heat = report.temperature["value"]
    assert heat > 1.5
    test = version.split("test")
    network = load_checkpoint(tmp_path / "checkpoint" / "model.ckpt").network.eval()
    with torch.inference_mode():
        logits, embedding = network(torch.from_numpy(test.images.copy()))
    before, after = torch.softmax(logits, dim=1).numpy(), model.run([test.images])
    np.testing.assert_allclose(after["probabilities"], torch.softmax(logits / heat, dim=1).numpy(), atol=1e-5)
    np.testing.assert_allclose(after["embedding"], embedding.numpy(), atol=1e-3)
    assert (predictions(before) == predictions(after["probabilities"])).all()
    errors = []
    for answers in (before, after["probabilities"]):
        found = calibration_error(test.labels, answers)
        errors.append(float(found.value(found.features.sum(axis=0, keepdims=True))[0]))
    assert errors[1] < errors[0] - 0.03, errors
    # What travels with the package is said by the same graph.
    golden, reference = np.load(model.folder / "golden.npz"), np.load(model.folder / "reference.npz")
    again = model.run([golden["input.image"]])["probabilities"]
    np.testing.assert_allclose(again, golden["output.probabilities"], atol=1e-5)
    np.testing.assert_allclose(reference["probabilities"][-len(test) :], after["probabilities"], atol=1e-5)
    assert report.max_abs_diff <= report.tolerance


def test_a_model_without_classes_has_no_temperature(tmp_path: Path) -> None:
    made = packages
    checkpoint = made.untrained(tmp_path, "table", "regression", options={"width": 8, "depth": 1})
    out = tmp_path / "out"
    out.mkdir()
    workspace = Workspace(loop="t", root=tmp_path, state="", store="", mlflow="")
    with pytest.raises(ConfigError, match=r"package\.calibration is 'temperature'.*learned regression"):
        run(COOLER, dataset=tmp_path / "dataset", checkpoint=checkpoint, out=out, workspace=workspace)


def test_too_few_validation_rows_are_told(tmp_path: Path) -> None:
    made = packages
    checkpoint = made.untrained(tmp_path, "table", "multiclass", options={"width": 8, "depth": 1})
    out = tmp_path / "out"
    out.mkdir()
    workspace = Workspace(loop="t", root=tmp_path, state="", store="", mlflow="")
    with pytest.raises(TerminalError, match="at least 30 labelled validation rows, there are 10"):
        run(COOLER, dataset=tmp_path / "dataset", checkpoint=checkpoint, out=out, workspace=workspace)
