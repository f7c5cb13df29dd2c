"""Gates that did not gate, as found in other systems: each way in is tried here, and rejected.

The names are those of the systems in whose own files each was read.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from kfloop.components.deploy.deployment import run as deploy
from kfloop.components.gate.deciding import GateReport, decide
from kfloop.components.gate.defaults import default_rules
from kfloop.components.gate.evidence import Evidence
from kfloop.core.artifacts import write_report
from kfloop.core.decisions import evidence_digest, reports_digest, write_evidence
from kfloop.core.sections import DeployConfig, GateConfig, Rule
from kfloop.core.workspace import Workspace
from kfloop.errors import StateError
from tests.components.test_gate import Reports, estimate, reports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAN = float("nan")


def decided(content: Reports, config: GateConfig | None = None) -> GateReport:
    return decide(config or GateConfig(), Evidence(reports=content))


def _compared_with_itself(content: Reports) -> None:
    evaluation = content["evaluate"]
    evaluation["champion"] = copy.deepcopy(evaluation["challenger"])
    evaluation["differences"]["champion"]["overall"]["accuracy"] = estimate(0.0, 0.0)


def _wired_the_wrong_way_round(content: Reports) -> None:
    evaluation = content["evaluate"]
    evaluation["challenger"], evaluation["champion"] = evaluation["champion"], evaluation["challenger"]
    evaluation["force_comparison"] = evaluation["deploy_flag"] = True


def _asked_nothing(content: Reports) -> None:
    content["bless"] = {"success": True, "passed": True, "model_digest": "new", "dataset_digest": "data"}


def _reference_had_none(content: Reports) -> None:
    for part in (content["evaluate"]["champion"], content["evaluate"]["differences"]["champion"]):
        part["slices"].pop("origin:base")


def _older_one_is_better(content: Reports) -> None:
    content |= reports(0.86, 0.97)


def _failures_in_a_file(content: Reports) -> None:
    content["validate"] |= {"outcome_word": "fail", "results": [{"word": "fail"}]}


def _nothing_emitted(content: Reports) -> None:
    del content["validate"]


def _metric_missing_so_anything_wins(content: Reports) -> None:
    del content["evaluate"]["champion"]["overall"]["accuracy"]


def _not_a_number(content: Reports) -> None:
    for part in (content["evaluate"]["challenger"], content["evaluate"]["differences"]["champion"]):
        part["overall"]["accuracy"] = estimate(0.97) | {"value": NAN}


def _champion_not_a_number(content: Reports) -> None:
    for part in (content["evaluate"]["champion"], content["evaluate"]["differences"]["champion"]):
        part["overall"]["accuracy"] = estimate(0.97) | {"value": NAN}


PEERS: list[tuple[str, Callable[[Reports], None]]] = [
    ("vertex-pipelines-end-to-end-samples: the challenger is compared with itself", _compared_with_itself),
    ("Azure nlp: baseline and candidate are swapped and a flag forces the deployment", _wired_the_wrong_way_round),
    ("AWS deployment patterns: the smoke test answers success without a call", _asked_nothing),
    ("ZenML template: the check is skipped where the reference has none", _reference_had_none),
    ("ZenML projects: the promoter returns true although the older model wins", _older_one_is_better),
    ("Made-With-ML: failing tests go to a file and training goes on", _failures_in_a_file),
    ("TFX ExampleValidator, Dagster: no result counts as no objection", _nothing_emitted),
    ("MLOpsPython: a production metric that is missing is beaten by anything", _metric_missing_so_anything_wins),
    ("MLflow: a candidate that is no number passes a relative threshold", _not_a_number),
    ("MLflow: a baseline that is no number passes a relative threshold", _champion_not_a_number),
]


@pytest.mark.parametrize("breakage", [row[1] for row in PEERS], ids=[row[0] for row in PEERS])
def test_a_gate_of_a_peer_that_does_not_gate(breakage: Callable[[Reports], None]) -> None:
    content = reports(0.97, 0.95)
    assert decided(content).outcome == "promote"
    breakage(content)
    report = decided(content)
    assert report.outcome == "reject"
    assert report.blocking


@pytest.mark.parametrize("rules", [(), (Rule(metric="accuracy", at_least=0.5, mode="off"),)])
def test_databricks_and_tfx_a_comparison_that_is_switched_off_approves_nothing(rules: tuple[Rule, ...]) -> None:
    assert decided(reports(0.97, 0.95), GateConfig(rules=rules)).outcome == "reject"


def test_databricks_an_argument_of_an_older_version_is_an_error_and_not_a_default() -> None:
    with pytest.raises(ValidationError, match="higher_is_better"):
        Rule(metric="accuracy", at_least=0.5, higher_is_better=True)  # type: ignore[call-arg]


def test_a_threshold_of_zero_and_no_rule_that_fails_the_run_are_not_the_default() -> None:
    floor = [
        rule
        for rule in default_rules("classification", "image", 360)
        if rule.versus == "absolute" and rule.source == "evaluate"
    ]
    assert all((rule.at_least or 0) > 0 or rule.at_most is not None for rule in floor)
    assert any(rule.mode == "enforce" for rule in floor)


@pytest.mark.parametrize("outcome", ["reject", "hold", None, "PROMOTE", True])
def test_tfx_a_blessing_that_nobody_reads_deploys_nothing(tmp_path: Path, outcome: Any) -> None:
    """What is decided is what the deployment asks for: anything but ``promote`` is refused, whoever calls it."""
    decision, model, out = (tmp_path / name for name in ("decision", "new", "out"))
    for folder in (decision, model, out):
        folder.mkdir()
    report = {"outcome": outcome, "challenger_digest": "new", "reports_digest": reports_digest({}, ())}
    write_evidence(decision, {}, ())
    write_report(decision, report | {"evidence_digest": evidence_digest(report)})
    write_report(model, {"digest": "new"})
    places = Workspace(loop="t", root=tmp_path, state=f"sqlite:///{tmp_path}/state.db", store=str(tmp_path), mlflow="")
    with pytest.raises(StateError, match="expected 'promote'"):
        deploy(DeployConfig(), model=model, decision=decision, out=out, workspace=places)
