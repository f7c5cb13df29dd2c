"""Files of a DVC repository, from Git or from DVC's cache or remote, whichever holds them.

Each file is checked against the hash that the revision names and kept under it, so that a fetch which was cut off goes on with the files that are
missing, and another revision fetches only what changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kfloop.core.addresses import redacted
from kfloop.core.object_errors import failure, kind_of
from kfloop.errors import InputError, KfloopError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

AT_ONCE = 8
NO_REMOTE = "auto-generated-upstream"  # DVC's word for the cache of a repository on this disk
READ_ONLY = 0o444
HASHES = (
    "md5",
    "md5-dos2unix",
)  # what DVC names a file by; remotes that keep versions of their own have no hash of a content


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One file of the repository.

    Attributes:
        path: Its path there.
        name: Its path below what was asked for; empty for that itself.
        hashed: Name of the hash and its value; null for a file that Git holds.
    """

    path: str
    name: str
    hashed: tuple[str, str] | None


def bring(opened: Any, inside: str, to: Path, *, kept: Path, repo: str, commit: str) -> None:
    """Copy a file or folder out of the repository.

    Args:
        opened: DVC's repository at a revision.
        inside: File or folder, relative to its root.
        to: Place of the copy, not there yet.
        kept: Folder on the same disk of files by their hash, made when it is not there.
        repo: The repository as it may be shown.
        commit: The revision.

    Raises:
        InputError: There is no such path; the remote lacks a file, refuses, or gives something else than the revision names.
        ConfigError: A package that the remote needs is missing.
        TransientError: The remote cannot be reached; what came is kept.
    """
    files, (name, url) = opened.dvcfs, _remote(opened)
    remote = f"DVC's remote '{name}' ({redacted(url)})"
    message = f"'{inside}' is in '{repo}' at {commit[:12]}, but its data could not be fetched"
    try:
        wanted = list(_wanted(files, inside, repo, commit))
        if [one.name for one in wanted] != [""]:
            to.mkdir(parents=True)
        bring_all([partial(_bring, files, one, to / one.name, kept, remote) for one in wanted])
    except KfloopError:
        raise
    except Exception as error:
        if not name and kind_of(error) == "absent":
            hint = "`dvc remote add -d NAME URL`, `dvc push`, and commit .dvc/config"
            raise InputError(f"{message}: the repository names no DVC remote", hint=hint) from error
        hint = "run `dvc push` where they were added"
        if kind_of(error) == "absent" and (top := _absent_top(opened, name)):
            hint = f"there is no '{top}': make it and {hint}, or mend the url of remote '{name}' in .dvc/config"
        raise failure(error, url, f"{message} from {remote}", absent=hint) from error


def _wanted(files: Any, inside: str, repo: str, commit: str) -> Iterator[Wanted]:
    try:
        whole = files.info(inside)
    except FileNotFoundError as error:
        raise _no_path(files, inside, repo, commit) from error
    if whole["type"] != "directory":
        yield Wanted(path=inside, name="", hashed=_hash(whole))
        return
    # DVC's own fsspec file system: the one around it tells no hashes.
    for path, info in sorted(files.fs.find(inside, detail=True).items()):
        name = PurePosixPath("/", path).relative_to(PurePosixPath("/", inside)).as_posix()
        yield Wanted(path=path, name=name, hashed=_hash(info))


def _hash(info: dict[str, Any]) -> tuple[str, str] | None:
    if info.get("fs_info"):  # Git's own: it answers for that
        return None
    return next(((name, str(info[name])) for name in HASHES if info.get(name)), None)


def _bring(files: Any, wanted: Wanted, place: Path, kept: Path, remote: str) -> None:
    """One file, checked; it appears among the kept ones whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if wanted.hashed is None:
        files.get_file(wanted.path, str(place))
        return
    name, value = wanted.hashed
    if re.fullmatch(r"[0-9a-f]{32}", value) is None:
        raise InputError(f"'{wanted.path}' has the {name} '{value}' in its .dvc file: expected 32 hexadecimal digits")
    held = kept / value[:2] / f"{value[2:]}.{name}"
    if not held.is_file() or _hash_of(held, name) != value:
        with arriving(held) as staging:
            files.get_file(wanted.path, str(staging))
            found = _hash_of(staging, name)
            if found != value:
                raise InputError(
                    f"what {remote} gives for '{wanted.path}' is not what was put there: its {name} is {found}, expected {value}",
                    hint="delete that object there (and in .dvc/cache of the repository), then `dvc push` from where the file is whole",
                )
    hand_out(held, place)


def bring_all(calls: Iterable[Callable[[], None]]) -> None:
    """Bring several files at a time; after a failure no other one is begun."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        tasks = [threads.submit(call) for call in calls]
        try:
            for task in tasks:
                task.result()
        finally:
            for task in tasks:
                task.cancel()


@contextlib.contextmanager
def arriving(held: Path) -> Iterator[Path]:
    """A place to fetch to; what is there at the end of the block is kept as ``held``, whole or not at all, and never written again."""
    held.parent.mkdir(parents=True, exist_ok=True)
    staging = held.with_name(f".tmp-{uuid.uuid4().hex[:12]}")
    try:
        yield staging
        staging.chmod(READ_ONLY)  # what is handed out is a link to it
        staging.replace(held)
    finally:
        staging.unlink(missing_ok=True)


def hand_out(held: Path, place: Path) -> None:
    """Let a kept file stand at ``place``, too."""
    try:
        os.link(held, place)
    except OSError:  # a disk without hard links
        shutil.copyfile(held, place)


def _hash_of(path: Path, name: str) -> str:
    from dvc_data.hashfile.hash import file_md5

    return str(file_md5(str(path), name=name))


def _remote(opened: Any) -> tuple[str, str]:
    """Name and URL of the remote that DVC takes; empty where the repository names none."""
    name = opened.config["core"].get("remote") or ""
    settings = opened.config["remote"].get(name)
    if not settings or name == NO_REMOTE:
        return "", ""
    return name, str(settings["url"])


def _absent_top(opened: Any, name: str) -> str | None:
    """The bucket or folder of a remote that is not there; null where it is, or where nobody can tell."""
    try:
        remote = opened.cloud.get_remote(name)
        top = remote.path if remote.fs.protocol == "local" else remote.path.strip("/").split("/")[0]
        return None if remote.fs.exists(top) else str(top)
    except Exception:  # noqa: BLE001 - only a hint is at stake
        return None


def _no_path(files: Any, inside: str, repo: str, commit: str) -> InputError:
    """What is missing, with the nearest name in the deepest folder that exists."""
    parts = PurePosixPath(inside).parts
    for depth in range(len(parts) - 1, -1, -1):
        folder = "/".join(parts[:depth])
        try:
            names = [PurePosixPath(name).name for name in files.ls(folder or "/", detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            continue
        names = sorted(name for name in names if not name.startswith("."))
        where = f"'{folder}' there" if folder else "there"
        return InputError(
            f"'{inside}' is not in '{repo}' at {commit[:12]}: no '{parts[depth]}' {where}",
            hint=nearest(parts[depth], names) if names else "it is empty",
            path=inside,
        )
    return InputError(f"'{inside}' is not in '{repo}' at {commit[:12]}", path=inside)
