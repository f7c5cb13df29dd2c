"""From a stream of typed columns to a source: roles, labels, features, and what is set aside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.labels.columns import is_group_name
from kfloop.components.ingest.labels.encoding import encode
from kfloop.components.ingest.labels.plan import LabelPlan, settle
from kfloop.components.ingest.readers.table.features import Features, choose_features, conform
from kfloop.components.ingest.readers.table.kinds import is_simple, normalise, parsed, type_name
from kfloop.components.ingest.readers.table.limit import Limit
from kfloop.components.ingest.readers.table.roles import Roles, find_roles, suggested
from kfloop.components.ingest.readers.table.scan import as_text, label_column, official, scan, splits_named
from kfloop.components.ingest.readers.text.facts import FACTS, text_facts
from kfloop.components.ingest.source import ROWS_PER_BATCH, Batch, Source
from kfloop.errors import ConfigError, InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from kfloop.components.ingest.readers.table.feed import Feed, Rows
    from kfloop.core.sections import DataConfig


def source_of(feed: Feed, config: DataConfig, uri: str, like: Source | None) -> Source:
    """Open a source over a feed.

    Args:
        feed: Typed columns.
        config: Section ``data``.
        uri: Where it is.
        like: The base source, when these are freshly labelled rows.

    Raises:
        InputError: Columns, labels, ids or splits cannot be used.
        ConfigError: The configuration asks for what a table cannot be.
    """
    if config.task == "forecasting":
        raise ConfigError(
            f"data.task is 'forecasting', but {feed.where} is read as rows", hint="set data.modality: series"
        )
    task = config.task if like is None else like.task
    roles = find_roles(tuple(feed.types), config, feed.where)
    labels, unique, unfit = scan(feed, roles, task)
    notes = list(feed.notes)
    share = len(unfit) / feed.n
    if like is None and share > config.max_quarantined_share:
        notes.append(
            f"{len(unfit)} of {feed.n} rows cannot be used, and a run refuses more than {config.max_quarantined_share:.0%}: {unfit[0]}"
        )
    if not unique:
        notes.append("column 'id' repeats values: rows are named by their place in the source instead")
        roles = replace(roles, id=None, others=tuple(name for name in feed.types if name in {roles.id, *roles.others}))
    known = None if like is None or like.task == "regression" else like.labels
    plan = settle(labels, roles.label, feed.where, feed.place, known, task)
    sample = _sample(feed, roles)
    features, said = choose_features(feed, roles, config, sample, like)
    reader = _Reader(
        feed=feed,
        roles=roles,
        plan=plan,
        features=features,
        limit=Limit(feed.n, config.limit if like is None else None),
        task=task,
    )
    _check_time(feed, roles)
    named = None if like is not None else splits_named(roles, sample)
    if named is not None:
        notes.append(
            f"column '{named}' holds names of splits: they are kept when data.split.column is '{named}', else it is an input"
        )
    return Source(
        kind=feed.kind,
        modality=features.modality,
        task=plan.task,
        uri=uri,
        labels=plan.names,
        n=reader.limit.n,
        digest=feed.digest,
        schema={"columns": {name: type_name(kind) for name, kind in features.types.items()}}
        if features.modality == "table"
        else {},
        inputs=tuple(features.types),
        facts=FACTS if features.modality == "text" else (),
        batches=reader.batches,
        suggestions=_suggestions(feed, roles, features, sample, named),
        notes=(*notes, *plan.notes, *said),
    )


def _sample(feed: Feed, roles: Roles) -> pa.Table:
    """The first rows of the columns without a role; those of a type that no feature can have are told later, if they are to be one."""
    simple = [name for name in roles.others if is_simple(feed.types[name])]
    return next(iter(feed.read(simple))).table if simple else None


def _check_time(feed: Feed, roles: Roles) -> None:
    import pyarrow as pa

    if roles.time is not None and feed.types[roles.time] not in {pa.int64(), pa.timestamp("us"), pa.string()}:
        raise InputError(
            f"{feed.where}: column '{roles.time}' (data.time) is of type {feed.types[roles.time]}: expected times or whole numbers",
            hint="write times such as 2024-05-01T12:00:00, or name another column",
            column=roles.time,
        )


def _suggestions(feed: Feed, roles: Roles, features: Features, sample: Any, splits: str | None) -> dict[str, Any]:
    import pyarrow.compute as pc

    distinct = {
        name: pc.count_distinct(sample[name]).as_py()
        for name in roles.others
        if is_group_name(name) and is_simple(feed.types[name])
    }
    found: dict[str, Any] = suggested(roles, feed.types, distinct, 0 if sample is None else sample.num_rows)
    if splits is not None and roles.group is None and "group" not in found:
        found["split"] = {"column": splits}
    if features.guessed:
        found["text"] = features.text
    return found


@dataclass(frozen=True, kw_only=True)
class _Reader:
    feed: Feed
    roles: Roles
    plan: LabelPlan
    features: Features
    limit: Limit
    task: str

    def batches(self) -> Iterator[Batch]:
        roles = self.roles
        wanted = [roles.label, roles.id, roles.group, roles.time, roles.split, *self.features.columns]
        for rows in self.feed.read([name for name in dict.fromkeys(wanted) if name is not None]):
            batch = self._batch(rows)
            for start in range(0, max(1, batch.table.num_rows), ROWS_PER_BATCH):
                part = batch.table.slice(start, ROWS_PER_BATCH)
                yield Batch(table=part, quarantined=batch.quarantined if start == 0 else [])

    def _batch(self, rows: Rows) -> Batch:
        import pyarrow as pa

        table, numbers, roles = rows.table, rows.numbers, self.roles
        problems = dict(rows.bad)
        label, wrong = encode(self.plan, label_column(table[roles.label], roles.label, self.task))
        self._note(problems, numbers, roles.label, wrong)
        columns: dict[str, Any] = {"id": self._ids(rows, problems)}
        columns |= self._inputs(rows, problems)
        columns["label"] = label
        if roles.group is not None:
            columns["group"] = as_text(normalise(roles.group, table[roles.group]))
            self._missing(problems, numbers, roles.group, columns["group"], "no group")
        if roles.time is not None:
            columns["time"] = self._times(rows, problems)
        if roles.split is not None:
            columns["split"] = official(table[roles.split], numbers, roles.split, self.feed)
            self._missing(problems, numbers, roles.split, columns["split"], "no split")
        kept = self.limit.kept(numbers)
        fit = kept & ~np.isin(numbers, list(problems)) if problems else kept
        found = pa.table(columns)
        return Batch(
            table=found if fit.all() else found.filter(pa.array(fit)),
            quarantined=self._quarantined(problems, numbers, columns["id"]),
        )

    def _quarantined(self, problems: dict[int, str], numbers: np.ndarray, ids: pa.Array) -> list[dict[str, str]]:
        if not problems:
            return []
        ordered = np.array(sorted(problems), dtype=np.int64)
        ordered = ordered[self.limit.kept(ordered)]
        at = np.searchsorted(numbers, ordered)
        found = []
        for number, place in zip(ordered.tolist(), at.tolist(), strict=True):
            there = place < len(numbers) and numbers[place] == number
            name = ids[place].as_py() if there else None
            found.append({"id": str(number) if name is None else name, "reason": problems[number]})
        return found

    def _note(self, problems: dict[int, str], numbers: np.ndarray, column: str, wrong: dict[int, str]) -> None:
        for at, reason in wrong.items():
            number = int(numbers[at])
            problems.setdefault(number, f"{self.feed.place(number)}, column '{column}': {reason}")

    def _missing(
        self, problems: dict[int, str], numbers: np.ndarray, column: str, values: pa.Array, reason: str
    ) -> None:
        if values.null_count:
            missing = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)).tolist()
            self._note(problems, numbers, column, dict.fromkeys(missing, reason))

    def _ids(self, rows: Rows, problems: dict[int, str]) -> pa.Array:
        import pyarrow as pa

        if self.roles.id is None:
            return pa.array(rows.numbers).cast(pa.string())
        ids = as_text(normalise(self.roles.id, rows.table[self.roles.id]))
        self._missing(problems, rows.numbers, self.roles.id, ids, "no id")
        return ids

    def _inputs(self, rows: Rows, problems: dict[int, str]) -> dict[str, pa.Array]:
        import pyarrow as pa
        import pyarrow.compute as pc

        found: dict[str, pa.Array] = {}
        for column, (name, kind) in zip(self.features.columns, self.features.types.items(), strict=True):
            found[name], wrong = conform(normalise(column, rows.table[column]), kind)
            self._note(problems, rows.numbers, column, wrong)
        if self.features.modality == "text":
            texts = found["text"]
            blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
            unusable = pc.if_else(blank, pa.scalar(None, pa.string()), texts)
            self._missing(problems, rows.numbers, self.features.columns[0], unusable, "no text")
            found |= text_facts(texts)
        return found

    def _times(self, rows: Rows, problems: dict[int, str]) -> pa.Array:
        import pyarrow as pa

        column = str(self.roles.time)
        times = normalise(column, rows.table[column])
        if pa.types.is_string(times.type):
            texts = times
            times, unfit = parsed("time", texts)
            wrong = {at: f"'{texts[at].as_py()}': expected a time" for at in np.flatnonzero(unfit).tolist()}
            self._note(problems, rows.numbers, column, wrong)
        self._missing(problems, rows.numbers, column, times, "no time")
        return times
