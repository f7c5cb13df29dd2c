"""What a report is made from: the run record and the artifact folder of each step, read without ever failing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from kfloop.core.artifacts import REPORT, read_report
from kfloop.report.pictures import Pictures
from kfloop.report.values import items, mapping, rows, said, text

LARGEST = 20_000_000  # bytes of a file beside a report that is read

# What these statuses of the run record mean, for a step that has nothing else to say.
_WHY = {"skipped": "its branch was not taken", "not_run": "the run ended before it"}

Presence = Literal["present", "missing", "unreadable"]


def step_name(name: object) -> str:
    """One spelling of a step's name: KFP turns underscores of task names into hyphens."""
    return text(name).replace("-", "_")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What one step left behind.

    Attributes:
        step: Name of the step.
        folder: Its artifact folder, None if it left none.
        presence: Whether its report could be read.
        problem: Why it could not be, empty otherwise.
        report: The report, empty unless present.
        record: The step's line in the run record, empty if the run has no such step.
    """

    step: str
    folder: Path | None
    presence: Presence
    problem: str
    report: dict[str, Any]
    record: dict[str, Any]

    @property
    def status(self) -> str:
        """The step's status in the run record; ``not_run`` if the record does not know the step."""
        return text(self.record.get("status")) or "not_run"

    @property
    def reason(self) -> str:
        """Why there is nothing to show, in the words of the run record."""
        if not self.record:
            return "not a step of this run"
        return said(self.record.get("error")) or text(self.record.get("outcome")) or _WHY.get(self.status, "")


def read_source(step: str, folder: Path | None, record: Mapping[str, Any]) -> Source:
    """Read the report of one step; whatever goes wrong is kept as its problem.

    Args:
        step: Name of the step.
        folder: Its artifact folder, if it left one.
        record: Its line in the run record.
    """
    presence: Presence = "missing"
    problem, report = "", {}
    if folder is not None:
        try:
            report, presence = read_report(Path(folder)), "present"
        except FileNotFoundError:
            presence, problem = "unreadable", f"there is no {REPORT} in {Path(folder).name}"
        except (OSError, ValueError, TypeError, RecursionError) as error:
            presence, problem = "unreadable", text(error) or type(error).__name__
    return Source(step=step, folder=folder, presence=presence, problem=problem, report=report, record=dict(record))


@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything that a section may look at.

    Attributes:
        record: The run record.
        folders: Artifact folder of each step that left one.
    """

    record: Mapping[str, Any]
    folders: Mapping[str, Path]

    @cached_property
    def steps(self) -> dict[str, dict[str, Any]]:
        """Lines of the run record by step; the last one counts where a step ran twice."""
        return {step_name(line.get("name")): line for line in rows(self.record.get("steps"))}

    @cached_property
    def _folders(self) -> dict[str, Path]:
        return {step_name(name): Path(folder) for name, folder in self.folders.items()}

    @cached_property
    def pictures(self) -> Pictures:
        """The images of the run's dataset version, read when first asked for."""
        return Pictures(folder=self._folders.get("ingest"))

    @cached_property
    def labels(self) -> list[str]:
        """Names of the classes, from the model's signature as evaluated or else from the dataset version."""
        for step in ("evaluate", "ingest"):
            found = items(self.source(step).report.get("labels"))
            if found:
                return [text(name, limit=60) for name in found]
        return self.pictures.labels

    @cached_property
    def _sources(self) -> dict[str, Source]:
        names = {*self.steps, *self._folders}
        return {name: read_source(name, self._folders.get(name), self.steps.get(name, {})) for name in names}

    def source(self, step: str) -> Source:
        """What ``step`` left behind."""
        return self._sources.get(step) or read_source(step, None, {})

    def label(self, value: Any) -> str:
        """The name of a class given by its index or already by its name."""
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(self.labels):
            return self.labels[value]
        return text(value, limit=60)


def read_beside(folder: Path | None, name: str) -> dict[str, Any]:
    """A JSON object that a step left beside its report; empty where it is missing, damaged or too large to be one."""
    path = None if folder is None else folder / name
    try:
        if path is None or path.stat().st_size > LARGEST:
            return {}
        return mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}
