"""A suite from a reference version: what is true of it now, with a margin, as a file for people to review and to keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.validate_data import proposals
from kfloop.components.validate_data.engines.choosing import POLARS, evaluate
from kfloop.components.validate_data.manifest import build_manifest
from kfloop.components.validate_data.suites import BETWEEN, CRITICAL, IN_SET, WARNING, facts_suite
from kfloop.core.artifacts import canonical_json, sha256_text
from kfloop.core.expectations.outcomes import PASS
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.core.versions import DatasetVersion

Expectation = dict[str, Any]
ROWS_SHARE = 0.5
# Columns about rows rather than about examples: their ranges and categories say nothing about the next version.
ABOUT_ROWS = frozenset({"id", "content", "split", "origin", "group", "time", "node", "phash", "label_by", "label_at"})
ADDED_LATER = frozenset({"label_by", "label_at"})  # answers of people come with later versions
META = "kfloop"


def propose(version: DatasetVersion) -> list[Expectation]:
    """Expectations that hold for this version, and should hold for the next ones.

    Schema, missing values, classes of the label, and the facts that make media useless are ``critical``; ranges, lengths, means and categories of other columns
    are ``warning``. Every proposal is evaluated on the reference: what it does not meet is not proposed.

    Returns:
        ``type``, ``kwargs``, ``severity`` and ``meta.why`` of each, sorted by column and name.
    """
    manifest = build_manifest(version)
    facts = proposals.facts_of(manifest)
    found = list(_table(manifest.num_rows, manifest.schema.names))
    for name, known in facts.items():
        if name not in ADDED_LATER:
            found += _column(version, name, known)
    taken = {_place(item) for item in found}
    found += [item for item in _media(version, facts) if _place(item) not in taken]
    found.sort(key=lambda item: (item["kwargs"].get("column", ""), item["type"], canonical_json(item)))
    results = evaluate(manifest, found, POLARS)
    return [item for item, result in zip(found, results, strict=True) if result["word"] == PASS]


def _table(n_rows: int, names: list[str]) -> Iterator[Expectation]:
    fewest = max(1, int(n_rows * ROWS_SHARE))
    why = f"half of the {n_rows} rows of the reference"
    yield proposals.make("expect_table_row_count_to_be_between", CRITICAL, why, min_value=fewest)
    kept = sorted(set(names) - ADDED_LATER)
    why = "the columns of the reference; others may come"
    yield proposals.make("expect_table_columns_to_match_set", CRITICAL, why, column_set=kept, exact_match=False)


def _column(version: DatasetVersion, name: str, facts: proposals.Facts) -> Iterator[Expectation]:
    yield from proposals.basics(facts)
    if name == "id":
        yield from proposals.unique(facts, CRITICAL)
    elif name == "label" and version.task == "multiclass":
        why = f"the {len(version.labels)} classes of the reference"
        told = {"column": name, "value_set": version.labels}
        yield proposals.make(IN_SET, CRITICAL, why, **told)
        yield proposals.make("expect_column_distinct_values_to_contain_set", CRITICAL, why, **told)
    elif name == "time_step":
        yield proposals.make(BETWEEN, CRITICAL, "time only goes on", column=name, min_value=0, strict_min=True)
    elif name in {"split", "origin"} or (name == "label" and version.task == "multilabel"):
        return  # new combinations of labels are no news
    elif name == "phash":  # different pictures may look alike
        return
    elif name in ABOUT_ROWS:
        yield from proposals.unique(facts, WARNING)
    else:
        yield from proposals.unique(facts, WARNING)
        yield from proposals.values(facts)


def _media(version: DatasetVersion, facts: dict[str, proposals.Facts]) -> Iterator[Expectation]:
    for item in facts_suite(version):
        if item["kwargs"]["column"] in facts:
            yield item | {"meta": {"why": f"what any {version.modality} dataset should meet"}}


def _place(item: Expectation) -> tuple[str, str, str]:
    return item["type"], item["kwargs"].get("column", ""), item["severity"]


def suite_text(expectations: list[Expectation], version: DatasetVersion, name: str) -> str:
    """A suite file as Great Expectations reads it; the same reference gives the same text."""
    meta = {
        "reference": version.digest,
        "rows": int(version.card["n_rows"]),
        "modality": version.modality,
        "task": version.task,
        "digest": _digest(expectations),
    }
    suite = {"name": name, "expectations": expectations, "meta": {META: meta}}
    return json.dumps(suite, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def write_suite(path: Path, version: DatasetVersion, *, name: str = "", force: bool = False) -> list[Expectation]:
    """Propose a suite from ``version`` and write it to ``path``.

    Args:
        path: The suite file. One that a person has edited, or that kfloop did not write, is only overwritten by ``force``.
        version: The reference.
        name: Name of the suite; empty means the stem of the file.
        force: Overwrite whatever is there.

    Returns:
        The expectations.

    Raises:
        ConfigError: The file exists and holds somebody's work.
    """
    if path.exists() and not force and not _untouched(path):
        raise ConfigError(
            f"'{path}' was edited since kfloop proposed it, or was not proposed by kfloop",
            hint="propose to another path and compare, or overwrite it with --force",
            path=str(path),
        )
    expectations = propose(version)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(suite_text(expectations, version, name or path.stem), encoding="utf-8")
    return expectations


def _untouched(path: Path) -> bool:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return bool(raw["meta"][META]["digest"] == _digest(raw["expectations"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digest(expectations: list[Expectation]) -> str:
    return sha256_text(canonical_json(expectations))
