"""The replay: every policy answers the same rows in the order of time, and decides at the end of each window whether to retrain."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.artifacts import canonical_json, sha256_text
from kfloop.core.execution import prepare_process
from kfloop.core.own_code import own_digest
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace
from kfloop.errors import InputError, TerminalError, nearest
from kfloop.pipelines.local import code_digest
from kfloop.pipelines.simulating.answers import Models
from kfloop.pipelines.simulating.records import Journal, Window
from kfloop.pipelines.simulating.settings import ALWAYS, EVERY, MONITOR, Settings
from kfloop.pipelines.simulating.stream import Stream
from kfloop.pipelines.simulating.trainings import FIRST, Trainings, data_section, first_row

if TYPE_CHECKING:
    from kfloop.core.config import LoopConfig
    from kfloop.pipelines.simulating.watching import Watched

RETRAIN = "retrain"
TRAINED, DECIDED = ("data", "train", "package"), ("evaluate", "gate", "monitor")  # sections of the loop file
Progress = Callable[[str, int, int, list[Window]], None]


@dataclass(frozen=True, kw_only=True)
class Played:
    """A replay.

    Attributes:
        windows: What became of each window, by policy.
        trainings: Every training that a policy asked for, by its moment; -1 is the first model.
        first_row: First row that was answered.
        n_windows: Windows that there are.
    """

    windows: dict[str, list[Window]]
    trainings: dict[int, dict[str, Any]]
    first_row: int
    n_windows: int


class Replay:
    """A replay in a folder, where it goes on after an interruption.

    Args:
        config: The loop, with column and label of the rows.
        settings: What is asked.
        stream: The rows.
        root: Folder of the loop file.
        folder: Folder of the replay.

    Raises:
        InputError: There are too few rows, they are not rows of classes, or a class appears that the first model cannot know.
    """

    def __init__(self, config: LoopConfig, settings: Settings, stream: Stream, root: Path, folder: Path) -> None:
        prepare_process()
        _check(config, settings, stream)
        self._config, self._settings, self._stream = config, settings, stream
        # Trainings do not depend on the monitor: whoever tries other settings of it has them already.
        work = folder.resolve() / "work" / identity(config, settings, stream, root, TRAINED)
        self.folder = work / identity(config, settings, stream, root, (*TRAINED, *DECIDED))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.workspace = Workspace(loop=config.name, root=work, state="", store=str(work / "store"), mlflow="")
        replace(self.workspace, root=root).find_modules()
        self._models = Models(Store.of(self.workspace))
        self._trainings = Trainings(config, settings, stream, self.workspace)
        self.first = self._trainings.first_row
        whole = -(-(len(stream) - self.first) // settings.window)
        self.n_windows = whole if settings.until is None else min(whole, settings.until)

    def play(self, progress: Progress | None = None) -> Played:
        """Play every policy to its end.

        Args:
            progress: Called with policy, window, number of windows and all windows so far of that policy, after each window.

        Raises:
            TerminalError: There is no first model, because its training failed.
            KeyboardInterrupt: It was interrupted; what is done is kept.
        """
        first = self._trainings.at(FIRST)
        if first.failed:
            raise TerminalError(
                f"the first model cannot be trained on the {first.rows} labelled rows before {self._stream.when(self.first)}: {first.failed}",
                hint="take a longer first period (--initial), or mend the loop file: kfloop run shows more",
            )
        played = {name: self._play(name, progress) for name in self._settings.policies}
        moments = {FIRST} | {one.index for windows in played.values() for one in windows if one.trained}
        trainings = {moment: vars(self._trainings.at(moment)) for moment in sorted(moments)}
        return Played(windows=played, trainings=trainings, first_row=self.first, n_windows=self.n_windows)

    def rows(self, window: int) -> slice:
        """Rows of a window."""
        start = self.first + window * self._settings.window
        return slice(start, min(start + self._settings.window, len(self._stream)))

    def _play(self, policy: str, progress: Progress | None) -> list[Window]:
        journal = Journal(self.folder / f"{policy}.jsonl")
        watched = self._watched(begun=bool(journal.windows)) if policy == MONITOR else None
        while len(journal.windows) < self.n_windows:
            window = len(journal.windows)
            moment = journal.windows[-1].next_moment if journal.windows else FIRST
            played = self._answered(window, moment)
            if watched is not None:
                played = self._watch(watched, played, journal.windows)
            elif self._is_due(policy, window):
                done = self._trainings.at(window)
                reason = done.failed or f"{policy}: {done.rows} rows"
                played = replace(played, outcome=RETRAIN, reason=reason, trained=True, promoted=not done.failed)
            journal.add(played)
            if watched is not None and window:
                watched.forget(window - 1)
            if progress is not None:
                progress(policy, window, self.n_windows, journal.windows)
        return journal.windows[: self.n_windows]

    def _answered(self, window: int, moment: int) -> Window:
        rows = self.rows(window)
        hits = self._models.answer(self._trainings.at(moment).model, self._stream, rows).hits
        return Window(
            index=window,
            first=rows.start,
            last=rows.stop,
            start=self._stream.when(rows.start),
            end=self._stream.when(rows.stop - 1),
            moment=moment,
            labelled=len(hits),
            hits=int(hits.sum()),
            outcome="none",
            reason="",
        )

    def _is_due(self, policy: str, window: int) -> bool:
        return policy == ALWAYS or (policy == EVERY and (window + 1) % self._settings.every == 0)

    def _watched(self, *, begun: bool) -> Watched:
        from kfloop.pipelines.simulating.watching import BEFORE, Watched

        watched = Watched(self._config, self._settings, self._stream, self.workspace, self.folder / MONITOR)
        if not begun:
            watched.begin(BEFORE)
            at = self._stream.times_ns[self.first - 1] / 1e9
            watched.promote(BEFORE, self._trainings.at(FIRST).model, at=at, reason="the first period")
        return watched

    def _watch(self, watched: Watched, played: Window, before: list[Window]) -> Window:
        """Log the window, let the monitor look, and do what it says."""
        from kfloop.pipelines.simulating.gating import judge
        from kfloop.pipelines.simulating.watching import log_e

        window, rows = played.index, slice(played.first, played.last)
        champion = self._trainings.at(played.moment).model
        began = time.process_time()
        watched.begin(window)
        version = 1 + sum(one.promoted for one in before)
        watched.log(window, version, rows, self._models.answer(champion, self._stream, rows))
        now_ns = int(self._stream.times_ns[rows.stop - 1])
        watched.learn(now_ns, max(self.first, self._trainings.at(played.moment).newest + 1), rows.stop)
        report = watched.look(window, now_ns / 1e9)
        evidence, threshold = log_e(report)
        played = replace(
            played,
            outcome=report.outcome,
            reason=report.reason,
            log10_e=evidence,
            log10_threshold=threshold,
        )
        spent = time.process_time() - began
        if report.outcome == RETRAIN:
            training = self._trainings.at(window)
            began = time.process_time()
            judged = judge(self._config, training, champion, self.workspace, report)
            if judged.promoted:
                watched.promote(window, training.model, at=now_ns / 1e9, reason=report.reason)
            watched.decided(window, promoted=judged.promoted)
            played = replace(played, trained=True, promoted=judged.promoted, gate=judged.reason)
            spent += time.process_time() - began
        return replace(played, watch_cpu_seconds=spent)


def identity(config: LoopConfig, settings: Settings, stream: Stream, root: Path, sections: tuple[str, ...]) -> str:
    """Digest of everything that decides about a training, or about a window: where it is the same, an interrupted replay goes on.

    Args:
        config: The loop.
        settings: The replay.
        stream: Its rows.
        root: Folder of the loop file.
        sections: Sections of the loop file that decide.
    """
    told = {name: config.section(name).model_dump(mode="json") for name in sections}
    asked = settings.identity() | ({} if DECIDED[0] in sections else {"every": None})
    code = [code_digest(), own_digest(config.train, root)]
    return sha256_text(canonical_json([told, asked, stream.digest, *code]))[:16]


def _check(config: LoopConfig, settings: Settings, stream: Stream) -> None:
    first = first_row(settings, len(stream))
    if first >= len(stream):
        raise InputError(
            f"{len(stream)} rows are too few: the first {first} train the first model, and none is left to answer",
            hint="give more rows, or a smaller --initial",
        )
    known = {stream.truth[row] for row in range(first) if stream.learnable[row]}
    if len(known) <= 1:
        raise InputError(
            f"the first {first} rows hold {len(known)} class{'' if len(known) == 1 else 'es'} ({', '.join(known)}), expected two or more",
            hint="take a longer first period (--initial), or name another column in data.label",
        )
    later = [
        row for row in range(first, len(stream)) if stream.truth[row] is not None and stream.truth[row] not in known
    ]
    if later:
        label = str(stream.truth[later[0]])
        raise InputError(
            f"class '{label}' appears first at {stream.when(later[0])} (row {later[0] + 1} of the replay), after the {first} rows of the first model, which cannot answer it",
            hint=f"take a longer first period (--initial), or leave such rows out; {nearest(label, known)}",
            label=label,
        )
    _refuse_other_tasks(config, stream, first)


def _refuse_other_tasks(config: LoopConfig, stream: Stream, first: int) -> None:
    """A replay counts right answers: rows of numbers have none."""
    import tempfile

    import pyarrow.parquet as pq

    from kfloop.components.ingest.sources import inspect

    with tempfile.TemporaryDirectory(prefix="kfloop-simulate-") as folder:
        rows = Path(folder) / "rows.parquet"
        pq.write_table(stream.table.take(np.flatnonzero(stream.learnable[:first])), rows)
        found = inspect(data_section(config, rows))
    if (found.modality, found.task) != ("table", "multiclass"):
        raise InputError(
            f"the rows are a {found.modality} for {found.task}: a replay is for tables of classes",
            hint="name the column of the class in data.label, and set data.task: multiclass where classes are numbers",
        )
