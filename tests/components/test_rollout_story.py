"""What the looks at a roll-out found stands in a file and on a page, also after its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kfloop.cli.rollouts import rollout_command
from kfloop.components.deploy.advancing import advance
from kfloop.components.deploy.looking import looks_file, read_looks, remember, story
from kfloop.components.deploy.rollback import rollback
from kfloop.core.sections import RolloutConfig
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError
from loading import load

ROLLOUT = load(Path(__file__).parent / "test_rollout.py")
workspace = ROLLOUT.workspace


def page_of(workspace: Workspace) -> str:
    places = ["--report", "--json", "--workspace", workspace.to_json()]
    done = CliRunner().invoke(rollout_command, places, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return Path(json.loads(done.stdout)["report"]).read_text(encoding="utf-8")


def test_looks_are_kept_and_the_page_tells_how_it_went(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="never rolled"):
        page_of(workspace)
    ROLLOUT.deploy(workspace, "new", "old")
    for _ in range(3):
        ROLLOUT.traffic(workspace, 20)
        advance(workspace)
        advance(workspace)  # nothing new: not a look of its own
    told = story(workspace)
    assert told is not None
    assert (told["outcome"], told["mode"], told["share"], told["requests"]) == ("rolling_out", "canary", 0.2, 60)
    assert [look["requests"] for look in told["looks"]] == [20, 40, 60]
    evidence = [look["findings"][0]["fine"] for look in told["looks"]]
    assert evidence == sorted(evidence)
    page = page_of(workspace)
    assert "Version 2 is rolled out, a canary of 20 %" in page
    assert page.count('<svg class="plot"') == 2
    with looks_file(workspace, told["ledger_row"]).open("a") as stream:
        stream.write('{"at": 17')  # a kill in the middle of a line
    ROLLOUT.traffic(workspace, 60, challenger_error=True, difference=[], challenger_answer=[])
    assert advance(workspace).outcome == "withdrawn"
    ended = story(workspace)
    assert ended is not None
    assert (ended["outcome"], ended["requests"], ended["ended"] >= ended["began"]) == ("withdrawn", 120, True)
    assert "fails on" in ended["reason"]
    assert ended["findings"][0]["worse_at"] is not None
    page = page_of(workspace)
    assert "Version 2 was withdrawn" in page
    assert "shown" in page


def test_a_promotion_and_a_rollback_end_the_story(workspace: Workspace) -> None:
    ROLLOUT.deploy(workspace, "new", "old", RolloutConfig(strategy="shadow", min_requests=50))
    ROLLOUT.traffic(workspace, 1500)
    assert advance(workspace).outcome == "promoted"
    told = story(workspace)
    assert told is not None
    assert (told["outcome"], told["mode"], told["looks"][-1]["requests"]) == ("promoted", "shadow", 1500)
    ROLLOUT.deploy(workspace, "next", "new")
    rollback(workspace, actor="ann", reason="complaints")
    latest, first = story(workspace), story(workspace, told["ledger_row"])
    assert latest is not None
    assert (latest["version"], latest["outcome"], latest["actor"]) == (3, "withdrawn", "ann")
    assert first is not None
    assert first["outcome"] == "promoted"


def test_a_long_roll_out_is_thinned_and_keeps_its_last_look(workspace: Workspace) -> None:
    ROLLOUT.deploy(workspace, "new", "old")
    ROLLOUT.traffic(workspace, 10)
    look: Any = advance(workspace)
    for number in range(500):
        remember(workspace, type(look)(**{**vars(look), "requests": 11 + number}))
    told = story(workspace)
    assert told is not None
    assert len(read_looks(looks_file(workspace, told["ledger_row"]))) == 501
    assert 60 <= len(told["looks"]) <= 120
    assert told["looks"][-1]["requests"] == 510
