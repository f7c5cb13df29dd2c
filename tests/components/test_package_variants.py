"""Graphs in half precision and in 8 bits: what they must hold, which one is served, and when there is none."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import packages
from kfloop.components.evaluate.costs.costing import parameters_of
from kfloop.components.package.exporting import export_network
from kfloop.components.package.halving import make_fp16
from kfloop.components.package.packaging import PackageReport, run
from kfloop.components.package.proving import eager
from kfloop.components.package.quantizing import make_int8
from kfloop.components.package.variants import check_variants
from kfloop.components.package.weighing import Variant, Weighing, problem_of
from kfloop.core.artifacts import folder_digest, read_report
from kfloop.core.config import load_config
from kfloop.core.families.checkpoints import load_checkpoint, save_checkpoint
from kfloop.core.families.heads import Served
from kfloop.core.scoring import MODEL, PackagedModel
from kfloop.core.sections import PackageConfig
from kfloop.core.signature import Port, Signature, write_signature
from kfloop.core.statistics.estimate import wilson
from kfloop.core.versions import read_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, TerminalError
from kfloop.serving.production import write_production
from kfloop.serving.production_configs import Production
from loading import load

BOTH = ("fp16", "int8")


def packaged(root: Path, name: str, **config: Any) -> tuple[PackageReport, PackagedModel]:
    out = root / name
    out.mkdir()
    workspace = Workspace(loop="t", root=root, state="", store="", mlflow="")
    report = run(
        PackageConfig(**config), dataset=root / "dataset", checkpoint=root / "checkpoint", out=out, workspace=workspace
    )
    return report, PackagedModel(out, threads=1)


def taught(root: Path) -> Path:
    """A small network that tells digits apart, after a few steps."""
    trap = load(Path(__file__).parent / "test_package.py")
    version = read_version(trap.digits(root / "dataset", 700))
    folder = trap.checkpoint(root / "checkpoint", root / "dataset")
    loaded = load_checkpoint(folder / "model.ckpt")
    network, train = loaded.network.train(), version.split("train")
    images, labels = torch.from_numpy(train.images.copy()), torch.from_numpy(train.labels)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(25):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(images)[0], labels).backward()
        optimiser.step()
    save_checkpoint(folder / "model.ckpt", loaded.spec, loaded.encoder, network.eval().state_dict())
    return root


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def compared(digits: Path) -> tuple[PackageReport, PackagedModel]:
    return packaged(digits, "compared", variants=BOTH)


@pytest.fixture(scope="module")
def served(digits: Path) -> tuple[PackageReport, PackagedModel]:
    return packaged(digits, "served", serve="int8")


def test_variants_are_compared_and_leave_the_package_as_it_is(
    digits: Path, compared: tuple[PackageReport, PackagedModel]
) -> None:
    report, model = compared
    assert packaged(digits, "plain")[0].digest == report.digest
    assert report.served == "fp32"
    whole, half, eight = read_report(model.folder)["variants"]
    assert [line["name"] for line in (whole, half, eight)] == ["fp32", "fp16", "int8"]
    assert [line["served"] for line in (whole, half, eight)] == [True, False, False]
    assert [line["problem"] for line in (whole, half, eight)] == [None, None, None]
    assert whole["bytes"] == (model.folder / MODEL).stat().st_size > 1.8 * half["bytes"] > 2.5 * eight["bytes"]
    assert (whole["agreement"], whole["small"]) == (None, None)
    assert half["small"] > 0.99
    assert eight["small"] > 0.9
    n = len(read_version(digits / "dataset").split("validation"))
    for line in (half, eight):
        assert set(line["max_abs_diff"]) == {"probabilities", "embedding"}
        assert line["agreement"]["n"] == n
        assert line["agreement"]["low"] < line["agreement"]["value"] <= 1
        assert abs(line["score"] - whole["score"]) < 0.03
    assert whole["metric"] == "accuracy"
    assert all(set(line["ms_per_row"]) == {"1", "32"} for line in (whole, half, eight))
    assert max(half["max_abs_diff"].values()) < max(eight["max_abs_diff"].values())


def test_everything_in_the_package_is_about_the_served_graph(
    digits: Path, compared: tuple[PackageReport, PackagedModel], served: tuple[PackageReport, PackagedModel]
) -> None:
    (plain, _), (report, model) = compared, served
    assert report.digest != plain.digest
    assert (report.served, report.tolerance) == ("int8", 0.1)
    assert plain.max_abs_diff < 1e-5 < report.max_abs_diff <= 0.1
    assert [line["name"] for line in report.variants] == ["fp32", "int8"]
    golden, reference = np.load(model.folder / "golden.npz"), np.load(model.folder / "reference.npz")
    again = model.run([golden["input.image"]])
    torchs = np.load(digits / "compared" / "golden.npz")
    for name, found in again.items():
        np.testing.assert_allclose(found, golden[f"output.{name}"], atol=1e-6)
        assert np.abs(found - torchs[f"output.{name}"]).max() > 1e-5
    test = model.encoder.examples(read_version(digits / "dataset"), "test", "classification")
    test = test.take(test.origin == "base")
    scores = model.score(test)["probabilities"]
    np.testing.assert_allclose(reference["probabilities"][-len(test) :], scores, atol=1e-6)
    whole = parameters_of(digits / "compared" / MODEL)
    assert abs(parameters_of(model.folder / MODEL) - whole) < 0.01 * whole


AGAIN = """
import sys
from pathlib import Path
from kfloop.components.package.packaging import run
from kfloop.core.sections import PackageConfig
from kfloop.core.workspace import Workspace
root, out = Path(sys.argv[1]), Path(sys.argv[2])
workspace = Workspace(loop="t", root=root, state="", store="", mlflow="")
print(run(PackageConfig(serve="int8"), dataset=root / "dataset", checkpoint=root / "checkpoint", out=out, workspace=workspace).digest)
"""


@pytest.mark.slow
def test_another_process_makes_the_same_graph(
    digits: Path, served: tuple[PackageReport, PackagedModel], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", AGAIN, str(digits), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == [served[0].digest]  # and nothing else was printed
    (tmp_path / "report.json").unlink()
    assert folder_digest(tmp_path) == served[0].digest


def test_a_served_variant_that_differs_too_much_ends_the_step(digits: Path) -> None:
    with pytest.raises(
        TerminalError, match=r"the int8 graph cannot be served: its output .* differs from torch"
    ) as seen:
        packaged(digits, "strict", serve="int8", variant_tolerance=1e-5)
    assert "serve fp32, raise package.variant_rows" in seen.value.hint


def weighing(root: Path, model: PackagedModel, **config: Any) -> Weighing:
    version, trained = read_version(root / "dataset"), load_checkpoint(root / "checkpoint" / "model.ckpt")
    network = Served(trained.network, "classification").eval()
    held, test = (model.encoder.examples(version, split, "classification") for split in ("validation", "test"))
    proofs = [test.batch_inputs(np.arange(count)) for count in (1, 32)]
    return Weighing(
        config=PackageConfig(**config),
        proofs=proofs,
        expected=[eager(network, "classification", inputs) for inputs in proofs],
        held=held,
        answers=model.score(held)["probabilities"],
        std=np.empty(0),
    )


def test_ranges_measured_on_nothing_are_caught_by_the_decisions(
    digits: Path, compared: tuple[PackageReport, PackagedModel], tmp_path: Path
) -> None:
    _, model = compared
    for name in ("signature.json", "encoder.json"):
        (tmp_path / name).write_bytes((model.folder / name).read_bytes())
    dark = {"image": np.zeros((32, 8, 8, 1), dtype=np.uint8)}
    make_int8(model.folder / MODEL, tmp_path / MODEL, [dark])
    wrong, variant = PackagedModel(tmp_path, threads=1), Variant(name="int8", served=False)
    found = weighing(digits, model, variant_tolerance=1e9).weigh(variant, wrong)
    assert found.problem is not None
    assert "it gives the same class as fp32 to" in found.problem
    assert "package.variant_agreement is 99.00%" in found.problem
    assert "differs from torch" in (weighing(digits, model).weigh(variant, wrong).problem or "")


def test_what_is_no_number_never_passes() -> None:
    anything = PackageConfig(variant_tolerance=1e300, variant_agreement=0)
    for worst in (float("nan"), float("inf")):
        found = Variant(name="fp16", served=False, max_abs_diff={"probabilities": worst}, agreement=wilson(9, 9))
        assert problem_of(anything, found) == "its output 'probabilities' is not finite where torch's is"
    nothing = Variant(name="fp16", served=False, max_abs_diff={"probabilities": 0.0}, agreement=wilson(0, 0))
    assert problem_of(anything, nothing) is not None


@pytest.mark.parametrize(
    ("modality", "task", "family"),
    [
        ("table", "regression", "mlp"),  # with columns whose values do not fit into half precision
        pytest.param("text", "multiclass", "transformer", marks=pytest.mark.slow),
        pytest.param("series", "forecasting", "rnn", marks=pytest.mark.slow),
        pytest.param("image", "multilabel", "cnn", marks=pytest.mark.slow),
        pytest.param("table", "multiclass", "autoencoder", marks=pytest.mark.slow),
    ],
)
def test_families_have_variants_and_keep_their_inputs(modality: str, task: str, family: str, tmp_path: Path) -> None:
    options = {"normal": "north"} if family == "autoencoder" else {}
    packages.untrained(tmp_path, modality, task, family=family, **options)
    report, model = packaged(tmp_path, "half", serve="fp16", variants=["int8"], variant_agreement=0.8)
    whole, half, eight = report.variants
    assert half["problem"] is None
    assert max(half["max_abs_diff"].values()) < 0.02
    assert half["bytes"] < 0.75 * whole["bytes"]
    assert eight["problem"] is None or eight["max_abs_diff"]
    assert eight["small"] is None or eight["small"] > 0
    assert {port.dtype for port in model.signature.outputs} == {"float32"}
    golden = np.load(model.folder / "golden.npz")
    assert [golden[f"input.{port.name}"].dtype for port in model.signature.inputs] == [
        port.dtype for port in model.signature.inputs
    ]
    decides = model.signature.objective == "classification"
    assert (half["agreement"] is not None) == decides


@pytest.mark.parametrize("modality", ["nodes", "image"])
def test_models_that_do_not_answer_rows_have_none(modality: str, tmp_path: Path) -> None:
    made = packages
    made.untrained(tmp_path, modality, "multiclass", family="gnn" if modality == "nodes" else "gan")
    said = "graph of nodes" if modality == "nodes" else "learned generation"
    with pytest.raises(
        ConfigError, match=f"ask for int8, which are for models that answer row by row here, but .*{said}"
    ):
        packaged(tmp_path, "out", variants=["int8"])


def test_a_model_of_somebody_else_has_none() -> None:
    check_variants(PackageConfig(), "classification", batched=True, external=True)
    with pytest.raises(ConfigError, match=r"ask for fp16, .* but somebody else serves this model"):
        check_variants(PackageConfig(serve="fp16"), "classification", batched=True, external=True)


@pytest.mark.parametrize("section", ["variants: [int4]", "serve: bf16", "variants: [fp32]", "variant_agreement: 1.5"])
def test_unknown_variants_are_refused(section: str, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(f"name: t\npackage: {{{section}}}\n")
    with pytest.raises(ConfigError, match=section.split(":", maxsplit=1)[0]):
        load_config(tmp_path / "loop.yaml")


class Loud(nn.Module):
    """Inner values about as large as ``gain``, answers about 1."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.head, self.embed, self.gain = nn.Linear(64, 10), nn.Linear(64, 8), gain

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = torch.relu(self.head(image.flatten(1).to(torch.float32) / 255) * 1.5 * self.gain)
        return pixels / self.gain, self.embed(image.flatten(1).to(torch.float32) / 255)


class Choosing(Loud):
    """What it computes depends on the rows."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        answer, embedding = super().forward(image)
        return torch.cond(image.sum() > 0, lambda x: x + 1, lambda x: x - 1, (answer,)), embedding


class Plain(nn.Module):
    """No weights at all."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = image.flatten(1).to(torch.float32) / 255
        return pixels[:, :10], pixels[:, :8]


def exported(network: nn.Module, folder: Path) -> Path:
    ports = [
        Port(name=name, dtype="float32", shape=(size,)) for name, size in (("probabilities", 10), ("embedding", 8))
    ]
    signature = Signature(
        objective="classification",
        modality="image",
        family="custom",
        inputs=(Port(name="image", dtype="uint8", shape=(8, 8, 1)),),
        outputs=tuple(ports),
        labels=tuple("0123456789"),
        max_batch_size=64,
    )
    write_signature(folder, signature)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    export_network(Served(network, "classification").eval(), signature, (images,), folder / MODEL)
    return folder / MODEL


FEED = {"image": np.random.default_rng(1).integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)}


def test_inner_values_beyond_half_precision_are_refused_though_a_cpu_answers_well(tmp_path: Path) -> None:
    torch.manual_seed(0)
    make_fp16(exported(Loud(1e3), tmp_path), tmp_path / "fits.onnx", [FEED])
    onnx.checker.check_model(str(tmp_path / "fits.onnx"), full_check=True)
    with pytest.raises(
        TerminalError, match=r"largest number is 65504, \d+ inner value\(s\) .* no finite numbers: \w+ '"
    ):
        make_fp16(exported(Loud(6e4), tmp_path), tmp_path / "loud.onnx", [FEED])


@pytest.mark.slow
def test_an_overflow_is_told_where_it_is_compared_and_refused_where_it_is_served(digits: Path, tmp_path: Path) -> None:
    for name in ("dataset", "checkpoint"):
        (tmp_path / name).mkdir()
        for file in (digits / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    loaded = load_checkpoint(tmp_path / "checkpoint" / "model.ckpt")
    weights = loaded.network.state_dict()
    first = next(name for name, value in weights.items() if name.endswith("weight") and value.ndim == 2)
    weights[first] *= 1e7
    save_checkpoint(tmp_path / "checkpoint" / "model.ckpt", loaded.spec, loaded.encoder, weights)
    report, _ = packaged(tmp_path, "compared", variants=["fp16"])
    assert report.variants[1]["problem"]
    assert report.variants[0]["served"]
    with pytest.raises(TerminalError, match="the fp16 graph cannot be served: "):
        packaged(tmp_path, "served", serve="fp16")


def test_a_graph_without_weights_is_not_called_smaller(tmp_path: Path) -> None:
    path = exported(Plain(), tmp_path)
    for make, name in ((make_int8, "int8"), (make_fp16, "fp16")):
        with pytest.raises(TerminalError, match=f"nothing in this graph can be {name}"):
            make(path, tmp_path / "small.onnx", [FEED])


def test_a_graph_that_chooses_graphs_stays_in_single_precision(tmp_path: Path) -> None:
    with pytest.raises(TerminalError, match="'If' repeats or chooses graphs"):
        make_fp16(exported(Choosing(1.0), tmp_path), tmp_path / "small.onnx", [FEED])


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(b"no graph")
    for make, said in ((make_int8, "cannot quantize"), (make_fp16, "cannot convert")):
        with pytest.raises(TerminalError, match=said):
            make(tmp_path / MODEL, tmp_path / "out.onnx", [FEED])


def test_tensorrt_takes_half_precision_and_not_8_bits(
    compared: tuple[PackageReport, PackagedModel], served: tuple[PackageReport, PackagedModel], tmp_path: Path
) -> None:
    gpu, half = Production(target="gpu", tensorrt=True), tmp_path / "package"
    with pytest.raises(ConfigError, match="TensorRT would run in FP16"):
        write_production(served[1].folder, tmp_path / "eight", "digits", gpu)
    write_production(served[1].folder, tmp_path / "cpu", "digits", Production())
    shutil.copytree(compared[1].folder, half)
    images = np.load(half / "golden.npz")["input.image"]
    make_fp16(compared[1].folder / MODEL, half / MODEL, [{"image": images}])
    assert "digits_model" in write_production(half, tmp_path / "half", "digits", gpu)
