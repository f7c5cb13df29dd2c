"""A loop that serves its model in 8 bits: the same gate, the same trial, the same server."""

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.triton]

LOOP = """\
name: small
data: {limit: 700}
train: {epochs: 8}
package: {serve: int8, calibration: temperature, review: {precision: 0.8, level: 0.8}}
evaluate: {bootstrap: 300, segments: 0, corrupted_rows: 0, explain: 0}
bless: {requests: 20}
"""


def test_a_model_in_8_bits_passes_the_gate_and_is_served(shell: Any) -> None:
    shell.write(LOOP)
    done = shell.run("run", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["decision"]["outcome"] == "promote"
    places = {step["name"]: Path(step["artifact"]["path"]) for step in record["steps"] if step["artifact"]}
    packaged = json.loads((places["package"] / "report.json").read_text(encoding="utf-8"))
    assert packaged["served"] == "int8"
    assert packaged["temperature"]["n_fitted"] > 30
    assert (places["package"] / "review.json").is_file()
    blessed = json.loads((places["bless"] / "report.json").read_text(encoding="utf-8"))
    assert blessed["passed"]
    assert set(blessed["golden"]["protocols"]) == {"http", "grpc"}
    assert "Variants of the graph" in Path(record["report"]).read_text(encoding="utf-8")
    live = list(shell.folder.rglob("repository/small/1/model.onnx"))
    assert [path.read_bytes() for path in live] == [(places["package"] / "model.onnx").read_bytes()]
