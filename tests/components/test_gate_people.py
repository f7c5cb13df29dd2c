"""What people and history add to a decision: overrides that last, and test rows that were looked at too often."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kfloop.components.gate.deciding import GateReport, run
from kfloop.components.gate.evidence import KINDS
from kfloop.components.gate.granting import end, grant, moment, resolve
from kfloop.components.gate.verdicts import Verdict
from kfloop.core.artifacts import read_report
from kfloop.core.decisions import evidence_digest, read_decision
from kfloop.core.execution import perform
from kfloop.core.holdout import sketched
from kfloop.core.sections import GateConfig, OverriddenRule, Rule
from kfloop.core.state import open_state
from kfloop.core.state.standing import active_overrides
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, StateError
from loading import load

SLOW = "p95_ms <= 0.001"
RULES = (Rule(metric="accuracy", at_least=0.8), Rule(metric="p95_ms", source="bless", at_most=0.001))
DAY = 86400.0


reports = load(Path(__file__).parent / "test_gate.py").reports


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(
        loop="t", root=tmp_path, state=f"sqlite:///{tmp_path}/state.db", store=str(tmp_path / "store"), mlflow=""
    )


def gated(workspace: Workspace, config: GateConfig | None = None, **parts: dict[str, Any]) -> GateReport:
    """The gate's step on sound reports with some parts replaced, with the overrides that last, as a round starts it."""
    places = {"validate": "validation", "labels": "labels", "evaluate": "evaluation", "bless": "blessing"}
    content = reports(0.97, 0.96)
    for source, name in places.items():
        folder = workspace.root / name
        folder.mkdir(exist_ok=True)
        (folder / "report.json").write_text(json.dumps(content[source] | parts.get(source, {})))
        Store(workspace.store).publish(folder, KINDS[source])
    out = workspace.root / "out"
    out.mkdir(exist_ok=True)
    config = config or GateConfig(rules=RULES)
    lasting = active_overrides(open_state(workspace.state).ledger.history(workspace.loop))
    config = config.model_copy(
        update={"overrides": tuple(OverriddenRule(rule=item.rule, row=item.row) for item in lasting)}
    )
    folders = {name: workspace.root / name for name in places.values()}
    return run(config, **folders, out=out, workspace=workspace)


def of(report: GateReport, rule: str) -> Verdict:
    return next(verdict for verdict in report.verdicts if verdict.rule == rule)


def overridden(workspace: Workspace, rule: str = SLOW, until: str = "7d") -> None:
    grant(workspace, GateConfig(rules=RULES), rule, until=until, reason="a busy machine", actor="ann")


def test_an_override_lets_a_rule_fail_without_blocking_and_says_so(workspace: Workspace) -> None:
    before = gated(workspace)
    assert (before.outcome, before.code) == ("reject", "rules_failed")
    overridden(workspace)
    after = gated(workspace)
    assert (after.outcome, after.code) == ("promote", "overridden")
    verdict = of(after, SLOW)
    assert (verdict.verdict, verdict.blocks) == ("fail", False)
    assert verdict.overridden_by is not None
    assert (verdict.overridden_by["who"], verdict.overridden_by["why"]) == ("ann", "a busy machine")
    assert f"overridden: {SLOW}" in after.reason
    assert any(SLOW in note and "by ann: a busy machine" in note for note in after.notes)
    assert [item["rule"] for item in after.overrides] == [SLOW]
    assert after.evidence_digest != before.evidence_digest
    written = read_decision(workspace.root / "out")
    assert written["verdicts"][-1]["overridden_by"]["row"] == 1


def test_an_override_of_a_rule_that_passes_changes_nothing_but_is_told(workspace: Workspace) -> None:
    overridden(workspace, "accuracy >= 0.8")
    report = gated(workspace, GateConfig(rules=RULES[:1]))
    assert (report.outcome, report.code) == ("promote", "all_passed")
    assert of(report, "accuracy >= 0.8").overridden_by is None
    assert any("(it did not fail)" in note for note in report.notes)


def test_an_override_that_ended_or_is_over_has_no_effect(workspace: Workspace) -> None:
    overridden(workspace)
    assert end(workspace, "p95", reason="done").rule == SLOW
    assert gated(workspace).outcome == "reject"
    overridden(workspace)
    ledger = open_state(workspace.state).ledger
    assert active_overrides(ledger.history("t"), now=time.time() + 8 * DAY) == []
    assert len(active_overrides(ledger.history("t"))) == 1
    assert ledger.verify("t") == 3


def test_an_override_that_the_ledger_does_not_have_has_no_effect(workspace: Workspace) -> None:
    """Somebody wrote it into the loop file, or named the row of another override."""
    forged = GateConfig(rules=RULES, overrides=(OverriddenRule(rule=SLOW, row=1),))
    assert gated(workspace, forged).outcome == "reject"
    overridden(workspace, "accuracy")
    folders = {name: workspace.root / name for name in ("validation", "labels", "evaluation", "blessing")}
    report = run(forged, **folders, out=workspace.root / "out", workspace=workspace)
    assert (report.outcome, report.overrides) == ("reject", ())


def test_the_only_rule_that_decides_cannot_be_overridden_away(workspace: Workspace) -> None:
    overridden(workspace)
    report = gated(workspace, GateConfig(rules=RULES[1:]))
    assert report.outcome == "reject"
    assert "no enforced rule was judged" in report.reason


def test_a_condition_of_every_decision_cannot_be_overridden(workspace: Workspace) -> None:
    conditions = {verdict.rule for verdict in gated(workspace).verdicts if verdict.threshold is None}
    assert "blessed by a real server" in conditions
    with pytest.raises(ConfigError, match="is a condition of every decision, not a rule"):
        resolve("blessed", {SLOW}, conditions)
    ledger = open_state(workspace.state).ledger
    details = {"rule": "blessed by a real server", "until": time.time() + DAY}
    ledger.note("t", action="override", actor="eve", reason="by hand", details=details)
    assert gated(workspace, bless={"passed": False}).outcome == "reject"


def test_a_rule_is_named_whole_or_by_a_beginning_of_its_own() -> None:
    rules = {"accuracy >= 0.8", "accuracy >= 0.85", "ece <= 0.1"}
    assert resolve("accuracy >= 0.8", rules, set()) == "accuracy >= 0.8"
    assert resolve(" ece ", rules, set()) == "ece <= 0.1"
    with pytest.raises(ConfigError, match="2 rules begin with 'acc'"):
        resolve("acc", rules, set())
    with pytest.raises(ConfigError, match=r"no rule is called 'accurcy >= 0\.8'") as caught:
        resolve("accurcy >= 0.8", rules, set())
    assert "did you mean 'accuracy >= 0.8'" in caught.value.hint
    with pytest.raises(ConfigError, match="no rule is called ''"):
        resolve("", rules, set())
    with pytest.raises(ConfigError, match="nothing was decided yet"):
        resolve("ece", set(), set())


def test_an_override_is_short_has_a_reason_and_looks_ahead(workspace: Workspace) -> None:
    now = time.mktime((2026, 3, 1, 12, 0, 0, 0, 0, -1))
    assert moment("7d", now) == now + 7 * DAY
    assert moment("12h", now) == now + DAY / 2
    assert time.strftime("%Y-%m-%d %H:%M", time.localtime(moment("2026-03-02", now) - 60)) == "2026-03-02 23:59"
    assert moment("2026-03-01T18:00", now) == now + DAY / 4
    for wrong, told in (
        ("soon", "expected a date"),
        ("2026-02-01", "has passed"),
        ("0d", "has passed"),
        ("91d", "90 days"),
        ("0001-01-01", "expected a date|has passed"),
        ("9999-12-31", "more than 90 days|expected a date"),
        ("9" * 400 + "d", "expected a date"),
        ("9" * 4400 + "d", "expected a date"),
    ):
        with pytest.raises(ConfigError, match=told):
            moment(wrong, now)
    with pytest.raises(ConfigError, match="more than 90 days"):
        moment("2026-09-01", now)
    with pytest.raises(ConfigError, match="needs a reason"):
        grant(workspace, GateConfig(rules=RULES), SLOW, until="7d", reason=" ")
    with pytest.raises(ConfigError, match="no rule is overridden"):
        end(workspace, SLOW)


def test_a_changed_row_of_an_override_breaks_the_chain(workspace: Workspace) -> None:
    overridden(workspace)
    with sqlite3.connect(workspace.root / "state.db") as connection:
        connection.execute("update ledger set body = replace(body, 'ann', 'bob')")
    with pytest.raises(StateError, match="broken at row 1"):
        open_state(workspace.state).ledger.verify("t")


def challenger(name: str, ids: list[str]) -> dict[str, Any]:
    content = reports(0.97, 0.96)["evaluate"]
    content["challenger"]["digest"] = name
    return content | {"test_rows": sketched(ids), "primary": "accuracy"}


def look(workspace: Workspace, name: str, ids: list[str], **config: Any) -> GateReport:
    return gated(
        workspace,
        GateConfig(rules=RULES[:1], **config),
        evaluate=challenger(name, ids),
        bless={"model_digest": name},
    )


IDS = [f"row-{index}" for index in range(360)]


def test_each_other_challenger_on_these_rows_is_a_look_and_a_repeated_decision_is_none(workspace: Workspace) -> None:
    assert look(workspace, "c0", IDS).looks == 0
    assert look(workspace, "c0", IDS).looks == 0
    assert [look(workspace, f"c{n}", IDS).looks for n in (1, 2, 3)] == [1, 2, 3]
    # Decided again, c1 still had one look before it.
    assert look(workspace, "c1", IDS).looks == 1
    with sqlite3.connect(workspace.root / "state.db") as connection:
        assert connection.execute("select count(*) from looks").fetchone() == (4,)


def test_a_test_set_that_grows_by_a_few_rows_still_counts_as_worn(workspace: Workspace) -> None:
    for n in range(10):
        report = look(workspace, f"c{n}", [f"row-{index}" for index in range(360 + 10 * n)])
    assert report.looks == pytest.approx(sum((360 + 10 * n) / 450 for n in range(9)), abs=0.5)
    fresh = look(workspace, "other", [f"new-{index}" for index in range(300)])
    assert fresh.looks == 0
    assert fresh.holdout == "These test rows have judged no other challenger before."


def test_a_look_at_other_rows_does_not_make_these_fresh(workspace: Workspace) -> None:
    """The challenger was judged long ago, on other rows; then three others were on these."""
    assert look(workspace, "c0", [f"old-{index}" for index in range(360)]).looks == 0
    for n in (1, 2, 3):
        look(workspace, f"c{n}", IDS)
    assert look(workspace, "c0", IDS).looks == 3


def test_an_evaluation_is_a_look_whether_or_not_it_is_decided_on(workspace: Workspace) -> None:
    for n in range(3):
        report = {**reports(0.97, 0.96)["evaluate"], **challenger(f"c{n}", IDS)}

        def core(config: Any, *, out: Path, workspace: Workspace, report: dict[str, Any] = report) -> SimpleNamespace:
            del config, workspace
            (out / "report.json").write_text(json.dumps(report))
            return SimpleNamespace()

        core.__module__ = "kfloop.components.evaluate.evaluation"  # what the step does after its output is kept
        perform("evaluate", core, workspace, None, {})
        perform("evaluate", core, workspace, None, {})
    decided = look(workspace, "c3", IDS)
    assert decided.looks == 3
    again = look(workspace, "c0", IDS)
    assert again.looks == 0
    with sqlite3.connect(workspace.root / "state.db") as connection:
        rows = dict(connection.execute("select challenger_digest, evidence_digest from looks").fetchall())
    assert rows == {"c0": again.evidence_digest, "c1": "", "c2": "", "c3": decided.evidence_digest}


def test_worn_out_rows_warn_and_say_what_to_do_and_reject_where_asked(workspace: Workspace) -> None:
    for n in range(3):
        report = look(workspace, f"c{n}", IDS, looks=2)
        assert (report.outcome, bool(report.notes and "worn out" in report.notes[-1])) == ("promote", n == 2)
    assert "label new rows" in report.notes[-1]
    assert "data.split.seed" in report.notes[-1]
    assert report.holdout == report.notes[-1]
    strict = look(workspace, "c3", IDS, looks=2, worn_holdout="reject")
    assert strict.outcome == "reject"
    assert of(strict, "holdout not worn out").verdict == "fail"
    assert look(workspace, "c4", [f"new-{n}" for n in range(300)], looks=2, worn_holdout="reject").outcome == "promote"


def test_rows_that_are_not_named_warn_of_nothing_and_reject_where_asked(workspace: Workspace) -> None:
    report = gated(workspace, GateConfig(rules=RULES[:1]))
    assert (report.outcome, report.looks) == ("promote", None)
    assert "not counted" in report.holdout
    strict = gated(workspace, GateConfig(rules=RULES[:1], worn_holdout="reject"))
    assert of(strict, "holdout not worn out").verdict == "not_evaluated"
    assert strict.outcome == "reject"


def test_the_optimism_is_that_of_the_best_of_k(workspace: Workspace) -> None:
    for n in range(10):
        report = look(workspace, f"c{n}", IDS)
    error = 0.03 / (2 * stats.norm.ppf(0.975))  # the interval of the difference to the champion is 0.03 wide
    assert f"{error * math.sqrt(2 * math.log(10)):.2g} in accuracy" in report.holdout
    assert "best of 10 equally good challengers" in report.holdout


def test_the_bound_of_the_optimism_holds_in_simulation() -> None:
    rng = np.random.default_rng(0)
    for k in (2, 10, 50):
        best = rng.standard_normal((4000, k)).max(axis=1).mean()
        assert 0.45 * math.sqrt(2 * math.log(k)) < best <= math.sqrt(2 * math.log(k))


def test_a_decision_can_be_checked_from_its_folder_alone(workspace: Workspace) -> None:
    report = gated(workspace)
    out = workspace.root / "out"
    assert evidence_digest(read_report(out)) == report.evidence_digest
    for file, old, new in (("report.json", '"fail"', '"pass"'), ("evidence.json", "0.97", "0.99")):
        text = (out / file).read_text()
        (out / file).write_text(text.replace(old, new))
        with pytest.raises(StateError, match=f"{file}' was changed"):
            read_decision(out)
        (out / file).write_text(text)
    (out / "evidence.json").unlink()
    with pytest.raises(StateError, match="cannot be read"):
        read_decision(out)


def stored(workspace: Workspace) -> dict[str, Path]:
    """Sound reports in the store, each under its digest."""
    kinds = {"validation": "validations", "labels": "labels", "evaluation": "evaluations", "blessing": "blessings"}
    gated(workspace)
    return {name: Store(workspace.store).publish(workspace.root / name, kind) for name, kind in kinds.items()}


@pytest.mark.parametrize("name", ["validation", "labels", "evaluation", "blessing"])
def test_a_report_that_was_edited_in_the_store_rejects(workspace: Workspace, name: str) -> None:
    folders, out = stored(workspace), workspace.root / "out"
    config = GateConfig(rules=RULES[:1])
    assert run(config, **folders, out=out, workspace=workspace).outcome == "promote"
    place = folders[name] / "report.json"
    place.write_text(place.read_text() + "\n")  # even a line that says nothing
    report = run(config, **folders, out=out, workspace=workspace)
    assert report.outcome == "reject"
    assert "its report was changed after the step wrote it" in report.reason


@pytest.mark.parametrize("name", ["validation", "labels", "evaluation", "blessing"])
def test_a_copy_of_a_report_must_be_what_its_step_published(workspace: Workspace, name: str) -> None:
    """``kfloop step gate -i evaluation=folder``, and dvc, give folders that are not those of the store."""
    stored(workspace)
    out, config = workspace.root / "out", GateConfig(rules=RULES[:1])
    folders = {key: workspace.root / key for key in ("validation", "labels", "evaluation", "blessing")}
    assert run(config, **folders, out=out, workspace=workspace).outcome == "promote"
    place = folders[name] / "report.json"
    place.write_text(place.read_text().replace("0.97", "0.99") + "\n")
    report = run(config, **folders, out=out, workspace=workspace)
    assert report.outcome == "reject"
    assert f"its report was changed after the step wrote it (remove '{folders[name]}' and run again)" in report.reason


def test_the_report_of_another_run_in_its_place_rejects(workspace: Workspace) -> None:
    folders, out = stored(workspace), workspace.root / "out"
    other = reports(0.99, 0.96)["evaluate"]
    (folders["evaluation"] / "report.json").write_text(json.dumps(other))
    report = run(GateConfig(rules=RULES[:1]), **folders, out=out, workspace=workspace)
    assert report.outcome == "reject"
    assert "changed after" in report.reason


def turned_down(workspace: Workspace, how: str) -> None:
    """A person turned the challenger down: rolled back from it, or rejected it while it was on hold."""
    ledger = open_state(workspace.state).ledger
    if how == "rejected":
        ledger.note("t", action="reject", actor="ann", reason="weak on sevens", version=2, model_digest="new")
        return
    for digest, before, action in (("old", None, "promote"), ("new", "old", "promote"), ("old", "new", "rollback")):
        intent = ledger.intend(
            "t",
            action=action,
            version=1 if digest == "old" else 2,
            model_digest=digest,
            expected_champion=before,
            actor="ann",
            reason="weak on sevens",
        )
        ledger.close(intent, done=True)


@pytest.mark.parametrize("how", ["rejected", "rolled back from"])
def test_what_a_person_turned_down_is_never_promoted_without_one(workspace: Workspace, how: str) -> None:
    config = GateConfig(rules=RULES[:1])
    before = gated(workspace, config)
    assert before.outcome == "promote"
    turned_down(workspace, how)
    report = gated(workspace, config)
    assert (report.outcome, report.code) == ("hold", "turned_down")
    assert f"but ann {how} this very model (version 2) on " in report.reason
    assert "weak on sevens, so only a person may promote it" in report.reason
    assert f"kfloop approve {report.evidence_digest[:12]}" in report.reason
    assert any(how in note and "weak on sevens" in note for note in report.notes)
    assert report.evidence_digest != before.evidence_digest
    # Another challenger is nobody's rejected one, and one that fails is rejected as ever.
    assert look(workspace, "c1", IDS).outcome == "promote"
    assert gated(workspace, GateConfig(rules=(Rule(metric="accuracy", at_least=0.99),))).outcome == "reject"


def test_what_a_person_brought_back_is_not_turned_down_any_more(workspace: Workspace) -> None:
    turned_down(workspace, "rolled back from")
    ledger = open_state(workspace.state).ledger
    forward = {"version": 2, "model_digest": "new", "expected_champion": "old", "actor": "ann", "reason": "again"}
    ledger.close(ledger.intend("t", action="rollback", **forward), done=True)  # type: ignore[arg-type]
    report = gated(workspace, GateConfig(rules=RULES[:1]))
    assert (report.outcome, report.champion_row) == ("promote", 8)
