"""``kfloop status`` for people: one screen, and the ledger."""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Mapping
from typing import Any

from kfloop.cli.targets import target_lines
from kfloop.cli.traffic import traffic_lines
from kfloop.cli.wellbeing import causes, findings, mappings

STAGES = {"intent": "begun", "withdrawn": "withdrawn", "done": "", "noted": ""}
LINES, WIDTH, INDENT = 25, 100, 11
MOST_OVERRIDES = 2
MOST_MOVED = 3
MOST_FINDINGS = 2
HUGE = 1e6


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts for people: at most 25 lines of 100 signs."""
    champion, previous, server, trigger = (facts[key] for key in ("champion", "previous", "server", "trigger"))
    # What was found of the champion before is told by the trigger, not as if it were about this one.
    monitor = _mapping(facts["monitor"] if (facts["monitor"] or {}).get("current") else None)
    above = [
        *_wrapped(f"model      {facts['state']}: {facts['why']}"),
        f"loop       {facts['loop']}",
        "champion   " + (f"version {champion['version']} ({champion['digest'][:12]})" if champion else "none yet"),
        "previous   " + (f"version {previous['version']} ({previous['digest'][:12]})" if previous else "none"),
        *target_lines(facts["target"], server),
        *traffic_lines(facts),
        *_health_lines(monitor),
        *_finding_lines(monitor),
        *_monitor_lines(monitor, facts["materiality"]),
        *_quality_lines(monitor),
        *_label_lines(monitor, facts["feedback"]["answers"]),
        *_wrapped("trigger    " + (f"{trigger['outcome']}: {trigger['reason']}" if trigger else "never monitored")),
        *_people_lines(facts),
        f"ledger     {facts['ledger_rows']} rows, chain intact",
    ]
    # What happened before fills the rest of the screen.
    before = [
        f"no retrain {_when(line['at'])[5:16]} {line['outcome']}{_times(line['times'])}: {line['reason']}"
        for line in facts["declined"]
    ]
    before += [
        f"run        {_when(run['started'])} {run['pipeline']} {run['status']}: {run['message']}"
        for run in facts["runs"]
    ]
    return [_cut(line) for line in [*[*above, *before][: LINES - 1], f"next       {facts['next']}"]]


def ledger_lines(facts: dict[str, Any]) -> list[str]:
    """The ledger for people: a line for each row and one that says whether it can be believed."""
    rows = facts["ledger"]
    text = []
    for row in rows:
        about = row["details"].get("rule") or f"version {row['version']}"
        what = " ".join(part for part in (row["action"].replace("_", " of "), about, STAGES[row["phase"]]) if part)
        until = f" until {_when(row['details']['until'])}" if row["details"].get("until") else ""
        evidence = f"  [{row['evidence_digest'][:12]}]" if row["evidence_digest"] else ""
        text.append(f"{row['seq']:>4}  {_when(row['at'])}  {row['actor']:<10} {what}{until}: {row['reason']}{evidence}")
    intact = (
        "each row's hash follows from the row before, and none is missing of those that kfloop saw in this folder"
        if rows
        else "empty"
    )
    return [*text, f"ledger of loop '{facts['loop']}': {len(rows)} rows, {intact}"]


def _health_lines(monitor: Mapping[str, Any]) -> list[str]:
    """Traffic and latency as the last round saw them, and what they were on the champion's first day."""
    health = _mapping(monitor.get("health"))
    if not health:
        return []
    rates, now, before = (
        _mapping(health.get("rows_per_hour")),
        _mapping(_mapping(health.get("latency_ms")).get("now")),
        _mapping(_mapping(health.get("latency_ms")).get("before")),
    )
    parts = [f"{_figure(rates.get('now'))} rows an hour" + _was(rates.get("before"))]
    if now.get("p95") is not None:
        parts.append(
            f"p50 {_figure(now.get('p50'))}, p95 {_figure(now.get('p95'))}, p99 {_figure(now.get('p99'))} ms"
            + _was(before.get("p95"), "p95 ")
        )
    price = _mapping(health.get("cost")).get("price_per_1000")
    parts += [f"{_figure(price)} per 1000"] if price is not None else []
    return ["traffic    " + "; ".join(parts)]


def _finding_lines(monitor: Mapping[str, Any]) -> list[str]:
    """What is wrong with rows or service."""
    found = findings(monitor)
    text = [f"wrong      {line}" for line in found[:MOST_FINDINGS]]
    more = len(found) - MOST_FINDINGS
    return text + ([f"wrong      and {more} more: kfloop report"] if more > 0 else [])


def _monitor_lines(monitor: Mapping[str, Any], materiality: float) -> list[str]:
    if not monitor.get("readable"):
        return []
    auc = _mapping(monitor.get("c2st_auc")).get("value")
    size = f"C2ST AUC {_figure(auc)} ({_figure(materiality)} matters)" if auc is not None else "size unknown"
    drift = next((cause for cause in causes(monitor) if cause.get("kind") == "drift"), {})
    word = "declared" if drift.get("declared") else "none"
    evidence = f"evidence {_figure(monitor.get('e_value'))} of {_figure(monitor.get('threshold'))}"
    text = [f"drift      {word}: {evidence} after {monitor.get('rows_seen') or 0:,} rows; {size}"]
    moved = sorted(
        (line for line in mappings(monitor.get("effects")) if _known(line.get("shift_sd"))),
        key=lambda line: -abs(line["shift_sd"]),
    )
    if moved and drift.get("declared"):
        told = ", ".join(f"{line['name']} {line['shift_sd']:+.2f} sd" for line in moved[:MOST_MOVED])
        text.append(f"moved      {told}")
    return text


def _quality_lines(monitor: Mapping[str, Any]) -> list[str]:
    """What is estimated without labels, and what turned out to be true."""
    quality = _mapping(monitor.get("quality"))
    estimated, realised = (_mapping(quality.get(name)) for name in ("estimated", "realised"))
    text = []
    for name, found, more in (
        ("estimated", estimated, ""),
        (
            "realised",
            realised,
            f", {realised.get('labels') or 0:,} labels of {realised.get('requests') or 0:,} requests",
        ),
    ):
        told = _estimate(found.get("quality"))
        if told:
            reference = f", reference {found['reference']:.3f}" if _known(found.get("reference")) else ""
            figure = str(found.get("name") or "quality").partition(" (")[0]  # how it is reckoned stands in the report
            text.append(f"{name:<10} {figure} {told}{more or reference}")
    return text


def _label_lines(monitor: Mapping[str, Any], answers: int) -> list[str]:
    fresh = monitor.get("fresh_labels")
    parts = [f"{answers} answers to requests"] if answers else []
    parts += [f"{fresh} labelled rows are new to the champion"] if fresh is not None else []
    return ["labels     " + "; ".join(parts)] if parts else []


def _people_lines(facts: dict[str, Any]) -> list[str]:
    """Who waits for a person, and which rules rest."""
    waiting = facts["waiting"]
    text = []
    if waiting:
        ends = "expired" if waiting["expires"] < time.time() else f"until {_when(waiting['expires'])}"
        text.append(
            f"waiting    version {waiting['version']}, {ends}: kfloop approve {waiting['evidence_digest'][:12]}"
        )
    rolled = facts["rollout"]
    if rolled:
        text.append(
            f"rollout    version {rolled['version']} as a {rolled['mode']} ({rolled['share']:.0%}) since {_when(rolled['since'])}: kfloop rollout"
        )
    rules = facts["overrides"]
    text += [
        f"override   {rule['rule']} until {rule['ends']} by {rule['who']}: {rule['why']}"
        for rule in rules[:MOST_OVERRIDES]
    ]
    more = len(rules) - MOST_OVERRIDES
    return text + ([f"override   and {more} more: kfloop status --json"] if more > 0 else [])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _figure(value: Any) -> str:
    if not _known(value):
        return "unknown"
    return f"{value:.3g}" if abs(value) < 1000 or abs(value) >= HUGE else f"{value:,.0f}"  # noqa: PLR2004 - from here on decimals say nothing


def _estimate(value: Any) -> str:
    found = _mapping(value)
    if not _known(found.get("value")):
        return ""
    ends = (
        f" ({found['low']:.3f} to {found['high']:.3f})"
        if _known(found.get("low")) and _known(found.get("high"))
        else ""
    )
    return f"{found['value']:.3f}{ends}"


def _was(value: Any, what: str = "") -> str:
    return f" ({what}was {_figure(value)})" if _known(value) else ""


def _times(number: int) -> str:
    return f" x{number}" if number > 1 else ""


def _wrapped(line: str) -> list[str]:
    """A line that matters, on two lines where it is long."""
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * INDENT, max_lines=2, placeholder=" ...")


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3].rstrip() + "..."


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
