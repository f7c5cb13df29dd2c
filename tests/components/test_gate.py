"""The gate: every way in which a gate can fail to gate is shown rejected."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kfloop.components.gate.deciding import GateReport, decide, run
from kfloop.components.gate.defaults import default_rules
from kfloop.components.gate.evidence import Evidence, collect
from kfloop.components.gate.measurement import Measurement
from kfloop.components.gate.verdicts import Bar, judge
from kfloop.core.sections import GateConfig, Rule
from kfloop.core.statistics.proportions import Pairs, tango
from kfloop.core.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N = 360
Reports = dict[str, dict[str, Any]]


def estimate(value: float | None, half: float = 0.01, n: int = N) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "n": n, "level": 0.95}
    return {"value": value, "low": value - half, "high": value + half, "n": n, "level": 0.95}


def scored(digest: str | None, accuracy: float, *, fresh: float | None = None) -> dict[str, Any]:
    slices = {name: {"accuracy": estimate(accuracy, n=36)} for name in ("class:a", "class:b")}
    slices["origin:base"] = {"accuracy": estimate(accuracy, n=300)}
    if fresh is not None:
        slices |= {name: {"accuracy": estimate(fresh, 0.02, n=60)} for name in ("origin:fresh", "origin:new")}
    overall = {"accuracy": estimate(accuracy), "ece": estimate(0.03), "macro_f1": estimate(accuracy)}
    return {"digest": digest, "overall": overall, "slices": slices}


def minus(ours: dict[str, Any], theirs: dict[str, Any], half: float = 0.015) -> dict[str, Any]:
    def pair(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        return {name: estimate(a[name]["value"] - b[name]["value"], half, a[name]["n"]) for name in a}

    return {
        "overall": pair(ours["overall"], theirs["overall"]),
        "slices": {name: pair(ours["slices"][name], theirs["slices"][name]) for name in ours["slices"]},
    }


def reports(
    accuracy: float = 0.97,
    champion: float | None = None,
    *,
    fresh: tuple[float, float] | None = None,
    half: float = 0.015,
) -> Reports:
    """Reports of a sound round; the tests break one thing each."""
    challenger = scored("new", accuracy, fresh=fresh[0] if fresh else None)
    baseline = scored(None, 0.95, fresh=fresh[1] if fresh else None)
    incumbent = None if champion is None else scored("old", champion, fresh=fresh[1] if fresh else None)
    differences = {
        "champion": incumbent and minus(challenger, incumbent, half),
        "baseline": minus(challenger, baseline),
    }
    return {
        "validate": {"dataset_digest": "data", "outcome_word": "pass", "n_rows": 1797, "results": []},
        "labels": {"dataset_digest": "data", "n": 1000, "noise": estimate(0.01), "leakage": estimate(0.001)},
        "evaluate": {
            "dataset_digest": "data",
            "objective": "classification",
            "modality": "image",
            "n_test": N,
            "labels": ["a", "b"],
            "primary": "accuracy",
            "slice_columns": {"column": ["x", "age"], "group": ["sex", "x"]},
            "challenger": challenger,
            "champion": incumbent,
            "baseline": baseline,
            "differences": differences,
            "overlap": {"challenger": 0, "champion": 0},
        },
        "bless": {
            "model_digest": "new",
            "dataset_digest": "data",
            "passed": True,
            "golden": {"n": 16, "max_abs_diff": 1e-6, "tolerance": 1e-3},
            "triton_version": "2.51.0",
            "latency_ms": {"p50": 2.0, "p95": 6.0, "p99": 9.0, "n": 200, "concurrency": 4},
            "failures": [],
        },
    }


def decided(content: Reports, config: GateConfig | None = None, absent: dict[str, str] | None = None) -> GateReport:
    return decide(config or GateConfig(), Evidence(reports=content, absent=absent or {}))


def rejected(content: Reports, word: str, config: GateConfig | None = None) -> GateReport:
    report = decided(content, config)
    blocking = [verdict for verdict in report.verdicts if verdict.blocks]
    assert report.outcome == "reject"
    assert any(word in verdict.sentence for verdict in blocking), [verdict.sentence for verdict in blocking]
    assert report.reason
    return report


def test_first_model_that_meets_the_absolute_rules_is_promoted_and_says_there_was_no_champion() -> None:
    report = decided(reports())
    assert report.outcome == "promote", report.reason
    assert report.champion_digest is None
    assert "no champion" in report.notes[0]
    assert not any("champion" in verdict.rule for verdict in report.verdicts if "accuracy" in verdict.rule)


def test_equal_model_is_promoted_when_there_are_no_fresh_rows() -> None:
    assert decided(reports(0.97, 0.97)).outcome == "promote"


def test_tie_on_new_rows_is_no_reason_to_replace_the_champion() -> None:
    content = reports(0.97, 0.97, fresh=(0.9, 0.9), half=0.0)
    report = rejected(content, "accuracy, challenger minus champion, on origin:new")
    assert report.code == "rules_failed"


def test_tie_on_fresh_rows_that_the_champion_has_learned_is_promoted() -> None:
    content = _sized(reports(0.97, 0.97, fresh=(0.9, 0.9)), "origin:new", None)
    assert decided(content).outcome == "promote"
    assert decided(_sized(content, "origin:fresh", 15)).outcome == "promote"


def test_a_drift_round_with_sixty_labels_decides() -> None:
    """A quarter of them are test rows: too few to show a gain, enough to be no reason for a rejection."""
    content = _sized(_sized(reports(0.97, 0.96, fresh=(0.9, 0.9)), "origin:new", 15), "origin:fresh", 15)
    report = decided(content)
    assert report.outcome == "promote", report.reason
    assert any("fewer than 30 test rows in origin:new (15); none is left" in note for note in report.notes)
    assert not any(verdict.verdict == "not_evaluated" for verdict in report.verdicts)
    rejected(_sized(reports(0.88, 0.97, fresh=(0.9, 0.9)), "origin:new", 15), "challenger minus champion")


def test_surely_worse_on_fresh_rows_is_rejected_although_there_is_nothing_new() -> None:
    content = _sized(reports(0.97, 0.97, fresh=(0.8, 0.9)), "origin:new", None)
    rejected(content, "accuracy, challenger minus champion, on origin:fresh")


def test_many_fresh_rows_must_prove_that_they_are_no_worse() -> None:
    content = _sized(reports(0.97, 0.97, fresh=(0.88, 0.92), half=0.03), "origin:new", None)
    assert decided(content).outcome == "promote"  # 60 rows: not surely worse
    rejected(_sized(content, "origin:fresh", 200), "on origin:fresh")


def _sized(content: Reports, name: str, n: int | None) -> Reports:
    """With another number of rows in a slice, or without it."""
    content = copy.deepcopy(content)
    evaluation = content["evaluate"]
    parts = [evaluation[model] for model in ("challenger", "champion", "baseline")]
    for part in (*parts, *evaluation["differences"].values()):
        if n is None:
            part["slices"].pop(name, None)
        else:
            part["slices"][name]["accuracy"]["n"] = n
    return content


def test_better_on_fresh_rows_and_no_worse_on_the_old_ones_is_promoted() -> None:
    assert decided(reports(0.97, 0.96, fresh=(0.95, 0.6))).outcome == "promote"


def test_forgetting_is_rejected_although_fresh_rows_improve() -> None:
    rejected(reports(0.90, 0.98, fresh=(0.95, 0.6)), "origin:base")


def test_worse_challenger_is_rejected() -> None:
    assert rejected(reports(0.88, 0.97), "challenger minus champion").code == "rules_failed"


def test_interval_decides_not_the_point() -> None:
    rejected(reports(0.96, 0.97, half=0.06), "lower end must be at least -0.05")


def _swapped(content: Reports) -> None:
    evaluation = content["evaluate"]
    evaluation["challenger"], evaluation["champion"] = evaluation["champion"], evaluation["challenger"]


def _set(*path: str, value: Any) -> Callable[[Reports], None]:
    def change(content: Reports) -> None:
        target: Any = content
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


def _without(*path: str) -> Callable[[Reports], None]:
    def change(content: Reports) -> None:
        target: Any = content
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return change


def _few_groups(content: Reports) -> None:
    evaluation = content["evaluate"]
    evaluation["resampling"] = {"by": "group", "units": 4, "fewest": 8}
    evaluation["challenger"]["overall"]["accuracy"] |= {"low": None, "high": None}


def _nobody(content: Reports) -> None:
    """Figures that rest on no row."""
    content["evaluate"] = _of(content["evaluate"], 0)


NAN = float("nan")
ACCURACY = ("evaluate", "challenger", "overall", "accuracy")
CHAMPION = ("evaluate", "champion", "overall", "accuracy")
BROKEN: list[tuple[str, Callable[[Reports], None], str]] = [
    ("swapped roles", _swapped, "the blessed one"),
    ("nan metric", _set(*ACCURACY, "value", value=NAN), "could not be computed"),
    ("null metric", _set(*ACCURACY, "value", value=None), "could not be computed"),
    ("infinite metric", _set(*ACCURACY, "value", value=float("inf")), "could not be computed"),
    ("text metric", _set(*ACCURACY, "value", value="0.99"), "could not be computed"),
    ("true as a metric", _set(*ACCURACY, value=True), "could not be computed"),
    ("impossible metric", _set(*ACCURACY, "value", value=97.0), "no possible value"),
    ("nan interval", _set(*ACCURACY, "low", value=NAN), "it has no interval"),
    ("interval upside down", _set(*ACCURACY, "low", value=0.999), "upside down"),
    ("missing metric", _without(*ACCURACY), "has no metric 'accuracy'"),
    ("missing overall", _without("evaluate", "challenger", "overall"), "has no slice 'overall'"),
    ("missing class", _without("evaluate", "challenger", "slices", "class:b"), "has no slice 'class:b'"),
    ("class without rows", _set("evaluate", "labels", value=["a", "b", "c"]), "has no slice 'class:c'"),
    ("no classes", _set("evaluate", "labels", value=[]), "has no slice 'class:*'"),
    ("class of two rows", _set("evaluate", "challenger", "slices", "class:a", "accuracy", "n", value=2), "rests on 2"),
    ("missing baseline", _set("evaluate", "baseline", value=None), "the baseline was not evaluated"),
    ("missing baseline difference", _set("evaluate", "differences", "baseline", value=None), "was not evaluated"),
    (
        "nan difference",
        _set("evaluate", "differences", "champion", "overall", "accuracy", "value", value=NAN),
        "could not",
    ),
    ("champion not compared", _set("evaluate", "differences", "champion", value=None), "no complete comparison"),
    ("champion lost", _set("evaluate", "champion", value=None), "no complete comparison"),
    ("champion not named", _without("evaluate", "champion"), "does not say whether there is a champion"),
    (
        "difference not named",
        _without("evaluate", "differences", "champion"),
        "does not say whether there is a champion",
    ),
    ("no differences", _without("evaluate", "differences"), "does not say whether there is a champion"),
    ("objective not named", _without("evaluate", "objective"), "does not say what was learned"),
    ("few groups", _few_groups, "there are 4 groups of test rows, and an interval needs 8"),
    ("champion without digest", _set("evaluate", "champion", "digest", value=None), "no complete comparison"),
    ("challenger without digest", _set("evaluate", "challenger", "digest", value=None), "the evaluated model is None"),
    ("same model", _set("evaluate", "champion", "digest", value="new"), "same model"),
    ("another model blessed", _set("bless", "model_digest", value="other"), "the blessed one other"),
    ("another dataset", _set("labels", "dataset_digest", value="other"), "labels on other"),
    ("no dataset", _without("evaluate", "dataset_digest"), "the dataset is not named by: evaluate"),
    ("labels without a dataset", _without("labels", "dataset_digest"), "the dataset is not named by: labels"),
    ("validation of another round", _set("validate", "dataset_digest", value="older"), "validate on older"),
    ("blessing of another round", _set("bless", "dataset_digest", value="older"), "bless on older"),
    ("trained on test rows", _set("evaluate", "overlap", "challenger", value=1), "was trained on 1 of the test rows"),
    ("champion trained on test rows", _set("evaluate", "overlap", "champion", value=3), "champion was trained on 3"),
    ("overlap not counted", _without("evaluate", "overlap"), "nobody counted"),
    ("not blessed", _set("bless", "passed", value=False), "Triton did not bless"),
    ("blessing says nothing", _without("bless", "passed"), "does not say whether"),
    ("blessing says 1", _set("bless", "passed", value=1), "does not say whether"),
    ("blessing without golden answers", _without("bless", "golden"), "shows no golden answers"),
    ("blessing that asked nothing", _set("bless", "golden", "n", value=0), "shows no golden answers"),
    ("golden answers too far off", _set("bless", "golden", "max_abs_diff", value=0.5), "shows no golden answers"),
    (
        "golden answers that are no numbers",
        _set("bless", "golden", "max_abs_diff", value=NAN),
        "shows no golden answers",
    ),
    ("nan champion", _set(*CHAMPION, "value", value=NAN), "accuracy of the champion"),
    ("infinite champion", _set(*CHAMPION, "value", value=float("inf")), "accuracy of the champion"),
    ("champion without the metric", _without(*CHAMPION), "the champion has no metric 'accuracy'"),
    (
        "champion without the slice",
        _without("evaluate", "champion", "slices", "origin:base"),
        "the champion has no slice",
    ),
    ("empty test set", _nobody, "rests on 0 examples"),
    ("latency missing", _without("bless", "latency_ms"), "has no 'p95_ms'"),
    ("slow", _set("bless", "latency_ms", "p95", value=250.0), "p95_ms is 250 on 200 requests"),
    ("validation failed", _set("validate", "outcome_word", value="fail"), "says 'fail'"),
    ("validation crashed", _set("validate", "outcome_word", value="error"), "says 'error'"),
    ("validation says nothing", _without("validate", "outcome_word"), "says None"),
    ("no evaluation", _without("evaluate"), "step 'evaluate' proves nothing"),
    ("no blessing", _without("bless"), "step 'bless' proves nothing"),
    ("no validation", _without("validate"), "step 'validate' proves nothing"),
    ("no label report", _without("labels"), "step 'labels' proves nothing"),
    ("empty evaluation", _set("evaluate", value={}), "the dataset is not named by: evaluate"),
]


@pytest.mark.parametrize(("breakage", "word"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_evidence_is_rejected(breakage: Callable[[Reports], None], word: str) -> None:
    content = copy.deepcopy(reports(0.97, 0.95))
    assert decided(content).outcome == "promote"
    breakage(content)
    rejected(content, word)


def test_a_champion_that_is_not_mentioned_is_not_the_same_as_none() -> None:
    content = reports(0.85, 0.99)  # far worse than the champion
    assert decided(content).outcome == "reject"
    del content["evaluate"]["champion"], content["evaluate"]["differences"]["champion"]
    report = rejected(content, "does not say whether there is a champion")
    assert not any("no champion" in note for note in report.notes)


@pytest.mark.parametrize("champion", [None, 0.97])
def test_two_rows_promote_nothing(champion: float | None) -> None:
    rejected(_of(reports(0.97, champion), 2), "rests on 2")


def _of(content: Any, n: int) -> Any:
    """The same reports with every ``n`` set to this."""
    if isinstance(content, dict):
        return {key: n if key == "n" else _of(value, n) for key, value in content.items()}
    return content


def test_swapped_differences_alone_are_noticed() -> None:
    content = reports(0.93, 0.97)
    for block in (content["evaluate"]["differences"]["champion"]["overall"],):
        block["accuracy"] = estimate(0.04)
    rejected(content, "are the roles swapped?")


@pytest.mark.parametrize(
    "rules", [(), (Rule(metric="accuracy", at_least=0.1, mode="off"),), (Rule(metric="ece", at_most=1, mode="warn"),)]
)
def test_rule_set_that_enforces_nothing_approves_nothing(rules: tuple[Rule, ...]) -> None:
    report = rejected(reports(), "empty rule set approves nothing", GateConfig(rules=rules))
    assert report.code == "not_evaluated"


def test_rules_about_the_champion_alone_decide_nothing_without_one() -> None:
    config = GateConfig(rules=(Rule(metric="accuracy", versus="champion", at_least=-1.0),))
    rejected(reports(), "empty rule set", config)


def test_named_slice_that_is_missing_rejects_unless_the_rule_allows_it() -> None:
    strict = Rule(metric="accuracy", slice="origin:fresh", at_least=0.0)
    sure = Rule(metric="accuracy", at_least=0.5)
    rejected(reports(), "has no slice 'origin:fresh'", GateConfig(rules=(sure, strict)))
    lenient = strict.model_copy(update={"when": "slice_exists"})
    report = decided(reports(), GateConfig(rules=(sure, lenient)))
    assert report.outcome == "promote"
    assert any("no such test rows" in note for note in report.notes)


def test_slice_that_only_the_champion_has_counts_as_existing() -> None:
    content = reports(0.97, 0.95, fresh=(0.9, 0.6))
    for part in (content["evaluate"]["challenger"], content["evaluate"]["differences"]["champion"]):
        del part["slices"]["origin:new"]
    rejected(content, "has no slice 'origin:new'")


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (Rule.model_construct(metric="accurracy", at_least=0.1), "has no metric 'accurracy'"),
        (Rule.model_construct(metric="p95", source="bless", at_most=9), "known: p50_ms"),
        (Rule.model_construct(metric="p95_ms", source="bless", at_most=99, versus="champion"), "as a whole, alone"),
        (Rule.model_construct(metric="p95_ms", source="bless", at_most=99, use="interval"), "it has no interval"),
        (Rule.model_construct(metric="accuracy", at_most=0.9), "higher accuracy is better, so a rule needs at_least"),
        (Rule(metric="rmse", at_most=0.9), "classification has no metric 'rmse'"),
        (Rule(metric="noise", source="labels", at_most=NAN), "noise"),
        (Rule(metric="accuracy", at_least=0.9, min_n=1000), "needs at least 1000"),
    ],
)
def test_rule_that_cannot_be_judged_rejects(rule: Rule, word: str) -> None:
    rejected(reports(0.97, 0.95), word, GateConfig.model_construct(rules=(rule,)))


def test_warning_is_reported_and_does_not_decide() -> None:
    content = reports()
    content["labels"]["noise"] = estimate(0.5)
    report = decided(content)
    assert report.outcome == "promote"
    warned = [verdict for verdict in report.verdicts if verdict.mode == "warn" and verdict.verdict == "fail"]
    assert [verdict.rule for verdict in warned] == ["noise <= 0.2"]
    assert "only warned: noise <= 0.2" in report.reason


def test_manual_approval_holds_what_passed_and_rejects_what_did_not() -> None:
    manual = GateConfig(approval="manual")
    assert decided(reports(), manual).outcome == "hold"
    assert decided(reports(0.3), manual).outcome == "reject"


def test_evidence_digest_names_reports_rules_and_decision() -> None:
    first = decided(reports())
    assert decided(reports()).evidence_digest == first.evidence_digest
    assert decided(reports(0.98)).evidence_digest != first.evidence_digest
    assert decided(reports(), GateConfig(approval="manual")).evidence_digest != first.evidence_digest
    changed = GateConfig(rules=(Rule(metric="accuracy", at_least=0.5),))
    assert decided(reports(), changed).evidence_digest != first.evidence_digest


def test_sentence_states_effect_interval_size_and_threshold() -> None:
    bar = Bar(rule="r", metric="accuracy", subject="accuracy", threshold=0.9, at_least=True, use="interval")
    verdict = judge(bar, Measurement(value=0.95, low=0.93, high=0.97, n=360, level=0.95))
    assert (
        verdict.sentence
        == "accuracy is 0.95 (95% interval 0.93 to 0.97) on 360 examples; lower end must be at least 0.9: pass"
    )


def test_upper_end_is_judged_for_an_upper_bound() -> None:
    bar = Bar(rule="r", metric="ece", subject="ece", threshold=0.1, at_least=False, use="interval")
    assert judge(bar, Measurement(value=0.08, low=0.05, high=0.12, n=9)).verdict == "fail"
    assert judge(bar, Measurement(value=0.08, low=0.05, high=0.1, n=9)).verdict == "pass"


def _folders(tmp_path: Path, content: Reports) -> dict[str, Path]:
    places = {"validate": "validation", "labels": "labels", "evaluate": "evaluation", "bless": "blessing"}
    for source, name in places.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(content[source]))
    return {name: tmp_path / name for name in places.values()}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(loop="t", root=tmp_path, state="", store="", mlflow="")


def test_run_writes_the_report_it_returns(tmp_path: Path, workspace: Workspace) -> None:
    out = tmp_path / "out"
    out.mkdir()
    report = run(GateConfig(), **_folders(tmp_path, reports()), out=out, workspace=workspace)
    written = json.loads((out / "report.json").read_text())
    assert written["outcome"] == report.outcome == "promote"
    assert written["verdicts"][0]["sentence"] == report.verdicts[0].sentence


@pytest.mark.parametrize("junk", ["", "{", "[]", "null", '{"passed": tru'])
def test_unreadable_report_rejects_instead_of_failing(tmp_path: Path, workspace: Workspace, junk: str) -> None:
    folders = _folders(tmp_path, reports())
    (folders["blessing"] / "report.json").write_text(junk)
    report = run(GateConfig(), **folders, out=tmp_path, workspace=workspace)
    assert report.outcome == "reject"
    assert "cannot be read" in report.reason


def test_check_that_produced_nothing_rejects(tmp_path: Path, workspace: Workspace) -> None:
    folders = _folders(tmp_path, reports())
    (folders["evaluation"] / "report.json").unlink()
    report = run(GateConfig(), **folders, out=tmp_path, workspace=workspace)
    assert report.outcome == "reject"
    assert "wrote no report" in report.reason
    assert collect({"evaluate": folders["evaluation"]}).absent == {"evaluate": "it wrote no report"}


def _paired(rng: np.random.Generator, champion: float, challenger: float, agree: float) -> tuple[float, dict[str, Any]]:
    """One simulated comparison on N rows: accuracy of the challenger, and the difference with its interval. Both err on a shared share
    ``agree`` of their errors.
    """
    both = agree * min(1 - champion, 1 - challenger)
    wins, losses = (1 - champion) - both, (1 - challenger) - both
    won, lost, shared, _ = rng.multinomial(N, [wins, losses, both, 1 - wins - losses - both])
    low, high = tango(Pairs(ours=int(won), theirs=int(lost), n=N))
    difference = {"value": (won - lost) / N, "low": low, "high": high, "n": N, "level": 0.95}
    return 1 - (lost + shared) / N, difference


def _promotion_rate(champion: float, challenger: float, *, rounds: int = 300, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    promoted = 0
    for _ in range(rounds):
        accuracy, difference = _paired(rng, champion, challenger, agree=0.5)
        content = reports(accuracy, accuracy - difference["value"])
        versus = content["evaluate"]["differences"]["champion"]
        versus["overall"]["accuracy"] = difference
        versus["slices"]["origin:base"]["accuracy"] = difference
        promoted += decided(content).outcome == "promote"
    return promoted / rounds


def test_promotion_rates_of_equal_and_worse_models_by_simulation() -> None:
    assert _promotion_rate(0.97, 0.97) > 0.98
    assert _promotion_rate(0.97, 0.92) < 0.05
    assert _promotion_rate(0.97, 0.90) < 0.02
    assert _promotion_rate(0.97, 0.10) == 0.0


def test_small_test_set_only_warns_about_calibration() -> None:
    modes = [
        [rule.mode for rule in default_rules("classification", "image", n) if rule.metric == "ece"] for n in (12, N)
    ]
    assert modes == [["warn"], ["enforce"]]


def test_how_often_new_rows_show_a_gain_and_fresh_ones_that_they_are_no_worse() -> None:
    """The numbers of rows that the default rules ask for: each of both errs on its own, half of the better one's errors are shared."""
    dice = np.random.default_rng(0)

    def share(ours: float, theirs: float, n: int, bound: float) -> float:
        both = (1 - max(ours, theirs)) / 2
        odds = [1 - theirs - both, 1 - ours - both]
        drawn = dice.multinomial(n, [*odds, 1 - sum(odds)], size=400)
        return float(np.mean([tango(Pairs(ours=int(a), theirs=int(b), n=n), 0.95)[0] >= bound for a, b, _ in drawn]))

    assert share(0.97, 0.62, 30, 0.001) == pytest.approx(0.96, abs=0.04)
    assert share(0.85, 0.50, 30, 0.001) == pytest.approx(0.82, abs=0.06)
    assert share(0.97, 0.62, 15, 0.001) == pytest.approx(0.72, abs=0.07)
    assert share(0.97, 0.97, 200, -0.05) == pytest.approx(0.90, abs=0.05)
    assert share(0.97, 0.97, 60, -0.05) == pytest.approx(0.27, abs=0.07)
