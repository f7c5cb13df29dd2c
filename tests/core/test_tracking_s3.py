"""Dataset versions under DVC with their remote in S3: pushed, brought back after everything here was lost, and what is said when S3 cannot be used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bad_wire import bad_wire
from kfloop.core.store import Store
from kfloop.core.tracking import remote_of, restore, track
from kfloop.core.versions import Rows, verify_version, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, StateError, TransientError
from seaweed import free_ports

pytestmark = pytest.mark.slow


@pytest.fixture
def workspace(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    pytest.importorskip("dvc_s3")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    root = tmp_path / "loop"
    root.mkdir()
    return Workspace(loop="digits", root=root, state="", store=f"s3://ready/{tmp_path.name}/store", mlflow="")


def version(workspace: Workspace) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 1), dtype=np.uint8)
    rows = Rows(ids=[str(i) for i in range(200)], images=images, labels=np.arange(200) % 2, origin=["base"] * 200)
    out = workspace.root / "version"
    out.mkdir()
    card = write_version(out, name="t", rows=rows, labels=["a", "b"], validation=0.2, test=0.2)
    return Store.of(workspace).publish(out, "datasets", card["digest"])


def lose_all(workspace: Workspace, digest: str) -> None:
    """The folder of the loop, and the version's blob; DVC's remote is all that is left."""
    Store.of(workspace).remove("datasets", digest)
    shutil.rmtree(workspace.root)
    workspace.root.mkdir()


def test_a_version_comes_back_though_this_folder_and_the_blob_are_gone(workspace: Workspace) -> None:
    folder = version(workspace)
    digest = folder.name
    assert track(folder, workspace).pushed > 0
    assert track(folder, workspace).pushed == 0
    assert not (workspace.kfloop_dir / "dvc-remote").exists()
    # DVC's own command does it as well.
    dvc = [sys.executable, "-m", "dvc", "pull", "-q", f"datasets/{digest}.dvc"]
    subprocess.run(dvc, cwd=workspace.kfloop_dir / "dvc", check=True, capture_output=True)
    assert verify_version(workspace.kfloop_dir / "dvc" / "datasets" / digest).digest == digest
    lose_all(workspace, digest)
    assert verify_version(restore(digest, workspace)).digest == digest
    assert Store.of(workspace).has("datasets", digest)
    with pytest.raises(StateError, match="was never tracked"):
        restore("0" * 32, workspace)


def test_a_loop_that_has_a_folder_as_remote_keeps_it(workspace: Workspace) -> None:
    (workspace.kfloop_dir / "dvc-remote").mkdir(parents=True)
    folder = version(workspace)
    track(folder, workspace)
    assert any((workspace.kfloop_dir / "dvc-remote").rglob("*"))
    Store.of(workspace).remove("datasets", folder.name)
    assert verify_version(restore(folder.name, workspace)).digest == folder.name


def test_what_is_said_when_the_remote_cannot_be_used(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = version(workspace)
    for name, value, kind, hint in (
        ("AWS_SECRET_ACCESS_KEY", "another-secret", StateError, "AWS_ACCESS_KEY_ID"),
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}", TransientError, "run it again"),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            with pytest.raises(kind) as caught:
                track(folder, workspace)
        assert f"DVC's remote '{remote_of(workspace)}'" in caught.value.message
        assert hint in caught.value.hint
        assert "another-secret" not in json.dumps(caught.value.as_dict())
    absent = Workspace(loop="digits", root=workspace.root, state="", store="s3://absent/store", mlflow="")
    with pytest.raises(StateError, match="s3://absent/store/dvc") as caught:
        track(folder, absent)
    assert "bucket" in caught.value.hint
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "dvc_s3", None)
        with pytest.raises(ConfigError, match="s3://") as caught:
            track(folder, workspace)
    assert "kfloop[s3]" in caught.value.hint
    assert track(folder, workspace).pushed > 0  # none of that left anything in the way


def test_a_pull_that_was_cut_off_goes_on(workspace: Workspace, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = version(workspace)
    track(folder, workspace)
    lose_all(workspace, folder.name)
    with bad_wire(s3, downloads=2) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        with pytest.raises(TransientError, match="cannot be pulled"):
            restore(folder.name, workspace)
        assert wire.gave_way.is_set()
        came = [path for path in (workspace.kfloop_dir / "dvc" / ".dvc" / "cache").rglob("*") if path.is_file()]
        wire.downloads = None
        wire.asked.clear()
        assert verify_version(restore(folder.name, workspace)).digest == folder.name
        assert came
        hashes = {path.parent.name + path.name for path in came}
        assert not [path for path in wire.asked if "".join(path.split("/")[-2:]) in hashes]
