"""Fresh rows that the champion learned and the request log has deleted since: without them the next version would forget what they taught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.components.ingest.source import Batch
from kfloop.core.artifacts import read_report
from kfloop.core.state.database import exists, open_state
from kfloop.core.store import Store
from kfloop.core.versions import read_version

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import pyarrow as pa

    from kfloop.components.ingest.source import Source
    from kfloop.core.versions import DatasetVersion
    from kfloop.core.workspace import Workspace

FRESH = "fresh"


class Past:
    """The fresh rows of the champion's dataset, less those that the log still has.

    Args:
        workspace: Places of the loop.
        base: The source whose columns and classes the rows must have.
        gone: Ids of requests that need no help: the log still has them.
    """

    def __init__(self, workspace: Workspace, base: Source, *, gone: Collection[str]) -> None:
        self._base, self._present = base, set(gone)
        self._version = _of_champion(workspace, base)
        self.n = sum(table.num_rows for table in self._tables(["id", "origin"]))
        self.digest = f"past\0{self._version.digest}\n" if self._version is not None and self.n else ""

    def batches(self, template: pa.Schema, split: Callable[[str], str]) -> Iterator[Batch]:
        """The rows in the columns of the base source; ``split`` gives the split of an id where the source has official ones."""
        import pyarrow as pa

        for table in self._tables(None):
            ids = [name.removeprefix(f"{FRESH}/") for name in table["id"].to_pylist()]
            columns: dict[str, Any] = {name: table[name] for name in table.column_names} | {"id": pa.array(ids)}
            if "label" in template.names:
                columns["label"] = self._labels(table["label"].to_pylist(), template.field("label").type)
            if "split" in template.names:
                columns["split"] = pa.array([split(name) for name in ids])
            found = {
                field.name: columns[field.name].cast(field.type)
                if field.name in columns
                else pa.nulls(len(ids), field.type)
                for field in template
            }
            yield Batch(table=pa.table(found))

    def _labels(self, labels: list[Any], kind: pa.DataType) -> pa.Array:
        """Labels by the indices of the base source: its classes may be more by now."""
        import pyarrow as pa

        if self._version is None or not self._base.labels:
            return pa.array(labels, kind)
        index = [list(self._base.labels).index(name) for name in self._version.labels]
        coded = [sorted(index[one] for one in item) if isinstance(item, list) else index[item] for item in labels]
        return pa.array(coded, kind)

    def _tables(self, columns: list[str] | None) -> Iterator[pa.Table]:
        import pyarrow.compute as pc

        for split in self._version.splits if self._version is not None else ():
            table = self._version.table(split, columns)  # type: ignore[union-attr]
            table = table.filter(pc.equal(table["origin"], FRESH))
            kept = [name.removeprefix(f"{FRESH}/") not in self._present for name in table["id"].to_pylist()]
            if any(kept):
                yield table.filter(kept)


def _of_champion(workspace: Workspace, base: Source) -> DatasetVersion | None:
    """The champion's dataset version; null where there is none, or where it is about other inputs or classes that the source has no more."""
    if not exists(workspace.state):
        return None
    champion = open_state(workspace.state).ledger.champion(workspace.loop)
    store = Store.of(workspace)
    if champion is None or not store.has("models", champion.model_digest):
        return None
    digest = read_report(store.path("models", champion.model_digest)).get("dataset_digest")
    if not digest or not store.has("datasets", digest):
        return None
    version = read_version(store.path("datasets", digest))
    alike = list(version.inputs) == list(base.inputs) and set(version.labels) <= set(base.labels)
    return version if alike else None
