"""``schedules.yaml``: which pipelines of which loops run when; strict like the loop file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, ValidationError, field_validator, model_validator

from kfloop.core.config import first_problem, kind_of
from kfloop.core.sections import Section
from kfloop.errors import ConfigError
from kfloop.pipelines.cluster.cron import checked_cron

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Schedule(Section):
    """One recurring run. Two runs of one schedule never overlap, and what was missed while it was off is not made up for."""

    loop: str | None = None
    """Loop file, relative to the schedules file; null: that of the set."""
    pipeline: Literal["training", "monitoring"] = "monitoring"
    """Pipeline to run."""
    cron: str
    """When: six fields (second minute hour day month weekday), in the time zone of the KFP server, which is UTC unless it was set up otherwise."""
    enabled: bool = True
    """Whether it runs; false keeps it, switched off."""
    start: AwareDatetime | None = None
    """First moment, with time zone; null: at once."""
    end: AwareDatetime | None = None
    """Last moment, with time zone; null: never ends."""
    experiment: str | None = None
    """KFP experiment; null: that of the loop file."""

    @field_validator("cron")
    @classmethod
    def _six_fields(cls, cron: str) -> str:
        return checked_cron(cron)

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.start and self.end and self.start >= self.end:
            message = f"end {_text(self.end)} is not after start {_text(self.start)}"
            raise ValueError(message)
        return self


class Schedules(Section):
    """A set of schedules that are kept together, usually in one repository."""

    set: Name = "default"
    """Name of this set: ``--prune`` deletes schedules of this set only, so that two repositories can share a namespace."""
    loop: str = "loop.yaml"
    """Loop file of schedules that name none, relative to this file."""
    schedules: dict[Name, Schedule]
    """Schedules by name, unique in the namespace; {} for none, which with ``--prune`` deletes those of the set."""


def load_schedules(path: Path) -> Schedules:
    """Read and check a schedules file.

    Raises:
        ConfigError: No such file, not YAML, an unknown key, a wrong cron.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        _refuse_repeated(yaml.compose(text, yaml.SafeLoader), path)
        content: Any = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise ConfigError(f"no schedules file at '{path}'", hint="docs/submit.md shows one") from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not valid YAML: {error}", hint="mend the file at that place") from error
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}' holds {kind_of(content)}, expected 'schedules:' with one entry by name")
    try:
        return Schedules.model_validate(content)
    except ValidationError as error:
        raise first_problem(error, f"'{path}'", Schedules) from error


def _refuse_repeated(node: Any, path: Path) -> None:
    """Refuse a key that stands twice in one mapping: YAML would keep the last in silence, and a schedule would be gone."""
    pairs = node.value if getattr(node, "id", "") == "mapping" else []
    seen: set[str] = set()
    for key, value in pairs:
        if key.value in seen:
            raise ConfigError(
                f"'{path}': '{key.value}' stands there twice, again in line {key.start_mark.line + 1}",
                hint="give each schedule a name of its own",
            )
        seen.add(str(key.value))
        _refuse_repeated(value, path)


def _text(moment: datetime) -> str:
    return moment.isoformat()
