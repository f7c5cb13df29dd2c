"""The core of ``package``: a checkpoint in, the folder that everything downstream uses out."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.package.calibrating import Temperature, temperature_of
from kfloop.components.package.exporting import export_network
from kfloop.components.package.facts import git_revision, made_with
from kfloop.components.package.proving import Parity, check_parity, eager, trials_of
from kfloop.components.package.reviewing import check_review, review_of
from kfloop.components.package.variants import asked_variants, check_variants, compare_variants
from kfloop.components.package.weighing import WHOLE, Variant
from kfloop.core.artifacts import file_sha256, folder_digest, read_report, write_report
from kfloop.core.scoring import (
    ENCODER,
    EXTERNAL,
    GOLDEN,
    MODEL,
    TRAIN_CONTENT,
    PackagedModel,
    open_session,
    run_session,
)
from kfloop.core.signature import OUTPUTS, Port, Signature, write_signature
from kfloop.errors import StateError, TerminalError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.families import NetworkSpec
    from kfloop.core.families.checkpoints import Checkpoint
    from kfloop.core.sections import PackageConfig
    from kfloop.core.versions import DatasetVersion
    from kfloop.core.workspace import Workspace

CHECKPOINT = "model.ckpt"
REFERENCE = "reference.npz"
ENOUGH_FRESH = 100
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class PackageReport:
    """The package and the proof that it answers like the checkpoint.

    Attributes:
        digest: Content digest of the package, without this report.
        family: Model family.
        objective: What it learned.
        modality: What an example is.
        checkpoint_digest: Checkpoint folder.
        dataset_digest: Dataset version.
        parity: Largest difference between torch and the served graph, of each output at each batch size.
        max_abs_diff: Largest of them: absolute for probabilities, else in units of the output's largest magnitude.
        tolerance: Largest allowed difference.
        opset: ONNX opset of the graph; 0 for an external model, which has none here.
        bytes: Size of each file.
        n_reference: Rows in the monitor's reference; 0 for generators, which have none.
        n_train: Distinct rows the model was trained on.
        normal: For anomalies, the label of normal rows: ``evaluate`` judges by it.
        temperature: ``value`` by which the graph divides its logits, and ``n_fitted`` validation rows; null without calibration.
        review: Thresholds by class and what they give (``kfloop.components.package.reviewing.Review``); null where nothing is flagged.
        git: ``commit`` of the project's folder and whether it is ``dirty``; null outside git. No part of the digest.
        made_with: Versions of the libraries that made the package. No part of the digest.
        files: SHA-256 of each file.
        external: Of an external model: ``url``, calls and rows that packaging took, ``call_ms_p50``, ``call_ms_p95``, ``price_per_1000`` rows; else null.
        train_seconds: Wall time of the training, null where the checkpoint does not say.
        train_cost: Its cost in the unit of ``train.price_per_hour``, null without a price.
        served: Which graph ``model.onnx`` is: ``fp32``, ``fp16`` or ``int8``.
        variants: That graph and the others beside it (``kfloop.components.package.variants.Variant``); empty where none was asked for.
    """

    digest: str
    family: str
    objective: str
    modality: str
    checkpoint_digest: str
    dataset_digest: str
    parity: list[Parity]
    max_abs_diff: float
    tolerance: float
    opset: int
    bytes: dict[str, int]
    n_reference: int
    n_train: int
    normal: str | None = None
    temperature: dict[str, Any] | None = None
    review: dict[str, Any] | None = None
    git: dict[str, Any] | None = None
    made_with: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    external: dict[str, Any] | None = None
    train_seconds: float | None = None
    train_cost: float | None = None
    served: str = WHOLE
    variants: list[dict[str, Any]] = field(default_factory=list)


def run(config: PackageConfig, *, dataset: Path, checkpoint: Path, out: Path, workspace: Workspace) -> PackageReport:
    """Export the checkpoint, prove the export, and write the package.

    Args:
        config: Section ``package``.
        dataset: Dataset version the checkpoint was trained on.
        checkpoint: Output of ``train``.
        out: Empty folder for the package.
        workspace: The loop's places; of its folder the git revision is told. The package itself depends on its inputs alone, and one of
            an external model on its endpoint.

    Raises:
        TerminalError: The network cannot be exported, the graph draws random numbers, or it differs from torch; too few validation rows for
            a temperature; the variant that is to be served does not pass.
        StateError: The checkpoint is damaged or belongs to another dataset version.
        ConfigError: ``calibration``, ``review`` or ``variants`` does not fit what was learned.
    """
    from kfloop.core.families.checkpoints import load_checkpoint
    from kfloop.core.versions import read_version

    version = read_version(dataset)
    training = read_report(checkpoint)
    trained_on = training.get("dataset_digest")
    if trained_on != version.digest:
        raise StateError(
            f"the checkpoint was trained on dataset '{trained_on}', but this is '{version.digest}'",
            hint="run the loop again from train: kfloop run",
        )
    if (checkpoint / EXTERNAL).is_file():
        from kfloop.components.package.asking import package_external

        return package_external(config, version, checkpoint, out, workspace)
    trained = load_checkpoint(checkpoint / CHECKPOINT)
    spec = trained.spec
    check_review(config.review, spec.objective)
    check_variants(config, spec.objective, batched=trained.encoder.batched)
    temperature = temperature_of(config, trained, version)
    parity, variants = _write_model(out, trained, version, config, temperature)
    shutil.copyfile(checkpoint / TRAIN_CONTENT, out / TRAIN_CONTENT)
    model = PackagedModel(out, threads=1)
    generates = spec.objective == "generation"
    n_reference = 0 if generates else write_reference(model, version, spec.facts.get("normal"))
    review = review_of(config.review, model, version)
    report = PackageReport(
        digest=folder_digest(out),
        family=spec.family,
        objective=spec.objective,
        modality=spec.modality,
        checkpoint_digest=folder_digest(checkpoint),
        dataset_digest=version.digest,
        parity=parity,
        max_abs_diff=max(row.max_abs_diff for row in parity),
        tolerance=config.tolerance if config.serve == WHOLE else config.variant_tolerance,
        opset=_opset(out / MODEL),
        bytes={path.name: path.stat().st_size for path in sorted(out.iterdir())},
        n_reference=n_reference,
        n_train=len((out / TRAIN_CONTENT).read_text(encoding="utf-8").split()),
        normal=spec.facts.get("normal"),
        temperature=temperature.plain() if temperature else None,
        review=review.plain() if review else None,
        **origin_of(out, workspace),
        train_seconds=training.get("seconds"),
        train_cost=(training.get("throughput") or {}).get("cost"),
        served=config.serve,
        variants=[one.plain() for one in variants],
    )
    write_report(out, asdict(report))
    return report


def origin_of(out: Path, workspace: Workspace) -> dict[str, Any]:
    """Digests of the package's files, and what made them."""
    return {
        "git": git_revision(workspace.root),
        "made_with": made_with(),
        "files": {path.name: file_sha256(path) for path in sorted(out.iterdir())},
    }


def save_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` whose bytes depend on the arrays alone (numpy's own may carry the time)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted(arrays.items()):
            with archive.open(zipfile.ZipInfo(f"{name}.npy", ZIP_EPOCH), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def _write_model(
    out: Path, trained: Checkpoint, version: DatasetVersion, config: PackageConfig, temperature: Temperature | None
) -> tuple[list[Parity], list[Variant]]:
    """Graph, signature, encoder and golden answers: those of the served graph, which is torch's own twin or a variant of it."""
    from kfloop.core.families.heads import Served

    spec, encoder = trained.spec, trained.encoder
    served = Served(trained.network, spec.objective, temperature.value if temperature else 1.0).eval()
    examples = encoder.examples(version, "test", spec.objective, normal=spec.facts.get("normal"))
    trials = trials_of(spec, examples, config.max_batch_size)
    answers = eager(served, spec.objective, trials.golden)
    batched = encoder.batched or spec.objective == "generation"
    signature = _signature(spec, answers, config.max_batch_size if batched else 0)
    export_network(served, signature, trials.traced, out / MODEL)
    parity = check_parity(served, out / MODEL, signature, trials.proofs, config.tolerance)
    write_signature(out, signature)
    text = json.dumps(encoder.plain(), indent=1, sort_keys=True)
    (out / ENCODER).write_text(text + "\n", encoding="utf-8")
    variants: list[Variant] = []
    if asked_variants(config):
        expected = [eager(served, spec.objective, inputs) for inputs in trials.proofs]
        whole, normal = PackagedModel(out, threads=1), spec.facts.get("normal")
        variants = compare_variants(config, version, whole, trials.proofs, expected, normal)
    if config.serve != WHOLE:
        answers = run_session(open_session(out / MODEL, threads=1), signature, trials.golden)
        parity = next(list(one.parity) for one in variants if one.served)
    golden = {f"input.{port.name}": array for port, array in zip(signature.inputs, trials.golden, strict=True)}
    save_arrays(out / GOLDEN, golden | {f"output.{name}": array for name, array in answers.items()})
    return parity, variants


def _signature(spec: NetworkSpec, answers: dict[str, NDArray[Any]], max_batch_size: int) -> Signature:
    """The signature; the shapes of outputs are those of real answers, without the axis along which answers are counted."""
    whole = () if max_batch_size else (-1,)
    outputs = [
        Port(name=name, dtype=str(answers[name].dtype), shape=(*whole, *answers[name].shape[1:]))
        for name in OUTPUTS[spec.objective]
    ]
    return Signature(
        objective=spec.objective,
        modality=spec.modality,
        family=spec.family,
        inputs=spec.inputs,
        outputs=tuple(outputs),
        labels=spec.labels,
        max_batch_size=max_batch_size,
    )


def write_reference(model: PackagedModel, version: DatasetVersion, normal: str | None) -> int:
    """``reference.npz``: answers of the package on held-out rows and their truth, what the monitor compares traffic with.

    The rows are those of ``data.fresh`` where at least 100 of them are held out: after a retraining they are what traffic is like now, and compared with the
    rows of before it would be called drift again at once. Else they are the rows of the source the loop began with.

    Of tables and vectors the rows' tensors stand beside them as ``input.NAME``, and ``time`` in seconds since 1970 where the rows have one.
    """
    ids, targets, parts, times = [], [], [], []
    columns = model.encoder.modality in {"table", "vector"}  # of these the monitor watches single columns
    held = {
        split: model.encoder.examples(version, split, model.signature.objective, normal=normal)
        for split in ("validation", "test")
    }
    fresh = sum(int((rows.origin == "fresh").sum()) for rows in held.values())
    for split, both in held.items():
        rows = both.take(both.origin == ("fresh" if fresh >= ENOUGH_FRESH else "base"))
        ids.append(rows.ids)
        targets.append(rows.target)
        times.append(_times(version, split, rows.ids))
        ports = model.signature.inputs if columns else ()
        tensors = {f"input.{port.name}": array for port, array in zip(ports, rows.inputs, strict=False)}
        parts.append(model.score(rows) | tensors)
    if not sum(map(len, ids)):
        raise TerminalError(
            "no held-out row has the origin 'base', but the monitor's reference is made of them",
            hint="keep the source the loop began with in data.source; add new rows through data.fresh",
        )
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    known = [seconds for seconds in times if seconds is not None]
    timed = {"time": np.concatenate(known)} if len(known) == len(times) else {}
    named = {"ids": np.concatenate(ids), "target": np.concatenate(targets)}
    save_arrays(model.folder / REFERENCE, named | arrays | timed)
    return sum(map(len, ids))


def _times(version: DatasetVersion, split: str, ids: NDArray[Any]) -> NDArray[np.float64] | None:
    """Seconds since 1970 of these rows; null where the version's rows have no time, or a number that is none."""
    import pyarrow as pa

    table = version.table(split)
    if not {"id", "time"} <= set(table.column_names):
        return None
    kind = table["time"].type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)) or table["time"].null_count:
        return None
    seconds = table["time"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1e6
    at = dict(zip(table["id"].to_pylist(), seconds.tolist(), strict=True))
    return np.array([at[name] for name in ids.tolist()], dtype=float)


def _opset(path: Path) -> int:
    import onnx

    return next(int(entry.version) for entry in onnx.load(path).opset_import if entry.domain in ("", "ai.onnx"))
