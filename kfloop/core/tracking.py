"""DVC: every dataset version is tracked and pushed to a remote, from which DVC's own commands bring it back (``components/ingest/README.md``).

kfloop keeps a DVC repository of its own at ``.kfloop/dvc`` (without git), so that a repository of the user is never touched. A version's
folder lies in the store; hard links to its files (copies where the disk has none) are added as ``datasets/<digest>`` and go again once the
pointer file ``datasets/<digest>.dvc`` and the remote hold them; DVC's cache is emptied then, so that a version lies on the disk twice (store and
remote), not three times. The default remote is the folder ``.kfloop/dvc-remote``. A kill
at any point leaves a repository that the next call mends, because each call starts from the store's files.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.errors import StateError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kfloop.core.workspace import Workspace

REMOTE = "kfloop"
KIND = "datasets"


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A tracked version.

    Attributes:
        digest: The version.
        pointer: Its ``.dvc`` file.
        pushed: Objects sent to the remote now; 0 when it had them all.
    """

    digest: str
    pointer: Path
    pushed: int


def pointer_of(digest: str, workspace: Workspace) -> Path:
    """Place of the pointer file of a version, whether or not it is there."""
    return workspace.kfloop_dir / "dvc" / KIND / f"{digest}.dvc"


def tracked_digests(workspace: Workspace) -> list[str]:
    """Digests of the tracked versions, newest first."""
    pointers = (workspace.kfloop_dir / "dvc" / KIND).glob("*.dvc")
    return [path.stem for path in sorted(pointers, key=lambda path: (-path.stat().st_mtime_ns, path.name))]


def track(folder: Path, workspace: Workspace) -> Tracked:
    """Put a published dataset version under DVC and push it to the remote; repeating it changes nothing.

    Args:
        folder: The version in the store; its name is its digest.
        workspace: Places of the loop.

    Raises:
        TransientError: Another process works in the DVC repository.
        StateError: DVC failed.
    """
    digest = folder.name
    pointer = pointer_of(digest, workspace)
    with _repository(workspace) as repo:
        place = pointer.with_suffix("")
        _mirror(folder, place)
        repo.add(str(place))
        pushed = repo.push(targets=[str(pointer)], remote=REMOTE)
        shutil.rmtree(place)
        shutil.rmtree(repo.cache.local.path, ignore_errors=True)
    return Tracked(digest=digest, pointer=pointer, pushed=int(pushed or 0))


@contextlib.contextmanager
def _repository(workspace: Workspace) -> Iterator[Any]:
    """The own DVC repository, made when it is not there, held by one process at a time."""
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # after the import, which sets its own level and speaks on stdout
    root = workspace.kfloop_dir / "dvc"
    try:
        with _own_lock(workspace):
            if not (root / ".dvc" / "config").is_file():
                _create(root, workspace.kfloop_dir / "dvc-remote")
            repo = Repo(str(root), config={"core": {"site_cache_dir": str(workspace.kfloop_dir / "dvc-index")}})
            try:
                yield repo
            finally:
                repo.close()
    except LockError as error:
        raise TransientError(
            f"another process works in the DVC repository '{root}'", hint="wait for it to end, then run again"
        ) from error
    except DvcException as error:
        raise StateError(
            f"DVC failed in '{root}': {type(error).__name__}: {error}",
            hint="look at that folder with the dvc command; it can be deleted, then versions are tracked anew",
        ) from error


@contextlib.contextmanager
def _own_lock(workspace: Workspace) -> Iterator[None]:
    """One tracker at a time: DVC locks single commands, while a version takes several."""
    from dvc.lock import Lock

    path = workspace.kfloop_dir / "dvc.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(
        str(path), wait=False
    )  # tries for three seconds, then gives up; freed by the kernel when its process dies
    with lock:
        yield


def _create(root: Path, remote: Path) -> None:
    """Make the repository under another name, so that a kill leaves either none or a whole one."""
    staging = root.with_name("dvc.new")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
    (staging / ".dvc").mkdir(parents=True)
    remote.mkdir(exist_ok=True)
    (staging / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    autostage = false\n    check_update = false\n"
        f"    remote = {REMOTE}\n"
        "[cache]\n    type = reflink,hardlink,copy\n    slow_link_warning = false\n"
        f"['remote \"{REMOTE}\"']\n    url = ../../dvc-remote\n",
        encoding="utf-8",
    )
    (staging / KIND).mkdir()
    staging.rename(root)


def _mirror(folder: Path, place: Path) -> None:
    """The files of ``folder`` at ``place``, as hard links where possible."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        try:
            os.link(path, place / path.name)
        except OSError:  # another file system, or one without hard links
            shutil.copy2(path, place / path.name)
