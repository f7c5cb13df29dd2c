"""Ten failures of a gate as people read them on the console: which rule, by how much, on how many examples, and what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kfloop.components.gate.deciding import decide
from kfloop.components.gate.evidence import Evidence
from kfloop.core.artifacts import plain
from kfloop.core.sections import GateConfig, Rule
from kfloop.report import render_summary
from tests.components.test_gate import Reports, estimate, reports

if TYPE_CHECKING:
    from collections.abc import Callable


def _unchanged(content: Reports) -> None:
    """Nothing is broken; the rule asks for more than there is."""
    del content


def _slow(content: Reports) -> None:
    content["bless"]["latency_ms"]["p95"] = 131.0


def _costly(content: Reports) -> None:
    content["evaluate"]["cost"] = {"challenger": {"size_mb": 12.0}, "champion": {"size_mb": 10.0}}


def _no_number(content: Reports) -> None:
    content["evaluate"]["challenger"]["overall"]["ece"] = estimate(None)


def _trained_on_test_rows(content: Reports) -> None:
    content["evaluate"]["overlap"]["challenger"] = 7


def _crashed(content: Reports) -> None:
    del content["bless"]


def _weak_class(content: Reports) -> None:
    content["evaluate"]["challenger"]["slices"]["class:b"]["accuracy"] = estimate(0.5, 0.1, n=36)


FAILURES: list[tuple[dict[str, Any], Callable[[Reports], None], str]] = [
    (
        {"metric": "accuracy", "at_least": 0.99},
        _unchanged,
        (
            "[accuracy >= 0.99] accuracy is 0.97 (95% interval 0.96 to 0.98) on 360 examples; must be at least 0.99 (0.02 short): fail. "
            "What to do: look at the slices and the worst mistakes in the report; more labelled rows like them help most."
        ),
    ),
    (
        {"metric": "accuracy", "versus": "champion", "at_least": 0.01, "use": "interval"},
        _unchanged,
        (
            "[accuracy vs champion >= 0.01 (interval)] accuracy, challenger minus champion, is +0.02 (95% interval +0.005 to +0.035) on 360 "
            "examples; lower end must be at least +0.01 (0.005 short): fail. What to do: the estimate itself is above the bound: if it holds, about "
            "810 test rows would prove it."
        ),
    ),
    (
        {"metric": "accuracy", "versus": "champion", "at_least": 0.05},
        _unchanged,
        (
            "[accuracy vs champion >= 0.05] accuracy, challenger minus champion, is +0.02 (95% interval +0.005 to +0.035) on 360 examples; must be "
            "at least +0.05 (0.03 short): fail. What to do: keep the champion, or train on more data or longer; the slices in the report show where "
            "the challenger is worse."
        ),
    ),
    (
        {"metric": "accuracy", "slice": "class:*", "at_least": 0.7},
        _weak_class,
        (
            "[accuracy[class:b] >= 0.7] accuracy on class:b is 0.5 (95% interval 0.4 to 0.6) on 36 examples; must be at least 0.7 (0.2 short): "
            "fail. What to do: look at the slices and the worst mistakes in the report; more labelled rows like them help most."
        ),
    ),
    (
        {"metric": "accuracy", "at_least": 0.5, "min_n": 1000},
        _unchanged,
        (
            "[accuracy >= 0.5] accuracy must be at least 0.5, but it rests on 360 examples, the rule needs at least 1000: not evaluated. What to do: "
            "640 more test rows of this kind are needed, and only a share of newly labelled rows joins the test split; or lower min_n."
        ),
    ),
    (
        {"metric": "p95_ms", "source": "bless", "at_most": 100},
        _slow,
        (
            "[p95_ms <= 100] p95_ms is 131 on 200 requests; must be at most 100 (31 too much): fail. What to do: make the model smaller "
            "(train.options), or raise the bound if users can live with it."
        ),
    ),
    (
        {"metric": "size_mb", "source": "cost", "versus": "champion", "relative": True, "at_most": 0.1},
        _costly,
        (
            "[size_mb vs champion <= +10%] size_mb, challenger relative to champion, is +20%; must be at most +10% (10% too much): fail. What to do: "
            "make the model smaller (train.options), or raise the bound if users can live with it."
        ),
    ),
    (
        {"metric": "ece", "at_most": 0.1},
        _no_number,
        (
            "[ece <= 0.1] ece must be at most 0.1, but ece of the challenger on 'overall' could not be computed: not evaluated. What to do: read the "
            "report of the step that should have measured it; an unknown number never passes."
        ),
    ),
    (
        {"metric": "accuracy", "at_least": 0.5},
        _trained_on_test_rows,
        (
            "the challenger was trained on 7 of the test rows, so its score means nothing: not evaluated. What to do: keep rows in the split they were "
            "given (leave data.split as it was), or start a new loop under another name."
        ),
    ),
    (
        {"metric": "accuracy", "at_least": 0.5},
        _crashed,
        (
            "step 'bless' proves nothing: it wrote no report: not evaluated. What to do: run the loop again, and read the log of step 'bless' if it "
            "fails again."
        ),
    ),
]


@pytest.mark.parametrize(("rule", "broken", "told"), FAILURES, ids=[row[2][:40] for row in FAILURES])
def test_a_failure_reads_well(
    rule: dict[str, Any], broken: Callable[[Reports], None], told: str, record: dict[str, Any]
) -> None:
    content = reports(0.97, 0.95)
    broken(content)
    config = GateConfig(rules=(Rule(metric="accuracy", at_least=0.1), Rule(**rule)))
    report = decide(config, Evidence(reports=content, absent={"bless": "it wrote no report"}))
    assert report.outcome == "reject"
    blocking = [plain(verdict) for verdict in report.verdicts if verdict.blocks]
    decision = {"outcome": report.outcome, "reason": report.reason, "blocking": blocking}
    shown = render_summary(record | {"status": "rejected", "decision": decision})
    assert f"  {told}" in shown.splitlines()
    # What a program reads says the same in fields.
    line = json.loads(json.dumps(blocking))[0]
    assert line["advice"]
    assert line["verdict"] in {"fail", "not_evaluated"}
    if line["verdict"] == "fail":
        assert line["shortfall"] > 0
