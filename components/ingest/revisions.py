"""Files and folders of a DVC repository at one revision, kept in a cache of the user so that they come over the network once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kfloop.components.ingest.git_revisions import commit_of, no_revision, repository_place, shown
from kfloop.components.ingest.remote_files import bring
from kfloop.core.artifacts import DIGEST_LENGTH
from kfloop.errors import InputError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.core.sections import DvcConfig

CACHE_VARIABLE = "KFLOOP_CACHE"
CONTENT = "content"
FILES = "files"
LEFT_S = 86_400.0
ORIGIN = "origin.json"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file or folder of a repository, on this disk.

    Attributes:
        path: Where it lies; not to be changed.
        commit: The commit it belongs to, 40 hexadecimal digits.
    """

    path: Path
    commit: str


def fetch(dvc: DvcConfig, path: str) -> Fetched:
    """Bring ``path`` of a DVC or plain Git repository, as it was at a revision, to this disk.

    A commit that was fetched before is taken from the cache without asking anybody. A branch or tag of a remote repository is looked
    up again each time (it may have moved), its data are not.

    Args:
        dvc: Repository and revision.
        path: File or folder, relative to the root of the repository.

    Raises:
        InputError: No such repository, revision or path; data that the DVC remote does not hold, refuses, or holds damaged.
        ConfigError: A package that the DVC remote needs is missing.
        TransientError: The network failed; run again, it goes on with the files that are missing.
    """
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    repo, inside = repository_place(dvc.repo), _inside(path)
    commit = commit_of(repo, dvc.rev)
    if commit is not None and (kept := _kept(repo, commit, inside)) is not None:
        return Fetched(path=kept, commit=commit)
    with _opened(repo, commit or dvc.rev, dvc.rev) as opened:
        commit = commit or str(opened.get_rev())
        entry = _entry(repo, commit, inside)
        entry.parent.mkdir(parents=True, exist_ok=True)
        sweep(entry.parent)
        with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".fetch-", ignore_cleanup_errors=True) as staging:
            (Path(staging) / CONTENT).mkdir()
            to = Path(staging) / CONTENT / _leaf(inside)
            bring(opened, inside, to, kept=cache_root() / FILES, repo=shown(repo), commit=commit)
            origin = {"repo": shown(repo), "commit": commit, "path": inside}
            (Path(staging) / ORIGIN).write_text(json.dumps(origin, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            publish(Path(staging), entry)
    return Fetched(path=entry / CONTENT / _leaf(inside), commit=commit)


def cache_root() -> Path:
    """Folder of everything fetched: ``$KFLOOP_CACHE/dvc``, or ``kfloop/dvc`` in the user's cache."""
    told = os.environ.get(CACHE_VARIABLE)
    if told:
        return Path(told).expanduser() / "dvc"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "kfloop" / "dvc"


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not path:
        raise InputError(
            f"data.source '{path}' is not inside the DVC repository: expected a path relative to its root",
            hint="with data.dvc, data.source is a path such as data/train.csv",
        )
    return parts.as_posix()


@contextmanager
def _opened(repo: str, rev: str | None, told: str | None) -> Iterator[Any]:
    """The repository at a revision; what DVC raises while opening it becomes an error that names what was told."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.open_repo import clean_repos
    from dvc.scm import CloneError, RevError

    try:
        with Repo.open(url=repo, rev=rev, subrepos=True, uninitialized=True) as opened:
            yield opened
    except RevError as error:
        raise no_revision(repo, told or rev, []) from error
    except CloneError as error:
        raise TransientError(f"'{shown(repo)}' could not be cloned: {error}", hint="look at the network") from error
    except DvcException as error:
        raise InputError(f"data.dvc.repo '{shown(repo)}' cannot be opened: {error}") from error
    finally:
        clean_repos()  # DVC clones a remote repository into the temporary folder and leaves that to its command line to remove


def sweep(root: Path) -> None:
    """Delete what a fetch that was killed left behind more than a day ago."""
    for path in (*root.glob(".fetch-*"), *root.glob(f"{FILES}/*/.tmp-*")):
        with suppress(FileNotFoundError):  # somebody else was faster
            if path.stat().st_mtime < time.time() - LEFT_S:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _entry(repo: str, commit: str, inside: str) -> Path:
    key = hashlib.sha256(f"{shown(repo)}\0{commit}\0{inside}".encode()).hexdigest()[:DIGEST_LENGTH]
    return cache_root() / key


def _kept(repo: str, commit: str, inside: str) -> Path | None:
    path = _entry(repo, commit, inside) / CONTENT / _leaf(inside)
    return path if path.exists() else None


def _leaf(inside: str) -> str:
    """Name under which a path is kept: its own, so that readers see the right suffix."""
    return PurePosixPath(inside).name or "repository"


def publish(staging: Path, entry: Path) -> None:
    """Make the fetched content appear whole; somebody else may have been faster with the same."""
    ready = staging / "ready"
    ready.mkdir()
    for name in (CONTENT, ORIGIN):
        (staging / name).rename(ready / name)
    try:
        ready.rename(entry)
    except OSError:
        if not (entry / CONTENT).is_dir():
            raise
