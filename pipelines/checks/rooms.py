"""The rooms of components: everything on disk, its files, its list, its shell, and what its README promises."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.pipelines.checks.rules import Finding
from kfloop.pipelines.checks.shells import read_shell, shell_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.pipelines.checks.shells import Shell

LIST = "README.md"
FURNITURE = ("__init__.py", "component.py", "README.md")
LISTED = re.compile(r"\]\((?P<name>[A-Za-z0-9_-]+)/README\.md\)")
CODE = re.compile(r"(?P<before>\bsections?\s+)?`(?P<name>[^`\s]+)`")
# Plumbing of every step, described once for all of them.
COMMON = frozenset({"workspace", "config_json", "status"})


@dataclass(frozen=True, kw_only=True)
class Room:
    """One component's folder and its shells.

    Attributes:
        folder: The folder.
        shells: The KFP components that component.py defines; empty when it could not be read.
    """

    folder: Path
    shells: tuple[Shell, ...]


def rooms_of(folder: Path) -> list[Path]:
    """Every folder of ``folder`` that is, or should be, a component; none is left out for lacking a file."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith((".", "__")) and any(_files(path))
    )


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def check_rooms(folder: Path) -> tuple[list[Room], list[Finding]]:
    """Check a folder of components.

    Args:
        folder: ``components/``.

    Returns:
        The rooms found on disk, and what is wrong with them.
    """
    folders = rooms_of(folder)
    if not folders:
        return [], [Finding(folder, 1, "components-none", f"'{folder}' holds no component")]
    rooms, findings = [], list(_unlisted(folder, folders))
    for path in folders:
        missing = [name for name in FURNITURE if not (path / name).is_file()]
        findings += [Finding(path, 1, "room-incomplete", f"component '{path.name}' has no {name}") for name in missing]
        shells: tuple[Shell, ...] = ()
        if "component.py" not in missing:
            shells, wrong = read_shell(path / "component.py")
            findings += wrong
            for shell in shells:
                findings += shell_findings(shell)
            if "README.md" not in missing:
                findings += _readme(path / "README.md", shells)
        rooms.append(Room(folder=path, shells=shells))
    return rooms, findings


def furnish(folder: Path) -> list[Path]:
    """Write what a room lacks and nobody has to think about: its ``__init__.py``, and its line in the list.

    Returns:
        The files written.
    """
    written = []
    folders = rooms_of(folder)
    for path in folders:
        marker = path / "__init__.py"
        if not marker.exists():
            marker.write_text(f'"""Component {path.name}."""\n', encoding="utf-8")
            written.append(marker)
    listing = folder / LIST
    try:
        text = listing.read_text(encoding="utf-8") if listing.exists() else f"# {folder.name}\n\n| component |\n|---|\n"
    except UnicodeDecodeError:
        return written  # writing it again would lose what it holds
    lines = text.splitlines()
    for path in folders:
        if path.name not in {match["name"] for match in LISTED.finditer("\n".join(lines))}:
            rows = [number for number, line in enumerate(lines) if line.startswith("|")]
            last = rows[-1] if rows else len(lines) - 1
            width = lines[last].count("|") - 1 if rows else 1
            lines.insert(last + 1, f"| [{path.name}]({path.name}/{LIST}) |" + " |" * (width - 1))
    if folders and "\n".join(lines) != text.rstrip("\n"):
        listing.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.append(listing)
    return written


def _unlisted(folder: Path, folders: list[Path]) -> Iterator[Finding]:
    """Differences between the folders and the list in the folder's README, both ways."""
    listing = folder / LIST
    if not listing.is_file():
        yield Finding(folder, 1, "room-unlisted", f"'{folder}' has no {LIST} that lists its components")
        return
    listed: dict[str, int] = {}
    for number, text in enumerate(listing.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        for match in LISTED.finditer(text):
            listed.setdefault(match["name"], number)
    found = {path.name for path in folders}
    for name in sorted(found - set(listed)):
        yield Finding(listing, 1, "room-unlisted", f"component '{name}' is on disk and not in {LIST}")
    for name in sorted(set(listed) - found):
        yield Finding(listing, listed[name], "room-unlisted", f"component '{name}' is in {LIST} and not on disk")


def _readme(path: Path, shells: tuple[Shell, ...]) -> Iterator[Finding]:
    """What the signatures have and the README does not name; what its rows of inputs name and no signature has."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    named = {match["name"] for text in lines for match in CODE.finditer(text)}
    for shell in shells:
        for name in sorted(shell.inputs | shell.outputs):
            if name not in named and name not in COMMON and not name.endswith("_digest"):
                what = "output" if name in shell.outputs else "input"
                yield Finding(path, 1, "readme-signature", f"{what} '{name}' of '{shell.name}' is not named")
    known = {name for shell in shells for name in shell.inputs}
    for number, text in enumerate(lines, 1):
        if not shells or not re.match(r"\|\s*in\s*\|", text):
            continue
        row = text.split("|")[2]
        for match in CODE.finditer(re.sub(r"\([^)]*\)", "", row)):
            name = match["name"]
            if not match["before"] and name.isidentifier() and name not in known:
                yield Finding(
                    path, number, "readme-signature", f"'{name}' stands among the inputs, and no shell takes it"
                )
