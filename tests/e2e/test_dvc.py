"""``dvc repro`` runs the project's own dvc.yaml, and a second one runs nothing, whatever was decided."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.triton, pytest.mark.timeout(600)]

PROJECT = Path(__file__).parents[2]
SMALLER = {"data": {"source": "digits", "limit": 700}, "evaluate": {"bootstrap": 300}, "bless": {"requests": 40}}


@pytest.fixture
def project(shell: Any) -> Any:
    """The project's pipeline in a git and DVC repository of its own, on fewer rows."""
    shutil.copy(PROJECT / "dvc.yaml", shell.folder)
    params = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    write_params(shell, params | SMALLER)
    tool(shell, "git", "init", "--quiet")
    tool(shell, "dvc", "init", "--quiet")
    return shell


def write_params(shell: Any, params: dict[str, Any]) -> None:
    shell.write(yaml.safe_dump(params, sort_keys=False), "params.yaml")


def tool(shell: Any, *command: str) -> str:
    """Run a program with this interpreter's scripts first on the path; what it said."""
    scripts = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        command, cwd=shell.folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def stages_run(said: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", said)


def decision(shell: Any) -> str:
    return str(yaml.safe_load((shell.folder / "artifacts/decision/report.json").read_text(encoding="utf-8"))["outcome"])


def test_a_second_repro_runs_nothing_after_a_promotion_and_after_a_rejection(project: Any) -> None:
    stages = list(yaml.safe_load((project.folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"])
    assert sorted(stages_run(tool(project, "dvc", "repro"))) == sorted(stages)
    assert decision(project) == "promote"
    champion = project.json("status", "-c", "params.yaml")["champion"]
    assert champion["version"] == 1

    said = tool(project, "dvc", "repro")
    assert stages_run(said) == []
    assert "up to date" in said

    params = yaml.safe_load((project.folder / "params.yaml").read_text(encoding="utf-8"))
    write_params(project, params | {"train": params["train"] | {"epochs": 1, "shuffle_labels": True}})
    ran = stages_run(tool(project, "dvc", "repro"))
    assert set(ran) == set(stages) - {"ingest", "validate_data", "check_labels"}
    assert decision(project) == "reject"
    assert project.json("status", "-c", "params.yaml")["champion"] == champion

    said = tool(project, "dvc", "repro")
    assert stages_run(said) == []
    assert "up to date" in said
