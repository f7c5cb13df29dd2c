"""DVC: a tracked version comes back after its folder is gone, a kill is mended, two at once are safe."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kfloop.core.artifacts import folder_digest
from kfloop.core.store import Store
from kfloop.core.tracking import pointer_of, track
from kfloop.core.versions import Rows, verify_version, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import StateError, TransientError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(loop="t", root=tmp_path, state="", store=str(tmp_path / ".kfloop" / "store"), mlflow="")


def publish(workspace: Workspace, seed: int = 0) -> Path:
    images = np.random.default_rng(seed).integers(0, 256, (200, 4, 4, 1), dtype=np.uint8)
    rows = Rows(ids=[str(i) for i in range(200)], images=images, labels=np.arange(200) % 2, origin=["base"] * 200)
    out = workspace.root / f"out-{seed}"
    out.mkdir()
    card = write_version(out, name="t", rows=rows, labels=["a", "b"], validation=0.2, test=0.2)
    return Store(workspace.store).publish(out, "datasets", card["digest"])


def brought_back(digest: str, workspace: Workspace, *, by_command: bool = False) -> Path:
    """What the documentation tells people to do: DVC's own ``pull`` in kfloop's repository, then the folder into the store."""
    root = workspace.kfloop_dir / "dvc"
    if by_command:
        command = [sys.executable, "-m", "dvc", "pull", "-q", f"datasets/{digest}.dvc"]
        subprocess.run(command, cwd=root, check=True, timeout=120)
    else:
        from dvc.repo import Repo

        with Repo(str(root)) as repo:
            repo.pull(targets=[str(pointer_of(digest, workspace))])
    return Store(workspace.store).publish(root / "datasets" / digest, "datasets", digest)


def test_a_version_comes_back_after_its_folder_is_deleted(workspace: Workspace) -> None:
    path = publish(workspace)
    before = folder_digest(path)
    tracked = track(path, workspace)
    assert tracked.pushed > 0
    assert tracked.pointer.is_file()
    shutil.rmtree(path)
    assert brought_back(path.name, workspace, by_command=True) == path
    assert folder_digest(path) == before
    assert verify_version(path).digest == path.name
    assert track(path, workspace).pushed == 0  # kfloop goes on in that repository


def test_tracking_twice_pushes_nothing_new(workspace: Workspace) -> None:
    path = publish(workspace)
    first = track(path, workspace)
    pointer = first.pointer.read_bytes()
    assert track(path, workspace).pushed == 0
    assert first.pointer.read_bytes() == pointer


def test_the_store_is_not_touched_and_space_is_held_twice_at_most(workspace: Workspace) -> None:
    path = publish(workspace)
    before = {item.name: (item.stat().st_ino, item.stat().st_mode) for item in path.iterdir()}
    track(path, workspace)
    assert {item.name: (item.stat().st_ino, item.stat().st_mode) for item in path.iterdir()} == before
    size = sum(item.stat().st_size for item in path.iterdir())
    held = sum(item.stat().st_size for item in (workspace.kfloop_dir).rglob("*") if item.is_file())
    assert held < 2 * size + 200_000  # the rest is DVC's index


def test_the_user_s_own_repository_is_not_touched(workspace: Workspace) -> None:
    subprocess.run(["git", "init", "-q", str(workspace.root)], check=True)
    (workspace.root / ".gitignore").write_text(".kfloop\nout-*\n")
    (workspace.root / ".dvc").mkdir()
    (workspace.root / ".dvc" / "config").write_text("[core]\n    remote = theirs\n")
    state = "git -C . status --porcelain"
    before = subprocess.run(state.split(), cwd=workspace.root, capture_output=True, check=True).stdout
    track(publish(workspace), workspace)
    assert subprocess.run(state.split(), cwd=workspace.root, capture_output=True, check=True).stdout == before
    assert (workspace.root / ".dvc" / "config").read_text() == "[core]\n    remote = theirs\n"


def test_nothing_is_printed(workspace: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    track(publish(workspace), workspace)
    assert capfd.readouterr().out == ""


def test_a_repository_that_dvc_cannot_read_is_an_error(workspace: Workspace) -> None:
    track(publish(workspace), workspace)
    (workspace.kfloop_dir / "dvc" / ".dvc" / "config").write_text("[core\n")
    with pytest.raises(StateError, match="DVC failed"):
        track(publish(workspace, 1), workspace)


CHILD = """
import os, signal, sys
from pathlib import Path
from kfloop.core.tracking import track
from kfloop.core.workspace import Workspace
import dvc.repo
from dvc.repo import Repo
real = getattr(Repo, sys.argv[3])
def dies(self, *args, **kwargs):
    if sys.argv[4] == "after":
        real(self, *args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(Repo, sys.argv[3], dies)
track(Path(sys.argv[2]), Workspace.from_json(sys.argv[1]))
"""


@pytest.mark.parametrize(("call", "when"), [("add", "before"), ("add", "after"), ("push", "before"), ("push", "after")])
def test_a_kill_is_mended_by_the_next_call(workspace: Workspace, call: str, when: str) -> None:
    path = publish(workspace)
    arguments = [sys.executable, "-c", CHILD, workspace.to_json(), str(path), call, when]
    killed = subprocess.run(arguments, check=False, timeout=60, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    track(path, workspace)
    shutil.rmtree(path)
    assert verify_version(brought_back(path.name, workspace)).digest == path.name


def test_a_second_tracker_waits_then_says_that_it_may_be_repeated(workspace: Workspace) -> None:
    from dvc.lock import Lock

    path = publish(workspace)
    workspace.kfloop_dir.mkdir(exist_ok=True)
    with Lock(str(workspace.kfloop_dir / "dvc.lock")), pytest.raises(TransientError, match="another process"):
        track(path, workspace)
    track(path, workspace)
    assert pointer_of(path.name, workspace).is_file()


def test_two_at_once_are_both_tracked(workspace: Workspace) -> None:
    paths = [publish(workspace, seed) for seed in (1, 2)]
    code = (
        "import sys; from pathlib import Path; from kfloop.core.tracking import track; "
        "from kfloop.core.workspace import Workspace; track(Path(sys.argv[2]), Workspace.from_json(sys.argv[1]))"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, workspace.to_json(), str(path)], env=dict(os.environ))
        for path in paths
    ]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    for path in paths:
        shutil.rmtree(path)
        assert verify_version(brought_back(path.name, workspace)).digest == path.name
