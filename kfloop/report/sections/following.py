"""What to do next, for what the gate decided and the checks of the data found: the command or the part of the report that helps."""

from __future__ import annotations

from typing import Any

from kfloop.report.people import settled_by
from kfloop.report.sources import Context
from kfloop.report.values import count, items, mapping, number, rows, text

Line = dict[str, str]


def following(context: Context) -> list[Line]:
    """What a person should do now, the most pressing first; nothing where neither decision nor data give a reason.

    Each has ``text``, ``command`` (empty if there is none) and ``anchor``, the section of the report that shows it.
    """
    stops, notes = _validation(context)
    return [*_decision(context), *stops, *_labels(context), *notes]


def _decision(context: Context) -> list[Line]:
    """What a held or rejected challenger asks of people."""
    report = context.source("gate").report
    run = text(context.record.get("run_id"))
    if report.get("outcome") == "hold":
        return [
            _line("a person decides: if the verdicts convince you", "verdicts", f"kfloop approve {run} --reason '...'"),
            _line("and if they do not", "verdicts", f"kfloop reject {run} --reason '...'"),
        ]
    if report.get("outcome") == "reject":
        return [_line("read what each rule missed, by how much, and what would help", "verdicts")]
    return []


def _validation(context: Context) -> tuple[list[Line], list[Line]]:
    """What stops a run, and what only warns."""
    lines = rows(context.source("validate_data").report.get("results"))
    critical = sum(line.get("passed") is not True and line.get("severity") == "critical" for line in lines)
    warned = sum(line.get("passed") is not True and line.get("severity") == "warning" for line in lines)
    stops = [
        _line(f"{_plural(critical, 'critical expectation')} not met: mend the data, or a suite that asks too much")
    ]
    notes = [_line(f"{_plural(warned, 'warning')} of the validation: see whether the data or the suite is wrong")]
    return stops if critical else [], notes if warned else []


def _labels(context: Context) -> list[Line]:
    report = context.source("check_labels").report
    pairs, votes = mapping(report.get("duplicates")), mapping(report.get("annotators"))
    # People have looked at some of them already, and the queue does not ask again.
    settled = settled_by(context.pictures, [line.get("id") for line in rows(report.get("ranked"))])
    doubts = [
        (_whole(report.get("n_flagged")) - len(settled), "doubtful label"),
        (_whole(pairs.get("conflicting")), "conflicting pair"),
        (len(items(votes.get("disputed"))), "example in dispute"),
    ]
    named = [_plural(n, noun) for n, noun in doubts if n > 0]
    leaks = _whole(pairs.get("leaking"))
    found = []
    if named:
        found.append(_line(f"{', '.join(named)}: let people settle them", "labels", "kfloop review export"))
    if leaks:
        why = "alike rows in different splits make test results too good: keep together what belongs together (data.group)"
        found.append(_line(f"{_plural(leaks, 'pair')} of {why}, or remove the copies", "labels"))
    return found


def _line(words: str, anchor: str = "validation", command: str = "") -> Line:
    return {"text": words, "command": command, "anchor": anchor}


def _whole(value: Any) -> int:
    return int(number(value) or 0)


def _plural(n: int, noun: str) -> str:
    first, _, rest = noun.partition(" in ")
    return f"{count(n)} {first}{'' if n == 1 else 's'}{' in ' + rest if rest else ''}"
