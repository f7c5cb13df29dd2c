"""What a real Triton said about the challenger, and what was deployed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report.sections.training import flat
from kfloop.report.sources import Context
from kfloop.report.values import compact, count, duration, items, mapping, number, text, words

_LOG_LINES = 40


def build_blessing(context: Context) -> Mapping[str, Any]:
    """What the blessing section shows."""
    report = context.source("bless").report
    golden, latency = mapping(report.get("golden")), mapping(report.get("latency_ms"))
    passed = report.get("passed")
    return {
        "state": {True: "pass", False: "fail"}[passed] if isinstance(passed, bool) else "not evaluated",
        "odd_requests": [[words(name), text(found)] for name, found in mapping(report.get("odd_requests")).items()],
        "failures": [_failure(line, mapping(report.get("failure_logs"))) for line in items(report.get("failures"))],
        "facts": [
            ("Triton", text(report.get("triton_version"))),
            ("time to load", duration(report.get("load_seconds"))),
            ("throughput", _unit(report.get("throughput_rps"), "per second")),
            ("memory", _unit(report.get("memory_mb"), "MiB")),
        ],
        "golden": [
            ("answers compared", count(golden.get("n"))),
            ("largest difference", compact(golden.get("max_abs_diff"))),
            ("tolerance", compact(golden.get("tolerance"))),
            ("passed", "yes" if golden.get("passed") is True else "no"),
            *(
                (f"largest difference over {text(name)}", _protocol(value))
                for name, value in mapping(golden.get("protocols")).items()
            ),
        ],
        "latency": [
            (name, _unit(latency.get(name), "ms", digits=2)) for name in ("p50", "p95", "p99") if name in latency
        ]
        + [("requests", count(latency.get("n"))), ("at the same time", count(latency.get("concurrency")))],
        "log": "\n".join(text(line) for line in items(report.get("log_tail"))[-_LOG_LINES:]),
    }


def build_deployment(context: Context) -> Mapping[str, Any]:
    """What the deployment section shows: the report of ``deploy``, or of ``keep`` where nothing changed."""
    kept = context.source("deploy").presence == "missing"
    report = context.source("keep" if kept else "deploy").report
    sentence = text(report.get("sentence"))
    told = {"sentence", "events"} | ({"reason"} if text(report.get("reason")) in sentence else set())
    return {
        "sentence": sentence,
        "events": [text(event) for event in items(report.get("events"))],
        "facts": flat({name: value for name, value in report.items() if name not in told}),
    }


def _failure(sentence: Any, logs: Mapping[str, Any]) -> dict[str, str]:
    """A failure, and what the server wrote into its log meanwhile."""
    wrote = "\n".join(text(line) for line in items(logs.get(str(sentence)))[-_LOG_LINES:])
    return {"sentence": text(sentence), "log": wrote}


def _unit(value: Any, unit: str, digits: int = 1) -> str:
    found = number(value)
    return compact(value) if found is None else f"{found:,.{digits}f} {unit}"


def _protocol(value: Any) -> str:
    """A protocol's result is a number, a truth value, or an object with more."""
    if isinstance(value, bool):
        return "passed" if value else "failed"
    if isinstance(value, dict):
        return ", ".join(f"{name} {found}" for name, found in flat(mapping(value)))
    return compact(value)
