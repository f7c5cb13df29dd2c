"""Export and its proof, on a network that need not have learned anything."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kfloop.components.package.exporting import check_nodes, export_network
from kfloop.components.package.packaging import PackageReport, run, save_arrays
from kfloop.components.package.proving import check_parity
from kfloop.core.artifacts import folder_digest, write_report
from kfloop.core.encoding import fit_encoder
from kfloop.core.families import NetworkSpec, build_network
from kfloop.core.families.checkpoints import save_checkpoint
from kfloop.core.families.heads import Served
from kfloop.core.scoring import PackagedModel
from kfloop.core.sections import PackageConfig
from kfloop.core.signature import Port, Signature
from kfloop.core.versions import Rows, read_version, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import StateError, TerminalError

SHAPE = (8, 8, 1)
LABELS = [str(digit) for digit in range(10)]


def digits(folder: Path, limit: int = 300) -> Path:
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True)
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels[:limit].reshape(-1, *SHAPE) / 16 * 255).round().astype(np.uint8)
    rows = Rows(
        ids=[f"r{row}" for row in range(limit)],
        images=images,
        labels=labels[:limit].astype(np.int64),
        origin=["fresh" if row < limit // 5 else "base" for row in range(limit)],
    )
    write_version(folder, name="digits", rows=rows, labels=LABELS, validation=0.15, test=0.25)
    return folder


def checkpoint(folder: Path, dataset: Path) -> Path:
    folder.mkdir(parents=True)
    version = read_version(dataset)
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
    save_checkpoint(folder / "model.ckpt", spec, encoder, build_network(spec).state_dict())
    (folder / "train_content.txt").write_text("\n".join(sorted(set(version.split("train").content.tolist()))) + "\n")
    write_report(folder, {"dataset_digest": version.digest, "family": "cnn"})
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PackageReport, Path, Path]:
    root = tmp_path_factory.mktemp("package")
    dataset = digits(root / "dataset")
    out = root / "model"
    out.mkdir()
    report = run(
        PackageConfig(),
        dataset=dataset,
        checkpoint=checkpoint(root / "checkpoint", dataset),
        out=out,
        workspace=place(root),
    )
    return report, out, root


def place(root: Path) -> Workspace:
    return Workspace(loop="digits", root=root, state="", store=str(root / "store"), mlflow="")


def test_the_package_is_complete_and_answers_like_its_golden_rows(made: tuple[PackageReport, Path, Path]) -> None:
    report, out, _ = made
    assert {path.name for path in out.iterdir()} == {
        "encoder.json",
        "golden.npz",
        "model.onnx",
        "reference.npz",
        "report.json",
        "signature.json",
        "train_content.txt",
    }
    golden = np.load(out / "golden.npz")
    model = PackagedModel(out)
    images = golden["input.image"]
    scores = model.run([images])
    assert images.dtype == np.uint8
    assert len(images) == 16
    np.testing.assert_allclose(scores["probabilities"], golden["output.probabilities"], atol=1e-5)
    np.testing.assert_allclose(scores["embedding"], golden["output.embedding"], atol=1e-4)
    signature = model.signature
    assert signature.inputs == (Port(name="image", dtype="uint8", shape=SHAPE),)
    assert [(port.dtype, port.shape) for port in signature.outputs] == [("float32", (10,)), ("float32", (64,))]
    assert (signature.modality, signature.objective, signature.max_batch_size) == ("image", "classification", 64)
    assert {(row.output, row.batch_size) for row in report.parity} == {
        (name, size) for name in ("probabilities", "embedding") for size in (1, 2, 7, 32)
    }
    assert report.max_abs_diff <= report.tolerance


def test_the_reference_holds_the_held_out_base_rows(made: tuple[PackageReport, Path, Path]) -> None:
    report, out, root = made
    version = read_version(root / "dataset")
    expected = [
        name
        for part in (version.split("validation"), version.split("test"))
        for name in part.ids[part.origin == "base"].tolist()
    ]
    reference = np.load(out / "reference.npz")
    assert reference["ids"].tolist() == expected
    assert reference["probabilities"].shape == (report.n_reference, 10)
    assert reference["embedding"].shape == (report.n_reference, 64)


def test_a_reference_of_enough_fresh_rows_is_what_traffic_is_like_now(tmp_path: Path) -> None:
    dataset = digits(tmp_path / "dataset", limit=1500)
    (tmp_path / "model").mkdir()
    run(
        PackageConfig(),
        dataset=dataset,
        checkpoint=checkpoint(tmp_path / "checkpoint", dataset),
        out=tmp_path / "model",
        workspace=place(tmp_path),
    )
    version = read_version(dataset)
    held = [version.split("validation"), version.split("test")]
    fresh = [name for part in held for name in part.ids[part.origin == "fresh"].tolist()]
    assert len(fresh) >= 100
    assert np.load(tmp_path / "model" / "reference.npz")["ids"].tolist() == fresh


AGAIN = """
import sys
from pathlib import Path
from kfloop.components.package.packaging import run
from kfloop.core.sections import PackageConfig
from kfloop.core.workspace import Workspace
workspace = Workspace.from_json(sys.argv[1])
root = workspace.root
print(run(PackageConfig(), dataset=root / "dataset", checkpoint=root / "checkpoint", out=Path(sys.argv[2]),
          workspace=workspace).digest)
"""


def test_another_process_makes_the_same_package(made: tuple[PackageReport, Path, Path], tmp_path: Path) -> None:
    report, _, root = made
    command = [sys.executable, "-c", AGAIN, place(root).to_json(), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == [report.digest]  # and nothing else was printed
    (tmp_path / "report.json").unlink()
    assert folder_digest(tmp_path) == report.digest


def test_a_checkpoint_of_another_dataset_is_refused(made: tuple[PackageReport, Path, Path], tmp_path: Path) -> None:
    _, _, root = made
    other = digits(tmp_path / "other", 250)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(StateError, match="was trained on dataset"):
        run(PackageConfig(), dataset=other, checkpoint=root / "checkpoint", out=out, workspace=place(root))


class Trap(nn.Module):
    """A linear classifier to plant faults in."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.embed = nn.Linear(64, 8)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = image.flatten(1).to(torch.float32) / 255
        return self.head(pixels), self.embed(pixels)


class Noisy(Trap):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits, embedding = super().forward(image)
        return logits, embedding + torch.randn_like(embedding)


class ScatterMean(Trap):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits, embedding = super().forward(image)
        index = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]).expand_as(embedding)
        return logits, torch.zeros_like(embedding).scatter_reduce(1, index, embedding, "mean", include_self=False)


def images(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def proofs(count: int = 40) -> list[tuple[np.ndarray]]:
    return [(images(count)[np.arange(size) % count],) for size in (1, 2, 7, 32)]


SIGNATURE = Signature(
    objective="classification",
    modality="image",
    family="trap",
    inputs=(Port(name="image", dtype="uint8", shape=SHAPE),),
    outputs=(
        Port(name="probabilities", dtype="float32", shape=(10,)),
        Port(name="embedding", dtype="float32", shape=(8,)),
    ),
    labels=tuple(LABELS),
    max_batch_size=64,
)


def export(network: nn.Module, path: Path) -> Served:
    served = Served(network, "classification").eval()
    export_network(served, SIGNATURE, (images(3),), path)
    return served


def test_random_numbers_in_the_graph_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TerminalError, match="RandomNormal"):
        export(Noisy(), tmp_path / "model.onnx")


def test_the_silently_wrong_scatter_mean_is_caught(tmp_path: Path) -> None:
    served = export(ScatterMean(), tmp_path / "model.onnx")
    with pytest.raises(TerminalError, match="'embedding' differs from torch by") as caught:
        check_parity(served, tmp_path / "model.onnx", SIGNATURE, proofs(), 1e-4)
    assert caught.value.data["difference"] > 1e-2


def test_a_graph_of_other_weights_is_caught(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = Served(Trap(), "classification")
    other = export(Trap(), tmp_path / "model.onnx")
    check_nodes(tmp_path / "model.onnx")
    rows = check_parity(other, tmp_path / "model.onnx", SIGNATURE, proofs(3), 1e-4)
    assert max(row.max_abs_diff for row in rows) < 1e-5
    with pytest.raises(TerminalError, match="'probabilities' differs"):
        check_parity(network, tmp_path / "model.onnx", SIGNATURE, proofs(), 1e-4)


def test_nan_answers_are_never_parity(tmp_path: Path) -> None:
    network = Trap().eval()
    with torch.no_grad():
        network.embed.bias[0] = float("nan")
    served = export(network, tmp_path / "model.onnx")
    with pytest.raises(TerminalError, match="'embedding' is not finite in 1 of 1 answers"):
        check_parity(served, tmp_path / "model.onnx", SIGNATURE, proofs(), 1e-4)


def test_saved_arrays_have_the_same_bytes_each_time(tmp_path: Path) -> None:
    arrays = {"b": np.arange(3), "a": np.array(["x", "yy"])}
    digests = set()
    for name in ("one.npz", "two.npz"):
        save_arrays(tmp_path / name, arrays)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    loaded = np.load(tmp_path / "one.npz", allow_pickle=False)
    assert loaded["a"].tolist() == ["x", "yy"]
