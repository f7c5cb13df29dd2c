"""The standing of a loop as Prometheus metrics.

Names follow https://prometheus.io/docs/practices/naming: base units, ``_total`` for what only grows, ``_ratio`` for shares, ``_timestamp_seconds`` for moments. What is not known is
left out, never 0. Labels take few values, all of them known beforehand, but for the name of the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.cli.wellbeing import STATES, causes, findings, mappings
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

PREFIX = "kfloop_"
OUTCOMES = ("none", "retrain", "needs_labels", "cooldown", "in_flight", "over_budget", "not_evaluated")
KINDS = ("drift", "estimated", "realised", "data_quality", "schedule", "manual")
BOUNDS = (("", "value"), ("_low", "low"), ("_high", "high"))
MS = 1000.0

Facts = Mapping[str, Any]
Samples = Iterator[tuple[dict[str, str], Any]]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: Without the prefix; ``_total`` at the end makes it a counter.
        told: What ``# HELP`` says.
        samples: From the facts to labels and values; None, NaN and what is no number are left out.
        labels: Names of its labels, besides ``loop``.
    """

    name: str
    told: str
    samples: Callable[[Facts], Samples]
    labels: tuple[str, ...] = ()


def at(*path: str) -> Callable[[Facts], Samples]:
    """The one value at this place of the facts."""

    def samples(facts: Facts) -> Samples:
        yield {}, _find(facts, path)

    return samples


def one_of(label: str, known: tuple[str, ...], *path: str) -> Callable[[Facts], Samples]:
    """1 for the known word that stands at this place, 0 for the others; nothing where there is none of them."""

    def samples(facts: Facts) -> Samples:
        found = _find(facts, path)
        if found in known:
            yield from (({label: word}, float(word == found)) for word in known)

    return samples


def counts(label: str, known: Mapping[str, str], *path: str) -> Callable[[Facts], Samples]:
    """The numbers that a place holds by name, under their label."""

    def samples(facts: Facts) -> Samples:
        found = _mapping(_find(facts, path))
        yield from (({label: word}, found.get(key)) for key, word in known.items())

    return samples


def _of_causes(key: str) -> Callable[[Facts], Samples]:
    def samples(facts: Facts) -> Samples:
        found: dict[str, bool] = {}
        for cause in causes(_mapping(facts.get("monitor"))):
            if cause.get("kind") in KINDS and cause.get(key) is not None:  # two watches may tell of one kind
                found[cause["kind"]] = found.get(cause["kind"], False) or bool(cause[key])
        yield from (({"kind": kind}, float(word)) for kind, word in found.items())

    return samples


def _declared(facts: Facts) -> Samples:
    monitor = _mapping(facts.get("monitor"))
    if monitor.get("threshold") is not None:
        yield {}, float(monitor.get("alarm_row") is not None)


def _latency(facts: Facts) -> Samples:
    found = _mapping(_find(facts, ("monitor", "health", "latency_ms", "now")))
    for percentile in ("50", "95", "99"):
        value = _number(found.get(f"p{percentile}"))
        yield {"percentile": percentile}, None if value is None else value / MS


def _latency_limit(facts: Facts) -> Samples:
    value = _number(_find(facts, ("monitor", "health", "latency_ms", "limit_p95")))
    yield {}, None if value is None else value / MS


def _refused(facts: Facts) -> Samples:
    answers = _find(facts, ("edge", "answers"))
    if isinstance(answers, Mapping):
        for word, first in (("refused", "4"), ("failed", "5")):
            yield {"outcome": word}, sum(n for status, n in answers.items() if str(status).startswith(first))


def _silent(facts: Facts) -> Samples:
    writers = _find(facts, ("published", "writers"))
    if isinstance(writers, list):
        yield {}, sum(1 for writer in mappings(writers) if writer.get("silent_seconds"))


def _findings(facts: Facts) -> Samples:
    monitor = _mapping(facts.get("monitor"))
    if monitor:
        yield {}, len(findings(monitor))


def _waiting(facts: Facts) -> Samples:
    if "waiting" in facts:
        yield {}, float(facts["waiting"] is not None)


def _rollout(facts: Facts) -> Samples:
    if "rollout" in facts:
        yield {}, float(facts["rollout"] is not None)


def _server(facts: Facts) -> Samples:
    if "server" in facts:
        yield {}, float(facts["server"] is not None)


def _runs(key: str) -> Callable[[Facts], Samples]:
    def samples(facts: Facts) -> Samples:
        runs = mappings(facts.get("runs"))
        for pipeline in ("training", "monitoring"):
            last = next((run for run in runs if run.get("pipeline") == pipeline), None)
            if last is not None:
                value = last.get("started") if key == "started" else float(last.get("status") in {"failed", "killed"})
                yield {"pipeline": pipeline}, value

    return samples


def _estimates(name: str, told: str, *path: str) -> tuple[Metric, ...]:
    """An estimate and the ends of its interval."""
    ends = {"": "", "_low": ", lower end of its interval", "_high": ", upper end of its interval"}
    return tuple(
        Metric(name=name + suffix, told=told + ends[suffix] + ".", samples=at(*path, key)) for suffix, key in BOUNDS
    )


REQUESTS = {"success": "answered", "failure": "failed"}

METRICS = (
    Metric(name="model_state", told="1 for how the model is, as kfloop status says.", samples=one_of("state", STATES, "state"), labels=("state",)),
    Metric(name="champion_version", told="Version of the champion.", samples=at("champion", "version")),
    Metric(name="approval_waiting", told="1 while a challenger waits for a person.", samples=_waiting),
    Metric(name="rollout_active", told="1 while a challenger gets part of the traffic.", samples=_rollout),
    Metric(name="rollout_version", told="Version that is rolled out.", samples=at("rollout", "version")),
    Metric(name="rollout_share_ratio", told="Share of the traffic that it gets.", samples=at("rollout", "share")),
    Metric(name="monitor_last_round_timestamp_seconds", told="When the monitor concluded last, Unix time.", samples=at("trigger", "at")),
    Metric(name="monitor_last_outcome", told="1 for what the last monitoring round concluded.", samples=one_of("outcome", OUTCOMES, "trigger", "outcome"), labels=("outcome",)),
    Metric(name="monitor_rounds_total", told="Monitoring rounds by what they concluded.", samples=counts("outcome", {word: word for word in OUTCOMES}, "triggers"), labels=("outcome",)),
    Metric(name="monitor_rows_total", told="Usable rows of the champion that were watched; falls back when the champion changes.", samples=at("monitor", "rows_seen")),
    Metric(name="monitor_unusable_rows_total", told="Rows of the champion that could not be used.", samples=at("monitor", "rows_unusable")),
    Metric(name="drift_evidence", told="Evidence of drift (e-value), at most 1e300.", samples=at("monitor", "e_value")),
    Metric(name="drift_evidence_threshold", told="Evidence at which drift is declared.", samples=at("monitor", "threshold")),
    Metric(name="drift_declared", told="1 once drift was declared for this champion.", samples=_declared),
    *_estimates("drift_c2st_auc", "How well a classifier tells the latest rows from the reference, area under the curve", "monitor", "c2st_auc"),
    Metric(name="drift_materiality", told="Area under that curve from which on drift matters.", samples=at("materiality")),
    Metric(name="cause_declared", told="1 for a cause that was declared.", samples=_of_causes("declared"), labels=("kind",)),
    Metric(name="cause_matters", told="1 for a cause whose size is worth a retraining.", samples=_of_causes("matters"), labels=("kind",)),
    *_estimates("estimated_quality", "The champion's quality, estimated without labels", "estimated"),
    *_estimates("realised_quality", "The champion's quality on requests whose truth is known", "realised"),
    Metric(name="reference_quality", told="The champion's quality on its reference, by the same estimate.", samples=at("before", "value")),
    Metric(name="feedback_answers", told="Answers of people in the file of ground truth.", samples=at("feedback", "answers")),
    Metric(name="fresh_labels", told="Labelled rows that the champion's dataset did not have.", samples=at("monitor", "fresh_labels")),
    Metric(name="data_quality_findings", told="What was wrong with rows or service at the last monitoring round, number of findings.", samples=_findings),
    Metric(name="server_up", told="1 while the loop's own server runs.", samples=_server),
    Metric(name="requests_total", told="Requests by their end since the server started, as Triton counts them.", samples=counts("outcome", REQUESTS, "requests"), labels=("outcome",)),
    Metric(name="edge_requests_total", told="Requests that the edge refused, and those that failed behind it.", samples=_refused, labels=("outcome",)),
    Metric(name="request_log_rows_total", told="Rows of the request log, written and dropped.", samples=counts("fate", {"written": "written", "dropped": "dropped"}, "log"), labels=("fate",)),
    Metric(name="request_log_bytes", told="Size of the request log.", samples=at("log", "bytes")),
    Metric(name="request_log_damaged_files", told="Files of the request log that cannot be read.", samples=at("log", "damaged_files")),
    Metric(name="request_log_behind_seconds", told="How far the server that is furthest behind was behind in publishing its request log, at the last look at it.", samples=at("published", "behind_seconds")),
    Metric(name="request_log_silent_servers", told="Servers that publish their request log and fell silent without a word, at the last look at it.", samples=_silent),
    Metric(name="request_latency_seconds", told="Percentile of the time of the latest answers, at the last monitoring round.", samples=_latency, labels=("percentile",)),
    Metric(name="request_latency_limit_seconds", told="monitor.latency_ms_p95 of the loop file.", samples=_latency_limit),
    Metric(name="requests_per_hour", told="Rows an hour, at the last monitoring round.", samples=at("monitor", "health", "rows_per_hour", "now")),
    Metric(name="request_failure_ratio", told="Share of a day's requests that failed, at the last monitoring round.", samples=at("monitor", "health", "service", "failure_share")),
    Metric(name="cost_per_1000_requests", told="What 1000 answers cost, in the loop's own currency.", samples=at("monitor", "health", "cost", "price_per_1000")),
    Metric(name="last_run_timestamp_seconds", told="When the last run of a pipeline began, Unix time.", samples=_runs("started"), labels=("pipeline",)),
    Metric(name="last_run_failed", told="1 when the last run of a pipeline failed.", samples=_runs("failed"), labels=("pipeline",)),
)  # fmt: skip
READABLE = Metric(name="scrape_ok", told="1 when the loop's state could be read.", samples=at("scrape_ok"))


def registry(gather: Callable[[], Facts], loop: str) -> CollectorRegistry:
    """A registry whose metrics are read anew at each scrape.

    Args:
        gather: Gives the facts; what it raises is told as ``kfloop_scrape_ok 0``.
        loop: Name of the loop.

    Raises:
        ConfigError: The extra ``metrics`` is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        raise ConfigError(
            "kfloop metrics needs the package prometheus-client", hint='pip install "kfloop[metrics]"'
        ) from error

    made = CollectorRegistry(auto_describe=False)
    made.register(_Collector(gather, loop))
    return made


class _Collector:
    """What prometheus_client asks at each scrape."""

    def __init__(self, gather: Callable[[], Facts], loop: str) -> None:
        self._gather, self._loop = gather, loop

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Every metric that has a value now."""
        try:
            facts: Facts = {**_with_quality(self._gather()), "scrape_ok": 1}
        except Exception:  # noqa: BLE001 - an operator must see that the loop cannot be read, whatever keeps it from that
            facts = {"scrape_ok": 0}
        for metric in (READABLE, *METRICS):
            family = _family(metric, facts, self._loop)
            if family.samples:
                yield family


def _family(metric: Metric, facts: Facts, loop: str) -> GaugeMetricFamily | CounterMetricFamily:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if metric.name.endswith("_total") else GaugeMetricFamily
    family = kind(PREFIX + metric.name, metric.told, labels=["loop", *metric.labels])
    for labels, value in metric.samples(facts):
        found = _number(value)
        if found is not None:
            family.add_metric([loop, *(labels[name] for name in metric.labels)], found)
    return family


def _with_quality(facts: Facts) -> dict[str, Any]:
    """The estimates of quality at one place; what was found of the champion before is left out, or its alarms would outlive it."""
    monitor = _mapping(facts.get("monitor"))
    if not monitor.get("current"):
        return {**facts, "monitor": None}
    quality = _mapping(monitor.get("quality"))
    estimated, realised = (_mapping(quality.get(name)) for name in ("estimated", "realised"))
    reference = estimated.get("reference", realised.get("reference"))
    return {
        **facts,
        "estimated": _mapping(estimated.get("quality")),
        "realised": _mapping(realised.get("quality")),
        "before": {} if reference is None else {"value": reference},
    }


def _find(facts: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        facts = _mapping(facts).get(key)
    return facts


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
