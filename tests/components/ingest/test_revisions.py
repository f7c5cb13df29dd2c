"""A real Git and DVC repository with a remote, on this disk: nothing is asked over a network."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from kfloop.components.ingest.git_revisions import shown
from kfloop.components.ingest.revisions import fetch
from kfloop.core.sections import DvcConfig
from kfloop.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Repository:
    folder: Path
    remote: Path
    first: str
    second: str


def _run(folder: Path, *command: str) -> str:
    identity = {
        f"GIT_{who}_{what}": "tester@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environment = os.environ | identity | {"DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def _commit(folder: Path, words: str) -> str:
    _run(folder, "git", "add", "-A")
    _run(folder, "git", "commit", "-q", "-m", words)
    return _run(folder, "git", "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Two commits: ``data/rows.csv`` and ``data/pictures`` under DVC, ``notes/plain.csv`` under Git alone; tag ``v1`` on the first."""
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("dvc")
    folder, remote = root / "team", root / "remote"
    folder.mkdir()
    _run(folder, "git", "init", "-q", "-b", "main")
    (folder / "data" / "pictures" / "cat").mkdir(parents=True)
    (folder / "notes").mkdir()
    (folder / "data" / "rows.csv").write_text("x,label\n1,a\n")
    (folder / "data" / "pictures" / "cat" / "one.txt").write_text("one")
    (folder / "notes" / "plain.csv").write_text("x,label\n7,plain\n")
    with Repo.init(str(folder)) as repo:
        with repo.config.edit() as config:
            config["core"]["analytics"] = False
            config["core"]["remote"] = "store"
            config["remote"]["store"] = {"url": str(remote)}
        repo.add([str(folder / "data" / "rows.csv"), str(folder / "data" / "pictures")])
        repo.push()
    first = _commit(folder, "first")
    _run(folder, "git", "tag", "-a", "v1", "-m", "v1")
    (folder / "data" / "rows.csv").write_text("x,label\n1,a\n2,b\n")
    with Repo(str(folder)) as repo:
        repo.add([str(folder / "data" / "rows.csv")])
        repo.push()
    second = _commit(folder, "second")
    return Repository(folder=folder, remote=remote, first=first, second=second)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KFLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_file_at_a_tag_and_at_the_default_branch(repository: Repository) -> None:
    old = fetch(DvcConfig(repo=str(repository.folder), rev="v1"), "data/rows.csv")
    new = fetch(DvcConfig(repo=str(repository.folder)), "data/rows.csv")

    assert (old.commit, new.commit) == (repository.first, repository.second)
    assert old.path.name == new.path.name == "rows.csv"
    assert old.path.read_text() == "x,label\n1,a\n"
    assert new.path.read_text() == "x,label\n1,a\n2,b\n"


def test_a_folder_and_a_file_that_only_git_knows(repository: Repository) -> None:
    dvc = DvcConfig(repo=str(repository.folder), rev=repository.first[:10])

    assert (fetch(dvc, "data/pictures/").path / "cat" / "one.txt").read_text() == "one"
    assert fetch(dvc, "notes/plain.csv").path.read_text() == "x,label\n7,plain\n"


def test_what_is_not_committed_is_not_seen(repository: Repository) -> None:
    plain = repository.folder / "notes" / "plain.csv"
    before = plain.read_text()
    plain.write_text("x,label\n8,changed\n")
    try:
        assert fetch(DvcConfig(repo=str(repository.folder)), "notes/plain.csv").path.read_text() == before
    finally:
        plain.write_text(before)


def test_a_repository_by_url(repository: Repository) -> None:
    url = repository.folder.as_uri()

    for rev, commit in ((None, repository.second), ("v1", repository.first), (repository.first[:12], repository.first)):
        found = fetch(DvcConfig(repo=url, rev=rev), "data/rows.csv")
        assert found.commit == commit
        assert len(found.path.read_text().splitlines()) == (3 if commit == repository.second else 2)


def test_clones_do_not_pile_up(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    fetch(DvcConfig(repo=repository.folder.as_uri()), "data/pictures")

    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_commit_fetched_before_needs_no_repository(repository: Repository, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(repository.folder, copy)
    dvc = DvcConfig(repo=copy.as_uri(), rev=repository.first)
    before = fetch(dvc, "data/rows.csv")
    shutil.rmtree(copy)

    assert fetch(dvc, "data/rows.csv") == before
    with pytest.raises(InputError, match="cannot be reached"):
        fetch(DvcConfig(repo=copy.as_uri()), "data/rows.csv")


def test_nothing_half_fetched_is_left_or_taken(repository: Repository, cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(repository.folder, copy)
    shutil.rmtree(copy / ".dvc" / "cache")
    settings = copy / ".dvc" / "config"
    settings.write_text(settings.read_text().replace(str(repository.remote), str(tmp_path / "empty")))
    _commit(copy, "remote that holds nothing")

    with pytest.raises(InputError, match=r"'data/rows\.csv' is in .* but its data could not be fetched") as caught:
        fetch(DvcConfig(repo=str(copy)), "data/rows.csv")

    assert "dvc push" in caught.value.hint
    assert [path for path in (cache / "dvc").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("data/row.csv", r"'data/row\.csv' is not in .*: no 'row\.csv' 'data' there", "did you mean 'rows.csv'?"),
        ("dato/rows.csv", "no 'dato' there", "did you mean 'data'?"),
        ("notes/plain.csv/x", "no 'plain.csv'|no 'x'", ""),
        ("../rows.csv", "is not inside the DVC repository", "data/train.csv"),
        ("/etc/passwd", "is not inside the DVC repository", "data/train.csv"),
    ],
)
def test_no_such_path(path: str, message: str, hint: str, repository: Repository) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fetch(DvcConfig(repo=str(repository.folder)), path)
    assert hint in caught.value.hint


@pytest.mark.parametrize("by_url", [False, True])
@pytest.mark.parametrize(
    ("rev", "hint"),
    [
        ("v2", "did you mean 'v1'?"),
        ("mainn", "did you mean 'main'?"),
        ("-x", ""),
        ("", ""),
        ("f" * 40, ""),
        ("abcdef1", ""),
    ],
)
def test_no_such_revision(rev: str, hint: str, by_url: bool, repository: Repository) -> None:
    repo = repository.folder.as_uri() if by_url else str(repository.folder)

    with pytest.raises(InputError, match=rev or "''") as caught:
        fetch(DvcConfig(repo=repo, rev=rev), "data/rows.csv")
    assert hint in caught.value.hint


def test_no_such_repository(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'.*tem' does not exist") as caught:
        fetch(DvcConfig(repo=str(repository.folder.parent / "tem")), "data/rows.csv")
    assert "did you mean 'team'?" in caught.value.hint

    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="is no Git repository"):
        fetch(DvcConfig(repo=str(tmp_path / "folder")), "data/rows.csv")


def test_a_password_in_a_url_is_never_shown() -> None:
    assert shown("https://me:secret@host.org/team/data.git") == "https://host.org/team/data.git"
    assert shown("git@host.org:team/data.git") == "git@host.org:team/data.git"
