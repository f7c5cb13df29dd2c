"""DVC: every dataset version is tracked, pushed to a remote, and can be brought back.

kfloop keeps a DVC repository of its own at ``.kfloop/dvc`` (without git), so that a repository of the user is never touched. A version's
folder lies in the store; hard links to its files (copies where the disk has none) are added as ``datasets/<digest>`` and go again once the
pointer file ``datasets/<digest>.dvc`` and the remote hold them; DVC's cache is emptied then, so that a version lies on the disk twice (store and
remote), not three times. The remote is the folder ``.kfloop/dvc-remote``, or ``dvc`` below the store where that is in S3; pointer files are kept
there, too, so that a folder that was lost loses no version. A kill at any point leaves a repository that the next call mends, because each call starts
from the store's files, and what the remote has is not sent again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.addresses import redacted, resolved
from kfloop.core.object_errors import failure
from kfloop.core.store import Store
from kfloop.core.versions import verify_version
from kfloop.errors import KfloopError, StateError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def remote_of(workspace: Workspace) -> str:
    """Where versions are pushed: a folder, or ``s3://...``; a loop that had the folder before its store came to S3 keeps it."""
    folder = workspace.kfloop_dir / "dvc-remote"
    elsewhere = workspace.store.startswith("s3://") and not folder.is_dir()
    return f"{workspace.store.rstrip('/')}/dvc" if elsewhere else str(folder)


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
        TransientError: Another process works in the DVC repository, or the remote cannot be reached.
        ConfigError: A package that the remote needs is missing.
        StateError: DVC failed, or the remote refuses.
    """
    digest = folder.name
    pointer = pointer_of(digest, workspace)
    with _repository(workspace) as repo:
        place = pointer.with_suffix("")
        _mirror(folder, place)
        repo.add(str(place))
        with _reached(workspace, f"dataset version '{digest}' cannot be pushed"):
            pushed = repo.push(targets=[str(pointer)], remote=REMOTE)
            _keep_pointer(repo, pointer)
        shutil.rmtree(place)
        shutil.rmtree(repo.cache.local.path, ignore_errors=True)
    return Tracked(digest=digest, pointer=pointer, pushed=int(pushed or 0))


def restore(digest: str, workspace: Workspace) -> Path:
    """Bring a tracked version back into the store from DVC's cache or remote, and prove that it is the same.

    Raises:
        StateError: The version was never tracked, the remote lost it or refuses, or what came back is damaged.
        TransientError: Another process works in the DVC repository, or the remote cannot be reached; what came is kept for the next call.
    """
    store = Store.of(workspace)
    if store.has(KIND, digest):
        return verify_version(store.path(KIND, digest)).folder
    pointer = pointer_of(digest, workspace)
    if not pointer.is_file():
        with _repository(workspace) as repo, _reached(workspace, f"dataset version '{digest}' cannot be looked for"):
            _bring_pointer(repo, pointer)
    if not pointer.is_file():
        known = sorted(path.stem for path in pointer.parent.glob("*.dvc"))
        raise StateError(
            f"dataset version '{digest}' was never tracked: no '{pointer}'",
            hint=f"tracked: {', '.join(known) or 'none'}",
            digest=digest,
        )
    with _repository(workspace) as repo:
        place = pointer.with_suffix("")
        shutil.rmtree(place, ignore_errors=True)
        with _reached(workspace, f"dataset version '{digest}' cannot be pulled"):
            repo.pull(targets=[str(pointer)], remote=REMOTE, force=True)
        verify_version(place)
        path = store.publish(place, KIND, digest)
        shutil.rmtree(place)
        shutil.rmtree(repo.cache.local.path, ignore_errors=True)
    return path


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
                _create(root, remote_of(workspace))
            remote = remote_of(workspace)
            if "://" not in remote:
                Path(remote).mkdir(exist_ok=True)
            settings = {
                "core": {"site_cache_dir": str(workspace.kfloop_dir / "dvc-index")},
                "remote": {REMOTE: {"url": resolved(remote)}},
            }
            repo = Repo(str(root), config=settings)
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


@contextlib.contextmanager
def _reached(workspace: Workspace, message: str) -> Iterator[None]:
    """What a remote elsewhere does wrong, by its name; of the own folder DVC's words are enough."""
    remote = remote_of(workspace)
    try:
        yield
    except Exception as error:
        if "://" not in remote or isinstance(error, KfloopError):
            raise
        absent = f"is the bucket of '{redacted(remote)}' there? if objects were deleted in it, ingest the data again"
        told = f"{message}: DVC's remote '{redacted(remote)}'"
        raise failure(error, remote, told, absent=absent, terminal=StateError) from error


def _keep_pointer(repo: Any, pointer: Path) -> None:
    remote = repo.cloud.get_remote(REMOTE)
    place = remote.fs.join(remote.path, KIND, pointer.name)
    remote.fs.makedirs(remote.fs.parent(place), exist_ok=True)
    remote.fs.put_file(str(pointer), place)


def _bring_pointer(repo: Any, pointer: Path) -> None:
    remote = repo.cloud.get_remote(REMOTE)
    staging = pointer.with_suffix(".tmp")
    with contextlib.suppress(FileNotFoundError):
        remote.fs.get_file(remote.fs.join(remote.path, KIND, pointer.name), str(staging))
        staging.replace(pointer)


def _create(root: Path, remote: str) -> None:
    """Make the repository under another name, so that a kill leaves either none or a whole one."""
    staging = root.with_name("dvc.new")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
    (staging / ".dvc").mkdir(parents=True)
    (staging / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    autostage = false\n    check_update = false\n"
        f"    remote = {REMOTE}\n"
        "[cache]\n    type = reflink,hardlink,copy\n    slow_link_warning = false\n"
        # For people who call dvc here; kfloop tells it when it opens the repository, for the store may move or refer to the environment.
        f"['remote \"{REMOTE}\"']\n    url = {remote if '://' in remote else '../../dvc-remote'}\n",
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
