"""The test kit: a component through KFP's own executor, with real artifacts; and every shell of kfloop through it."""

import json
from pathlib import Path

import pytest
from kfp import dsl

from kfloop.components.bless.component import bless
from kfloop.components.check_labels.component import check_labels
from kfloop.components.deploy.component import deploy, keep
from kfloop.components.evaluate.component import evaluate
from kfloop.components.gate.component import gate
from kfloop.components.incumbent.component import incumbent
from kfloop.components.ingest.component import ingest
from kfloop.components.monitor.component import monitor, stand_by
from kfloop.components.notify.component import notify
from kfloop.components.package.component import package
from kfloop.components.train.component import train
from kfloop.components.validate_data.component import validate_data
from kfloop.core.artifacts import read_report
from kfloop.core.config import LoopConfig, section_json
from kfloop.core.state import open_state
from kfloop.errors import InputError, StateError
from kfloop.testing import Harness


@dsl.component(base_image="python", install_kfp_package=False)
def double(number: int, text: dsl.Input[dsl.Artifact], copy: dsl.Output[dsl.Artifact], times: int = 2) -> int:
    from pathlib import Path

    Path(copy.path).write_text(Path(text.path).read_text() * times)
    copy.metadata["digest"] = "d"
    return number * times


def test_parameters_and_artifacts_go_in_and_come_out(harness: Harness, tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("ab")
    done = harness.run(double, number=3, text=source)
    assert done.value == 6
    assert done.artifacts["copy"].read_text() == "abab"
    assert done.metadata["copy"]["digest"] == "d"


def test_a_wrong_or_missing_argument_is_named(harness: Harness, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="tims"):
        harness.run(double, number=3, text=tmp_path, tims=1)
    with pytest.raises(TypeError, match="number"):
        harness.run(double, text=tmp_path)


CONFIG = LoopConfig.model_validate(
    {
        "name": "test",
        "data": {"limit": 400},
        "train": {"epochs": 2},
        "evaluate": {"bootstrap": 200},
        "bless": {"requests": 20},
    }
)


def section(step: str) -> str:
    return section_json(CONFIG, step)


def test_a_failing_step_raises_its_own_error_and_leaves_nothing(harness: Harness, tmp_path: Path) -> None:
    broken = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"source": str(tmp_path / "nowhere")})})
    with pytest.raises(InputError, match="nowhere"):
        harness.run(ingest, config_json=section_json(broken, "ingest"))
    assert not (harness.workspace.root / ".kfloop" / "store").exists()
    scratch = harness.workspace.root / ".kfloop" / "scratch"
    assert not scratch.exists() or not any(scratch.iterdir())


def test_an_input_that_is_gone_is_named(harness: Harness, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="dataset"):
        harness.run(validate_data, config_json=section("validate_data"), dataset_digest="x", dataset=tmp_path / "gone")


@pytest.mark.triton
def test_every_shell_does_its_part_of_the_loop(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """One small round by hand, shell by shell; two epochs on 400 digits are too few for the gate, which must say so."""
    state = open_state(harness.workspace.state)
    state.runs.start("r1", "test", "training", "", {"status": "running"})
    monkeypatch.setenv("KFLOOP_RUN_ID", "r1")
    data = harness.run(ingest, config_json=section("ingest"))
    dataset = data.artifacts["dataset"]
    assert dataset.name == data.value == data.metadata["dataset"]["digest"]
    common = {"dataset_digest": data.value, "dataset": dataset}
    validation = harness.run(validate_data, config_json=section("validate_data"), **common)
    labels = harness.run(check_labels, config_json=section("check_labels"), **common)
    trained = harness.run(
        train,
        config_json=section("train"),
        labels_digest=labels.value,
        labels=labels.artifacts["labels"],
        **common,
    )
    packaged = harness.run(
        package,
        config_json=section("package"),
        checkpoint_digest=trained.value,
        checkpoint=trained.artifacts["checkpoint"],
        **common,
    )
    model = packaged.artifacts["model"]
    who = harness.run(incumbent, config_json=section("incumbent"), model_digest=packaged.value, model=model)
    assert who.value == "none"
    scored = harness.run(
        evaluate,
        config_json=section("evaluate"),
        model_digest=packaged.value,
        champion_digest=who.value,
        model=model,
        incumbent=who.artifacts["incumbent"],
        **common,
    )
    blessed = harness.run(bless, config_json=section("bless"), model_digest=packaged.value, model=model, **common)
    assert read_report(blessed.artifacts["blessing"])["passed"] is True
    decided = harness.run(
        gate,
        config_json=section("gate"),
        validation_digest=validation.value,
        labels_digest=labels.value,
        evaluation_digest=scored.value,
        blessing_digest=blessed.value,
        validation=validation.artifacts["validation"],
        labels=labels.artifacts["labels"],
        evaluation=scored.artifacts["evaluation"],
        blessing=blessed.artifacts["blessing"],
    )
    assert decided.value == "reject"
    verdicts = {verdict["verdict"] for verdict in read_report(decided.artifacts["decision"])["verdicts"]}
    assert "fail" in verdicts
    after = {"model_digest": packaged.value, "model": model, "decision": decided.artifacts["decision"]}
    with pytest.raises(StateError, match="reject"):
        harness.run(deploy, config_json=section("deploy"), **after)
    assert harness.run(keep, config_json=section("keep"), **after).value == "rejected"
    assert state.ledger.champion("test") is None
    looked = harness.run(monitor, config_json=section("monitor"))
    assert looked.value == "not_evaluated"
    assert harness.run(stand_by, trigger=looked.value).value == "not_evaluated"
    final = {"state": "SUCCEEDED", "error": {}, "pipelineJobResourceName": "p", "pipelineTaskName": "t"}
    told = harness.run(notify, config_json=section("notify"), status=final)
    assert told.value in {"reject", "failed"}
    steps = {event.step for event in state.runs.events("r1") if event.event == "succeeded"}
    assert {"ingest", "train", "gate", "keep", "monitor", "stand_by", "notify"} <= steps
    message = json.loads((harness.workspace.root / ".kfloop/runs/r1/notification.json").read_text())
    assert message["run_id"] == "r1"
