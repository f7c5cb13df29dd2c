"""The champion's rows of the request log, in the order of time, a chunk at a time: the log is never in memory as a whole."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.monitor.log.reading import LATEST, Listing, list_parts, read_part
from kfloop.components.monitor.log.watermark import OVERLAP_NS, Watermark

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.components.monitor.log.layout import Layout
    from kfloop.components.monitor.log.reading import Part

CHUNK_ROWS = 4096
CHUNK_BYTES = 16_000_000
MOST_HELD = 4
"""Chunks that wait for earlier rows at most: of more files that overlap in time the order is kept no longer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Traffic:
    """Rows that the champion answered, the oldest first.

    Attributes:
        ids: Request ids, [n].
        ts_ns: Time of each request, nanoseconds since 1970, ascending, [n].
        embedding: Embeddings, NaN where they have another length or were not logged, [n, D].
        answers: The model's answers, flat, likewise, [n, K].
        images: The logged images, flat, uint8 [n, H*W*C]; [n, 0] where the model takes none.
        inputs: Columns of the request by name (`Layout.unpacked`), each [n]; empty where inputs are no columns or were not logged.
        latency_us: Time that each answer took, in microseconds, [n].
        review: Whether a person should look, bool [n]; None where the model does not tell.
        embedded: Whether embeddings were logged at all.
    """

    ids: NDArray[Any]
    ts_ns: NDArray[np.int64]
    embedding: NDArray[np.float64]
    answers: NDArray[np.float64]
    images: NDArray[np.uint8]
    inputs: dict[str, NDArray[Any]]
    latency_us: NDArray[np.int64]
    review: NDArray[np.bool_] | None = None
    embedded: bool = True

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ids)

    def take(self, rows: Any) -> Traffic:
        """Some rows, by index or mask."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        picked = {name: value[rows] for name, value in held.items() if isinstance(value, np.ndarray)}
        return replace(self, **picked, inputs={name: cells[rows] for name, cells in self.inputs.items()})


class Reader:
    """Reads what one round has to look at; after the last chunk it knows how far it came and what was wrong.

    Args:
        folder: Root of the request log; it may not exist yet.
        model: Name of the model.
        version: The champion's version.
        layout: How its rows stand in the log.
        now: The clock of the round, seconds since 1970.
    """

    def __init__(self, folder: Path, model: str, version: int, layout: Layout, now: float) -> None:
        self._root, self._version, self._layout = folder / model, version, layout
        self._end = int(now * 1e9) + OVERLAP_NS
        self._listing: Listing = list_parts(self._root)
        self._failed: dict[Path, str] = {}
        self.watermark = Watermark()
        self.rows_new = 0
        self.other_versions: dict[str, int] = {}
        self._repeated = self._early = self._seen = self._late = 0
        self._met: set[str] = set()

    def chunks(self, watermark: Watermark) -> Iterator[Traffic]:
        """Rows that were not counted before.

        Files and row groups that end before the watermark less the overlap are not read. A request that was logged twice within 10 seconds counts once. Rows of
        other versions are counted and left out; rows from the future wait until their time has come.

        Args:
            watermark: How far the rounds before came.
        """
        since, recent = watermark.since_ns, dict(watermark.recent)
        newest = watermark.newest_ns
        for read in self._sorted(since):
            keep = (read["ts_ns"] > since) & (read["ts_ns"] <= self._end)
            self._early += int((read["ts_ns"] > self._end).sum())
            fresh = _unseen(read["ids"], keep, recent)
            self._repeated += int(keep.sum()) - len(fresh) - self._known(read, keep, watermark)
            rows = {name: values[fresh] for name, values in read.items()}
            if not len(fresh):
                continue
            self._seen += len(fresh)
            newest = max(newest, int(rows["ts_ns"][-1]))
            recent = {name: at for name, at in recent.items() if at > newest - OVERLAP_NS}
            late = rows["ts_ns"] > newest - OVERLAP_NS
            recent |= dict(zip(rows["ids"][late].tolist(), rows["ts_ns"][late].tolist(), strict=True))
            mine = rows["version"] == self._version
            self._count_others(rows["version"][~mine])
            if mine.any():
                self.rows_new += int(mine.sum())
                yield self._traffic(rows if mine.all() else {name: values[mine] for name, values in rows.items()})
        self.watermark = watermark.moved(newest, recent, self._listing.totals)
        self._late = watermark.missed(self._listing.totals, self._seen + self._early + self._repeated)

    def latest(self, count: int, until_ns: int) -> Traffic | None:
        """The newest `count` rows of the champion's version that were counted, the oldest first; None where there are none.

        Args:
            count: Rows wanted.
            until_ns: Time of the newest row that was counted.
        """
        found: list[dict[str, NDArray[Any]]] = []
        held = 0
        for part in sorted(
            self._listing.parts, key=lambda part: (part.high, part.path.as_posix(), part.group), reverse=True
        ):
            if held >= count and part.high < min(int(rows["ts_ns"].min()) for rows in found):
                break
            mine: list[dict[str, NDArray[Any]]] = []
            for rows in self._read(part):
                kept = (rows["version"] == self._version) & (rows["ts_ns"] <= until_ns)
                if kept.any():
                    mine.append({name: values[kept] for name, values in rows.items()})
            if mine:
                found.append({name: values[-count:] for name, values in _in_order(_joined(mine)).items()})
                held += len(found[-1]["ids"])
        if not found:
            return None
        rows = _in_order(_joined(found))
        first = np.sort(np.unique(rows["ids"].astype(str), return_index=True)[1])[-count:]
        return self._traffic({name: values[first] for name, values in rows.items()})

    @property
    def problems(self) -> tuple[str, ...]:
        """What was wrong with the log, one sentence each; complete after the last chunk."""
        told = [*self._listing.problems, *self._failed.values()]
        if self._repeated > 0:
            told.append(f"{self._repeated} rows repeat a request id; each request counts once")
        if self._early:
            told.append(
                f"{self._early} rows carry a time that is yet to come and wait for it: the clock of a server is ahead"
            )
        if self._late:
            told.append(
                f"{self._late} rows came with a time more than {OVERLAP_NS // 10**9} s before rows that were counted, and are left out: "
                "a clock was set back, or a collector was far behind"
            )
        return tuple(told)

    def _known(self, rows: dict[str, NDArray[Any]], keep: NDArray[np.bool_], watermark: Watermark) -> int:
        """Rows that an earlier round counted, each of them once: what is met again is a repetition."""
        near = keep & (rows["ts_ns"] <= watermark.newest_ns)
        met = watermark.names.intersection(rows["ids"][near].tolist()) - self._met if near.any() else set()
        self._met |= met
        return len(met)

    def _count_others(self, versions: NDArray[np.int64]) -> None:
        names, counts = np.unique(versions, return_counts=True)
        for name, count in zip(names.tolist(), counts.tolist(), strict=True):
            self.other_versions[str(name)] = self.other_versions.get(str(name), 0) + count

    def _traffic(self, rows: dict[str, NDArray[Any]]) -> Traffic:
        tensors = {name: rows[f"input.{name}"] for name, _ in self._layout.tensors if f"input.{name}" in rows}
        return Traffic(
            ids=rows["ids"],
            ts_ns=rows["ts_ns"],
            embedding=rows["embedding"].astype(np.float64)
            if "embedding" in rows
            else np.full((len(rows["ids"]), self._layout.embedding), np.nan),
            answers=rows["answers"].astype(np.float64),
            images=rows.get("images", np.zeros((len(rows["ids"]), 0), dtype=np.uint8)),
            inputs=self._layout.unpacked(tensors),
            latency_us=rows["latency_us"],
            review=rows.get("review"),
            embedded="embedding" in rows,
        )

    def _sorted(self, since: int) -> Iterator[dict[str, NDArray[Any]]]:
        """All rows after `since` and some before, in the order of time as far as `MOST_HELD` allows, in pieces."""
        held: dict[str, NDArray[Any]] | None = None
        batches = self._batches(since)
        coming = next(batches, None)
        while coming is not None:
            rows, later = coming
            coming = next(batches, None)
            if held is not None and not _alike(held, rows):
                yield from _pieces(held)
                held = None
            held = _in_order(rows if held is None else _joined([held, rows]))
            count = len(held["ids"])
            if coming is None:
                yield from _pieces(held)
                return
            if count < CHUNK_ROWS and _size(held) < CHUNK_BYTES:
                continue
            ready = int(np.searchsorted(held["ts_ns"], min(int(coming[0]["ts_ns"].min()), later)))
            if count - ready > MOST_HELD * CHUNK_ROWS:
                ready = count - CHUNK_ROWS
            yield from _pieces({name: values[:ready] for name, values in held.items()})
            held = {name: values[ready:].copy() for name, values in held.items()} if ready < count else None

    def _batches(self, since: int) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
        """Rows as they stand in the files, the earliest part first, and the earliest time in all later parts."""
        parts = [part for part in self._listing.parts if part.high > since]
        for part, following in zip(parts, [*parts[1:], None], strict=False):
            for rows in self._read(part):
                yield rows, LATEST if following is None else following.low

    def _read(self, part: Part) -> Iterator[dict[str, NDArray[Any]]]:
        try:
            yield from read_part(part, self._layout, CHUNK_ROWS)
        except FileNotFoundError:  # merged or deleted since it was listed
            return
        except (OSError, ValueError, KeyError) as error:
            name = part.path.relative_to(self._root).as_posix()
            self._failed[part.path] = f"request log file {name}: {error}"


def _unseen(ids: NDArray[Any], keep: NDArray[np.bool_], recent: dict[str, int]) -> NDArray[np.intp]:
    """Places of rows whose id is neither among the recent ones nor earlier in this piece."""
    places = np.flatnonzero(keep)
    names = ids[places].tolist()
    if len(set(names)) == len(names) and recent.keys().isdisjoint(names):
        return places
    first = {name: place for place, name in zip(places[::-1].tolist(), names[::-1], strict=True) if name not in recent}
    return np.sort(np.fromiter(first.values(), dtype=np.intp, count=len(first)))


def _alike(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> bool:
    return one.keys() == other.keys() and all(one[name].shape[1:] == other[name].shape[1:] for name in one)


def _joined(held: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Rows of several parts; columns that one of them lacks are left out of all."""
    alike = [part for part in held if _alike(part, held[-1])] if len(held) > 1 else held
    names = set.intersection(*(set(part) for part in held))
    if len(alike) < len(held):
        names = {name for name in names if len({part[name].shape[1:] for part in held}) == 1}
    return {name: np.concatenate([part[name] for part in held]) if len(held) > 1 else held[0][name] for name in names}


def _in_order(rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """By time, and rows of one moment by id, so that the order does not depend on which file a row is in."""
    ts_ns = rows["ts_ns"]
    if (np.diff(ts_ns) > 0).all():
        return rows
    order = np.lexsort((rows["ids"].astype(str), ts_ns))
    return {name: values[order] for name, values in rows.items()}


def _pieces(rows: dict[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    for start in range(0, len(rows["ids"]), CHUNK_ROWS):
        yield {name: values[start : start + CHUNK_ROWS] for name, values in rows.items()}


def _size(rows: dict[str, NDArray[Any]]) -> int:
    return sum(values.nbytes for values in rows.values())
