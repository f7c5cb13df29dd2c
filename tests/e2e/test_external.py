"""A real Triton of one loop is the endpoint of another: scored, blessed, promoted, served through a proxy, and challenged by a trained model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from kfloop.core.artifacts import read_report
from kfloop.core.config import load_config
from kfloop.core.workspace import Workspace
from kfloop.serving.client import predict
from kfloop.serving.endpoint import Endpoint, require
from kfloop.serving.supervisor import start_background

pytestmark = [pytest.mark.triton, pytest.mark.slow]
TOKEN = "t0ken-for-nobody"
ASKED = """\
name: small
data: {limit: 700, fresh: incoming}
train:
  external: {protocol: kserve, url: "URL", model: owner, embedding: embedding, token_env: MODEL_TOKEN, unseen_rows: true,
             price_per_1000: 1.2, binary: BINARY, retries: 0}
evaluate: {bootstrap: 300}
bless: {requests: 40}
"""


def shell_in(shell: Any, name: str, text: str) -> Any:
    folder = shell.folder / name
    folder.mkdir()
    found = type(shell)(folder)
    found.write(text)
    return found


def place(shell: Any) -> Workspace:
    return load_config(shell.folder / "loop.yaml").workspace(shell.folder)


def serve(shell: Any) -> Endpoint:
    start_background(place(shell))
    return require(place(shell))


@pytest.mark.timeout(900)
def test_a_served_model_of_somebody_else_becomes_champion(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TOKEN", TOKEN)
    owner = shell_in(shell, "owner", shell.small.replace("name: small", "name: owner"))
    assert owner.run("run").returncode == 0
    theirs = serve(owner)
    asking = shell_in(shell, "asking", ASKED.replace("URL", f"http://{theirs.http}").replace("BINARY", "true"))
    try:
        record = asking.json("run")
        assert record["status"] == "succeeded", record["message"]
        reports = {
            step["name"]: read_report(Path(step["artifact"]["path"]))
            for step in record["steps"]
            if step.get("artifact")
        }
        cost = reports["evaluate"]["external"]["challenger"]
        assert cost["price_per_1000"] == 1.2
        assert 0 < cost["call_ms_p95"] < 5000
        assert reports["bless"]["passed"], reports["bless"]["failures"]
        assert reports["bless"]["latency_ms"]["p95"] > 0
        ours = serve(asking)
        rows = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)).astype(np.uint8)
        mine, other = predict(ours, "small", rows), predict(theirs, "owner", rows)
        for name in ("probabilities", "embedding"):
            assert mine.outputs[name] == pytest.approx(other.outputs[name], abs=1e-5)
        _logged(asking, mine.ids)
        trained = _challenged_by_a_trained_model(asking)
        assert trained["decision"]["outcome"] in {"promote", "reject"}
    finally:
        asking.run("serve", "--stop")
        owner.run("serve", "--stop")
    kept = [path for path in asking.folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert not kept


def _logged(shell: Any, ids: list[str]) -> None:
    """Requests of the proxy are in the log like any other's, the questions whether it lives are not."""
    time.sleep(4)  # the supervisor has looked meanwhile
    assert shell.run("serve", "--stop").returncode == 0
    found = [
        name
        for path in place(shell).request_log.rglob("*.parquet")
        for name in pq.read_table(path)["request_id"].to_pylist()
    ]
    assert sorted(found) == sorted(ids)
    serve(shell)


def _challenged_by_a_trained_model(shell: Any) -> dict[str, Any]:
    shell.write(shell.small)
    record: dict[str, Any] = shell.json("run")
    report = read_report(next(Path(step["artifact"]["path"]) for step in record["steps"] if step["name"] == "evaluate"))
    assert report["external"]["challenger"] is None
    assert report["external"]["champion"]["rows"] > 100
    assert report["differences"]["champion"]["overall"]["accuracy"]["value"] is not None
    return record
