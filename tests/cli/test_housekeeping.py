"""``kfloop gc``, ``backup`` and ``restore`` as a person calls them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kfloop.cli.main import cli
from kfloop.core.config import load_config
from kfloop.core.housekeeping.backup import refuse_own_store
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.core.tracking import track
from kfloop.core.versions import Rows, verify_version, write_version
from kfloop.errors import EXIT_FAILED, EXIT_USAGE, ConfigError, StateError


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """A loop with two runs, each with a model."""
    path = tmp_path / "loop.yaml"
    path.write_text("name: small\n")
    workspace = load_config(path).workspace(tmp_path)
    state = open_state(workspace.state)
    for number in range(2):
        made = tmp_path / "made"
        made.mkdir()
        (made / "report.json").write_text(json.dumps({"number": number}))
        digest = Store.of(workspace).publish(made, "models").name
        shutil.rmtree(made)
        state.runs.start(f"r{number}", "small", "training", "f", {})
        state.runs.step(f"r{number}", "package", "succeeded", {"kind": "models", "digest": digest})
        state.runs.finish(f"r{number}", "rejected", {"number": number})
    return path


def told(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return dict(json.loads(done.stdout))


def test_gc_says_what_it_would_free_and_frees_it(loop: Path) -> None:
    said = CliRunner().invoke(cli, ["gc", "-c", str(loop), "--runs", "1", "--dry-run"], catch_exceptions=False)
    assert "1 blobs and 0 left-overs would be removed" in said.output
    assert "models/" in said.output
    assert told("gc", "-c", str(loop), "--runs", "1", "--dry-run")["bytes"] == 13
    assert len(told("gc", "-c", str(loop), "--runs", "1")["removed"]) == 1
    assert told("gc", "-c", str(loop), "--runs", "1")["removed"] == []


def test_a_backup_comes_back_into_an_empty_folder(loop: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "backups")
    saved = told("backup", place, "-c", str(loop))
    assert (saved["copied"], saved["loops"]) == (2, ["small"])
    other = tmp_path / "other" / "loop.yaml"
    other.parent.mkdir()
    shutil.copyfile(loop, other)
    said = CliRunner().invoke(cli, ["restore", place, "-c", str(other)], catch_exceptions=False)
    assert f"restored {saved['name']}" in said.output
    state = open_state(load_config(other).workspace(other.parent).state)
    assert [record["number"] for record in state.runs.last("small", 5)] == [1, 0]
    with pytest.raises(StateError, match="there is state already, of small"):
        CliRunner().invoke(cli, ["restore", place, "-c", str(other)], catch_exceptions=False)
    assert told("restore", place, "-c", str(other), "--replace", "--at", saved["name"])["present"] == 2


def test_a_backup_is_apart_from_what_it_is_of(loop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(loop.parent)
    before = sorted(Path(".kfloop/store").rglob("*"))
    for place in ("", " ", ".kfloop/store", ".kfloop/store/", ".kfloop/store/old", ".kfloop", "."):
        with pytest.raises(ConfigError, match=r"is empty|are not apart"):
            CliRunner().invoke(cli, ["backup", place, "-c", str(loop)], catch_exceptions=False)
    assert sorted(Path(".kfloop/store").rglob("*")) == before
    assert told("backup", str(loop.parent / ".kfloop" / "storehouse"), "-c", str(loop))["copied"] == 2


@pytest.mark.parametrize(
    ("place", "refused"),
    [
        ("memory://loops/small", True),
        ("memory://loops/small/", True),
        ("memory://loops", True),
        ("memory://loops/small-2", False),
    ],
)
def test_a_backup_beside_a_store_elsewhere_is_apart_by_its_url(place: str, refused: bool, tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text("name: small\nstore: memory://loops/small\n")
    workspace = load_config(path).workspace(tmp_path)
    if not refused:
        refuse_own_store(workspace, place)
        return
    with pytest.raises(ConfigError, match="are not apart"):
        refuse_own_store(workspace, place)


def test_a_place_that_cannot_be_written_is_told(loop: Path, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.touch()
    with pytest.raises(StateError, match=r"'.*file' cannot be written: .*Not a directory"):
        CliRunner().invoke(cli, ["backup", str(place), "-c", str(loop)], catch_exceptions=False)


def test_missing_credentials_are_to_be_mended(loop: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StateError, match="cannot be listed: Unable to locate credentials") as failed:
        CliRunner().invoke(cli, ["backup", "s3://backups/small", "-c", str(loop)], catch_exceptions=False)
    assert "AWS_SECRET_ACCESS_KEY" in str(failed.value.hint)


def test_a_damaged_blob_ends_a_backup_with_1_and_blobs_alone_bring_it_back(loop: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "backups")
    told("backup", place, "-c", str(loop))
    workspace = load_config(loop).workspace(tmp_path)
    digest = Store.of(workspace).digests("models")[0]
    damaged = Store.of(workspace).path("models", digest) / "report.json"
    damaged.unlink()
    damaged.symlink_to("/proc/self/mem")  # cannot be read, as on a disk that fails
    other = str(tmp_path / "others")
    said = CliRunner().invoke(cli, ["backup", other, "-c", str(loop)], standalone_mode=False)
    assert said.return_value == EXIT_FAILED
    assert f"models/{digest}: " in said.output
    assert "1 blobs are damaged and not in the backup" in said.output
    said = CliRunner().invoke(cli, ["backup", other, "-c", str(loop), "--json"], standalone_mode=False)
    assert (said.return_value, json.loads(said.stdout)["damaged"][0]["digest"]) == (EXIT_FAILED, digest)
    shutil.rmtree(damaged.parent)
    said = CliRunner().invoke(cli, ["restore", place, "-c", str(loop), "--blobs"], standalone_mode=False)
    assert (said.return_value, "1 blobs brought back, 1 were there" in said.output) == (0, True)
    assert damaged.read_text().startswith("{")
    assert told("restore", place, "-c", str(loop), "--blobs")["copied"] == 0
    said = CliRunner().invoke(cli, ["restore", place, "-c", str(loop), "--blobs", "--replace"])
    assert said.exit_code == EXIT_USAGE


@pytest.mark.parametrize("key", ["state", "store", "mlflow"])
def test_a_password_in_the_loop_file_is_refused_and_not_repeated(tmp_path: Path, key: str) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text(f"name: small\n{key}: postgresql://u:hunter2@db/x\n")
    with pytest.raises(ConfigError, match=f"'{key}': the address holds a password") as caught:
        load_config(path)
    assert "hunter2" not in json.dumps(caught.value.as_dict())
    assert caught.value.exit_code == EXIT_USAGE
    path.write_text(f"name: small\n{key}: postgresql://u:${{PASSWORD}}@db/x\n")
    assert getattr(load_config(path), key) == "postgresql://u:${PASSWORD}@db/x"


def test_a_dataset_version_comes_back_from_dvc(tmp_path: Path) -> None:
    loop = tmp_path / "loop.yaml"
    loop.write_text("name: t\n")
    workspace = load_config(loop).workspace(tmp_path)
    rows = Rows(
        ids=[str(i) for i in range(200)],
        images=np.random.default_rng(0).integers(0, 256, (200, 4, 4, 1), dtype=np.uint8),
        labels=np.arange(200) % 2,
        origin=["base"] * 200,
    )
    out = tmp_path / "out"
    out.mkdir()
    digest = write_version(out, name="t", rows=rows, labels=["a", "b"], validation=0.2, test=0.2)["digest"]
    place = Store.of(workspace).publish(out, "datasets", digest)
    track(place, workspace)
    shutil.rmtree(place)
    asked = ["restore", "-c", str(loop), "--dataset", digest]
    said = CliRunner().invoke(cli, asked, catch_exceptions=False)
    assert f"dataset version {digest} is in the store" in said.output
    assert verify_version(place).digest == digest
    with pytest.raises(StateError, match="'feed' was never tracked"):
        CliRunner().invoke(cli, ["restore", "-c", str(loop), "--dataset", "feed"], catch_exceptions=False)
    for wrong in (["restore", "-c", str(loop)], [*asked, "--blobs"]):
        assert "--dataset" in CliRunner().invoke(cli, wrong).output
