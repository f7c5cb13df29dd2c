"""``kfloop demo`` tells the whole story, twice, and leaves no process behind; ``kfloop compile`` gives the same bytes twice."""

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml


@pytest.mark.slow
@pytest.mark.triton
def test_the_demo_ends_well_and_leaves_nothing_running(shell: Any) -> None:
    done = shell.run("demo", "--json")
    assert done.returncode == 0, done.stderr
    story = json.loads(done.stdout)["events"]
    rounds = [event["status"] for event in story if "command" in event]
    assert rounds == ["succeeded", "succeeded", "needs_labels", "succeeded"]
    assert [event["rollback"] for event in story if "rollback" in event] == [1, 2]
    sent = [event for event in story if "sent" in event]
    assert [event["version"] for event in sent] == [1, 1, 2]
    assert sent[1]["accuracy"] < 0.6
    assert sent[2]["accuracy"] > 0.9
    for event in story:
        if "report" in event:
            assert Path(event["report"]).is_file()
    here = str(shell.folder)
    assert not [p for p in psutil.process_iter(["cmdline"]) if here in " ".join(p.info["cmdline"] or [])]


def test_the_demo_never_touches_a_folder_that_is_not_its_own(shell: Any) -> None:
    mine = shell.folder / "kfloop-demo" / "thesis.tex"
    mine.parent.mkdir()
    mine.write_text("years of work")
    done = shell.run("demo", timeout=60)
    assert done.returncode == 2
    assert mine.read_text() == "years of work"


def test_the_pipelines_compile_to_the_same_ir_twice(shell: Any) -> None:
    for name in ("one", "two"):
        assert shell.run("compile", "-o", name, timeout=120).returncode == 0
    for file in ("training.yaml", "monitoring.yaml"):
        text = (shell.folder / "one" / file).read_text()
        assert text == (shell.folder / "two" / file).read_text()
        assert str(shell.folder) not in text
        ir = yaml.safe_load(text)
        executors = set(ir["deploymentSpec"]["executors"])
        assert {"exec-ingest", "exec-train", "exec-gate", "exec-deploy", "exec-keep", "exec-notify"} <= executors
