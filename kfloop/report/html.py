"""Assembly of a run's report: every section on its own, so that one damaged artifact costs one section and no more."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import KfloopError
from kfloop.report.sections import (
    comparison,
    data,
    drift,
    labels,
    lineage,
    overview,
    rollout,
    serving,
    training,
    validation,
    verdicts,
)
from kfloop.report.sources import Context, Source
from kfloop.report.values import duration, mapping, short, text, words

if TYPE_CHECKING:
    from jinja2 import Environment

_LOG = logging.getLogger(__name__)
_AFTER_DEPLOYMENT = 4
_TEMPLATES = Path(__file__).parent / "templates"
# What a section may raise when an artifact has a shape nobody foresaw. The report then says so in the section's place.
_DAMAGE = (KfloopError, ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of the report.

    Attributes:
        key: Its anchor, and the name of its template.
        title: Its heading.
        steps: The steps that it shows; it stands in the report if one of them left something.
        build: Makes what its template shows.
    """

    key: str
    title: str
    steps: tuple[str, ...]
    build: Callable[[Context], Mapping[str, Any]]


SECTIONS = (
    # What was decided and why comes first, then what it was made from, the latest step first.
    Section(key="verdicts", title="Verdicts", steps=("gate",), build=verdicts.build),
    Section(key="comparison", title="Comparison", steps=("evaluate",), build=comparison.build),
    Section(key="blessing", title="Blessing", steps=("bless",), build=serving.build_blessing),
    Section(key="deployment", title="Deployment", steps=("deploy", "keep"), build=serving.build_deployment),
    Section(key="drift", title="Monitoring", steps=("monitor",), build=drift.build),
    Section(key="training", title="Training", steps=("train",), build=training.build),
    Section(key="package", title="Package", steps=("package",), build=training.build_package),
    Section(key="labels", title="Labels", steps=("check_labels",), build=labels.build),
    Section(key="validation", title="Validation", steps=("validate_data",), build=validation.build),
    Section(key="data", title="Data", steps=("ingest",), build=data.build),
)


def render_run(record: dict[str, Any], folders: Mapping[str, Path], out: Path) -> Path:
    """Write the report of one run as one HTML file that loads nothing from anywhere.

    The same record and artifacts give the same bytes. A missing, partial or damaged artifact is named in the report.

    Args:
        record: The run record.
        folders: Artifact folder of each step that left one.
        out: The file to write; it appears whole or not at all.

    Returns:
        ``out``.

    Raises:
        OSError: The file cannot be written.
    """
    context = Context(record=record, folders=folders)
    templates = environment()
    shown = [_section(templates, context, section) for section in SECTIONS]
    if context.record.get("rollout"):
        shown.insert(_AFTER_DEPLOYMENT, _rollout(templates, context))
    page = templates.get_template("report.html.j2").render(
        record=record,
        overview=overview.build(context),
        sections=[section for section in shown if section["body"]],
        absent=[section for section in shown if not section["body"] and not section["foreign"]],
        foreign=[section["title"].lower() for section in shown if not section["body"] and section["foreign"]],
        lineage=lineage.build(context),
    )
    write_page(out, page)
    return out


def environment() -> Environment:
    """The templates of the report, with everything escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _section(environment: Environment, context: Context, section: Section) -> dict[str, Any]:
    sources = [context.source(step) for step in section.steps]
    source = next((found for found in sources if found.presence != "missing"), _likeliest(sources))
    return {
        "key": section.key,
        "title": section.title,
        "body": _body(environment, context, section, source),
        "step": words(source.step),
        "status": words(source.status),
        "reason": source.reason,
        "foreign": not source.record,  # the run never had such a step: nothing is missing
        "seconds": duration(source.record.get("seconds")) if source.status in {"succeeded", "failed"} else "",
        "digest": short((source.record.get("artifact") or {}).get("digest")) if _has_artifact(source) else "",
    }


def _rollout(templates: Environment, context: Context) -> dict[str, Any]:
    """The roll-out that this run looked at: no step of it, so the record tells all."""
    told = mapping(context.record.get("rollout"))
    about = {
        "key": "rollout",
        "title": "Roll-out",
        "step": text(told.get("mode")),
        "status": words(told.get("outcome")),
    }
    try:
        body = templates.get_template("sections/rollout.html.j2").render(view=rollout.build(context))
    except _DAMAGE as error:
        _LOG.warning("section 'rollout' of the report could not be made", exc_info=True)
        body = _unreadable(templates, "rollout", f"{type(error).__name__}: {text(error)}")
    return about | {"body": body, "reason": "", "foreign": False, "seconds": "", "digest": ""}


def _likeliest(sources: list[Source]) -> Source:
    """The source that says most about why there is nothing: one that the run knows, and of these the one that failed."""
    return max(sources, key=lambda source: (bool(source.record), source.status == "failed"))


def _has_artifact(source: Source) -> bool:
    return isinstance(source.record.get("artifact"), dict)


def _body(environment: Environment, context: Context, section: Section, source: Source) -> str:
    """The section's HTML; empty if its step left nothing."""
    if source.presence == "missing":
        return ""
    problem = source.problem
    # The data section can still show the dataset version when only the report beside it is damaged.
    if source.presence == "present" or section.key == "data":
        try:
            view = section.build(context)
            shown = environment.get_template(f"sections/{section.key}.html.j2").render(view=view)
        except _DAMAGE as error:
            _LOG.warning("section %r of the report could not be made", section.key, exc_info=True)
            problem = problem or f"{type(error).__name__}: {text(error)}"
        else:
            return _unreadable(environment, source.step, problem) + shown
    return _unreadable(environment, source.step, problem)


def _unreadable(environment: Environment, step: str, problem: str) -> str:
    if not problem:
        return ""
    return environment.get_template("unreadable.html.j2").render(step=words(step), problem=problem)


def write_page(out: Path, page: str) -> None:
    """Write under a temporary name and rename, so that a reader never sees half a report."""
    out.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(page)
        temporary.chmod(0o644)  # mkstemp makes it private; the report is meant to be read
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
