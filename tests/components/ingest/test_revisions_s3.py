"""A DVC repository whose remote is a bucket of a real S3 server: fetched, refused, cut off in the middle, taken up again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bad_wire import Wire, bad_wire
from chromium import wait_until
from kfloop.components.ingest.revisions import fetch
from kfloop.core.sections import DvcConfig
from kfloop.errors import ConfigError, InputError, KfloopError, TransientError
from seaweed import KEYS, free_ports

pytestmark = pytest.mark.slow
FILES = 20
PATHS = ("data/rows.csv", "data/pictures")
PICTURES = {f"{number}.txt": f"{number} " * 500 for number in range(FILES)}


def git(folder: Path, *words: str) -> None:
    identity = {
        f"GIT_{who}_{what}": "tester@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, env=os.environ | identity)


def set_remote(folder: Path, url: str | None) -> None:
    """Another remote, committed."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo, repo.config.edit() as config:
        config["core"].pop("remote", None)
        config["remote"].clear()
        if url is not None:
            config["core"]["remote"] = "bucket"
            config["remote"]["bucket"] = {"url": url}
    git(folder, "commit", "-q", "--allow-empty", "-am", f"remote {url}")


@pytest.fixture
def team(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``data/rows.csv`` and the folder ``data/pictures`` under DVC, pushed to S3, with nothing of them kept here."""
    pytest.importorskip("dvc_s3")
    from dvc.repo import Repo

    monkeypatch.setenv("KFLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    folder = tmp_path / "team"
    (folder / "data" / "pictures").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "data" / "rows.csv").write_text("x,label\n1,a\n")
    for name, text in PICTURES.items():
        (folder / "data" / "pictures" / name).write_text(text)
    with Repo.init(str(folder)) as repo:
        repo.add([str(folder / "data" / "rows.csv"), str(folder / "data" / "pictures")])
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "data")
    set_remote(folder, f"s3://ready/{tmp_path.name}")
    with Repo(str(folder)) as repo:
        repo.push()
    for kept in (folder / ".dvc" / "cache", folder / "data" / "pictures", tmp_path / "site"):
        shutil.rmtree(kept)
    (folder / "data" / "rows.csv").unlink()
    return folder


@pytest.fixture
def cache(team: Path, tmp_path: Path) -> Path:
    return tmp_path / "cache" / "dvc"


def brought(team: Path) -> dict[str, str]:
    path = fetch(DvcConfig(repo=str(team)), "data/pictures").path
    return {child.name: child.read_text() for child in path.iterdir()}


def held(cache: Path) -> set[str]:
    """Hashes of the files that came whole."""
    return {f"{path.parent.name}{path.stem}" for path in (cache / "files").glob("*/[!.]*")}


def objects(wire: Wire) -> list[str]:
    """Hashes of the files (not of the folder's list) that were asked for."""
    found = (re.search(r"/md5/(..)/([0-9a-f]{30})$", path) for path in wire.asked)
    return [match[1] + match[2] for match in found if match]


def refused(team: Path, path: str = "data/rows.csv") -> KfloopError:
    with pytest.raises(KfloopError) as caught:
        fetch(DvcConfig(repo=str(team)), path)
    assert not list((Path(os.environ["KFLOOP_CACHE"]) / "dvc").glob("*/content"))
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in json.dumps(caught.value.as_dict())
    return caught.value


def test_a_file_and_a_folder_come_from_s3_and_another_revision_brings_only_what_changed(
    team: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.repo import Repo

    with bad_wire(s3) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        assert fetch(DvcConfig(repo=str(team)), "data/rows.csv").path.read_text() == "x,label\n1,a\n"
        assert brought(team) == PICTURES
        assert len(objects(wire)) == FILES + 1
        (team / "data" / "rows.csv").write_text("x,label\n2,b\n")
        with Repo(str(team)) as repo:
            repo.add([str(team / "data" / "rows.csv")])
            repo.push([str(team / "data" / "rows.csv.dvc")])
        shutil.rmtree(team / ".dvc" / "cache")
        git(team, "commit", "-qam", "other rows")
        wire.asked.clear()
        assert brought(team) == PICTURES
        assert objects(wire) == []
        assert fetch(DvcConfig(repo=team.as_uri()), "data/rows.csv").path.read_text() == "x,label\n2,b\n"


def test_wrong_credentials_are_told_with_the_remote(team: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for change in (
        {"AWS_SECRET_ACCESS_KEY": "another-secret"},
        {"AWS_ACCESS_KEY_ID": "nobody"},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
    ):
        for path in PATHS:
            with monkeypatch.context() as patched:
                for name, value in change.items():
                    patched.setenv(name, value)
                error = refused(team, path)
            assert isinstance(error, InputError), change
            assert f"DVC's remote 'bucket' (s3://ready/{team.parent.name})" in error.message
            assert "AWS_ACCESS_KEY_ID" in error.hint
            assert "another-secret" not in json.dumps(error.as_dict())


@pytest.mark.parametrize(
    ("url", "kind", "message", "hint"),
    [
        ("s3://absent/team", InputError, "remote 'bucket' (s3://absent/team)", "there is no 'absent': make it"),
        ("s3://ready/empty", InputError, "remote 'bucket' (s3://ready/empty)", "run `dvc push`"),
        (None, InputError, "the repository names no DVC remote", "dvc remote add"),
        ("gs://ready/team", ConfigError, "'dvc-gs'", "pip install dvc-gs"),
    ],
)
def test_a_remote_that_does_not_have_it(
    team: Path, url: str | None, kind: type[KfloopError], message: str, hint: str
) -> None:
    set_remote(team, url)
    for path in PATHS:
        error = refused(team, path)
        assert type(error) is kind
        assert message in error.message
        assert hint in error.hint


def test_a_server_that_is_not_there_is_transient(team: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    for path in PATHS:
        error = refused(team, path)
        assert isinstance(error, TransientError)
        assert f"s3://ready/{team.parent.name}" in error.message
        assert "run it again" in error.hint


def test_after_a_wire_that_was_cut_only_what_is_missing_is_fetched(
    team: Path, cache: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bad_wire(s3, downloads=FILES // 2) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        assert isinstance(refused(team, "data/pictures"), TransientError)
        assert wire.gave_way.is_set()
        before = held(cache)
        assert 0 < len(before) < FILES
        wire.downloads = None
        wire.asked.clear()
        assert brought(team) == PICTURES
        assert before.isdisjoint(objects(wire))
    assert len(held(cache)) == FILES
    assert not list(cache.glob(".fetch-*")) + list(cache.rglob(".tmp-*"))


def test_a_fetch_that_was_killed_is_taken_up_and_its_remains_go_a_day_later(
    team: Path, cache: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys; from kfloop.components.ingest.revisions import fetch; from kfloop.core.sections import DvcConfig\n"
        "fetch(DvcConfig(repo=sys.argv[1]), 'data/pictures')"
    )
    with bad_wire(s3, downloads=FILES // 2, stall=True) as wire:
        environment = os.environ | {"AWS_ENDPOINT_URL": wire.url}
        child = subprocess.Popen([sys.executable, "-c", code, str(team)], env=environment)
        try:
            assert wire.gave_way.wait(120)
            wait_until(lambda: held(cache))
        finally:
            child.kill()
            child.wait()
    before = held(cache)
    assert 0 < len(before) < FILES
    assert list(cache.glob(".fetch-*"))
    with bad_wire(s3) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        assert brought(team) == PICTURES
        assert before.isdisjoint(objects(wire))
        remains = [*cache.glob(".fetch-*"), *cache.rglob(".tmp-*")]
        assert remains  # whoever left them may still be at work
        for path in remains:
            os.utime(path, (0, 0))
        fetch(DvcConfig(repo=str(team)), "data/rows.csv")
        assert not [path for path in remains if path.exists()]


def test_an_object_that_is_not_what_the_revision_names_is_refused(team: Path, cache: Path) -> None:
    import s3fs

    server = s3fs.S3FileSystem(skip_instance_cache=True)
    (victim,) = [
        path for path, info in server.find(f"ready/{team.parent.name}", detail=True).items() if info["size"] == 12
    ]
    whole = server.cat_file(victim)
    server.pipe_file(victim, b"x,label\n9,z\n")
    error = refused(team)
    assert isinstance(error, InputError)
    assert "is not what was put there" in error.message
    assert f"DVC's remote 'bucket' (s3://ready/{team.parent.name})" in error.message
    assert held(cache) == set()
    server.pipe_file(victim, whole)
    assert fetch(DvcConfig(repo=str(team)), "data/rows.csv").path.read_text() == "x,label\n1,a\n"


def test_a_kept_file_that_was_changed_here_is_fetched_anew(team: Path, cache: Path) -> None:
    path: Any = fetch(DvcConfig(repo=str(team)), "data/rows.csv").path
    path.chmod(0o644)
    path.write_text("x,label\n9,z\n")  # it is a link to the kept one
    git(team, "commit", "-q", "--allow-empty", "-m", "later")
    assert fetch(DvcConfig(repo=str(team)), "data/rows.csv").path.read_text() == "x,label\n1,a\n"
