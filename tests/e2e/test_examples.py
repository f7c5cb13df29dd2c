"""Every example as it stands: one round to a decision, on data that packages carry, its metric beside a simple baseline's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.triton, pytest.mark.timeout(1200)]  # at most 5 minutes on two free cores

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# Seen to be reached with room to spare; a rule of an example that is missed shows here as a rejection.
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/loop.yaml") if path.parent.name != "digits")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_reaches_a_decision(name: str, shell: Any) -> None:
    shutil.copytree(EXAMPLES / name, shell.folder, dirs_exist_ok=True)
    record = shell.json("run", timeout=1100)
    assert record["exit_code"] == 0, record["message"]
    assert record["decision"]["outcome"] == "promote"
    assert record["champion"]["after"]["version"] == 1
    paths = {step["name"]: Path(step["artifact"]["path"]) for step in record["steps"] if step["artifact"]}
    evaluation: dict[str, Any] = json.loads((paths["evaluate"] / "report.json").read_text())
    primary = evaluation["primary"]
    assert evaluation["challenger"]["overall"][primary]["value"] is not None
    if evaluation["baseline"] is not None:
        assert evaluation["baseline"]["overall"][primary]["value"] is not None
    blessing = json.loads((paths["bless"] / "report.json").read_text())
    assert blessing["passed"]
    assert set(blessing["golden"]["protocols"]) == {"http", "grpc"}
    assert "<html" in Path(record["report"]).read_text()
