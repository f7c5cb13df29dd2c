"""The incumbent step against a real ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kfloop.components.incumbent.incumbency import run
from kfloop.core.sections import DeployConfig
from kfloop.core.state import open_state
from kfloop.core.workspace import Workspace
from kfloop.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    store = tmp_path / "store"
    return Workspace(loop="t", root=tmp_path, state=f"sqlite:///{tmp_path / 'state.db'}", store=str(store), mlflow="")


def _promote(workspace: Workspace, version: int, digest: str, before: str | None, *, close: bool = True) -> None:
    ledger = open_state(workspace.state).ledger
    intent = ledger.intend(
        workspace.loop,
        action="promote",
        version=version,
        model_digest=digest,
        expected_champion=before,
        actor="test",
        reason="test",
    )
    if close:
        ledger.close(intent, done=True)
    (workspace.root / "store" / "models" / digest).mkdir(parents=True)


def test_no_champion(workspace: Workspace, tmp_path: Path) -> None:
    report = run(DeployConfig(), model=tmp_path, out=tmp_path, workspace=workspace)
    assert report.outcome == "none"
    assert json.loads((tmp_path / "report.json").read_text())["champion_digest"] is None


def test_champion_is_the_last_closed_promotion_and_an_open_intent_is_none(workspace: Workspace, tmp_path: Path) -> None:
    _promote(workspace, 1, "aaa", None)
    _promote(workspace, 2, "bbb", "aaa")
    _promote(workspace, 3, "ccc", "bbb", close=False)
    report = run(DeployConfig(), model=tmp_path, out=tmp_path, workspace=workspace)
    assert (report.outcome, report.champion_version, report.previous_digest) == ("bbb", 2, "aaa")


def test_champion_without_package_is_an_error(workspace: Workspace, tmp_path: Path) -> None:
    _promote(workspace, 1, "aaa", None)
    (tmp_path / "store" / "models" / "aaa").rmdir()
    with pytest.raises(StateError, match="has no package 'aaa'"):
        run(DeployConfig(), model=tmp_path, out=tmp_path, workspace=workspace)
