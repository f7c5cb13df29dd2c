"""A source in a bucket of a real S3 server: the same rows as from this disk, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.cli.main import cli
from kfloop.components.ingest.ingestion import run as ingest
from kfloop.components.ingest.object_source import fetch_objects
from kfloop.components.ingest.sources import inspect
from kfloop.core.config import load_config
from kfloop.core.sections import DataConfig
from kfloop.core.workspace import Workspace
from kfloop.errors import InputError, KfloopError, TransientError
from seaweed import free_ports


@pytest.fixture
def url(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KFLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return f"s3://ready/{tmp_path.name}/rows"


def server() -> Any:
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True)


def parts(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part in range(3):
        labels = [("a", "b")[number % 2] for number in range(100)]
        pq.write_table(
            pa.table({"x": rng.random(100), "z": rng.random(100), "label": labels}), folder / f"{part}.parquet"
        )
    return folder


def digest(source: str, root: Path) -> str:
    root.mkdir()
    workspace = Workspace(loop="rows", root=root, state="", store=str(root / "store"), mlflow="")
    (root / "dataset").mkdir()
    return ingest(DataConfig(source=source), out=root / "dataset", workspace=workspace).digest


@pytest.mark.slow
def test_a_folder_and_a_file_give_the_version_that_they_give_on_this_disk(url: str, tmp_path: Path) -> None:
    here = parts(tmp_path / "rows")
    server().put(f"{here}/", url, recursive=True)
    assert digest(url, tmp_path / "one") == digest(str(here), tmp_path / "two")
    one = f"{url}/1.parquet"
    assert digest(one, tmp_path / "three") == digest(str(here / "1.parquet"), tmp_path / "four")
    assert inspect(DataConfig(source=one)).kind == inspect(DataConfig(source=str(here / "1.parquet"))).kind


@pytest.mark.slow
def test_a_loop_file_is_written_for_a_source_in_s3(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    server().put(f"{parts(tmp_path / 'rows')}/", url, recursive=True)
    assert cli.main(["init", url, "--label", "label"], standalone_mode=False) == 0, capsys.readouterr()
    config = load_config(tmp_path / "loop.yaml")
    assert (config.name, config.data.source) == ("rows", url)
    assert inspect(config.data).n == 300


@pytest.mark.slow
def test_an_object_that_changed_is_fetched_anew_and_the_others_are_not(url: str, tmp_path: Path) -> None:
    here = parts(tmp_path / "rows")
    server().put(f"{here}/", url, recursive=True)
    first = fetch_objects(url)
    assert fetch_objects(url) == first
    server().pipe_file(f"{url}/1.parquet", (here / "2.parquet").read_bytes())
    second = fetch_objects(url)
    assert second != first
    assert (second / "1.parquet").read_bytes() == (here / "2.parquet").read_bytes()
    assert (first / "1.parquet").read_bytes() == (here / "1.parquet").read_bytes()
    assert (second / "0.parquet").stat().st_ino == (first / "0.parquet").stat().st_ino
    server().rm(f"{url}/1.parquet")
    assert sorted(path.name for path in fetch_objects(url).iterdir()) == ["0.parquet", "2.parquet"]


@pytest.mark.slow
def test_a_fetch_that_was_cut_off_goes_on(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    here = parts(tmp_path / "rows")
    server().put(f"{here}/", url, recursive=True)
    get, asked = s3fs.S3FileSystem.get_file, []

    def cut(self: Any, path: str, to: str, **told: Any) -> None:
        asked.append(path)
        if path.endswith("2.parquet"):
            raise ConnectionResetError("cut")
        get(self, path, to, **told)

    with monkeypatch.context() as patched:
        patched.setattr(s3fs.S3FileSystem, "get_file", cut)
        with pytest.raises(TransientError, match="cut") as caught:
            fetch_objects(url)
    assert "run it again" in caught.value.hint
    came = {path.stat().st_ino for path in (tmp_path / "cache" / "dvc" / "files").rglob("*.object")}
    assert came
    brought = fetch_objects(url)
    assert came <= {path.stat().st_ino for path in brought.iterdir()}
    assert {path.name: path.read_bytes() for path in brought.iterdir()} == {
        path.name: path.read_bytes() for path in here.iterdir()
    }
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


@pytest.mark.slow
def test_an_object_that_changes_while_it_is_read_is_not_taken(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    here = parts(tmp_path / "rows")
    server().put(f"{here}/", url, recursive=True)
    get = s3fs.S3FileSystem.get_file

    def late(self: Any, path: str, to: str, **told: Any) -> None:
        if path.endswith("2.parquet"):
            self.pipe_file(path, (here / "1.parquet").read_bytes())
        get(self, path, to, **told)

    with monkeypatch.context() as patched:
        patched.setattr(s3fs.S3FileSystem, "get_file", late)
        with pytest.raises(TransientError, match="changed while it was read"):
            fetch_objects(url)
    assert (fetch_objects(url) / "2.parquet").read_bytes() == (here / "1.parquet").read_bytes()


@pytest.mark.parametrize("key", ["fresh", "votes", "corrections"])
def test_files_beside_the_source_stand_on_this_disk(key: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,label\n1,a\n2,b\n")
    with pytest.raises(InputError, match=f"data.{key} 's3://ready/more' is an address"):
        inspect(DataConfig(source=str(tmp_path / "rows.csv"), **{key: "s3://ready/more"}))


@pytest.mark.slow
def test_what_is_said_when_it_cannot_be_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server().pipe_file(f"{url}/0.csv", b"x,label\n1,a\n")
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    for change, source, kind, hint in (
        ({"AWS_SECRET_ACCESS_KEY": "another-secret"}, url, InputError, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": dead}, url, TransientError, "run it again"),
        ({}, "s3://absent/rows", InputError, "is the bucket there"),
        ({}, f"{url}/nothing", InputError, "the path in it"),
        ({}, "s3://ready", InputError, "name a file or a folder in it"),
    ):
        with monkeypatch.context() as patched:
            for name, value in change.items():
                patched.setenv(name, value)
            with pytest.raises(KfloopError) as caught:
                inspect(DataConfig(source=source))
        assert type(caught.value) is kind, caught.value
        assert f"data.source '{source}'" in caught.value.message
        assert hint in caught.value.hint
        assert "another-secret" not in json.dumps(caught.value.as_dict())
