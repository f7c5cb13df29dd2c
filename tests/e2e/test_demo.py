"""``kfloop demo``: the whole story on real data ends well and leaves nothing running."""

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.triton, pytest.mark.timeout(600)]


def at_work_in(folder: Path) -> list[str]:
    """Command lines of the processes that name the folder or stand in it."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if str(folder) in command or process.cwd().startswith(str(folder)):
                found.append(command)
        except psutil.Error:
            continue
    return found


def test_the_demo_tells_its_story_and_leaves_nothing_running(shell: Any) -> None:
    done = shell.run("demo", "--json", timeout=500)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    rounds = [event for event in answer["events"] if "command" in event]
    assert [(event["command"], event["message"].split(":")[0]) for event in rounds] == [
        ("run", "promote"),
        ("monitor", "none"),
        ("monitor", "needs_labels"),
        ("monitor", "promote"),
    ]
    assert [event["status"] for event in rounds] == ["succeeded", "succeeded", "needs_labels", "succeeded"]
    assert [event["rollback"] for event in answer["events"] if "rollback" in event] == [1, 2]
    sent = [event for event in answer["events"] if "sent" in event]
    assert [event["version"] for event in sent] == [1, 1, 2]
    assert sent[0]["accuracy"] > 0.9
    assert sent[1]["accuracy"] < 0.6
    assert sent[2]["accuracy"] > 0.9
    for event in rounds:
        assert Path(event["report"]).is_file()
        assert event["report"] in done.stderr

    folder = shell.folder / answer["folder"]
    assert at_work_in(shell.folder) == []
    facts = shell.json("status", "-c", str(folder / "loop.yaml"))
    assert facts["champion"]["version"] == 2
    assert facts["server"] is None
    assert facts["ledger_rows"] == 8
