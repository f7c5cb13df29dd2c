"""The plain words that end a run on the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report.sections.overview import champion, headline, overrides
from kfloop.report.values import duration, rows, text

_LINES = 12
_WIDTH = 400  # characters: one reason must not fill the screen


def render_summary(record: Mapping[str, Any]) -> str:
    """The ending of a run in at most twelve lines: what was concluded, each reason, the champion, the time, the report.

    Args:
        record: The run record; its ``report`` is the path of the HTML file, if one was written.
    """
    said = headline(record)
    models = champion(record)
    ending = [f"Run {text(record.get('run_id'))}: {_steps(record)} in {duration(record.get('seconds'))}."]
    if models["changed"]:
        ending.insert(0, f"Champion: {models['before']} -> {models['after']}")
    elif models["concerned"]:
        ending.insert(0, f"Champion: {models['after']}")
    if record.get("substitutes"):
        ending.append(f"Substitutes: {', '.join(text(name) for name in record['substitutes'])}")
    if record.get("report"):
        ending.append(f"Report: {text(record['report'])}")
    lasting = overrides(record)
    if lasting:
        more = f" (and {len(lasting) - 1} more, see the report)" if len(lasting) > 1 else ""
        ending.insert(0, f"Overridden: {text(lasting[0], limit=_WIDTH)}{more}")
    reasons = [f"  {text(reason, limit=_WIDTH)}" for reason in said["reasons"]]
    room = _LINES - len(ending) - 1
    if len(reasons) > room:
        left_out = len(reasons) - room + 1
        reasons = [*reasons[: room - 1], f"  and {left_out} more, see the report"]
    return "\n".join([f"{text(record.get('loop'))}: {said['sentence']}", *reasons, *ending])


def _steps(record: Mapping[str, Any]) -> str:
    counts: dict[str, int] = {}
    for line in rows(record.get("steps")):
        status = text(line.get("status")).replace("_", " ")
        counts[status] = counts.get(status, 0) + 1
    return ", ".join(f"{size} {status}" for status, size in counts.items()) or "no steps"
