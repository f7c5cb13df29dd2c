"""The evidence of a roll-out as far as it was read: a look costs what is new, not what there is.

What was read stands in ``.kfloop/rollouts/ROW.db``, changed in one transaction a look; where it is lost, damaged or was made for other questions, the
next look reads everything again and comes to the same.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.deploy.looking import looks_file
from kfloop.core.artifacts import canonical_json
from kfloop.core.statistics.paired_bets import LATE, Finding, Question, questions
from kfloop.serving.evidence import evidence_files, quality, read_rows, samples
from kfloop.serving.log_mirror import bring

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kfloop.core.sections import DeployConfig
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

FORMAT = 1
SUFFIX = ".db"
WAIT_SECONDS = 30.0  # for another look at the same moment
BRING_SECONDS = 30.0  # servers publish no more often
ASKED_AT_ONCE = 500  # ids in one query
TABLES = """
CREATE TABLE IF NOT EXISTS state (about TEXT NOT NULL, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (id TEXT PRIMARY KEY, place INTEGER, told TEXT) WITHOUT ROWID;
"""


@dataclass(kw_only=True)
class Gathered:
    """What the evidence comes to.

    Attributes:
        asked: The questions that the requests alone can tell, with the bets so far.
        requests: Requests that both were asked and at least one answered.
        dropped: Records that were lost on the way to the log.
        last_dropped: What the latest record said of that.
        damaged: Files that cannot be read, by name; each look tries again.
    """

    asked: dict[str, Question]
    requests: int = 0
    dropped: int = 0
    last_dropped: int = 0
    found: list[Finding] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def add(self, rows: list[dict[str, Any]], config: DeployConfig) -> None:
        """Bet on more requests, in their order."""
        told = samples(rows, ratio=config.rollout.margin.latency or 1.0, close=config.rollout.close)
        self.asked = {name: question.advance(told[name]) for name, question in self.asked.items()}
        self.requests += len(rows)
        for row in rows:  # each process counts its own, upwards; a fall is a process that began anew
            lost = int(row["dropped"])
            self.dropped += lost - self.last_dropped if lost >= self.last_dropped else lost
            self.last_dropped = lost

    def to_json(self) -> str:
        """What is kept between two looks."""
        asked = {name: asdict(question) for name, question in self.asked.items()}
        numbers = {"requests": self.requests, "dropped": self.dropped, "last_dropped": self.last_dropped}
        return json.dumps(numbers | {"asked": asked})

    @classmethod
    def from_json(cls, text: str) -> Gathered:
        """What ``to_json`` wrote."""
        raw = json.loads(text)
        return cls(**(raw | {"asked": {name: Question.from_dict(value) for name, value in raw["asked"].items()}}))


def gather(
    workspace: Workspace, entry: Entry, config: DeployConfig, objective: str, truth: Mapping[str, Any]
) -> Gathered:
    """Read what is new and ask every question.

    Args:
        workspace: Places of the loop.
        entry: The row that began the roll-out.
        config: Section ``deploy`` as it was then.
        objective: What the model does, as in its signature.
        truth: Labels that came later, by the id of the row.
    """
    bring(workspace, every=BRING_SECONDS)
    path = looks_file(workspace, entry.seq).with_suffix(SUFFIX)
    for place in (path, path, None):
        try:
            with contextlib.closing(_opened(place)) as base:
                return _gathered(base, workspace, entry, config, objective, truth)
        except (
            sqlite3.OperationalError
        ):  # it cannot be written, or another look takes long: everything is read, and nothing kept
            continue
        except (sqlite3.DatabaseError, ValueError, KeyError, TypeError):
            if place is None:
                raise
            path.unlink(missing_ok=True)  # damaged
    message = "sqlite has no memory"
    raise AssertionError(message)


def forget(workspace: Workspace, row: int | None = None) -> None:
    """Delete what was kept of roll-outs that are over: of all but the one that began with ``row``."""
    keep = looks_file(workspace, row or 0).with_suffix(SUFFIX)
    for path in keep.parent.glob(f"*{SUFFIX}"):
        if path != keep:
            path.unlink(missing_ok=True)


def _opened(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
    return sqlite3.connect(path or ":memory:", timeout=WAIT_SECONDS, isolation_level=None)


def _gathered(
    base: sqlite3.Connection,
    workspace: Workspace,
    entry: Entry,
    config: DeployConfig,
    objective: str,
    truth: Mapping[str, Any],
) -> Gathered:
    bounds, alpha = config.rollout.bounds(), config.rollout.alpha
    about = canonical_json([FORMAT, entry.seq, entry.previous_version, entry.version, entry.details])
    base.execute("BEGIN IMMEDIATE")
    for statement in TABLES.strip().split("\n"):
        base.execute(statement)
    kept = base.execute("SELECT about, value FROM state").fetchone()
    if kept is None or kept[0] != about:
        for table in ("state", "files", "answers"):
            base.execute(f"DELETE FROM {table}")  # noqa: S608 - three names of ours
        first = {name: question for name, question in questions(bounds, alpha).items() if name not in LATE}
        told = Gathered(asked=first)
    else:
        told = Gathered.from_json(kept[1])
    seen = {name for (name,) in base.execute("SELECT name FROM files")}
    for path in evidence_files(workspace.request_log, workspace.loop, str(entry.details["salt"])):
        if path.name not in seen:
            after = replace(told)
            try:
                answers = _added(after, path, entry, config)
            except FileNotFoundError:  # deleted since it was listed
                continue
            except (
                OSError,
                ValueError,
                TypeError,
                KeyError,
            ):  # pyarrow's own errors among them; it must not keep a bad challenger in the traffic
                told.damaged.append(path.name)
                continue
            told = after
            if config.feedback is not None:  # else no label will ever ask for them
                base.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", answers)
            base.execute("INSERT INTO files VALUES (?)", (path.name,))
    base.execute("DELETE FROM state")
    base.execute("INSERT INTO state VALUES (?, ?)", (about, told.to_json()))
    base.execute("COMMIT")
    asked = told.asked | {
        name: question.advance(_labelled(base, truth, objective))
        for name, question in questions(bounds, alpha).items()
        if name in LATE
    }
    told.found = [asked[name].finding() for name in bounds]
    return told


def _added(told: Gathered, path: Path, entry: Entry, config: DeployConfig) -> list[tuple[str, int, str]]:
    """Bet on the rows of one file; what labels can be held against."""
    before = told.requests
    rows = [row for row in read_rows(path) if _counts(row, entry)]
    told.add(rows, config)
    return list(_answers(rows, before))


def _counts(row: Mapping[str, Any], entry: Entry) -> bool:
    """Whether a row is about these two versions, and at least one of them answered: else it tells nothing."""
    versions = (row["champion_version"], row["challenger_version"])
    return versions == (entry.previous_version, entry.version) and not (
        row["champion_error"] and row["challenger_error"]
    )


def _answers(rows: list[dict[str, Any]], before: int) -> Iterator[tuple[str, int, str]]:
    """What a label can be held against; a client that uses an id again does not make a label more than one bet."""
    for place, row in enumerate(rows):
        if not row["champion_error"] and not row["challenger_error"]:
            told = {name: row[name] for name in ("request_id", "rows", "champion_answer", "challenger_answer")}
            yield row["request_id"], before + place, json.dumps(told)


def _labelled(base: sqlite3.Connection, truth: Mapping[str, Any], objective: str) -> np.ndarray:
    """One number for each request with labels, in the order of the requests."""
    names = sorted({*truth, *(name.rpartition("#")[0] for name in truth if "#" in name)})
    found: list[tuple[int, float]] = []
    for start in range(0, len(names), ASKED_AT_ONCE):
        some = names[start : start + ASKED_AT_ONCE]
        marks = ",".join("?" * len(some))
        query = f"SELECT place, told FROM answers WHERE id IN ({marks})"  # noqa: S608 - marks, no values
        for place, told in base.execute(query, some):
            value = quality(json.loads(told), truth, objective)
            found += [] if value is None else [(place, value)]
    return np.array([value for _, value in sorted(found)], float)
