"""How many labelled rows wait that the champion's dataset did not have: without them a retraining learns nothing new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.core.artifacts import read_report
from kfloop.core.store import Store
from kfloop.errors import StateError

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace

FRESH = "fresh"
SPLITS = ("train", "validation", "test")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def count_fresh_labels(folder: str | None, package: Path, workspace: Workspace) -> int | None:
    """Count the images in the folder of fresh labels, less those that the champion's dataset took from it.

    Args:
        folder: The folder; it may not exist yet. None means that none is configured.
        package: The champion's package; its report names the dataset.
        workspace: Places of the loop.

    Returns:
        The count, at least 0; None without a folder.

    Raises:
        StateError: The champion's dataset is not in the store, or cannot be read.
    """
    if folder is None:
        return None
    place = Path(folder) if Path(folder).is_absolute() else workspace.root / folder
    found = sum(1 for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES) if place.is_dir() else 0
    if found == 0:
        return 0
    return max(0, found - _taken(package, workspace))


def _taken(package: Path, workspace: Workspace) -> int:
    """Rows that the champion's dataset took from the folder of fresh labels.

    Only the column `origin` is read: the images of a large dataset version stay on disk.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    version = Store(workspace.store).require("datasets", read_report(package)["dataset_digest"])
    taken = 0
    for split in SPLITS:
        path = version / f"{split}.arrow"
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
                for batch in reader:
                    taken += pc.sum(pc.equal(batch.column("origin"), FRESH)).as_py() or 0
        except (OSError, KeyError, pa.ArrowException) as error:
            message = f"'{path.name}' of the champion's dataset {version.name} cannot be read: {error}"
            raise StateError(message, hint="Restore the store from a backup.") from error
    return taken
