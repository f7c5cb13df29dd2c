"""The results of the expectation suite, those that failed first; what the columns hold; and which sets of rows differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kfloop.core.artifacts import canonical_json
from kfloop.report.sources import Context
from kfloop.report.values import compact, count, decimal, items, mapping, number, percent, rows, short, text, words

_ORDER = {"error": 0, "fail": 1, "not evaluated": 2, "not compared": 3, "pass": 4}
_SEVERITIES = {"critical": 0, "warning": 1}
_OPEN = 12  # passed expectations up to which they are not folded away
_SKEW = "skew:"
_EACH_VALUE = "expect_column_values_"
_PROFILE = 100
_SKEWED = 20
_TOP = 3


def build(context: Context) -> Mapping[str, Any]:
    """What the validation section shows."""
    report = context.source("validate_data").report
    results = sorted((_result(line) for line in rows(report.get("results"))), key=_rank)
    passed = [line for line in results if line["state"] == "pass"]
    troubled = [line for line in results if line["state"] != "pass"]
    profile = rows(report.get("profile"))
    n_rows = number(report.get("n_rows"))
    return {
        "facts": [
            ("outcome", text(report.get("outcome_word"))),
            ("rows", count(report.get("n_rows"))),
            ("expectations", count(len(results))),
            ("not met", _tally(results, "fail")),
            ("broken", _tally(results, "error", "not evaluated") if _any(results, "error", "not evaluated") else ""),
            ("engine", words(report.get("engine"))),
            ("suite", _suite(report)),
        ],
        "results": [*troubled, *passed] if len(passed) <= _OPEN else troubled,
        "folded": passed if len(passed) > _OPEN else [],
        "skew": _skew(rows(report.get("skew"))),
        "profile": [_column(line, n_rows) for line in profile[:_PROFILE]],
        "profile_left_out": max(0, len(profile) - _PROFILE),
    }


def _suite(report: Mapping[str, Any]) -> str:
    # The file's name is enough beside its digest: a whole path would not fit.
    source, digest = text(report.get("suite_source"), limit=1000).rpartition("/")[2], report.get("suite_digest")
    return " ".join(part for part in (source, short(digest) if digest else "") if part)


def _any(results: Sequence[Mapping[str, str]], *states: str) -> bool:
    return any(line["state"] in states for line in results)


def _tally(results: Sequence[Mapping[str, str]], *states: str) -> str:
    """How many, and of which severity."""
    found = [line["severity"] or "of no severity" for line in results if line["state"] in states]
    kinds = [
        f"{found.count(kind)} {kind}" for kind in sorted(set(found), key=lambda kind: (_SEVERITIES.get(kind, 2), kind))
    ]
    return ", ".join(kinds) or "0"


def _rank(line: Mapping[str, str]) -> tuple[bool, int, int]:
    """What stopped the run first, what passed last."""
    severity = _SEVERITIES.get(line["severity"], len(_SEVERITIES))
    return line["state"] == "pass", severity, _ORDER[line["state"]]


def _result(line: Mapping[str, Any]) -> dict[str, str]:
    name = text(line.get("expectation"))
    return {
        "expectation": _named(name),
        "column": text(line.get("column"), limit=120),
        "severity": text(line.get("severity"), limit=40),
        "state": _state(line),
        "observed": _observed(line.get("observed"), counted=name.startswith(_EACH_VALUE)),
        "detail": _detail(line),
    }


def _named(expectation: str) -> str:
    """An expectation in words; a comparison of two sets as that."""
    if expectation.startswith(_SKEW):
        return f"no skew between {words(expectation.removeprefix(_SKEW)).replace('/', ' and ')}"
    return words(expectation).removeprefix("expect ")


def _detail(line: Mapping[str, Any]) -> str:
    """What was wrong. Hashes of contents tell a person nothing: the pairs of equal rows stand with the labels."""
    found = text(line.get("detail"), limit=240)
    if line.get("column") == "content" and found.startswith("unexpected"):
        return "rows equal to another row; Duplicates, under Labels, shows them"
    return found


def _state(line: Mapping[str, Any]) -> str:
    """Pass, fail or error; neither true nor false is what a crashed check leaves behind. Two sets that could not be compared are neither alike nor skewed."""
    if line.get("word") in ("error", "fail"):
        return str(line["word"])
    if text(line.get("expectation")).startswith(_SKEW) and line.get("observed") is None:
        return "not compared"
    passed = line.get("passed")
    return ("pass" if passed else "fail") if isinstance(passed, bool) else "not evaluated"


def _observed(value: Any, *, counted: bool = False) -> str:
    """What was seen; of an expectation about each value it is the number of rows against it."""
    if counted and isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,} against" if value else "none against"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if number(value) is not None:
        return decimal(value)
    return text(canonical_json(value) if isinstance(value, dict | list) else value, limit=120)


def _skew(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each pair of sets: which columns differ, and every column as a table."""
    pairs = dict.fromkeys(text(line.get("pair"), limit=60) for line in lines)
    shown = []
    for pair in pairs:
        of_pair = [line for line in lines if text(line.get("pair"), limit=60) == pair]
        of_pair.sort(key=lambda line: (line.get("skewed") is not True, -(number(line.get("effect")) or 0.0)))
        skewed = [text(line.get("column"), limit=60) for line in of_pair if line.get("skewed") is True]
        shown.append(
            {
                "pair": pair.replace("/", " and "),
                "columns": count(len(of_pair)),
                "skewed": count(len(skewed)),
                "names": ", ".join(skewed[:_SKEWED])
                + (f" and {len(skewed) - _SKEWED} more" if len(skewed) > _SKEWED else ""),
                "sizes": _sizes(of_pair),
                "lines": [_skew_line(line) for line in of_pair[: max(_SKEWED, len(skewed[: 5 * _SKEWED]))]],
                "left_out": max(0, len(of_pair) - max(_SKEWED, len(skewed[: 5 * _SKEWED]))),
            }
        )
    return shown


def _sizes(lines: list[dict[str, Any]]) -> str:
    found = [line for line in lines if number(line.get("n_reference")) is not None]
    return f"{count(found[0].get('n_reference'))} and {count(found[0].get('n_current'))} rows" if found else ""


def _skew_line(line: Mapping[str, Any]) -> dict[str, Any]:
    effect = number(line.get("effect"))
    return {
        "column": text(line.get("column"), limit=60),
        "test": {"ks": "Kolmogorov-Smirnov", "chi2": "chi-squared"}.get(
            text(line.get("test")), text(line.get("test"), limit=40)
        ),
        "effect": decimal(effect),
        "width": min(100.0, max(0.0, 100 * (effect or 0.0))),
        "p": compact(line.get("p_adjusted") if number(line.get("p_adjusted")) is not None else line.get("p")),
        "state": {True: "skewed", False: "alike"}.get(line["skewed"], "not evaluated")
        if isinstance(line.get("skewed"), bool)
        else "not evaluated",
    }


def _column(line: Mapping[str, Any], n_rows: float | None) -> list[str]:
    missing = number(line.get("missing"))
    share = f" ({percent(missing / n_rows)})" if missing and n_rows else ""
    return [
        text(line.get("column"), limit=60),
        text(line.get("type"), limit=40),
        f"{count(missing)}{share}",
        count(line.get("distinct")),
        _edge(line.get("minimum")),
        _edge(line.get("maximum")),
        _edge(line.get("mean")),
        _edge(line.get("std")),
        _top(items(line.get("top"))),
    ]


def _edge(value: Any) -> str:
    """A limit of a column: a number, or a time or text as it is; nothing where it has no meaning."""
    return "" if value is None else compact(value) if number(value) is not None else text(value, limit=32)


def _top(found: list[Any]) -> str:
    named = [mapping(item) for item in found[:_TOP] if isinstance(item, dict)]
    said = [f"{text(item.get('value'), limit=30)} {percent(item.get('share'))}" for item in named]
    return ", ".join(said) or ", ".join(text(item, limit=30) for item in found[:_TOP])
