"""Fine-tuning of pretrained models from local folders, made here with random weights: what is trained, what is kept, what is said."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kfloop.components.ingest.ingestion import run as ingest
from kfloop.components.package.exporting import export_network
from kfloop.components.train.fitting import build_learner, fit
from kfloop.components.train.preparing import prepare
from kfloop.core.encoding import restore_encoder
from kfloop.core.families.checkpoints import load_checkpoint, save_checkpoint
from kfloop.core.families.heads import Served
from kfloop.core.sections import DataConfig, TrainConfig
from kfloop.core.signature import Port, Signature
from kfloop.core.versions import DatasetVersion, Rows, read_version, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, TerminalError

needs_transformers = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs timm")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
WORDS = [
    "good",
    "fine",
    "great",
    "nice",
    "lovely",
    "bad",
    "poor",
    "awful",
    "sad",
    "dull",
    "the",
    "a",
    "film",
    "story",
    "was",
    "is",
    "and",
    "very",
]


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    root = tmp_path_factory.mktemp("reviews")
    random = np.random.default_rng(0)
    lines = []
    for number in range(160):
        good = number % 2
        words = [str(word) for word in random.choice(WORDS[10:], 6)] + [WORDS[int(random.integers(5)) + 5 * (1 - good)]]
        lines.append(f"{'good' if good else 'bad'},{' '.join(words)} {number}")
    (root / "reviews.csv").write_text("label,text\n" + "\n".join(lines) + "\n")
    (root / "version").mkdir()
    places = {"state": f"sqlite:///{root}/state.db", "store": str(root / "store"), "mlflow": ""}
    told = DataConfig(source=str(root / "reviews.csv"), modality="text", label="label", text="text")
    ingest(told, out=root / "version", workspace=Workspace(loop="r", root=root, **places))
    return read_version(root / "version")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    from sklearn.datasets import load_digits

    out = tmp_path_factory.mktemp("digits")
    pixels, labels = load_digits(return_X_y=True)
    rows = Rows(
        ids=[f"r{row}" for row in range(150)],
        images=(pixels[:150].reshape(-1, 8, 8, 1) / 16 * 255).astype(np.uint8),
        labels=(labels[:150] % 3).astype(np.int64),
        origin=["base"] * 150,
    )
    write_version(out, name="digits", rows=rows, labels=["a", "b", "c"], validation=0.2, test=0.2)
    return read_version(out)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, as ``save_pretrained`` writes it."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    folder = tmp_path_factory.mktemp("bert")
    pieces = ["[PAD]", "[UNK]", *WORDS, *"0123456789", *(f"##{digit}" for digit in "0123456789")]
    tokenizer = Tokenizer(WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ResNet of timm with random weights, as ``save_for_hf`` writes it."""
    timm = pytest.importorskip("timm")
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=7)
    timm.models.save_for_hf(model, str(folder), model_config={"pretrained_cfg": {"input_size": [3, 32, 32]}})
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    place = tmp_path / "labels"
    place.mkdir()
    kinds = {"id": pa.string(), "weight": pa.float64(), "quarantined": pa.bool_()}
    pq.write_table(pa.table({name: pa.array([], kind) for name, kind in kinds.items()}), place / "weights.parquet")
    return place


def config(model: Path | str, **told: Any) -> TrainConfig:
    keys = ("mode", "blocks", "backbone_rate", "library")
    finetune = {"model": str(model)} | {key: told.pop(key) for key in keys if key in told}
    return TrainConfig.model_validate({"finetune": finetune, "epochs": 2, "accelerator": "cpu"} | told)


def require_same_when_exported(folder: Path, version: DatasetVersion, prepared: Any, weights: dict[str, Any]) -> None:
    """Checkpoint and graph answer like the trained network, with neither the pretrained folder nor a hub."""
    save_checkpoint(folder / "model.ckpt", prepared.spec, prepared.encoder, weights)
    checkpoint = load_checkpoint(folder / "model.ckpt")
    inputs = checkpoint.encoder.examples(version, "test", "classification").inputs
    served = Served(checkpoint.network, "classification").eval()
    with torch.no_grad():
        expected = [part.numpy() for part in served(*(torch.from_numpy(array.copy()) for array in inputs))]
    signature = Signature(
        objective="classification",
        modality=version.modality,
        family="finetune",
        inputs=prepared.spec.inputs,
        outputs=(
            Port(name="probabilities", dtype="float32", shape=(len(version.labels),)),
            Port(name="embedding", dtype="float32", shape=(expected[1].shape[1],)),
        ),
        labels=prepared.spec.labels,
        max_batch_size=32,
    )
    export_network(served, signature, tuple(array[:3] for array in inputs), folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [port.name for port in prepared.spec.inputs]
    for count in (1, 2, 7, 32):
        few = [np.ascontiguousarray(array[:count]) for array in inputs]
        found = session.run(None, dict(zip(names, few, strict=True)))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other[:count], atol=1e-4)


@pytest.mark.slow
@needs_transformers
def test_a_text_model_is_kept_whole(reviews: DatasetVersion, bert: Path, labels: Path, tmp_path: Path) -> None:
    told = config(bert, mode="full", backbone_rate=1.0, learning_rate=3e-3, epochs=10, batch_size=16)
    prepared = prepare(told, reviews, labels)
    assert [port.name for port in prepared.spec.inputs] == ["ids", "mask"]
    curve, _, _ = fit(prepared, told, work=tmp_path, resume=None, listen=None)
    assert curve.history[-1]["validation_accuracy"] > 0.8
    plain = json.dumps([prepared.encoder.plain(), prepared.spec.options])
    again = restore_encoder(json.loads(plain)[0])
    for one, other in zip(
        again.encode(reviews.table("test")), prepared.encoder.encode(reviews.table("test")), strict=True
    ):
        assert np.array_equal(one, other)
    moved = bert.rename(bert.with_name("away"))  # neither is needed any more
    try:
        require_same_when_exported(tmp_path, reviews, prepared, curve.best_weights)
    finally:
        moved.rename(bert)


@needs_transformers
def test_modes_train_what_they_say(reviews: DatasetVersion, bert: Path, labels: Path) -> None:
    def trained(mode: str, **told: Any) -> set[str]:
        prepared = prepare(config(bert, mode=mode, **told), reviews, labels)
        network = build_learner(prepared.spec, prepared.plan).network.train()
        if mode == "frozen":
            assert not any(module.training for module in network.backbone.modules())
        return {name for name, item in network.named_parameters() if item.requires_grad}

    head = {"head.linear.weight", "head.linear.bias"}
    assert trained("frozen") == head
    last = trained("partial", blocks=1)
    assert all(name in head or ".layer.1." in name for name in last)
    assert len(last) > 10
    assert len(trained("partial", blocks=2)) == 2 * (len(last) - 2) + 2
    assert any("embeddings" in name for name in trained("full"))


@needs_transformers
def test_pretrained_weights_start_it_and_learn_slowly(reviews: DatasetVersion, bert: Path, labels: Path) -> None:
    from transformers import AutoModel

    prepared = prepare(config(bert, mode="full", backbone_rate=0.01, learning_rate=0.02), reviews, labels)
    learner = build_learner(prepared.spec, prepared.plan)
    own = learner.network.backbone.state_dict()
    for name, tensor in AutoModel.from_pretrained(bert).state_dict().items():
        assert name.startswith("pooler.") or torch.equal(own[name], tensor)
    made = learner.configure_optimizers()
    peaks = [group["max_lr"] for group in made["optimizer"].param_groups]
    assert peaks == pytest.approx([0.02, 0.0002])


@needs_timm
@pytest.mark.parametrize("mode", ["frozen", "partial"])
def test_an_image_model_is_kept_whole(
    digits: DatasetVersion, resnet: Path, labels: Path, tmp_path: Path, mode: str
) -> None:
    told = config(resnet, mode=mode, batch_size=32)
    prepared = prepare(told, digits, labels)
    assert prepared.spec.options["architecture"]["size"] == [32, 32]
    learner = build_learner(prepared.spec, prepared.plan)
    names = {name for name, item in learner.network.named_parameters() if item.requires_grad}
    assert {"head.linear.weight", "head.linear.bias"} <= names
    assert (mode == "frozen") == (len(names) == 2)
    assert not any("conv1" in name and "layer" not in name for name in names)
    curve, _, _ = fit(prepared, told, work=tmp_path, resume=None, listen=None)
    assert curve.history[-1]["train_loss"] < curve.history[0]["train_loss"]
    if mode == "partial":
        require_same_when_exported(tmp_path, digits, prepared, curve.best_weights)


@needs_transformers
def test_what_is_wrong_is_said(
    reviews: DatasetVersion,
    digits: DatasetVersion,
    bert: Path,
    labels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=r"\(transformers\) cannot do classification of image data"):
        prepare(config(bert, library="transformers"), digits, labels)
    with pytest.raises(ConfigError, match=r"'./nowhere' is no folder here"):
        prepare(config("./nowhere"), reviews, labels)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"is a folder without config.json"):
        prepare(config(tmp_path / "empty"), reviews, labels)
    with pytest.raises(ConfigError, match=r"no module 'no_such_package' is installed"):
        prepare(config("sentence:no_such_package"), reviews, labels)
    with pytest.raises(ConfigError, match=r"train.options: family 'finetune' has no option 'widht'"):
        prepare(config(bert, options={"widht": 3}), reviews, labels)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        TerminalError, match=r"no folder here and not in the local cache, and the hub is switched off"
    ) as off:
        prepare(config("nobody/no-such-model"), reviews, labels)
    assert "HF_HUB_OFFLINE=0" in off.value.hint
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@needs_timm
def test_an_unknown_architecture_is_said(digits: DatasetVersion, labels: Path) -> None:
    with pytest.raises(ConfigError, match=r"knows no architecture 'resnet_of_nobody'"):
        prepare(config("resnet_of_nobody"), digits, labels)


@needs_transformers
def test_weights_that_do_not_fit_are_said(reviews: DatasetVersion, bert: Path, labels: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").write_bytes(b"torn")
    prepared = prepare(config(folder), reviews, labels)
    with pytest.raises(ConfigError, match=r"cannot be loaded from its folder"):
        build_learner(prepared.spec, prepared.plan)
