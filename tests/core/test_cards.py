"""Model cards: what they say, and that nothing missing or damaged stops what they describe."""

import json
from pathlib import Path
from typing import Any

import pytest

import packages
from kfloop.core.cards import ensure_card, find_card
from kfloop.core.cards.rendering import render_html, render_markdown
from kfloop.core.mlflow_client import mlflow_client
from kfloop.core.registry import Registry
from kfloop.core.sections import AboutConfig
from kfloop.core.state import open_state
from kfloop.core.state.ledger import Entry
from kfloop.core.workspace import Workspace

ABOUT = AboutConfig(intended_use="Reads <digits>.", limits="No red ink.", owner="forms team")


@pytest.fixture
def workspace(tmp_path: Path, mlflow_db: str) -> Workspace:
    return Workspace(
        loop=f"cards-{abs(hash(str(tmp_path))) % 10**9}",
        root=tmp_path,
        state=f"sqlite:///{tmp_path / 'state.db'}",
        store=str(tmp_path / "store"),
        mlflow=mlflow_db,
    )


def estimate(value: float | None, n: int = 90) -> dict[str, Any]:
    return {"value": value, "low": value and value - 0.02, "high": value and value + 0.02, "n": n, "level": 0.95}


EVALUATION = {
    "cost": {"challenger": {"size_mb": 2.5}},
    "primary": "accuracy",
    "direction": {"accuracy": "higher", "ece": "lower"},
    "n_test": 90,
    "dataset_digest": "data-of-the-test-rows",
    "challenger": {
        "overall": {"ece": estimate(None), "accuracy": estimate(0.93)},
        "slices": {"class:3": {"accuracy": estimate(0.8, 9)}, "class:7": {"accuracy": estimate(0.7, 8)}},
    },
    "champion": {"overall": {"accuracy": estimate(0.91)}, "slices": {}},
    "slice_facts": {"class:7": {"kind": "class", "n": 8, "text": "sevens"}},
}
VERDICTS = [
    {"rule": "accuracy >= 0.8", "verdict": "pass", "sentence": "accuracy is 0.93: pass", "mode": "enforce"},
    {
        "rule": "p95_ms <= 1",
        "verdict": "fail",
        "sentence": "p95_ms is 7: fail",
        "mode": "enforce",
        "overridden_by": {"who": "ann"},
    },
]


def entry_of(workspace: Workspace, **more: Any) -> tuple[Entry, str]:
    """A promotion in the ledger, with package, training, dataset and decision in the store; and the id of its MLflow run."""
    store = Path(workspace.store)
    client = mlflow_client(workspace.mlflow)
    experiment = client.create_experiment(workspace.loop, artifact_location=(workspace.root / "artifacts").as_uri())
    run = str(client.create_run(experiment).info.run_id)
    reports = {
        ("models", "aaa"): {
            "digest": "aaa",
            "checkpoint_digest": "ck",
            "dataset_digest": "dd",
        },
        ("checkpoints", "ck"): {"mlflow_run_id": run, "parameters": 1234, "epochs": 8},
    }
    for (kind, digest), report in reports.items():
        (store / kind / digest).mkdir(parents=True)
        (store / kind / digest / "report.json").write_text(json.dumps(report))
    (store / "datasets" / "dd").mkdir(parents=True)
    card = {"n_rows": 360, "splits": {"train": 270, "test": 90}, "sources": [{"source": "digits", "rows": 360}]}
    (store / "datasets" / "dd" / "card.json").write_text(json.dumps(card))
    overrides = [{"rule": "p95_ms <= 1", "who": "ann", "why": "busy", "until": 1.0, "ends": "then", "row": 1}]
    decision = packages.make_decision(
        store, "aaa", None, reports={"evaluate": EVALUATION}, verdicts=VERDICTS, overrides=overrides, notes=["a note"]
    )
    evidence = json.loads((decision / "report.json").read_text())["evidence_digest"]
    Registry(workspace.mlflow, workspace.loop).register("aaa", store / "models" / "aaa")
    ledger = open_state(workspace.state).ledger
    intent = ledger.intend(
        workspace.loop,
        action="promote",
        version=1,
        model_digest="aaa",
        expected_champion=None,
        actor="bob",
        reason="all pass",
        evidence_digest=evidence,
        run_id="r1",
        details={"decision": decision.name},
        **more,
    )
    return ledger.close(intent, done=True), run


def test_a_card_says_what_the_version_is_and_why_it_was_let_through(workspace: Workspace) -> None:
    entry, run = entry_of(workspace)
    assert ensure_card(workspace, ABOUT, entry)[0].startswith("model card of version 1: ")
    assert ensure_card(workspace, ABOUT, entry) == []
    folder = find_card(workspace, 1)
    assert folder is not None
    card = json.loads((folder / "card.json").read_text())
    assert (card["version"], card["status"], card["ledger_row"], card["model_digest"]) == (1, "champion", 2, "aaa")
    assert (card["data"]["digest"], card["data"]["n_rows"], card["model"]["megabytes"]) == ("dd", 360, 2.5)
    assert [line["metric"] for line in card["metrics"]] == ["accuracy", "ece"]
    assert card["metrics"][0]["champion"]["value"] == 0.91
    assert [(line["slice"], line["text"]) for line in card["slices"]] == [("class:7", "sevens"), ("class:3", "class:3")]
    assert card["limits"][0] == "No red ink."
    assert any(line.startswith("Weakest in accuracy: sevens: 0.7 on 8 rows") for line in card["limits"])
    assert "p95_ms is 7: fail" in card["limits"]
    assert card["trained_because"]["kind"] == "first"
    assert [(person["who"], person["what"]) for person in card["people"]] == [("bob", "promoted by the gate")]
    page = (folder / "card.html").read_text()
    assert "Reads &lt;digits&gt;." in page
    assert "http" not in page.split("Content-Security-Policy")[1].split("<style>")[0]
    version = mlflow_client(workspace.mlflow).get_model_version(workspace.loop, "1")
    assert "accuracy: 0.93 (0.91 to 0.95, 90 rows)" in version.description
    assert version.tags["kfloop.card"] == folder.name
    kept = mlflow_client(workspace.mlflow).list_artifacts(run, "model-card-1")
    assert sorted(Path(item.path).name for item in kept) == ["card.html", "card.json"]


def test_a_card_of_a_version_whose_artifacts_are_gone_says_so_and_stops_nothing(workspace: Workspace) -> None:
    entry, _ = entry_of(workspace)
    for path in Path(workspace.store).rglob("*.json"):
        path.write_text("{")
    assert "model card of version 1" in ensure_card(workspace, AboutConfig(), entry)[0]
    folder = find_card(workspace, 1)
    assert folder is not None
    page = (folder / "card.html").read_text()
    assert "The decision cannot be read" in page
    assert "The evaluation of this version cannot be read" in page


def test_a_card_that_cannot_be_written_is_told_and_stops_nothing(workspace: Workspace) -> None:
    entry, _ = entry_of(workspace)
    (Path(workspace.store) / "cards").write_text("in the way")
    told = ensure_card(workspace, ABOUT, entry)
    assert len(told) == 1
    assert "could not be written" in told[0]


def test_a_registry_that_was_lost_shows_the_card_again(workspace: Workspace) -> None:
    entry, _ = entry_of(workspace)
    assert "could not" not in ensure_card(workspace, ABOUT, entry)[0]
    registry = Registry(workspace.mlflow, workspace.loop)
    registry.tag(1, {"kfloop.card": "another"})
    assert ensure_card(workspace, ABOUT, entry) != []
    folder = find_card(workspace, 1)
    assert folder is not None
    assert registry.tags(1)["kfloop.card"] == folder.name
    assert find_card(workspace, 7) is None


@pytest.mark.parametrize("round_id", ["r1", "a round of a cluster"])
def test_a_drift_is_named_as_the_reason_with_its_evidence(round_id: str, workspace: Workspace) -> None:
    """The training is one run with the round that asked for it, or one that the round started."""
    if round_id != "r1":
        open_state(workspace.state).runs.step(round_id, "submit_training", "succeeded", {"outcome": "r1"})
    open_state(workspace.state).triggers.add(
        workspace.loop,
        run_id=round_id,
        trigger="retrain",
        reason="the pictures got darker",
        champion_digest="old",
        fingerprint="f",
        evidence_digest="drift-evidence",
    )
    entry, _ = entry_of(workspace)
    ensure_card(workspace, ABOUT, entry)
    folder = find_card(workspace, 1)
    assert folder is not None
    why = json.loads((folder / "card.json").read_text())["trained_because"]
    assert (why["kind"], why["evidence"]) == ("drift", "drift-evidence")
    assert "the pictures got darker" in why["sentence"]


def test_a_rendering_of_a_strange_card_is_an_error_with_a_name(workspace: Workspace) -> None:
    entry, _ = entry_of(workspace)
    ensure_card(workspace, ABOUT, entry)
    folder = find_card(workspace, 1)
    assert folder is not None
    card = json.loads((folder / "card.json").read_text())
    assert render_markdown(card).startswith(f"**{workspace.loop} version 1**")
    with pytest.raises(ValueError, match="nobody foresaw"):
        render_html({**card, "people": [{}]})
