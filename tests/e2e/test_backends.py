"""The loop with nothing of it on this disk: state on PostgreSQL, blobs in S3, MLflow a server on PostgreSQL with its artifacts in S3."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kfloop.core.blobs import Blobs
from mlflow_server import mlflow_server
from postgres import PASSWORD, QUOTED, Postgres
from seaweed import KEYS

pytestmark = [pytest.mark.slow, pytest.mark.triton, pytest.mark.timeout(1800)]

LOOP = """\
name: {name}
data: {{source: cells.csv}}
train: {{epochs: 6}}
evaluate: {{bootstrap: 200}}
bless: {{requests: 20}}
state: {state}
store: {store}
mlflow: {mlflow}
"""


def table(folder: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    cells = load_breast_cancer()
    with (folder / "cells.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*(name.replace(" ", "_") for name in cells.feature_names[:8]), "label"])
        rows = zip(cells.data[:, :8], cells.target, strict=True)
        writer.writerows([*row, cells.target_names[label]] for row, label in rows)


@pytest.fixture(scope="module")
def places(postgres: Postgres, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The three URLs that two loops share, with the secrets in the environment."""
    folder = tmp_path_factory.mktemp("mlflow")
    environment = KEYS | {"AWS_ENDPOINT_URL": s3_endpoint}
    with (
        mlflow_server(folder, postgres.database(), f"s3://ready/{folder.name}", environment) as mlflow,
        pytest.MonkeyPatch.context() as patched,
    ):
        for name, value in (environment | {"KFLOOP_STATE_PASSWORD": PASSWORD}).items():
            patched.setenv(name, value)
        state = postgres.database().replace(QUOTED, "${KFLOOP_STATE_PASSWORD}")
        yield {"state": state, "store": f"s3://ready/{folder.name}-store", "mlflow": mlflow}


@pytest.fixture(scope="module")
def loops(places: dict[str, str], one_shell: type, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two loops of different names on the same servers, each with a champion."""
    shells = {}
    for name in ("cells-a", "cells-b"):
        shell = one_shell(tmp_path_factory.mktemp(name))
        table(shell.folder)
        shell.write(LOOP.format(name=name, **places))
        done = shell.run("run", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        shells[name] = shell, json.loads(done.stdout)
    return shells


def test_a_round_makes_a_champion_and_nothing_of_it_stands_only_here(
    loops: dict[str, Any], places: dict[str, str]
) -> None:
    shell, record = loops["cells-a"]
    assert record["decision"]["outcome"] == "promote"
    assert not (shell.folder / ".kfloop" / "state.db").exists()
    assert not (shell.folder / ".kfloop" / "store").exists()
    assert not (shell.folder / ".kfloop" / "mlflow.db").exists()
    blobs = Blobs(places["store"])
    for step in record["steps"]:
        if step["artifact"]:
            assert blobs.contents(step["artifact"]["kind"], step["artifact"]["digest"]) is not None, step
    kept = blobs.contents("runs", record["run_id"])
    assert kept is not None
    assert set(kept["files"]) == {"record.json", "report.html"}
    everything = [path for path in shell.folder.rglob("*") if path.is_file()]
    assert everything
    for path in everything:
        content = path.read_bytes()
        assert PASSWORD.encode() not in content, path
        assert QUOTED.encode() not in content, path


def test_a_folder_that_lost_all_but_its_loop_file_goes_on_from_the_servers(loops: dict[str, Any]) -> None:
    """As the next pod does on an empty volume."""
    shell, record = loops["cells-a"]
    digest = record["champion"]["after"]["digest"]
    shutil.rmtree(shell.folder / ".kfloop")
    status = shell.json("status")
    assert status["champion"]["version"] == 1
    done = shell.run("run", "--force", "--json")
    again = json.loads(done.stdout)
    assert done.returncode in {0, 3}, done.stderr  # the same data again: it may well not be better
    assert again["champion"]["before"]["digest"] == digest
    found = [path.name for path in (shell.folder / ".kfloop" / "mirror").glob("*/models/*")]
    assert digest in found


def test_two_loops_on_the_same_servers_do_not_mix(loops: dict[str, Any], places: dict[str, str]) -> None:
    from mlflow import MlflowClient

    from kfloop.core.state import open_state

    (_, first), (_, second) = loops["cells-a"], loops["cells-b"]
    assert first["run_id"] != second["run_id"]
    assert second["champion"]["before"] is None  # the other loop's champion is not ours
    client, state = MlflowClient(places["mlflow"]), open_state(places["state"])
    for name, record in (("cells-a", first), ("cells-b", second)):
        (version,) = [item for item in client.search_model_versions(f"name='{name}'") if item.version == "1"]
        assert version.source == f"{places['store']}/models/{record['champion']['after']['digest']}"
        assert client.get_registered_model(name).aliases["champion"] in {"1", 1}
        assert state.ledger.verify(name) >= 2
        assert client.get_experiment_by_name(name).artifact_location.startswith("mlflow-artifacts:")
    state.engine.dispose()


def test_artifacts_of_mlflow_lie_in_s3(loops: dict[str, Any], places: dict[str, str]) -> None:
    artifacts = Blobs(places["store"].removesuffix("-store"))
    assert any("model-card" in key for key in artifacts._files())
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1")
