"""What a revision of a Git repository is called now: branches, tags and commits, asked of git itself."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from kfloop.errors import InputError, TransientError, nearest

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ABBREVIATED = re.compile(r"[0-9a-f]{7,39}")
_SECONDS = 60.0  # longest wait for a Git server to name its branches


def shown(repo: str) -> str:
    """The URL of a repository without user and password: fit for messages and records."""
    parts = urlsplit(repo)
    if "://" not in repo or "@" not in parts.netloc:
        return repo
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def repository_place(repo: str) -> str:
    """The repository as an absolute path or an unchanged URL.

    Raises:
        InputError: It is neither a folder that exists nor a URL.
    """
    if not repo or repo.startswith("-"):
        raise InputError(f"data.dvc.repo is '{repo}': expected the path or the URL of a Git repository")
    if "://" in repo or re.match(r"[^/]+@[^/]+:", repo):
        return repo
    folder = Path(repo).expanduser().absolute()
    if not folder.is_dir():
        beside = [other.name for other in folder.parent.iterdir() if other.is_dir()] if folder.parent.is_dir() else []
        hint = nearest(folder.name, beside) if beside else "give its path, or a URL such as https://host/team/data.git"
        raise InputError(f"data.dvc.repo '{repo}' does not exist: expected a Git repository", hint=hint, repo=repo)
    return str(folder)


def _git(*arguments: str) -> str:
    """Output of git, which must not ask for a password.

    Raises:
        InputError: Git failed, with its last line as the message.
        TransientError: It took too long.
    """
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            check=False,
            text=True,
            timeout=_SECONDS,
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise InputError("git is not installed, but data.dvc needs it", hint="install git") from error
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"no answer within {_SECONDS:.0f} s to: git {arguments[0]}") from error
    if done.returncode:
        raise InputError((done.stderr.strip().splitlines() or ["git failed"])[-1])
    return done.stdout


def commit_of(repo: str, rev: str | None) -> str | None:
    """The commit that ``rev`` names now; None if only a clone can tell (an abbreviated commit of a remote repository)."""
    if rev is not None and (not rev or rev.startswith("-")):
        raise InputError(f"data.dvc.rev is '{rev}': expected a commit, tag or branch")
    if rev is not None and _COMMIT.fullmatch(rev):
        return rev
    return _local_commit(repo, rev) if Path(repo).is_dir() else _remote_commit(repo, rev)


def _local_commit(repo: str, rev: str | None) -> str:
    try:
        _git("-C", repo, "rev-parse", "--git-dir")
    except InputError as error:
        raise InputError(
            f"data.dvc.repo '{repo}' is no Git repository: {error.message}", hint="name the folder that holds .git"
        ) from error
    try:
        return _git("-C", repo, "rev-parse", "--verify", "--quiet", f"{rev or 'HEAD'}^{{commit}}").strip()
    except InputError as error:
        names = _git("-C", repo, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads", "refs/tags").split()
        raise no_revision(repo, rev, names) from error


def _remote_commit(repo: str, rev: str | None) -> str | None:
    try:
        lines = _git("ls-remote", "--", repo).splitlines()
    except InputError as error:
        raise InputError(
            f"data.dvc.repo '{shown(repo)}' cannot be reached: {error.message.replace(repo, shown(repo))}",
            hint="mend the URL or the network; a commit (40 hexadecimal digits) that was fetched before needs neither",
        ) from error
    refs = {name: commit for commit, _, name in (line.partition("\t") for line in lines)}
    wanted = ("HEAD",) if rev is None else (f"refs/tags/{rev}^{{}}", f"refs/tags/{rev}", f"refs/heads/{rev}", rev)
    found = next((refs[name] for name in wanted if name in refs), None)
    if found is None and not (rev and _ABBREVIATED.fullmatch(rev)):
        raise no_revision(shown(repo), rev, _short_names(refs))
    return found


def _short_names(refs: dict[str, str]) -> list[str]:
    kinds = ("refs/heads/", "refs/tags/")
    return [name.split("/", 2)[2] for name in refs if name.startswith(kinds) and not name.endswith("^{}")]


def no_revision(repo: str, rev: str | None, names: list[str]) -> InputError:
    """The error for a revision that is not there.

    Args:
        repo: Repository.
        rev: What was asked for; null means the default branch.
        names: Branches and tags that it has.
    """
    if rev is None:
        return InputError(
            f"'{shown(repo)}' has no commit yet", hint="commit something, or name a branch in data.dvc.rev"
        )
    return InputError(
        f"data.dvc.rev '{rev}' is no commit, tag or branch of '{shown(repo)}'",
        hint=nearest(rev, names) if names else "it has no branch or tag",
        rev=rev,
    )
