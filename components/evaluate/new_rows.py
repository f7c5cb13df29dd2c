"""Which freshly labelled test rows the champion's dataset version did not hold: on those a challenger has to show that it learned them.

Fresh rows that were there when the champion was made are nothing new: an equal challenger is no worse there, and nobody can ask for more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.artifacts import read_report
from kfloop.core.store import Store
from kfloop.errors import StateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.components.evaluate.opening import Contestant
    from kfloop.core.encoding import Examples
    from kfloop.core.versions import DatasetVersion
    from kfloop.core.workspace import Workspace

FRESH = "fresh"


@dataclass(frozen=True, kw_only=True)
class NewRows:
    """Test rows that are new to the champion.

    Attributes:
        rows: Which they are, bool [N].
        text: In words, and where nobody knows what the champion's dataset version held, that all fresh rows count as new.
    """

    rows: NDArray[np.bool_]
    text: str


def new_rows(test: Examples, version: DatasetVersion, champion: Contestant, workspace: Workspace) -> NewRows:
    """Fresh test rows whose content was in no split of the dataset version that the champion's package names.

    Args:
        test: The test rows.
        version: Their dataset version.
        champion: The champion.
        workspace: The loop's places; the champion's dataset version is in its store, unless somebody removed it.
    """
    fresh = test.origin == FRESH
    digest = read_report(champion.model.folder).get("dataset_digest")
    text = "freshly labelled rows that were not in the champion's dataset version"
    if digest == version.digest or not fresh.any():
        return NewRows(rows=np.zeros(len(fresh), dtype=np.bool_), text=text)
    try:
        known = _held(test.content, str(digest), workspace)
    except StateError as error:
        return NewRows(
            rows=fresh,
            text=f"freshly labelled rows, all taken as new: the champion's dataset version is unknown ({error.message})",
        )
    return NewRows(rows=fresh & ~known, text=text)


def _held(content: NDArray[np.str_], digest: str, workspace: Workspace) -> NDArray[np.bool_]:
    """Which of these rows a dataset version in the store holds, bool [N].

    Raises:
        StateError: It is not there, or damaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from kfloop.core.versions import read_version

    version = read_version(Store.of(workspace).require("datasets", digest))
    asked, found = pa.array(content.tolist(), pa.string()), np.zeros(len(content), dtype=np.bool_)
    for split in version.splits:
        held = version.table(split, ["content"])["content"].combine_chunks().cast(pa.string())
        found |= pc.is_in(asked, value_set=held).to_numpy(zero_copy_only=False)
    return found
