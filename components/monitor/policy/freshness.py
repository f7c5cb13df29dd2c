"""How many labelled rows wait that the champion's dataset did not have: without them a retraining learns nothing new."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.core.artifacts import read_report
from kfloop.core.ground_truth import truth_file
from kfloop.core.quality.answers import answer_times
from kfloop.core.request_times import request_times, within
from kfloop.core.sections import REQUESTS
from kfloop.core.store import Store
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.core.sections import MonitorConfig
    from kfloop.core.workspace import Workspace

FRESH = "fresh"
SPLITS = ("train", "validation", "test")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labelled rows that a retraining could learn from.

    Attributes:
        fresh: Those that the champion's dataset did not have.
        known: Those that came and are known still: fewer later where the request log has deleted its oldest rows.
        told: When the truth of the fresh ones was told, seconds since 1970, ascending, as far as anybody said so.
    """

    fresh: int
    known: int
    told: tuple[float, ...] = ()

    @property
    def taken(self) -> int:
        """Those that are not new to the champion."""
        return self.known - self.fresh

    def since(self, at: float) -> int:
        """How many of the fresh ones were told after a moment."""
        return len(self.told) - bisect_right(self.told, at)


def count_fresh_labels(config: MonitorConfig, package: Path, workspace: Workspace) -> Labels | None:
    """Count the images in the folder of fresh labels, or the labelled requests of the loop's own log, less those that the champion's dataset took.

    Args:
        config: Section ``monitor``; its folder may not exist yet.
        package: The champion's package; its report names the dataset.
        workspace: Places of the loop.

    Returns:
        The counts, at least 0; None where no fresh labels are configured.

    Raises:
        StateError: The champion's dataset is not in the store, or cannot be read.
    """
    if config.fresh is None:
        return None
    if config.fresh == REQUESTS:
        return _requests(config, package, workspace)
    place = Path(config.fresh) if Path(config.fresh).is_absolute() else workspace.root / config.fresh
    found = sum(1 for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES) if place.is_dir() else 0
    return Labels(fresh=max(0, found - _taken(package, workspace)) if found else 0, known=found)


def _requests(config: MonitorConfig, package: Path, workspace: Workspace) -> Labels:
    """Labelled requests that the log still has: all of them, and those in the window that the champion's dataset did not take."""
    answered = answer_times(truth_file(config.feedback, workspace.root))
    if not answered:
        return Labels(fresh=0, known=0)
    times = request_times(workspace.request_log / workspace.loop, answered)
    taken = {name.removeprefix(f"{FRESH}/") for name in _taken_ids(package, workspace)}
    fresh = set(within(times, config.window_days)) - taken
    told = sorted(at for name in fresh if (at := answered[name]) is not None)
    return Labels(fresh=len(fresh), known=len(set(times) | taken), told=tuple(told))


def _taken(package: Path, workspace: Workspace) -> int:
    """Number of rows that the champion's dataset took from the fresh labels."""
    return sum(1 for _ in _taken_ids(package, workspace))


def _taken_ids(package: Path, workspace: Workspace) -> Iterator[str]:
    """Ids of the rows that the champion's dataset took from the fresh labels.

    Only the columns `origin` and `id` are read: the images of a large dataset version stay on disk.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    version = Store.of(workspace).require("datasets", read_report(package)["dataset_digest"])
    for split in SPLITS:
        path = version / f"{split}.arrow"
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
                for batch in reader:
                    yield from batch.column("id").filter(pc.equal(batch.column("origin"), FRESH)).to_pylist()
        except (OSError, KeyError, pa.ArrowException) as error:
            message = f"'{path.name}' of the champion's dataset {version.name} cannot be read: {error}"
            raise StateError(message, hint="Restore the store from a backup.") from error
