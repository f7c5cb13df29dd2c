"""Fresh rows out of the loop's own request log: what it was asked, joined with what turned out to be true.

Unlike a log that is a source, these rows must have the columns of ``data.source``; the encoder of the version that answered turns the tensors back.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.ingest.readers.requests.decoding import DECODED, LOST, decode
from kfloop.components.ingest.readers.requests.feedback import class_names, decide_task, encode, read_feedback
from kfloop.components.ingest.readers.requests.past import Past
from kfloop.components.ingest.source import FILES_PER_BATCH, Batch, Source
from kfloop.core.artifacts import DIGEST_LENGTH
from kfloop.core.request_cells import read_rows
from kfloop.core.request_files import model_files
from kfloop.core.request_times import request_times, within
from kfloop.core.scoring import read_encoder
from kfloop.core.state.database import exists, open_state
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace
from kfloop.errors import InputError, KfloopError
from kfloop.serving.log_mirror import bring

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import pyarrow as pa

    from kfloop.core.sections import DataConfig

KIND = "requests"


def open_served(config: DataConfig, base: Source) -> Source | None:
    """Open the loop's own log as fresh rows; null where nothing was answered so far.

    Args:
        config: Section ``data``; its ``places`` are the loop's.
        base: The source whose columns and classes the rows must have.

    Raises:
        InputError: Rows of such data are not logged one by one, or an answer is not of the source's classes.
    """
    if base.modality not in DECODED or base.task == "forecasting":
        raise InputError(
            f"data.fresh is 'requests', but this loop has {base.modality} data: requests about them cannot become rows",
            hint="name a file or folder of newly labelled rows in data.fresh",
        )
    workspace = Workspace.from_json(str(config.places))
    truth = Path(str(config.feedback))
    log = bring(workspace) / workspace.loop
    if not truth.is_file() or not truth.stat().st_size:
        return None
    known = read_feedback(truth)
    logged = request_times(log, known.answers)
    times = within(logged, config.recipe.window_days)
    past = Past(workspace, base, gone=logged.keys()) if config.recipe.window_days is None else None
    if not times and not (past and past.n):
        return None
    usable = {name: known.answers[name] for name in times}
    task = decide_task(usable, known.path, base.task) if usable else base.task
    labels = () if task == "regression" else class_names(usable, known.path, base.labels, strict=True)
    coded = encode(usable, known.path, task, labels)
    lines = "".join(f"{name}\0{times[name]}\0{usable[name].label!r}\n" for name in sorted(usable))
    lines += past.digest if past else ""
    rows = _Rows(config=config, base=base, workspace=workspace, log=log, coded=coded, past=past)
    return Source(
        kind=KIND,
        modality=base.modality,
        task=task,
        uri=str(log),
        labels=base.labels,
        n=len(times) + (past.n if past else 0),
        digest=hashlib.sha256(lines.encode()).hexdigest()[:DIGEST_LENGTH],
        schema=base.schema,
        inputs=base.inputs,
        facts=base.facts,
        batches=rows.batches,
        notes=tuple(_notes(config, base, len(times), len(logged) - len(times), past.n if past else 0)),
    )


def _notes(config: DataConfig, base: Source, taken: int, outside: int, past: int) -> Iterator[str]:
    yield f"{taken} labelled requests of the loop's own log are fresh rows"
    if past:
        yield f"{past} fresh rows are those of the champion's dataset that the log has deleted since"
    if outside:
        days = config.recipe.window_days
        yield f"{outside} labelled requests are older than data.recipe.window_days ({days:g}) and are left out"
    if base.modality in LOST:
        yield f"of the request log: {LOST[base.modality]}"
    if config.group is not None:
        yield f"requests do not tell their '{config.group}': each counts as a group of its own"


@dataclass(frozen=True, kw_only=True)
class _Rows:
    config: DataConfig
    base: Source
    workspace: Workspace
    log: Path
    coded: Mapping[str, Any]
    past: Past | None

    def batches(self) -> Iterator[Batch]:
        """The labelled requests, file by file; a request that was logged twice counts once."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        template = next((batch.table.schema for batch in self.base.batches() if batch.table.num_rows), None)
        if template is None:
            return
        versions, left = _Versions(self.workspace), set(self.coded)
        for path in model_files(self.log):
            try:
                ids = pq.read_table(path, columns=["request_id"])["request_id"].to_pylist()
                first = {name: place for place, name in reversed(list(enumerate(ids))) if name in left}
                if not first:
                    continue
                table = read_rows(path).take(pa.array(sorted(first.values()), pa.int64()))
            except (OSError, KeyError, pa.ArrowException):
                continue
            left -= set(first)
            for version in sorted(set(table["version"].to_pylist())):
                part = table.filter(pc.equal(table["version"], version))
                for start in range(0, part.num_rows, FILES_PER_BATCH):
                    yield self._batch(part.slice(start, FILES_PER_BATCH), versions, int(version), template)
        if self.past is not None:
            yield from self.past.batches(template, self._split)

    def _batch(self, part: pa.Table, versions: _Versions, version: int, template: pa.Schema) -> Batch:
        """Rows that one version answered, in the columns of the base source."""
        import pyarrow as pa

        ids = part["request_id"].to_pylist()
        types = {name: template.field(name).type for name in (*self.base.inputs, *self.base.facts)}
        try:
            encoder = versions.encoder(version)
            columns = decode(encoder, _tensors(part, encoder), types, self.base.schema)
        except (KfloopError, ValueError, KeyError, pa.ArrowException) as error:
            why = error.message if isinstance(error, KfloopError) else f"its inputs cannot be turned back: {error}"
            aside = [{"id": name, "reason": f"request '{name}' of version {version}: {why}"} for name in ids]
            return Batch(table=template.empty_table(), quarantined=aside)
        columns["id"] = pa.array(ids, pa.string())
        if "label" in template.names:
            columns["label"] = pa.array([self.coded[name] for name in ids], template.field("label").type)
        columns |= self._beside(part, template)
        return Batch(table=pa.table({field.name: columns[field.name] for field in template}))

    def _beside(self, part: pa.Table, template: pa.Schema) -> dict[str, pa.Array]:
        """Group, time and split of requests, where the source has them."""
        import pyarrow as pa

        ids, found = part["request_id"].to_pylist(), dict[str, Any]()
        if "group" in template.names:
            found["group"] = pa.array([f"request/{name}" for name in ids], template.field("group").type)
        if "time" in template.names:
            kind = template.field("time").type
            micros = pa.array([at // 1000 for at in part["ts_ns"].to_pylist()], pa.int64())
            found["time"] = micros.cast(pa.timestamp("us")).cast(kind)
        if "split" in template.names:
            found["split"] = pa.array([self._split(name) for name in ids], template.field("split").type)
        return found

    def _split(self, name: str) -> str:
        """Split of a request where the source's own are official: by a hash of its id, which never changes."""
        share = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2.0**64
        split = self.config.split
        if share < split.test:
            return "test"
        return "validation" if share < split.test + split.validation else "train"


class _Versions:
    """Encoders of the versions that answered; packages stay in the store when the server has long dropped a version."""

    def __init__(self, workspace: Workspace) -> None:
        self._store = Store.of(workspace)
        history = open_state(workspace.state).ledger.history(workspace.loop) if exists(workspace.state) else []
        self._digests = {entry.version: entry.model_digest for entry in history if entry.version and entry.model_digest}
        self._known: dict[int, Any] = {}

    def encoder(self, version: int) -> Any:
        """The encoder of one version.

        Raises:
            InputError: Nobody knows the version.
            StateError: Its package is gone.
        """
        if version not in self._digests:
            raise InputError(f"the ledger knows no version {version}, so that nothing says what its tensors mean")
        if version not in self._known:
            self._known[version] = read_encoder(self._store.require("models", self._digests[version]))
        return self._known[version]


def _tensors(part: pa.Table, encoder: Any) -> dict[str, np.ndarray]:
    """Input tensors of rows, [n, ...].

    Raises:
        InputError: The log holds no inputs.
        ValueError: Rows of another width.
    """
    found = {}
    for port in encoder.ports:
        name = next((item for item in (port.name, f"input.{port.name}") if item in part.column_names), None)
        if name is None:
            raise InputError(
                f"the log has no '{port.name}'", hint="set serve.log.inputs to 'full', and start the server again"
            )
        values = part[name].combine_chunks()
        flat = values.flatten().to_numpy(zero_copy_only=False)
        found[port.name] = flat.astype(port.dtype).reshape(part.num_rows, *port.shape)
    return found
