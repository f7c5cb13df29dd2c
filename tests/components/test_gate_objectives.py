"""The default rules of every objective: a sound round passes, and every way of breaking it is rejected."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from kfloop.components.gate.deciding import GateReport, decide
from kfloop.components.gate.defaults import default_rules
from kfloop.components.gate.evidence import Evidence
from kfloop.core.sections import GateConfig, Rule
from kfloop.core.statistics.metrics import METRICS, directions, primary

if TYPE_CHECKING:
    from collections.abc import Callable

Reports = dict[str, dict[str, Any]]
N = 360
# Figures of a good model, and of one that is a little worse, for each objective; the first figure is the main one.
GOOD = {
    "multilabel": {"micro_f1": 0.9, "macro_f1": 0.9, "accuracy": 0.95},
    "regression": {"rmse": 20.0, "mae": 15.0, "r2": 0.8},
    "forecasting": {"mse": 0.3, "mae": 0.4},
    "anomaly": {"auroc": 0.95, "average_precision": 0.8},
    "generation": {
        "frechet_distance": 10.0,
        "train_on_samples": 0.9,
        "train_on_real": 0.95,
        "coverage": 0.9,
        "classes": 1.0,
        "copies": 0.01,
    },
}
MODALITY = {
    "multilabel": "text",
    "regression": "table",
    "forecasting": "series",
    "anomaly": "table",
    "generation": "image",
}
SLICES = {"multilabel": "class:a", "forecasting": "channel:load"}


def estimate(value: float, half: float) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": N, "level": 0.95}


def scored(objective: str, digest: str | None, factor: float) -> dict[str, Any]:
    ways = directions(objective)
    figures = {
        name: value * (factor if ways[name] == "lower" else 1 / factor) if name in ways and name != "copies" else value
        for name, value in GOOD[objective].items()
    }
    overall = {name: estimate(value, 0.01 * value) for name, value in figures.items()}
    slices = {"origin:base": overall} if objective != "generation" else {}
    if objective in SLICES:
        slices[SLICES[objective]] = overall | ({"f1": estimate(0.8, 0.05)} if objective == "multilabel" else {})
    return {"digest": digest, "overall": overall, "slices": slices}


def minus(ours: dict[str, Any], theirs: dict[str, Any], *, relative: bool) -> dict[str, Any]:
    def part(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        return {
            name: estimate((a[name]["value"] - b[name]["value"]) / (abs(b[name]["value"]) if relative else 1.0), 0.005)
            for name in a
        }

    return {
        "overall": part(ours["overall"], theirs["overall"]),
        "slices": {name: part(ours["slices"][name], theirs["slices"][name]) for name in ours["slices"]},
    }


def reports(objective: str, *, ours: float = 1.0, champion: float = 1.02) -> Reports:
    """Reports of a sound round; factors above 1 are worse models."""
    sides = {
        name: scored(objective, digest, factor)
        for name, digest, factor in (
            ("challenger", "new", ours),
            ("champion", "old", champion),
            ("baseline", None, 1.2),
        )
    }

    def against(other: str) -> dict[str, Any]:
        both = sides["challenger"], sides[other]
        return minus(*both, relative=False) | {"relative": minus(*both, relative=True)}

    return {
        "validate": {"dataset_digest": "data", "outcome_word": "pass"},
        "labels": {"dataset_digest": "data", "noise": estimate(0.01, 0.005), "leakage": estimate(0.001, 0.0005)},
        "evaluate": {
            "dataset_digest": "data",
            "objective": objective,
            "modality": MODALITY[objective],
            "primary": primary(objective),
            "direction": directions(objective),
            "n_test": N,
            "labels": ["a"] if objective == "multilabel" else [],
            **sides,
            "differences": {other: against(other) for other in ("champion", "baseline")},
            "overlap": {"challenger": 0, "champion": 0},
        },
        "bless": {
            "model_digest": "new",
            "dataset_digest": "data",
            "passed": True,
            "golden": {"n": 16, "max_abs_diff": 1e-6, "tolerance": 1e-3},
            "triton_version": "2.51.0",
            "latency_ms": {"p50": 2.0, "p95": 6.0, "p99": 9.0, "n": 200},
            "failures": [],
        },
    }


def decided(content: Reports, config: GateConfig | None = None) -> GateReport:
    return decide(config or GateConfig(), Evidence(reports=content))


def rejected(content: Reports, word: str, config: GateConfig | None = None) -> None:
    report = decided(content, config)
    said = [verdict.sentence for verdict in report.verdicts if verdict.blocks]
    assert report.outcome == "reject"
    assert any(word in sentence for sentence in said), said


@pytest.mark.parametrize("objective", GOOD)
def test_sound_round_is_promoted_with_and_without_a_champion(objective: str) -> None:
    content = reports(objective)
    assert decided(content).outcome == "promote", decided(content).reason
    first = copy.deepcopy(content)
    first["evaluate"] |= {"champion": None, "differences": content["evaluate"]["differences"] | {"champion": None}}
    assert decided(first).outcome == "promote", decided(first).reason


@pytest.mark.parametrize("objective", GOOD)
def test_worse_than_the_champion_is_rejected(objective: str) -> None:
    rejected(reports(objective, ours=1.15, champion=1.0), "champion")


@pytest.mark.parametrize("objective", GOOD)
def test_bad_model_is_rejected_without_a_champion(objective: str) -> None:
    content = reports(objective, ours=20.0)
    content["evaluate"] |= {"champion": None}
    content["evaluate"]["differences"]["champion"] = None
    assert decided(content).outcome == "reject"


def _each(content: Reports, change: Callable[[dict[str, Any]], None]) -> Reports:
    for metric in content["evaluate"]["challenger"]["overall"].values():
        change(metric)
    return content


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "0.9", True])
@pytest.mark.parametrize("objective", GOOD)
def test_what_is_no_number_is_rejected(objective: str, value: Any) -> None:
    rejected(_each(reports(objective), lambda found: found.update(value=value)), "could not be computed")


@pytest.mark.parametrize("objective", GOOD)
def test_missing_figures_baseline_and_differences_are_rejected(objective: str) -> None:
    empty = reports(objective)
    empty["evaluate"]["challenger"]["overall"] = {}
    rejected(empty, "has no metric")
    alone = reports(objective)
    alone["evaluate"] |= {"baseline": None}
    alone["evaluate"]["differences"]["baseline"] = None
    rejected(alone, "baseline")


@pytest.mark.parametrize("objective", ["regression", "forecasting", "generation"])
def test_relative_difference_that_is_not_that_of_the_two_figures_is_noticed(objective: str) -> None:
    content = reports(objective, ours=1.15, champion=1.0)
    metric = primary(objective)
    content["evaluate"]["differences"]["champion"]["relative"]["overall"][metric] = estimate(-0.13, 0.01)
    rejected(content, "are the roles swapped?")
    del content["evaluate"]["differences"]["champion"]["relative"]
    rejected(content, "was not evaluated")


def test_another_objective_gets_no_laxer_rules() -> None:
    content = reports("regression")
    for name in ("", "unknown", None, 3):
        content["evaluate"]["objective"] = name
        rejected(content, "does not say what was learned")
    content["evaluate"]["objective"] = "generation"
    rejected(content, "has no metric 'train_on_samples'")


def test_misspelt_metric_names_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean 'rmse'"):
        Rule(metric="rsme", at_most=1e9)
    misspelt = Rule.model_construct(metric="rsme", at_most=1e9)
    rejected(reports("regression"), "did you mean 'rmse'", GateConfig.model_construct(rules=(misspelt,)))


@pytest.mark.parametrize(
    ("objective", "rule", "word"),
    [
        (
            "regression",
            {"metric": "rmse", "versus": "champion", "at_least": -9.0},
            "lower rmse is better, so a rule needs",
        ),
        ("forecasting", {"metric": "mse", "versus": "baseline", "relative": True, "at_least": -9.0}, "needs at_most"),
        ("anomaly", {"metric": "auroc", "versus": "champion", "at_most": 9.0}, "needs at_least"),
        ("anomaly", {"metric": "auroc", "at_most": 0.99}, "needs at_least"),
        ("generation", {"metric": "train_on_real", "at_least": 0.1}, "says nothing of the challenger"),
    ],
)
def test_what_is_bounded_on_the_side_that_does_not_matter_is_no_rule(
    objective: str, rule: dict[str, Any], word: str
) -> None:
    with pytest.raises(ValidationError, match=f"rule on '{rule['metric']}': "):
        Rule.model_validate(rule)
    content = reports(objective)
    del content["evaluate"]["direction"]  # it is not the report that says which way is better
    rejected(content, word, GateConfig.model_construct(rules=(Rule.model_construct(**rule),)))


@pytest.mark.parametrize("objective", GOOD)
def test_two_rows_promote_nothing(objective: str) -> None:
    content = _of_two(reports(objective))
    rejected(content, "rests on 2")
    content["evaluate"] |= {"champion": None, "differences": content["evaluate"]["differences"] | {"champion": None}}
    rejected(content, "rests on 2")


def _of_two(content: Any) -> Any:
    """The same reports with every ``n`` set to 2."""
    if isinstance(content, dict):
        return {key: 2 if key == "n" else _of_two(value) for key, value in content.items()}
    return content


def test_relative_needs_somebody_to_be_relative_to() -> None:
    with pytest.raises(ValidationError, match="relative says of whom"):
        Rule(metric="rmse", relative=True, at_most=0.1)


def test_relative_rules_are_spelt_in_per_cent() -> None:
    report = decided(reports("regression", ours=1.15, champion=1.0))
    failed = next(verdict for verdict in report.verdicts if verdict.blocks)
    assert failed.rule == "rmse vs champion <= +5% (interval)"
    assert "rmse, challenger relative to champion, is +15% (95% interval +14.5% to +15.5%)" in failed.sentence
    assert failed.sentence.endswith("upper end must be at most +5% (10.5% too much): fail")


@pytest.mark.parametrize("objective", METRICS)
def test_default_rules_bound_their_figures_on_the_side_that_matters(objective: str) -> None:
    rules = default_rules(objective, "image", N)
    assert any(rule.versus == "baseline" for rule in rules)
    assert any(rule.versus == "champion" and rule.use == "interval" for rule in rules)
    for rule in rules:
        if rule.source == "evaluate":
            better = METRICS[objective][rule.metric].better
            assert (rule.at_least is not None) == (better == "higher"), rule


@pytest.mark.parametrize(
    ("where", "words"),
    [("channel:laod", "knows no channel 'laod' (did you mean 'load'"), ("channel:wind*", "knows no channel 'wind*'")],
)
@pytest.mark.parametrize("when", ["slice_exists", "large_enough"])
def test_a_misspelt_channel_does_not_switch_its_rule_off(where: str, words: str, when: Any) -> None:
    rules = (
        Rule(metric="mse", at_most=2.0),
        Rule(metric="mse", versus="champion", slice=where, at_most=0.1, when=when, min_n=20),
    )
    report = decide(GateConfig(rules=rules), Evidence(reports=reports("forecasting")))
    assert report.outcome == "reject"
    assert words in report.reason
    right = (rules[0], rules[1].model_copy(update={"slice": "channel:lo*"}))
    assert decide(GateConfig(rules=right), Evidence(reports=reports("forecasting"))).outcome == "promote"
