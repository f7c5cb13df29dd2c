"""The text of a loop file, for data that were looked at."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.cli.starting_rules import decides_alone, starting_rules
from kfloop.core.families import FAMILIES, choose_family, objective_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kfloop.components.ingest.sources import SourceInfo

HEAD = """\
# The loop of one model. `kfloop run` trains a challenger and lets it prove itself; `kfloop monitor` watches the champion.
# Every key is explained in docs/loop-file.md; an unknown key is an error that names the nearest one.
name: {name}

data:
  source: {source}        # {found}
{keys}{fresh}{split}
labels:
  policy: report          # report | weight | quarantine | relabel_queue
"""
FRESH = "  fresh: incoming        # put newly labelled images here (same layout); it may stay empty\n"
SPLIT = "  split: {{{method}validation: 0.15, test: 0.25}}\n"
TRAIN = """
train:
  family: {family:<15} # {others}
  seed: 0                 # epochs, batch size and learning rate are chosen from the data unless told

gate:
  approval: auto          # auto | manual
{rules}"""
MONITOR = """
monitor:
  false_alarms_per_year: 1  # false alarms of drift that are borne, on average
  min_fresh_labels: 60    # newly labelled rows needed to retrain
"""
MONITOR_FORECASTS = """
monitor:
  unit: null              # neighbouring windows hang together: drift is judged over as many as the held-out rows suggest
"""
NOUNS = {
    "image": "images",
    "audio": "sounds",
    "text": "texts",
    "table": "rows",
    "vector": "vectors",
    "series": "steps",
    "nodes": "nodes",
    "graphs": "graphs",
}
FEW_PER_CLASS = 100  # with fewer, chance could leave a class out of a split
NOTED = {"autoencoder": " (finds odd rows)", "gan": " (draws new ones)", "diffusion": " (draws new ones)"}
MONITORED = ("image", "multiclass")  # whose loop files begin with these keys, because people change them first


def loop_text(name: str | None, source: str, info: SourceInfo, told: Mapping[str, Any], folder: Path) -> str:
    """The loop file for what was found.

    Args:
        name: Name of the loop; null means one made from the data's name.
        source: The data, as the person named them.
        info: What was found there.
        told: Fields of the data section that the person set.
        folder: Where the loop file will stand.
    """
    where = source
    if source != "digits" and not source.startswith("sample:") and "://" not in source:
        resolved = Path(source).resolve()
        where = str(resolved.relative_to(folder)) if resolved.is_relative_to(folder) else str(resolved)
        where = "./digits" if where == "digits" else where
    keys: dict[str, Any] = {"modality": info.modality} if info.modality == "series" else {}
    keys |= dict(info.suggestions) | dict(told)
    column = keys.pop("split", {}).get("column")
    text = HEAD.format(
        name=name or loop_name(source),
        source=quoted(where),
        found=f"{info.n} {NOUNS[info.modality]}, " + (f"{len(info.labels)} classes" if info.labels else info.task),
        keys="".join(f"  {key}: {_value(value)}\n" for key, value in keys.items()),
        fresh=FRESH if info.modality == "image" else "",
        split=_split(info, keys, column),
    )
    objective = objective_of(info.task, None)
    family = choose_family(info.modality, objective)
    rules = starting_rules(objective, info)
    others = [
        name + NOTED.get(name, "")
        for name, item in FAMILIES.items()
        if name != family
        and info.modality in item.modalities
        # Rules that are written down are about one objective; the default rules follow the family.
        and (
            objective in item.objectives
            or (objective == "classification" and name in NOTED and not decides_alone(rules))
        )
    ]
    text += TRAIN.format(
        family=family,
        others=f"or {', '.join(others)}" if others else "the usual family for such data",
        rules=rules,
    )
    if info.task == "forecasting":  # one row a unit, the default, is refused there
        return text + MONITOR_FORECASTS
    return text + MONITOR if (info.modality, info.task) == MONITORED else text


def _split(info: SourceInfo, keys: Mapping[str, Any], column: str | None) -> str:
    """The split line; none where the source decides."""
    if column is not None:
        return SPLIT.format(method=f"column: {quoted(column)}, ")
    if info.modality == "nodes":
        return ""
    by_chance = info.task == "multiclass" and info.modality not in {"image", "series"}
    if by_chance and "group" not in keys and not (keys.get("pattern") and "{group}" in keys["pattern"]):
        rare = info.n < FEW_PER_CLASS * len(info.labels)
        return SPLIT.format(method="method: stratified, " if rare else "")
    return SPLIT.format(method="")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return quoted(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def quoted(text: str) -> str:
    """A YAML scalar that always means this text."""
    plain = re.fullmatch(r"(\./|sample:)?[A-Za-z_][A-Za-z0-9_./-]*", text) and text.lower() not in {
        "yes",
        "no",
        "on",
        "off",
        "true",
        "false",
        "null",
        "y",
        "n",
    }
    return text if plain else "'" + text.replace("'", "''") + "'"


def loop_name(source: str) -> str:
    """A valid loop name made from the data's name."""
    stem = (
        source.removeprefix("sample:")
        if source == "digits" or source.startswith("sample:")
        else Path(source).resolve().name.split(".")[0]
    )
    plain = unicodedata.normalize("NFKD", stem.casefold()).encode("ascii", "ignore").decode()  # 'Töne' becomes 'tone'
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-") or "loop"
