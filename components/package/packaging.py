"""The core of ``package``: a checkpoint in, the folder that everything downstream uses out."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.package.exporting import Parity, check_parity, eager, export_network
from kfloop.core.artifacts import folder_digest, read_report, write_report
from kfloop.core.scoring import INPUT, MODEL, OUTPUTS, SIGNATURE, TRAIN_CONTENT, PackagedModel
from kfloop.errors import StateError, TerminalError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.families import NetworkSpec
    from kfloop.core.sections import PackageConfig
    from kfloop.core.versions import DatasetVersion
    from kfloop.core.workspace import Workspace

CHECKPOINT = "model.ckpt"
GOLDEN = "golden.npz"
REFERENCE = "reference.npz"
GOLDEN_ROWS = 16
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class PackageReport:
    """The package and the proof that it answers like the checkpoint.

    Attributes:
        digest: Content digest of the package, without this report.
        family: Model family.
        checkpoint_digest: Checkpoint folder.
        dataset_digest: Dataset version.
        parity: Largest difference of each output at each batch size.
        max_abs_diff: Largest of them.
        tolerance: Largest allowed difference.
        opset: ONNX opset of the graph.
        bytes: Size of each file.
        n_reference: Rows in the monitor's reference.
        n_train: Distinct rows the model was trained on.
    """

    digest: str
    family: str
    checkpoint_digest: str
    dataset_digest: str
    parity: list[Parity]
    max_abs_diff: float
    tolerance: float
    opset: int
    bytes: dict[str, int]
    n_reference: int
    n_train: int


def run(config: PackageConfig, *, dataset: Path, checkpoint: Path, out: Path, workspace: Workspace) -> PackageReport:
    """Export the checkpoint, prove the export, and write the package.

    Args:
        config: Section ``package``.
        dataset: Dataset version the checkpoint was trained on.
        checkpoint: Output of ``train``.
        out: Empty folder for the package.
        workspace: The loop's places (unused: a package depends on its inputs alone).

    Raises:
        TerminalError: The network cannot be exported, the graph draws random numbers, or it differs from torch.
        StateError: The checkpoint is damaged or belongs to another dataset version.
    """
    from kfloop.core.families.checkpoints import load_checkpoint
    from kfloop.core.versions import read_version

    del workspace
    version = read_version(dataset)
    trained_on = read_report(checkpoint).get("dataset_digest")
    if trained_on != version.digest:
        raise StateError(
            f"the checkpoint was trained on dataset '{trained_on}', but this is '{version.digest}'",
            hint="run the loop again from train: kfloop run",
        )
    spec, network = load_checkpoint(checkpoint / CHECKPOINT)
    examples = _test_images(version)
    export_network(network, spec.image_shape, out / MODEL)
    parity = check_parity(network, out / MODEL, examples, config.tolerance)
    _write_signature(out, spec, config.max_batch_size)
    golden = examples[:GOLDEN_ROWS]
    save_arrays(out / GOLDEN, {"images": golden, **eager(network, golden)})
    shutil.copyfile(checkpoint / TRAIN_CONTENT, out / TRAIN_CONTENT)
    n_reference = _write_reference(out, version)
    report = PackageReport(
        digest=folder_digest(out),
        family=spec.family,
        checkpoint_digest=folder_digest(checkpoint),
        dataset_digest=version.digest,
        parity=parity,
        max_abs_diff=max(row.max_abs_diff for row in parity),
        tolerance=config.tolerance,
        opset=_opset(out / MODEL),
        bytes={path.name: path.stat().st_size for path in sorted(out.iterdir())},
        n_reference=n_reference,
        n_train=len((out / TRAIN_CONTENT).read_text(encoding="utf-8").split()),
    )
    write_report(out, asdict(report))
    return report


def save_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` whose bytes depend on the arrays alone (numpy's own may carry the time)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted(arrays.items()):
            with archive.open(zipfile.ZipInfo(f"{name}.npy", ZIP_EPOCH), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def _test_images(version: DatasetVersion) -> NDArray[np.uint8]:
    """Images of the test split, one of each class first, so that the golden answers cover the classes."""
    split = version.split("test")
    if not len(split.ids):
        raise TerminalError(
            "the test split has no rows, but the export is proven on real examples",
            hint="add examples, or raise data.split.test",
        )
    _, first = np.unique(split.labels, return_index=True)
    rest = np.setdiff1d(np.arange(len(split.labels)), first)
    return np.asarray(split.images[np.concatenate([first, rest])])


def _write_signature(out: Path, spec: NetworkSpec, max_batch_size: int) -> None:
    """``signature.json``: names, types and shapes (-1 is the batch), labels, largest batch."""
    sizes = (len(spec.labels), spec.embedding_size)
    signature = {
        "inputs": [{"name": INPUT, "dtype": "uint8", "shape": [-1, *spec.image_shape]}],
        "outputs": [
            {"name": name, "dtype": "float32", "shape": [-1, size]} for name, size in zip(OUTPUTS, sizes, strict=True)
        ],
        "labels": list(spec.labels),
        "max_batch_size": max_batch_size,
    }
    (out / SIGNATURE).write_text(json.dumps(signature, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _write_reference(out: Path, version: DatasetVersion) -> int:
    """``reference.npz``: answers of the exported graph on held-out base rows, what the monitor compares traffic with."""
    parts = [version.split(name) for name in ("validation", "test")]
    base = [part.origin == "base" for part in parts]
    images = np.concatenate([part.images[rows] for part, rows in zip(parts, base, strict=True)])
    ids = np.concatenate([part.ids[rows] for part, rows in zip(parts, base, strict=True)])
    if not len(ids):
        raise TerminalError(
            "no held-out row has the origin 'base', but the monitor's reference is made of them",
            hint="keep the source the loop began with in data.source; add new rows through data.fresh",
        )
    scores = PackagedModel(out, threads=1).score(images)
    arrays = {"ids": ids, "embedding": scores.embedding, "probabilities": scores.probabilities}
    save_arrays(out / REFERENCE, arrays)
    return len(ids)


def _opset(path: Path) -> int:
    import onnx

    return next(int(entry.version) for entry in onnx.load(path).opset_import if entry.domain in ("", "ai.onnx"))
