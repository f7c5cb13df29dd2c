"""A check as text for people, JSON for programs, and SARIF 2.1.0 for code hosts.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0, section 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop import __version__
from kfloop.pipelines.checks.rules import RULES

if TYPE_CHECKING:
    from kfloop.pipelines.checks.checking import CheckReport

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def as_text(report: CheckReport) -> str:
    """One line for each finding, the hint of a rule once, and what was looked at."""
    lines = [f"fixed: {shown(file)}" for file in report.fixed]
    hinted = set()
    for finding in report.findings:
        lines.append(f"{shown(finding.file)}:{finding.line}: {finding.rule}: {finding.message}")
        if finding.rule not in hinted:
            hinted.add(finding.rule)
            lines.append(f"  -> {RULES[finding.rule].hint}")
    counts = report.checked
    looked = ", ".join(f"{number} {name if number != 1 else name[:-1]}" for name, number in counts.items())
    found = len(report.findings)
    lines.append(f"{'1 finding' if found == 1 else f'{found} findings'} in {looked}")
    return "\n".join(lines)


def rules_text() -> str:
    """Every rule with its sentence and hint."""
    return "\n".join(
        f"{rule.id}{' (--fix)' if rule.fixable else ''}\n    {rule.sentence}\n    -> {rule.hint}"
        for rule in RULES.values()
    )


def as_json(report: CheckReport) -> dict[str, Any]:
    """The report as one JSON object."""
    return {
        "findings": [
            {
                "rule": finding.rule,
                "file": shown(finding.file),
                "line": finding.line,
                "message": finding.message,
                "hint": RULES[finding.rule].hint,
                "fixable": RULES[finding.rule].fixable,
            }
            for finding in report.findings
        ],
        "checked": report.checked,
        "fixed": [shown(file) for file in report.fixed],
    }


def as_sarif(report: CheckReport) -> dict[str, Any]:
    """The report as a SARIF log with one run; every rule is described, broken or not."""
    names = list(RULES)
    rules = [
        {
            "id": rule.id,
            "shortDescription": {"text": rule.sentence},
            "help": {"text": rule.hint},
            "defaultConfiguration": {"level": "error"},
        }
        for rule in RULES.values()
    ]
    results = [
        {
            "ruleId": finding.rule,
            "ruleIndex": names.index(finding.rule),
            "level": "error",
            "message": {"text": finding.message},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(finding.file)},
                        "region": {"startLine": finding.line},
                    }
                }
            ],
        }
        for finding in report.findings
    ]
    driver = {"name": "kfloop check", "semanticVersion": __version__, "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def shown(file: Path) -> str:
    """A path as a person here would name it: relative where it can be, with forward slashes."""
    resolved, here = file.resolve(), Path.cwd().resolve()
    return (resolved.relative_to(here) if resolved.is_relative_to(here) else file).as_posix()


def _uri(file: Path) -> str:
    """A relative reference, which code hosts resolve against the repository; else a file URI."""
    from urllib.parse import quote

    name = shown(file)
    return Path(name).as_uri() if Path(name).is_absolute() else quote(name)
