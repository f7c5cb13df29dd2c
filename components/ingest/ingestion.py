"""The ingest step: from a source to a dataset version, a batch at a time."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop import __version__
from kfloop.components.ingest.corrections import corrected, read_corrections
from kfloop.components.ingest.mixing import Mixture
from kfloop.components.ingest.previous import earlier_cards
from kfloop.components.ingest.sources import describe, open_sources
from kfloop.components.ingest.telling import Teller
from kfloop.components.ingest.votes import read_votes
from kfloop.core.artifacts import write_report
from kfloop.core.sections import REQUESTS
from kfloop.core.versions import VersionWriter
from kfloop.core.versions.assigning import Splitter
from kfloop.core.versions.keys import Hasher
from kfloop.core.versions.splitting import Cutoffs, chosen_method, configured_times
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import pyarrow as pa

    from kfloop.components.ingest.source import Source
    from kfloop.components.ingest.sources import Opened, SourceInfo
    from kfloop.core.review.answers import Decision
    from kfloop.core.sections import DataConfig
    from kfloop.core.workspace import Workspace

LISTED = 100  # rows listed in the report
FRESH = "fresh"
BASE = "base"


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What ingest did.

    Attributes:
        digest: Name of the dataset version.
        name: Name of the dataset.
        modality: What a row is.
        task: What is to be learned.
        labels: Class names; empty without classes.
        schema: Facts about the inputs.
        image_shape: Height, width, channels; null unless rows are images.
        n_rows: Rows written.
        splits: Rows of each split.
        split_method: How they were chosen.
        per_class: Rows of each class in each split.
        fresh_rows: Rows that came from ``data.fresh``.
        corrected: Rows whose label a person confirmed or changed.
        n_quarantined: Rows set aside.
        quarantined: The first 100 of them: id, origin, reason.
        warnings: What a person should know.
        source_digest: Digest of the source, as ``inspect`` gives it.
    """

    digest: str
    name: str
    modality: str
    task: str
    labels: list[str]
    schema: dict[str, Any]
    image_shape: list[int] | None
    n_rows: int
    splits: dict[str, int]
    split_method: str
    per_class: dict[str, dict[str, int]]
    fresh_rows: int
    corrected: int
    n_quarantined: int
    quarantined: list[dict[str, str]]
    warnings: list[str]
    source_digest: str


def run(config: DataConfig, *, out: Path, workspace: Workspace) -> IngestReport:
    """Read the source and write a dataset version.

    Args:
        config: Section ``data``.
        out: Empty folder.
        workspace: Places of the loop.

    Raises:
        InputError: The source cannot be used; see ``sources.inspect``; also too many rows set aside, and a split or class without rows.
        ConfigError: ``data.split`` asks for what the data do not have.
    """
    if config.fresh == REQUESTS:
        config = config.model_copy(update={"places": workspace.to_json()})
    opened = open_sources(config)
    info = describe(config, opened)
    decisions = read_corrections(config.corrections)
    cards = earlier_cards(workspace)
    hasher = Hasher.of(opened.base)
    teller = Teller()
    stream = _rows(opened, hasher, decisions, teller)
    first = next(stream, None)
    if first is None:
        teller.refuse_too_many(config.max_quarantined_share)
        raise InputError(f"'{config.source}' has no rows that can be used", hint=_aside(teller))
    splitter = _splitter(config, opened.base, first[0].column_names, cards[0] if cards else None)
    if splitter.must_learn:
        splitter.learn((table, hashes[2]) for table, hashes in _rows(opened, hasher, decisions, Teller()))
    mixture = Mixture(config.recipe, opened.base.labels, fresh=opened.fresh is not None and opened.fresh.n > 0)
    if mixture.must_learn:
        mixture.learn(_rows(opened, hasher, decisions, Teller()), splitter)
    writer = VersionWriter(out, name=workspace.loop, hasher=hasher, splitter=splitter)
    for rows, found in chain([first], stream):
        table, hashes = mixture.mixed(rows, found, splitter)
        teller.see(table, hashes[0])
        writer.add(table, hashes)
    teller.refuse_too_many(config.max_quarantined_share)
    card = writer.finish(
        sources=_sources(config, info, opened.commit, mixture.left_out),
        quarantined=teller.quarantined,
        lineage={
            "git_revision": _git_revision(workspace.root),
            "dvc_revision": opened.commit,
            "kfloop_version": __version__,
        },
        extras=opened.base.extras() | ({"votes": read_votes(Path(config.votes))} if config.votes else {}),
        previous=[str(card["digest"]) for card in cards],
    )
    report = _report(card, info, teller)
    if mixture.left_out:
        told = f"data.recipe left out {mixture.left_out} old training rows"
        report = replace(report, warnings=[*report.warnings, told])
    write_report(out, report)
    return report


def after_publish(path: Path, workspace: Workspace) -> None:
    """Track the published version with DVC; called by the engine once ``path`` is in the store."""
    from kfloop.core.tracking import track

    track(path, workspace)


def _splitter(config: DataConfig, base: Source, columns: Sequence[str], earlier: Mapping[str, Any] | None) -> Splitter:
    """The splitter for this source, with the cutoffs of the version before."""
    method = chosen_method(
        config.split, base.modality, official="split" in columns, grouped="group" in columns, timed="time" in columns
    )
    cutoffs = Cutoffs.from_card(earlier, method, config.split)
    times = configured_times(config.split)
    return Splitter(cutoffs if times is None else replace(cutoffs, times=times), base.labels, base.modality)


def _aside(teller: Teller) -> str:
    """Why nothing is left, in a sentence."""
    line = next(iter(teller.quarantined), None)
    return "the source is empty" if line is None else f"the first row was set aside: {line['reason']}"


def _rows(
    opened: Opened, hasher: Hasher, decisions: Mapping[str, Decision], teller: Teller
) -> Iterator[tuple[pa.Table, tuple[pa.Array, np.ndarray, np.ndarray]]]:
    """Every batch with its origin, people's labels, and its hashes (content, lanes, shares)."""
    import pyarrow as pa

    for source, origin in ((opened.base, BASE), (opened.fresh, FRESH)):
        for batch in source.batches() if source else ():
            table = batch.table
            teller.set_aside(batch.quarantined, origin)
            if not table.num_rows:
                continue
            if origin == FRESH:
                ids = [f"{FRESH}/{name}" for name in table["id"].to_pylist()]
                table = table.set_column(table.column_names.index("id"), "id", pa.array(ids, type=pa.string()))
            table = table.append_column("origin", pa.repeat(pa.scalar(origin), table.num_rows))
            hashes = hasher.contents(table)
            if decisions:
                table, keep, aside = corrected(table, hashes[0], decisions, opened.base.task, opened.base.labels)
                teller.set_aside(aside, origin, by_people=True)
                if not keep.all():
                    hashes = (hashes[0].filter(pa.array(keep)), hashes[1][keep], hashes[2][keep])
            if table.num_rows:
                yield table, hashes


def _report(card: Mapping[str, Any], info: SourceInfo, teller: Teller) -> IngestReport:
    return IngestReport(
        digest=card["digest"],
        name=card["name"],
        modality=card["modality"],
        task=card["task"],
        labels=card["labels"],
        schema=card["schema"],
        image_shape=card["schema"].get("image_shape"),
        n_rows=card["n_rows"],
        splits=card["splits"],
        split_method=card["split"]["method"],
        per_class=card["per_class"],
        fresh_rows=card["origins"].get(FRESH, 0),
        corrected=card["corrected"],
        n_quarantined=len(teller.quarantined),
        quarantined=teller.quarantined[:LISTED],
        warnings=teller.warnings(info, card),
        source_digest=info.digest,
    )


def _sources(config: DataConfig, info: SourceInfo, commit: str | None, left_out: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"kind": info.kind, "uri": config.source, "digest": info.digest, "n": info.n - info.n_fresh}
    ]
    if config.dvc is not None:
        found[0] |= {"dvc_repo": config.dvc.repo, "dvc_rev": config.dvc.rev, "commit": commit}
    if config.fresh is not None and info.n_fresh:
        kind = "fresh_requests" if config.fresh == REQUESTS else "fresh_labels"
        line = {"kind": kind, "uri": config.fresh, "digest": info.digest, "n": info.n_fresh}
        found.append(line | config.recipe.model_dump(mode="json") | {"old_rows_left_out": left_out})
    return found


def _git_revision(root: Path) -> str | None:
    """Commit of the loop's folder; null outside git."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
