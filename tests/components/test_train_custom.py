"""The user's own LightningModule: trained, kept, exported; and what is said when something is wrong with it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kfloop.components.package.exporting import export_network
from kfloop.components.train.fitting import fit
from kfloop.components.train.preparing import prepare
from kfloop.components.train.search import search
from kfloop.components.train.search_space import dimensions
from kfloop.core.families.checkpoints import load_checkpoint, save_checkpoint
from kfloop.core.families.heads import Served
from kfloop.core.own_code import own_digest
from kfloop.core.sections import SearchConfig, TrainConfig
from kfloop.core.signature import Port, Signature
from kfloop.core.versions import DatasetVersion, Rows, read_version, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, TerminalError

SOURCE = """
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional
from kfloop.core.families import NetworkSpec

class Digits(pl.LightningModule):
    def __init__(self, spec: NetworkSpec, width: int, learning_rate: float = 0.01, kinds: tuple[str, ...] = ("a",)) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["spec"])
        size = spec.inputs[0].shape[0] * spec.inputs[0].shape[1]
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU())
        self.head = nn.Linear(width, len(spec.labels))
        self.learning_rate = learning_rate
        self.seen = 0

    def forward(self, image):
        embedding = self.body(image.float() / 255)
        return self.head(embedding), embedding

    def training_step(self, batch, batch_idx):
        answer, _ = self(*batch.inputs)
        loss = functional.cross_entropy(answer, batch.target)
        self.log("loss", loss)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.seen += 1

    def validation_step(self, batch, batch_idx):
        answer, _ = self(*batch.inputs)
        self.log_dict({
            "val_loss": functional.cross_entropy(answer, batch.target),
            "val_accuracy": (answer.argmax(-1) == batch.target).float().mean(),
        })

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

class AnswerAlone(Digits):
    def forward(self, image):
        return super().forward(image)[0]

    def training_step(self, batch, batch_idx):
        return {"loss": functional.cross_entropy(self(*batch.inputs), batch.target)}

    def validation_step(self, batch):
        self.log("validation_loss", functional.cross_entropy(self(*batch.inputs), batch.target))

class NoLoss(Digits):
    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)

class NoLog(Digits):
    def validation_step(self, batch, batch_idx):
        self.log("accuracy", 1.0)

class ByHand(Digits):
    def __init__(self, spec: NetworkSpec, width: int) -> None:
        super().__init__(spec, width)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = functional.cross_entropy(self(*batch.inputs)[0], batch.target)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss

class Breaks(Digits):
    def __init__(self, width: int) -> None:
        raise ValueError("no such width")

class NoForward(pl.LightningModule):
    def training_step(self, batch, batch_idx): ...
    def validation_step(self, batch, batch_idx): ...

class OwnBackward(Digits):
    def backward(self, loss):
        loss.backward()

class Plain(nn.Module):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a loop file, with a module of the user's in a package."""
    (tmp_path / "own_models").mkdir()
    (tmp_path / "own_models" / "digits.py").write_text(SOURCE)
    (tmp_path / "broken_model.py").write_text("import not_there_at_all\n")
    (tmp_path / "failing_model.py").write_text("1 / 0\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    Workspace(loop="own", root=tmp_path, state="", store="", mlflow="").find_modules()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith(("own_models", "broken_model", "failing_model"))]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    from sklearn.datasets import load_digits

    out = tmp_path_factory.mktemp("digits")
    pixels, labels = load_digits(return_X_y=True)
    rows = Rows(
        ids=[f"r{row}" for row in range(400)],
        images=(pixels[:400].reshape(-1, 8, 8, 1) / 16 * 255).astype(np.uint8),
        labels=labels[:400].astype(np.int64),
        origin=["base"] * 400,
    )
    write_version(out, name="digits", rows=rows, labels=[str(digit) for digit in range(10)], validation=0.2, test=0.2)
    return read_version(out)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    place = tmp_path / "labels"
    place.mkdir()
    kinds = {"id": pa.string(), "weight": pa.float64(), "quarantined": pa.bool_()}
    pq.write_table(pa.table({name: pa.array([], kind) for name, kind in kinds.items()}), place / "weights.parquet")
    return place


def config(name: str = "own_models.digits:Digits", **told: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {"model": name, "hyperparameters": {"width": 32}, "epochs": 4, "batch_size": 32, "accelerator": "cpu"} | told
    )


@pytest.mark.parametrize("name", ["Digits", "AnswerAlone", "ByHand"])
def test_it_is_trained_kept_and_exported(
    folder: Path, version: DatasetVersion, labels: Path, tmp_path: Path, name: str
) -> None:
    del folder
    told = config(f"own_models.digits:{name}")
    prepared = prepare(told, version, labels)
    rows: list[dict[str, float]] = []
    (tmp_path / "work").mkdir()
    curve, parameters, device = fit(prepared, told, work=tmp_path / "work", resume=None, listen=rows.append)
    assert (len(rows), device) == (4, "cpu")
    assert parameters == 64 * 32 + 32 + 320 + 10
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    if name == "Digits":
        assert rows[-1]["validation_accuracy"] > 0.7
        assert set(rows[-1]) == {"epoch", "train_loss", "validation_loss", "validation_accuracy"}
    save_checkpoint(tmp_path / "model.ckpt", prepared.spec, prepared.encoder, curve.best_weights)
    sys.modules.pop("own_models.digits")  # opened elsewhere, the class is imported anew
    checkpoint = load_checkpoint(tmp_path / "model.ckpt")
    examples = checkpoint.encoder.examples(version, "test", "classification")
    served = Served(checkpoint.network, "classification").eval()
    with torch.no_grad():
        expected = served(torch.from_numpy(examples.inputs[0].copy()))
    assert (expected[0].argmax(1).numpy() == examples.target).mean() > 0.6
    width = expected[1].shape[1]
    signature = Signature(
        objective="classification",
        modality="image",
        family="custom",
        inputs=prepared.spec.inputs,
        outputs=(
            Port(name="probabilities", dtype="float32", shape=(10,)),
            Port(name="embedding", dtype="float32", shape=(width,)),
        ),
        labels=prepared.spec.labels,
        max_batch_size=8,
    )
    export_network(served, signature, (examples.inputs[0][:3],), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 7, 32):
        found = session.run(None, {"image": np.ascontiguousarray(examples.inputs[0][:count])})
        np.testing.assert_allclose(found[0], expected[0][:count].numpy(), atol=1e-5)


def test_its_hooks_are_called(folder: Path, version: DatasetVersion, labels: Path, tmp_path: Path) -> None:
    del folder
    from kfloop.components.train import fitting

    made = []
    build = fitting.build_learner
    told = config(epochs=1)
    prepared = prepare(told, version, labels)
    try:
        fitting.build_learner = lambda spec, plan: made.append(build(spec, plan)) or made[0]  # type: ignore[assignment,func-returns-value]
        fit(prepared, told, work=tmp_path, resume=None, listen=None)
    finally:
        fitting.build_learner = build
    assert made[0].network.module.seen == -(-len(prepared.train) // 32)


def test_a_rate_of_the_loop_file_reaches_it(folder: Path, version: DatasetVersion, labels: Path) -> None:
    del folder
    prepared = prepare(config(learning_rate=0.5, hyperparameters={"width": "8"}), version, labels)
    assert prepared.spec.options["hyperparameters"] == {"learning_rate": 0.5, "width": 8}
    with pytest.raises(ConfigError, match=r"train.weight_decay is 0.1, but .* has no parameter 'weight_decay'"):
        prepare(config(weight_decay=0.1), version, labels)


@pytest.mark.parametrize(
    ("told", "message", "hint"),
    [
        ({"hyperparameters": {"width": "wide"}}, r"hyperparameters.width is 'wide', but .* wants int", "annotation"),
        ({"hyperparameters": {"width": 8, "widht": 8}}, r"has no parameter 'widht'", "did you mean 'width'"),
        ({"hyperparameters": {}}, r"needs 'width', which is not given", "add width"),
        ({"hyperparameters": {"width": 8, "kinds": [[1]]}}, r"hyperparameters.kinds.0 is \[1\]", "annotation"),
        ({"options": {"width": 8}}, r"train.options is \{'width': 8\}", "train.hyperparameters"),
        ({"model": "own_models.digits"}, r"train.model is 'own_models.digits'", "package.module:Class"),
        ({"model": "own_models.digitz:Digits"}, r"no module 'own_models.digitz'", "folder of the loop file"),
        ({"model": "nowhere.digits:Digits"}, r"no module 'nowhere.digits'", "folder of the loop file"),
        ({"model": "broken_model:Digits"}, r"needs 'not_there_at_all', which is not installed", "install it"),
        ({"model": "failing_model:Digits"}, r"importing 'failing_model' fails: ZeroDivisionError", "traceback"),
        ({"model": "own_models.digits:Digit"}, r"has no class 'Digit'", "did you mean 'Digits'"),
        ({"model": "own_models.digits:Plain"}, r"expected a subclass of pytorch_lightning.LightningModule", "wrap it"),
        (
            {"model": "own_models.digits:OwnBackward"},
            r"defines backward, which a training of kfloop does not call",
            "do it in",
        ),
        (
            {"class_weights": "balanced"},
            r"class_weights is 'balanced', which 'own_models.digits:Digits' does not",
            "remove",
        ),
        ({"model": "own_models.digits:NoForward", "hyperparameters": {}}, r"has no forward", "define forward"),
    ],
)
def test_what_is_wrong_with_it_is_said(
    folder: Path, version: DatasetVersion, labels: Path, told: dict[str, object], message: str, hint: str
) -> None:
    del folder
    with pytest.raises(ConfigError, match=message) as caught:
        prepare(config(**told) if "model" not in told else config(str(told["model"]), **told), version, labels)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoLoss", r"training_step of 'own_models.digits:NoLoss' gives None in epoch 0, step 0"),
        ("NoLog", r"'own_models.digits:NoLog' logs no validation_loss in its validation_step; it logs \['accuracy'\]"),
        ("Breaks", r"cannot be made with \{'width': 32\}: ValueError: no such width"),
    ],
)
def test_what_it_does_wrong_in_training_is_said(
    folder: Path, version: DatasetVersion, labels: Path, tmp_path: Path, name: str, message: str
) -> None:
    del folder
    told = config(f"own_models.digits:{name}")
    with pytest.raises(TerminalError, match=message):
        fit(prepare(told, version, labels), told, work=tmp_path, resume=None, listen=None)


def test_a_search_changes_what_the_class_takes(
    folder: Path, version: DatasetVersion, labels: Path, tmp_path: Path
) -> None:
    del folder
    inner = {"trials": 2, "epochs": 1}
    told = config(epochs=1, search=inner)
    prepared = prepare(told, version, labels)
    found = dimensions(SearchConfig(**inner), told, prepared)
    assert {(one.key, one.low, one.high) for one in found if not one.choices} == {("learning_rate", 0.002, 0.05)}
    told = config(epochs=1, search=inner | {"space": {"hyperparameters.width": [8, 64]}})
    result = search(prepared, told, work=tmp_path)
    assert [trial["parameters"].keys() for trial in result.trials] == [{"hyperparameters.width"}] * 2
    assert result.trials[0]["parameters"] == {"hyperparameters.width": 32}
    width = result.config.hyperparameters["width"]
    assert result.prepared.spec.options["hyperparameters"]["width"] == width
    for key in ("label_smoothing", "weight_decay", "options.width", "hyperparameters.widht"):
        with pytest.raises(ConfigError, match="which a search cannot change"):
            dimensions(SearchConfig(space={key: (0.1, 0.2)}), told, prepared)


def test_the_digest_of_own_code_is_that_of_its_package(folder: Path) -> None:
    told = config()
    before = own_digest(told, folder)
    assert own_digest(told, folder) == before != ""
    (folder / "own_models" / "layers.py").write_text("a = 1")
    after = own_digest(told, folder)
    assert after not in {before, ""}
    (folder / "own_models" / "notes.txt").write_text("no code")
    assert own_digest(told, folder) == after
    assert own_digest(config("nowhere:Digits"), folder) == own_digest(TrainConfig(), folder) == ""
    alone = own_digest(config("broken_model:Digits"), folder)
    (folder / "broken_model.py").write_text("import numpy")
    assert own_digest(config("broken_model:Digits"), folder) not in {alone, ""}


def test_the_digest_of_own_weights_sees_a_changed_file(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_text("1")
    told = TrainConfig.model_validate({"finetune": {"model": str(tmp_path)}})
    before = own_digest(told, tmp_path)
    assert before
    weights.write_text("22")
    assert own_digest(told, tmp_path) not in {before, ""}
    assert own_digest(TrainConfig.model_validate({"finetune": {"model": "on/hub"}}), tmp_path) == ""
