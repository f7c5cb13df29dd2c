"""``kfloop compile``: the IR that Kubeflow Pipelines runs, from the same definitions as the local engine."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from kfloop.pipelines.steps import STEPS

FILES = ("training.yaml", "monitoring.yaml", "approval.yaml")


def executors(path: Path) -> set[str]:
    """Names of the components that a compiled pipeline holds, without the numbers KFP adds."""
    spec = next(iter(yaml.safe_load_all(path.read_text(encoding="utf-8"))))
    found = spec["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-").rstrip("0123456789").rstrip("-").replace("-", "_") for name in found}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, one_shell: Any) -> Path:
    shell = one_shell(tmp_path_factory.mktemp("compile"))
    answer = shell.json("compile", "-o", "ir")
    assert answer == {"files": [f"ir/{name}" for name in FILES]}
    assert [path.name for path in shell.folder.iterdir()] == ["ir"]
    return Path(shell.folder / "ir")


def test_each_pipeline_is_one_file_that_loads(compiled: Path) -> None:
    assert sorted(path.name for path in compiled.iterdir()) == sorted(FILES)
    for name in FILES:
        specs = list(yaml.safe_load_all((compiled / name).read_text(encoding="utf-8")))
        assert specs[0]["pipelineInfo"]["name"]
        assert specs[0]["root"]["dag"]["tasks"]


def test_every_component_is_in_it(compiled: Path) -> None:
    assert executors(compiled / "monitoring.yaml") >= set(STEPS) | {"keep", "notify"}
    assert executors(compiled / "training.yaml") >= (set(STEPS) - {"monitor"}) | {"keep", "notify"}


def test_the_approval_takes_one_decision_and_always_tells_its_end(compiled: Path) -> None:
    assert executors(compiled / "approval.yaml") == {"approve", "notify"}
    spec = next(iter(yaml.safe_load_all((compiled / "approval.yaml").read_text(encoding="utf-8"))))
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert set(inputs) == {
        "workspace",
        "evidence",
        "actor",
        "reason",
        "deploy_config",
        "gate_config",
        "notify_config",
    }
    policies = [task.get("triggerPolicy", {}).get("strategy") for task in spec["root"]["dag"]["tasks"].values()]
    assert "ALL_UPSTREAM_TASKS_COMPLETED" in policies
    inner = [part["dag"]["tasks"] for part in spec["components"].values() if "dag" in part]
    assert [task["cachingOptions"] for tasks in inner for task in tasks.values()] == [{}]


def test_compiling_again_gives_the_same_bytes(compiled: Path, shell: Any) -> None:
    assert shell.run("compile").returncode == 0
    for name in FILES:
        assert (shell.folder / "pipelines" / "compiled" / name).read_bytes() == (compiled / name).read_bytes()


def test_the_loop_file_says_what_steps_are_given(shell: Any, compiled: Path) -> None:
    shell.write("name: x\ncluster: {labels: {team: vision}}\n")
    assert shell.run("compile").returncode == 0
    written = (shell.folder / "pipelines" / "compiled" / "approval.yaml").read_text()
    assert written.count("team: vision") == 2
    assert "team: vision" not in (compiled / "approval.yaml").read_text()


def test_a_loop_file_that_is_asked_for_must_be_there_and_right(shell: Any) -> None:
    missing = shell.run("compile", "-c", "other.yaml")
    assert (missing.returncode, "no loop file at 'other.yaml'" in missing.stderr) == (2, True)
    shell.write("name: x\ncluster: {labels: vision}\n")
    wrong = shell.run("compile")
    assert (wrong.returncode, "'cluster.labels' is 'vision'" in wrong.stderr) == (2, True)
    assert not (shell.folder / "pipelines").exists()


def test_no_place_of_this_machine_is_in_it(compiled: Path) -> None:
    import kfloop

    places = {str(Path.home()), str(Path(kfloop.__file__).parents[1]), str(compiled.parent), "/tmp/"}  # noqa: S108
    for name in FILES:
        text = (compiled / name).read_text(encoding="utf-8")
        assert [place for place in places if place in text] == []
