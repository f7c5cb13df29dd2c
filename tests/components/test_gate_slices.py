"""Rules about slices, costs and what cannot be refuted; what a verdict tells people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from kfloop.components.gate.deciding import GateReport, decide
from kfloop.components.gate.evidence import Evidence
from kfloop.core.sections import GateConfig, Rule
from tests.components.test_gate import Reports, estimate, reports

if TYPE_CHECKING:
    from kfloop.components.gate.verdicts import Verdict

SURE = Rule(metric="accuracy", at_least=0.1)


def decided(content: Reports, *rules: Rule) -> GateReport:
    return decide(GateConfig(rules=(SURE, *rules)), Evidence(reports=content))


def with_slices(differences: dict[str, tuple[float, float, int]], level: float = 0.95) -> Reports:
    """A round with a champion whose slices differ so: difference, half of its interval at ``level``, rows."""
    content = reports(0.97, 0.97)
    evaluation = content["evaluate"]
    for name, (difference, half, n) in differences.items():
        ours, theirs = 0.9 + difference, 0.9
        for block, value in ((evaluation["challenger"], ours), (evaluation["champion"], theirs)):
            block["slices"][name] = {"accuracy": estimate(value, n=n)}
        versus = evaluation["differences"]["champion"]["slices"]
        versus[name] = {"accuracy": estimate(ours - theirs, half, n) | {"level": level}}
    return content


def of(report: GateReport, rule: str) -> Verdict:
    return next(verdict for verdict in report.verdicts if verdict.rule == rule)


def test_a_slice_that_is_surely_worse_rejects_and_one_that_may_be_does_not() -> None:
    rule = Rule(
        metric="accuracy", versus="champion", slice="column:age=*", at_least=0.0, use="unless_refuted", min_n=20
    )
    unsure = decided(with_slices({"column:age=[0, 9)": (-0.05, 0.06, 40), "column:age=[9, 99)": (0.0, 0.05, 40)}), rule)
    assert unsure.outcome == "promote", unsure.reason
    worse = decided(with_slices({"column:age=[0, 9)": (-0.2, 0.06, 40), "column:age=[9, 99)": (0.0, 0.05, 40)}), rule)
    assert worse.outcome == "reject"
    verdict = of(worse, "accuracy[column:age=[0, 9)] vs champion >= 0 (unless refuted)")
    assert "upper end must be at least 0 (0.1314 short): fail" in verdict.sentence
    assert verdict.shortfall == pytest.approx(0.2 - 0.06 * 2.2414 / 1.95996, abs=1e-4)  # at Holm's level for two slices


@pytest.mark.parametrize("n", [20, 100, 360])
def test_a_difference_that_is_the_bound_passes_and_one_row_more_fails(n: int) -> None:
    """The difference of two shares is rounded: .85 - .9 is a little less than -.05."""
    rule = Rule(metric="accuracy", versus="champion", at_least=-0.05)
    error = Rule(metric="ece", versus="champion", at_most=0.05)
    for right in range(n // 2, n):
        for lost, outcome in ((n // 20, "pass"), (n // 20 + 1, "fail")):
            content = reports((right - lost) / n, right / n)
            for who, wrong in (("challenger", lost + 1), ("champion", 1)):
                content["evaluate"][who]["overall"]["ece"] = estimate(wrong / n)
            gap = estimate((lost + 1) / n - 1 / n)
            content["evaluate"]["differences"]["champion"]["overall"]["ece"] = gap
            report = decided(content, rule, error)
            assert [of(report, one.name()).verdict for one in (rule, error)] == [outcome] * 2, right


def test_holm_allows_for_the_number_of_slices_that_a_rule_is_about() -> None:
    """2.1 standard errors below the bound are proof for one slice, and none for one of twenty."""
    half = 1.96 * 0.05
    rule = Rule(metric="accuracy", versus="champion", slice="column:x=*", at_least=0.0, use="unless_refuted", min_n=20)
    one = with_slices({"column:x=0": (-2.1 * 0.05, half, 50)})
    assert decided(one, rule).outcome == "reject"
    twenty = with_slices({f"column:x={place}": (-2.1 * 0.05 if place == 0 else 0.0, half, 50) for place in range(20)})
    report = decided(twenty, rule)
    assert report.outcome == "promote", report.reason
    assert of(report, "accuracy[column:x=0] vs champion >= 0 (unless refuted)").level == pytest.approx(1 - 0.05 / 20)


def test_a_rule_that_names_one_slice_is_judged_at_a_single_level() -> None:
    content = with_slices({"origin:fresh": (0.05, 0.07, 80)}, level=1 - 0.05 / 12)  # shown for one of twelve slices
    rule = Rule(metric="accuracy", versus="champion", slice="origin:fresh", at_least=0.001, use="interval", min_n=20)
    report = decided(content, rule)
    verdict = of(report, "accuracy[origin:fresh] vs champion >= 0.001 (interval)")
    assert verdict.level == 0.95
    assert verdict.low == pytest.approx(0.05 - 0.07 * 1.95996 / 2.86526, abs=1e-3)
    assert report.outcome == "promote"


def test_small_slices_reject_unless_the_rule_leaves_them_out_and_then_it_says_so() -> None:
    content = with_slices({"column:x=a": (-0.5, 0.01, 5), "column:x=b": (0.0, 0.05, 50)})
    strict = Rule(metric="accuracy", versus="champion", slice="column:x=*", at_least=-0.1, min_n=20)
    assert decided(content, strict).outcome == "reject"
    lenient = strict.model_copy(update={"when": "large_enough"})
    report = decided(content, lenient)
    assert report.outcome == "promote", report.reason
    assert any("fewer than 20 test rows in column:x=a (5); 1 were judged" in note for note in report.notes)


def test_a_slice_without_a_count_or_a_number_is_not_left_out_as_small() -> None:
    content = with_slices({"column:x=a": (0.0, 0.01, 50)})
    rule = Rule(metric="accuracy", versus="champion", slice="column:x=*", at_least=-0.1, min_n=20, when="large_enough")
    found = content["evaluate"]["differences"]["champion"]["slices"]["column:x=a"]
    found["accuracy"] = estimate(None, n=50)
    assert "could not be computed" in decided(content, rule).reason
    found["accuracy"] = {"value": 0.0, "low": -0.01, "high": 0.01}
    assert "does not say how many examples it rests on" in decided(content, rule).reason


def test_a_wildcard_that_matches_nothing_rejects_unless_the_rule_allows_it() -> None:
    rule = Rule(metric="accuracy", versus="champion", slice="group:sex=*", at_least=-0.1)
    assert "no slice 'group:sex=*'" in decided(with_slices({}), rule).reason
    assert decided(with_slices({}), rule.model_copy(update={"when": "slice_exists"})).outcome == "promote"


def test_by_default_no_class_may_have_become_surely_worse() -> None:
    content = with_slices({"class:a": (-0.3, 0.05, 36)})
    report = decide(GateConfig(), Evidence(reports=content))
    assert report.blocking == ("accuracy[class:a] vs champion >= -0.02 (unless refuted)",)


COSTS: dict[str, Any] = {
    "challenger": {"size_mb": 12.0, "cpu_ms_1": 3.0, "price_per_1000": None},
    "champion": {"size_mb": 10.0, "cpu_ms_1": 0.0, "price_per_1000": 2.0},
    "baseline": {"size_mb": 0.1, "cpu_ms_1": 0.2, "price_per_1000": None},
}


@pytest.mark.parametrize(
    ("rule", "outcome", "words"),
    [
        ({"metric": "size_mb", "at_most": 20}, "promote", ""),
        ({"metric": "size_mb", "at_most": 5}, "reject", "size_mb is 12; must be at most 5"),
        ({"metric": "size_mb", "versus": "champion", "at_most": 3}, "promote", ""),
        ({"metric": "size_mb", "versus": "champion", "relative": True, "at_most": 0.1}, "reject", "is +20%"),
        ({"metric": "cpu_ms_1", "versus": "baseline", "at_most": 1}, "reject", "is +2.8"),
        (
            {"metric": "cpu_ms_1", "versus": "champion", "relative": True, "at_most": 1},
            "reject",
            "a share of that is no number",
        ),
        ({"metric": "price_per_1000", "at_most": 5}, "reject", "nobody measured 'price_per_1000' of the challenger"),
        ({"metric": "memory_mb", "at_most": 5}, "reject", "nobody measured 'memory_mb'"),
    ],
)
def test_rules_about_costs(rule: dict[str, Any], outcome: str, words: str) -> None:
    content = reports(0.97, 0.96)
    content["evaluate"]["cost"] = COSTS
    report = decided(content, Rule(source="cost", **rule))
    assert report.outcome == outcome, report.reason
    assert words in report.reason


@pytest.mark.parametrize("who", ["challenger", "champion"])
@pytest.mark.parametrize("bound", [{"at_most": 0.0}, {"at_most": 0.0, "relative": True}])
def test_a_cost_that_cannot_be_is_no_gain(who: str, bound: dict[str, Any]) -> None:
    """-1 is what many tools write for 'unknown': against a champion of 5 MB it would be the smallest model of all."""
    content = reports(champion=0.96)
    content["evaluate"]["cost"] = {"challenger": {"size_mb": 5.0}, "champion": {"size_mb": 5.0}}
    rule = Rule(source="cost", metric="size_mb", versus="champion", **bound)
    assert decided(content, rule).outcome == "promote"
    content["evaluate"]["cost"][who] = {"size_mb": -1}
    report = decided(content, rule)
    assert report.outcome == "reject"
    assert f"-1 of the {who} is no possible value of size_mb" in report.reason


def test_costs_nobody_measured_reject() -> None:
    assert "nobody measured" in decided(reports(), Rule(source="cost", metric="size_mb", at_most=5)).reason


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"metric": "size_mb", "source": "cost", "at_least": 5}, "lower is better, so give at_most"),
        ({"metric": "size_mb", "source": "cost", "at_most": 5, "slice": "class:a"}, "leave slice out"),
        ({"metric": "size_mb", "source": "cost", "at_most": 5, "use": "interval"}, "gives no intervals"),
        ({"metric": "size", "source": "cost", "at_most": 5}, "did you mean 'size_mb'"),
        ({"metric": "accuracy", "at_least": 0.5, "use": "unless_refuted"}, "few rows refute nothing"),
        ({"metric": "accuracy", "at_least": 0.5, "slice": "colum:age=*"}, "there is no slice 'colum:age=*'"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused_when_read(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words.replace("*", r"\*")):
        Rule(**rule)


def test_a_verdict_says_by_how_much_it_fails_what_could_be_seen_and_what_to_do() -> None:
    content = reports(0.96, 0.97, half=0.06)
    rule = Rule(metric="accuracy", versus="champion", at_least=-0.05, use="interval")
    verdict = of(decided(content, rule), "accuracy vs champion >= -0.05 (interval)")
    assert verdict.verdict == "fail"
    assert verdict.shortfall == pytest.approx(0.02)
    assert verdict.n == 360
    assert verdict.detectable == pytest.approx(-0.05 + (1.95996 + 0.84162) * 0.06 / 1.95996, abs=1e-4)
    # The arm of .06 must shrink to the gap of .04: 360 rows times (3/2) squared.
    assert verdict.advice == "the estimate itself is above the bound: if it holds, about 810 test rows would prove it"


def test_what_passed_needs_no_advice_and_everything_else_has_some() -> None:
    for content in (reports(0.3, 0.97), {}, reports(0.97, 0.99)):
        for verdict in decide(GateConfig(), Evidence(reports=content)).verdicts:
            assert bool(verdict.advice) is (verdict.verdict != "pass"), verdict


@pytest.mark.parametrize(
    ("where", "when"),
    [
        ("class:zz", "large_enough"),
        ("column:agge=[0, 9)", "large_enough"),
        ("group:s=*", "slice_exists"),
        ("group:s=Femle", "slice_exists"),
        ("origin:frsh", "slice_exists"),
        ("corruption:blurr", "slice_exists"),
    ],
)
def test_a_misspelt_slice_does_not_switch_its_rule_off(where: str, when: Any) -> None:
    rule = Rule(metric="accuracy", slice=where, at_least=0.5, min_n=20, when=when)
    report = decided(with_slices({}), rule)
    assert report.outcome == "reject"
    assert "the evaluation knows no" in report.reason


def test_a_wildcard_over_groups_takes_figures_from_groups_and_gaps_from_their_columns() -> None:
    content = with_slices({"group:sex=F": (0.0, 0.01, 90), "group:sex=M": (0.0, 0.01, 90)})
    content["evaluate"]["challenger"]["slices"]["group:sex"] = {"accuracy_gap": estimate(0.02, n=90)}
    figures = Rule(metric="accuracy", slice="group:*", at_least=0.5)
    gaps = Rule(metric="accuracy_gap", slice="group:*", at_most=0.1)
    report = decided(content, figures, gaps)
    assert report.outcome == "promote", report.reason
    names = {verdict.rule for verdict in report.verdicts}
    assert {"accuracy[group:sex=F] >= 0.5", "accuracy[group:sex=M] >= 0.5", "accuracy_gap[group:sex] <= 0.1"} <= names


def test_a_small_slice_whose_figure_is_unknown_is_small_all_the_same() -> None:
    content = with_slices({"column:x=a": (0.0, 0.01, 3), "column:x=b": (0.0, 0.01, 50)})
    content["evaluate"]["challenger"]["slices"]["column:x=a"]["accuracy"] = estimate(None, n=3)
    rule = Rule(metric="accuracy", slice="column:x=*", at_least=0.5, min_n=20, when="large_enough")
    assert decided(content, rule).outcome == "promote"


def test_rules_of_two_reports_have_two_names_and_no_two_rules_have_one() -> None:
    both = (
        Rule(metric="accuracy", at_least=0.8),
        Rule(metric="accuracy", source="labels", at_least=0.8),
        Rule(metric="memory_mb", source="cost", at_most=1234567.5),
        Rule(metric="memory_mb", source="bless", at_most=1234567.5),
    )
    names = [rule.name() for rule in GateConfig(rules=both).rules or ()]
    assert names == [
        "accuracy >= 0.8",
        "labels accuracy >= 0.8",
        "cost memory_mb <= 1234567.5",
        "bless memory_mb <= 1234567.5",
    ]
    with pytest.raises(ValidationError, match="two rules are called"):
        GateConfig(rules=(both[0], both[0].model_copy(update={"min_n": 5})))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": -0.12, "low": -0.01, "high": 0.02}, "is not challenger"),
        ({"level": 1.0}, "the impossible level 1"),
        ({"level": -1}, "the impossible level -1"),
        ({"level": 1e-320}, "the impossible level"),
        ({"n": None}, "does not say how many examples"),
        ({"value": 10**400}, "could not be computed"),
        ({"low": 10**400}, "it has no interval"),
    ],
)
def test_evidence_that_cannot_be_true_is_none(change: dict[str, Any], words: str) -> None:
    content = reports(0.97, 0.97)
    content["evaluate"]["differences"]["champion"]["overall"]["accuracy"] |= change
    report = decided(content, Rule(metric="accuracy", versus="champion", at_least=-0.05, use="interval"))
    assert report.outcome == "reject"
    assert words in report.reason


def test_an_interval_far_from_its_value_is_not_its_own_and_a_biased_one_is() -> None:
    content = reports()
    content["evaluate"]["challenger"]["overall"]["ece"] = estimate(0.006) | {"low": 0.007, "high": 0.02}
    assert decided(content, Rule(metric="ece", at_most=0.05)).outcome == "promote"
    content["evaluate"]["challenger"]["overall"]["ece"] |= {"low": 0.1, "high": 0.12}
    assert "is not one of 0.006" in decided(content, Rule(metric="ece", at_most=0.05)).reason


def test_an_impossible_figure_is_no_evidence_in_a_comparison_either() -> None:
    content = reports(0.97, 0.95)
    evaluation = content["evaluate"]
    evaluation["challenger"]["overall"]["accuracy"] = estimate(7.0)
    evaluation["differences"]["champion"]["overall"]["accuracy"] = estimate(6.05)
    rule = Rule(metric="accuracy", versus="champion", at_least=-0.05)
    assert "7 of the challenger is no possible value" in decided(content, rule).reason


def test_a_server_nobody_knows_blesses_nothing_and_an_odd_word_is_no_pass() -> None:
    content = reports()
    content["bless"]["triton_version"] = None
    assert "of a known server" in decided(content).reason
    content = reports()
    content["validate"]["outcome_word"] = ["pass"]
    assert decided(content).outcome == "reject"


def test_rules_that_do_not_look_at_the_champion_say_so() -> None:
    worse = decided(reports(0.93, 0.97))
    assert worse.outcome == "promote"
    assert "NO RULE COMPARES IT WITH THE CHAMPION: accuracy differs by -0.04 (-0.055 to -0.025)" in worse.reason
    assert "NO RULE" not in decided(reports(0.97)).reason
    rule = Rule(metric="accuracy", versus="champion", at_least=-0.05)
    assert "NO RULE" not in decided(reports(0.97, 0.97), rule).reason


def test_what_the_label_check_says_is_passed_on() -> None:
    content = reports()
    content["labels"] |= {"leakage": estimate(None), "warnings": ["rows are alike by chance"]}
    report = decided(content, Rule(metric="leakage", source="labels", at_most=0.02))
    assert "the label check could not tell: rows are alike by chance" in report.reason
