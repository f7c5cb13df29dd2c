"""Evidence: the four reports a decision rests on, and the one way to take a number out of them.

Nothing here trusts a report: a number that is missing, null, of a wrong type or at odds with another number of the same
report comes out as a ``Measurement`` without a value, and says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kfloop.components.gate.levels import LEVEL, LOWEST_LEVEL
from kfloop.components.gate.measurement import Measurement, number
from kfloop.core.artifacts import folder_digest, read_report
from kfloop.core.decisions import reports_digest
from kfloop.core.statistics.metrics import FIGURES, METRICS
from kfloop.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kfloop.core.sections import Rule
    from kfloop.core.store import Store

SOURCES = ("validate", "labels", "evaluate", "bless")
KINDS = {"validate": "validations", "labels": "labels", "evaluate": "evaluations", "bless": "blessings"}  # in the store
REPORT_OF = {"cost": "evaluate"}  # sources of a rule that stand in the report of another name
LABEL = "have requests of this kind labelled (kfloop review export): a share of new rows joins the test split"
_CONSISTENT = 1e-6  # a difference and the two numbers it is made of come from one computation in double precision

_BLESS_PLACES: dict[str, tuple[str, ...]] = {
    "p50_ms": ("latency_ms", "p50"),
    "p95_ms": ("latency_ms", "p95"),
    "p99_ms": ("latency_ms", "p99"),
    "memory_mb": ("memory_mb",),
    "load_seconds": ("load_seconds",),
    "throughput_rps": ("throughput_rps",),
    "max_abs_diff": ("golden", "max_abs_diff"),
}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Reports by source.

    Attributes:
        reports: Report of each source that wrote a readable one.
        absent: Why the others are absent, by source.
    """

    reports: dict[str, dict[str, Any]]
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Content digest of all reports, and of which are absent."""
        return reports_digest(self.reports, self.absent)

    def at(self, source: str, *keys: str) -> Any:
        """The value at a path of keys in the report of ``source``; None where the path ends early."""
        value: Any = self.reports.get(source)
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def champion_digest(self) -> str | None:
        """Digest of the champion that was scored; None without one."""
        return text(self.at("evaluate", "champion", "digest"))

    @property
    def challenger_digest(self) -> str | None:
        """Digest of the challenger, as the evaluation names it, else as the blessing does."""
        return text(self.at("evaluate", "challenger", "digest")) or text(self.at("bless", "model_digest"))

    @property
    def tells_champion(self) -> bool:
        """Whether the evaluation says who is champion, be it that there is none: silence is not the same."""
        evaluation, differences = self.reports.get("evaluate", {}), self.at("evaluate", "differences")
        return "champion" in evaluation and isinstance(differences, dict) and "champion" in differences

    @property
    def has_champion(self) -> bool:
        """Whether the evaluation says anything but 'there is no champion'."""
        both = (self.at("evaluate", "champion"), self.at("evaluate", "differences", "champion"))
        return not self.tells_champion or any(part is not None for part in both)

    @property
    def level(self) -> float:
        """Confidence level of a single interval: that of the figures over all test rows."""
        overall = self.at("evaluate", "challenger", "overall")
        items = overall.values() if isinstance(overall, dict) else []
        found = [number(item.get("level")) for item in items if isinstance(item, dict)]
        return next((level for level in found if level is not None and LOWEST_LEVEL <= level < 1), LEVEL)

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        labels = self.at("evaluate", "labels")
        return [str(label) for label in labels] if isinstance(labels, list) else []

    def columns(self, kind: str) -> list[str]:
        """Columns by which the evaluation made slices of this kind, ``column`` or ``group``, as slices spell them."""
        found = self.at("evaluate", "slice_columns", kind)
        return [str(name) for name in found] if isinstance(found, list) else []

    def of_cause(self, kind: str) -> list[str]:
        """Names of the slices of the cause, ``drifted`` or ``old``, with test rows or without."""
        parts = self.at("evaluate", "cause", "parts")
        found = [part.get(kind) for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        return [name for name in found if isinstance(name, str)]

    @property
    def corruptions(self) -> list[str]:
        """Kinds of corruption that were tried, with success or without."""
        found = self.at("evaluate", "robustness")
        return [str(name) for name in found] if isinstance(found, dict) else []

    @property
    def slices(self) -> set[str]:
        """Every slice that any part of the evaluation mentions: a slice that only one model lost does exist."""
        parts = [self.at("evaluate", model, "slices") for model in ("challenger", "champion", "baseline")]
        parts += [self.at("evaluate", "differences", other, "slices") for other in ("champion", "baseline")]
        return {str(name) for part in parts if isinstance(part, dict) for name in part}


def text(value: Any) -> str | None:
    """``value`` when it is a text that says something, else None."""
    return value if isinstance(value, str) and value else None


def collect(folders: dict[str, Path], store: Store | None = None) -> Evidence:
    """Read the report of each folder; one that is missing, unreadable or was changed is evidence of nothing, not an error.

    Args:
        folders: Folder of each source.
        store: The store. A folder in it is named by the digest of its content, so that an edit shows; of one elsewhere the
            store must have the very content. Null checks nothing.
    """
    reports: dict[str, dict[str, Any]] = {}
    absent: dict[str, str] = {}
    for source, folder in folders.items():
        try:
            reports[source] = read_report(folder)
        except FileNotFoundError:
            absent[source] = "it wrote no report"
        except (OSError, ValueError, TypeError) as error:
            absent[source] = f"its report cannot be read ({type(error).__name__})"
        else:
            if store is not None and _was_changed(folder, store, KINDS[source]):
                del reports[source]
                absent[source] = f"its report was changed after the step wrote it (remove '{folder}' and run again)"
    return Evidence(reports=reports, absent=absent)


def _was_changed(folder: Path, store: Store, kind: str) -> bool:
    """Whether a folder holds something else than what a step published.

    Args:
        folder: A blob of the store, or a copy of one.
        store: The store.
        kind: Kind of the blob.
    """
    found = folder_digest(folder)
    renamed = folder.resolve().parent.parent == store.root.resolve() and found != folder.name
    return renamed or not store.has(kind, found)


def measure(evidence: Evidence, rule: Rule, name: str) -> Measurement:
    """The number that ``rule`` is about.

    Args:
        evidence: The reports.
        rule: The rule.
        name: Slice, with a wildcard already resolved.
    """
    report = REPORT_OF.get(rule.source, rule.source)
    if report not in evidence.reports:
        return Measurement(missing=evidence.absent.get(report, f"step '{report}' gave no report"))
    if rule.source == "evaluate":
        return _evaluated(evidence, rule, name)
    if rule.source == "cost":
        return _cost(evidence, rule, name)
    if rule.versus != "absolute" or name != "overall":
        return Measurement(missing=f"'{rule.source}' measures the challenger as a whole, alone")
    if rule.source == "bless":
        return _blessed(evidence, rule.metric)
    return _labels(evidence, rule.metric)


def _labels(evidence: Evidence, metric: str) -> Measurement:
    """A figure of the label check, with the check's own words where it could not tell."""
    found = estimated(evidence.at("labels", metric), f"the label report has no '{metric}'")
    warnings = evidence.at("labels", "warnings")
    if found.value is not None or evidence.at("labels", metric) is None or not isinstance(warnings, list):
        return found
    why = "; ".join(str(line) for line in warnings) or "it does not say why"
    return Measurement(
        missing=f"the label check could not tell: {why}",
        todo="let the rule warn (mode: warn), or leave it out, if such data cannot be checked",
    )


def _cost(evidence: Evidence, rule: Rule, name: str) -> Measurement:
    """What a model costs, or how much more than another one's that is."""
    if name != "overall":
        return Measurement(missing="a cost is that of the model as a whole, not of a slice")
    costs = {}
    for model in ("challenger", *([] if rule.versus == "absolute" else [rule.versus])):
        found = number(evidence.at("evaluate", "cost", model, rule.metric))
        if found is None:
            return Measurement(missing=f"nobody measured '{rule.metric}' of the {model}")
        costs[model] = found
    if wrong := _not_possible(rule, costs):
        return Measurement(missing=wrong)
    if rule.versus == "absolute":
        return Measurement(value=costs["challenger"])
    unit = costs[rule.versus] if rule.relative else 1.0
    if unit <= 0:
        return Measurement(missing=f"the {rule.versus}'s {rule.metric} is {unit:g}, and a share of that is no number")
    return Measurement(value=(costs["challenger"] - costs[rule.versus]) / unit)


def _blessed(evidence: Evidence, metric: str) -> Measurement:
    places = _BLESS_PLACES.get(metric)
    value = number(evidence.at("bless", *places)) if places else None
    if value is None:
        return Measurement(missing=f"the blessing has no '{metric}' (known: {', '.join(_BLESS_PLACES)})")
    n = evidence.at("bless", "latency_ms", "n") if metric in {"p50_ms", "p95_ms", "p99_ms", "throughput_rps"} else None
    return Measurement(value=value, n=_count(n))


def _evaluated(evidence: Evidence, rule: Rule, name: str) -> Measurement:
    if wrong := _wrong_way(evidence, rule):
        return Measurement(missing=wrong)
    if rule.versus == "absolute":
        return _metric(evidence, ("challenger",), rule.metric, name)
    place = ("differences", rule.versus, "relative") if rule.relative else ("differences", rule.versus)
    difference = _metric(evidence, place, rule.metric, name)
    if difference.value is None:
        return difference
    ours = _metric(evidence, ("challenger",), rule.metric, name)
    theirs = _metric(evidence, (rule.versus,), rule.metric, name)
    wrong = ours.missing or theirs.missing or _not_possible(rule, {"challenger": ours.value, rule.versus: theirs.value})
    if wrong or ours.value is None or theirs.value is None:
        return Measurement(missing=wrong, n=difference.n)
    unit = abs(theirs.value) if rule.relative else 1.0
    expected = ours.value - theirs.value
    if not math.isclose(difference.value * unit, expected, rel_tol=_CONSISTENT, abs_tol=_CONSISTENT * min(1.0, unit)):
        share = " as a share of it" if rule.relative else ""
        return Measurement(
            missing=f"the difference {difference.value:+.4g} is not challenger {ours.value:.4g} minus {rule.versus} "
            f"{theirs.value:.4g}{share} (are the roles swapped?)"
        )
    return difference


def _not_possible(rule: Rule, values: Mapping[str, float | None]) -> str:
    """Why one of the figures that are compared is no measurement; empty where all are possible."""
    figure = FIGURES[rule.source][rule.metric]
    known = {who: value for who, value in values.items() if value is not None}
    wrong = [f"{value:g} of the {who}" for who, value in known.items() if not figure.low <= value <= figure.high]
    return f"{wrong[0]} is no possible value of {rule.metric}" if wrong else ""


def _wrong_way(evidence: Evidence, rule: Rule) -> str | None:
    """Why a rule protects from nothing: its figure is unknown, or it is bounded on the side that does not matter; null when it does protect."""
    objective = text(evidence.at("evaluate", "objective"))
    if objective not in METRICS:
        return f"the evaluation does not say what was learned ({objective!r})"
    metric = METRICS[objective].get(rule.metric)
    if metric is None:
        near = nearest(rule.metric, list(METRICS[objective]))
        return f"{objective} has no metric '{rule.metric}'{f' ({near})' if near else ''}"
    if metric.better is None:
        return f"{rule.metric} says nothing of the challenger"
    wanted = "at_least" if metric.better == "higher" else "at_most"
    return (
        None
        if getattr(rule, wanted) is not None
        else f"{metric.better} {rule.metric} is better, so a rule needs {wanted}"
    )


def _metric(evidence: Evidence, place: tuple[str, ...], metric: str, name: str) -> Measurement:
    who = f"the {place[1]}'s difference" if len(place) > 1 else f"the {place[0]}"
    if not isinstance(evidence.at("evaluate", *place), dict):
        return Measurement(missing=f"{who} was not evaluated")
    block = evidence.at("evaluate", *place, *(("overall",) if name == "overall" else ("slices", name)))
    if not isinstance(block, dict) and name in {*evidence.of_cause("drifted"), *evidence.of_cause("old")}:
        return Measurement(missing="no test row lies there", todo=LABEL)
    if not isinstance(block, dict):
        return Measurement(missing=f"{who} has no slice '{name}'")
    if metric not in block:
        near = nearest(metric, [str(key) for key in block])
        missing = f"{who} has no metric '{metric}' on '{name}'{f' ({near})' if near else ''}"
        return Measurement(
            missing=missing, todo="name a figure that this evaluation has (section Comparison of the report)"
        )
    found = estimated(block[metric], f"{metric} of {who} on '{name}' could not be computed")
    if found.value is not None and found.n is None:
        return Measurement(missing=f"{metric} of {who} on '{name}' does not say how many examples it rests on")
    return replace(found, unsure=_too_few(evidence)) if found.value is not None else found


def _too_few(evidence: Evidence) -> str:
    """Why there may be no interval: too few groups or blocks of test rows; empty where there are enough."""
    by = evidence.at("evaluate", "resampling", "by")
    units, fewest = (number(evidence.at("evaluate", "resampling", key)) for key in ("units", "fewest"))
    if units is None or fewest is None or units >= fewest:
        return ""
    kinds = {"group": "groups of test rows", "block": "blocks of test windows that do not overlap"}
    return f"there are {units:g} {kinds.get(str(by), 'test rows')}, and an interval needs {fewest:g}"


def estimated(value: Any, missing: str) -> Measurement:
    """An estimate object of a report; a bare number counts as one without interval."""
    fields = value if isinstance(value, dict) else {"value": value}
    found, n, level = number(fields.get("value")), _count(fields.get("n")), number(fields.get("level"))
    if found is None:
        return Measurement(missing=missing, n=n)
    if level is not None and not LOWEST_LEVEL <= level < 1:
        return Measurement(missing=f"its interval has the impossible level {level:g}", n=n)
    return Measurement(value=found, low=number(fields.get("low")), high=number(fields.get("high")), n=n, level=level)


def _count(value: Any) -> int | None:
    found = number(value)
    return None if found is None or found < 0 else int(found)
