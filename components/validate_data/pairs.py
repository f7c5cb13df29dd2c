"""Which sets of rows are compared: splits with each other, this version with the last, training data with requests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.validate_data.manifest import build_manifest, image_facts, pixels_of
from kfloop.components.validate_data.skew import compare_tables, sample
from kfloop.core.expectations.outcomes import FAIL, PASS
from kfloop.core.request_cells import read_rows
from kfloop.core.request_files import model_files
from kfloop.core.store import Store
from kfloop.core.versions import SPLITS, read_version

if TYPE_CHECKING:
    import pyarrow as pa

    from kfloop.core.sections import ValidationConfig
    from kfloop.core.versions import DatasetVersion
    from kfloop.core.workspace import Workspace

MOST_IMAGES = 20_000  # of each side, whose pixels are read to compare with requests
REQUESTS = "train/requests"
PREVIOUS = "previous/current"
NOT_NAMED = "not compared: there is a request log, and it was out of reach where this run was started (a laptop that submits to a cluster, or a step alone)"


def compare(
    version: DatasetVersion, manifest: pa.Table, config: ValidationConfig, workspace: Workspace
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Skew of every pair that exists.

    Returns:
        Entries for the report, and for a pair that could not be compared the reason.
    """
    import pyarrow.compute as pc

    places = {split: np.flatnonzero(pc.equal(manifest["split"], split).to_numpy()) for split in SPLITS}
    parts = {split: sample(manifest, rows) for split, rows in places.items()}
    pairs = {f"train/{split}": (parts["train"], parts[split]) for split in ("validation", "test")}
    notes: dict[str, str] = {}
    previous = version.card.get("previous")
    if previous and previous != version.digest:
        store = Store.of(workspace)
        if store.has("datasets", previous):
            pairs[PREVIOUS] = (build_manifest(read_version(store.path("datasets", previous))), manifest)
        else:
            notes[PREVIOUS] = f"the previous version '{previous}' is no longer in the store"
    found = _requests(version, config, workspace)
    if isinstance(found, str):
        notes |= {REQUESTS: found} if found else {}
    else:
        pairs[REQUESTS] = found
    skew: list[dict[str, Any]] = []
    for pair, (reference, current) in pairs.items():
        skew += compare_tables(reference, current, pair=pair, level=config.skew_level, effect=config.skew_effect)
    return skew, notes


def skew_results(skew: list[dict[str, Any]], notes: dict[str, str]) -> list[dict[str, Any]]:
    """One warning for each pair that was compared, and one note for each that could not be."""
    results = []
    for pair in dict.fromkeys(entry["pair"] for entry in skew):
        entries = [entry for entry in skew if entry["pair"] == pair]
        skewed = sorted((entry for entry in entries if entry["skewed"]), key=lambda entry: -entry["effect"])
        worst = max(entries, key=lambda entry: (entry["skewed"], entry["effect"]))
        detail = ", ".join(f"{entry['column']} ({entry['test']} {entry['effect']:.2f})" for entry in skewed[:10])
        results.append(
            _line(pair, not skewed, worst["effect"], ", ".join(entry["column"] for entry in skewed[:1]), detail)
        )
    return [*results, *(_line(pair, True, None, "", note) for pair, note in notes.items())]


def _line(pair: str, passed: bool, observed: float | None, column: str, detail: str) -> dict[str, Any]:
    return {
        "expectation": f"skew:{pair}",
        "column": column,
        "severity": "warning",
        "passed": passed,
        "word": PASS if passed else FAIL,
        "observed": observed,
        "detail": detail,
    }


def _requests(
    version: DatasetVersion, config: ValidationConfig, workspace: Workspace
) -> tuple[pa.Table, pa.Table] | str:
    """Facts of the training images and of the latest logged ones, both from pixels; or why they are not compared, empty where nobody would expect it."""
    model = workspace.loop
    if config.requests is None:
        # Whoever starts a run names the log and its state, which is part of the cache's key: the step alone must not look.
        unseen = version.modality == "image" and model_files(workspace.request_log / model)
        return NOT_NAMED if unseen else ""
    folder = Path(config.requests)
    if not folder.is_dir():
        return f"there is no folder '{folder}' (validation.requests)"
    if version.modality != "image":
        return f"the request log holds images, this version {version.modality} rows"
    shape = version.image_shape
    logged, problem = _logged(folder / model, int(np.prod(shape)))
    if not len(logged):
        return f"no requests to '{model}' are logged" + (f" that can be used: {problem}" if problem else "")
    train = version.table("train", ["image"])
    return (
        _pixel_facts(pixels_of(sample(train, np.arange(train.num_rows), MOST_IMAGES), shape)),
        _pixel_facts(logged.reshape(-1, *shape)),
    )


def _logged(folder: Path, width: int) -> tuple[np.ndarray, str]:
    """The latest logged images, uint8 [N, width], from the newest files on; and what was wrong with the last file that could not be used."""
    import pyarrow as pa

    parts: list[np.ndarray] = []
    problem, rows = "", 0
    for path in reversed(model_files(folder)):
        if rows >= MOST_IMAGES:
            break
        try:
            column = read_rows(path, ["image"])["image"].combine_chunks()
            flat = column.flatten().to_numpy(zero_copy_only=False)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            problem = f"{path.name}: {error}"
            continue
        if len(flat) != len(column) * width:
            found = len(flat) // max(1, len(column))
            problem = f"{path.name}: logged images have {found} values, those of this version {width}"
            continue
        parts.append(np.asarray(flat).reshape(-1, width))
        rows += len(column)
    return (np.concatenate(parts)[:MOST_IMAGES] if parts else np.empty((0, width), np.uint8)), problem


def _pixel_facts(images: np.ndarray) -> pa.Table:
    import pyarrow as pa

    return pa.table(image_facts(images))
