"""``dvc repro`` runs the same steps, and nothing twice, whatever was decided."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.triton]
PROJECT = Path(__file__).parents[2]


def call(folder: Path, *command: str) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_second_repro_runs_nothing_after_a_promotion_and_after_a_rejection(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "dvc.yaml", tmp_path)
    parameters = (PROJECT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(parameters, encoding="utf-8")
    call(tmp_path, "git", "init", "-q")
    call(tmp_path, "dvc", "init", "-q")
    first = call(tmp_path, "dvc", "repro")
    for stage in ("ingest", "train", "gate", "deploy"):
        assert f"Running stage '{stage}'" in first
    assert "promoted" in first
    assert "Running stage" not in call(tmp_path, "dvc", "repro")
    worse = parameters.replace("epochs: 12", "epochs: 1\n  shuffle_labels: true")
    assert worse != parameters
    (tmp_path / "params.yaml").write_text(worse, encoding="utf-8")
    second = call(tmp_path, "dvc", "repro")
    assert "Running stage 'ingest'" not in second
    assert "gate: reject" in second
    assert "Running stage" not in call(tmp_path, "dvc", "repro")
