"""Every family, for everything it can learn, is exported, proven and packaged; nothing has to be learned for that."""

import json
from pathlib import Path

import numpy as np
import pytest

import packages
from kfloop.core.families import FAMILIES
from kfloop.core.scoring import PackagedModel
from kfloop.core.signature import OUTPUTS
from kfloop.core.versions import read_version

TASKS = {
    "classification": "multiclass",
    "multilabel": "multilabel",
    "regression": "regression",
    "forecasting": "forecasting",
    "anomaly": "multiclass",
    "generation": "multiclass",
}
KINDS = [
    (name, modality, objective)
    for name, family in FAMILIES.items()
    for modality in family.modalities
    for objective in family.objectives
    if objective != "forecasting" or modality == "series"
]
FEW = {("mlp", "table", "regression"), ("gnn", "graphs", "classification")}


@pytest.mark.parametrize(("modality", "family"), [("table", "mlp"), ("image", "gan")])
def test_a_golden_request_is_one_that_the_server_takes(modality: str, family: str, tmp_path: Path) -> None:
    _, out = packages.make_any(tmp_path, modality, "multiclass", family=family, max_batch_size=4)
    golden = np.load(out / "golden.npz")
    assert {len(golden[name]) for name in golden.files} == {4}
    assert PackagedModel(out).signature.max_batch_size == 4


@pytest.mark.parametrize(
    ("family", "modality", "objective"),
    [pytest.param(*kind, marks=[] if kind in FEW else pytest.mark.slow) for kind in KINDS],
)
def test_every_family_is_packaged_with_parity(family: str, modality: str, objective: str, tmp_path: Path) -> None:
    options = {"normal": "north"} if objective == "anomaly" else {}
    report, out = packages.make_any(tmp_path, modality, TASKS[objective], family=family, **options)
    model = PackagedModel(out)
    assert (model.signature.objective, model.signature.modality, model.signature.family) == (
        objective,
        modality,
        family,
    )
    assert {row.output for row in report.parity} == set(OUTPUTS[objective])
    assert report.max_abs_diff <= report.tolerance
    batched = modality not in {"nodes", "graphs"}
    assert model.signature.max_batch_size == (64 if batched else 0)
    assert len({row.batch_size for row in report.parity}) == (3 if modality == "nodes" else 4)
    golden = np.load(out / "golden.npz")
    answers = model.run([golden[f"input.{port.name}"] for port in model.signature.inputs])
    for name, found in answers.items():
        assert found.dtype == golden[f"output.{name}"].dtype
        np.testing.assert_allclose(found, golden[f"output.{name}"], rtol=1e-3, atol=1e-3 * np.abs(found).max())
    if objective == "generation":
        assert not (out / "reference.npz").exists()
        assert report.n_reference == 0
        return
    reference = np.load(out / "reference.npz")
    columns = model.signature.modality in {"table", "vector"}
    tensors = {f"input.{port.name}" for port in model.signature.inputs} if columns else set()
    assert (
        set(reference.files) - {"time"} == {"ids", "target", *OUTPUTS[objective]} | tensors
    )  # times where rows have them
    test = model.encoder.examples(read_version(tmp_path / "dataset"), "test", objective, **options)
    scores = model.score(test)
    assert len(scores[model.signature.answer]) == len(test)
    last = reference[model.signature.answer][-len(test) :]
    np.testing.assert_allclose(scores[model.signature.answer], last, rtol=1e-4, atol=1e-5)
    assert json.loads((out / "encoder.json").read_text())["modality"] == modality
