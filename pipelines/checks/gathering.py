"""What stands under the paths given: folders of components, loop files, pipelines compiled and as Python; and what is nothing of these."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.errors import ConfigError, InputError
from kfloop.pipelines.checks.documents import EmptyFileError, read_documents
from kfloop.pipelines.checks.reading import Ir, read_ir
from kfloop.pipelines.checks.rooms import LIST, LISTED
from kfloop.pipelines.checks.rules import Finding
from kfloop.pipelines.checks.sources import Source, sources_in, unparsed, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOOP = "loop.yaml"
COMPONENTS = "components"
SUFFIXES = frozenset({".yaml", ".yml", ".json"})
SKIPPED = frozenset({"__pycache__", "build", "dist", "node_modules", "site-packages", "tests", "venv"})
MOST_BYTES = 50_000_000  # data, not a pipeline: the API server takes far less
IR_MARK = re.compile(r'^\s*"?(pipelineInfo|deploymentSpec)"?\s*:|^# PIPELINE DEFINITION', re.MULTILINE)


@dataclass(kw_only=True)
class Targets:
    """What there is to check.

    Attributes:
        components: Folders of components.
        loops: Loop files that are not empty.
        pipelines: Compiled pipelines that could be read.
        sources: Pipelines as Python that no other one nests.
        findings: What could not be read, and paths that hold nothing.
    """

    components: list[Path] = field(default_factory=list)
    loops: list[Path] = field(default_factory=list)
    pipelines: list[Ir] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def gather(paths: Sequence[Path]) -> Targets:
    """Find what stands under ``paths``, each of which must hold something.

    Raises:
        ConfigError: A path does not exist.
    """
    targets = Targets()
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise ConfigError(
                f"there is no '{path}' to check", hint="name a folder, a loop file or a compiled pipeline"
            )
        found = [path] if path.is_file() else [*_component_folders(path), *_files(path)]
        if not found:
            targets.findings.append(Finding(path, 1, "nothing-found", f"'{path}' holds nothing to check"))
        for item in found:
            if item.resolve() not in seen:
                seen.add(item.resolve())
                _add(targets, item)
    targets.sources = whole(targets.sources)
    return targets


def _component_folders(path: Path) -> list[Path]:
    """The one at the top of the folder; else the folder itself when it is one of components, or that of a component."""
    if (path / "component.py").is_file():
        return [path.parent]
    inside = path / COMPONENTS
    if inside.is_dir() and path.name != COMPONENTS:
        return [inside] if _holds_rooms(inside) else []
    project = (path / ".git").exists()
    named = path.name == COMPONENTS and _holds_rooms(path)
    return [path] if named or (any(path.glob("*/component.py")) and not project) else []


def _holds_rooms(folder: Path) -> bool:
    """Whether a folder called ``components`` holds a folder for each component: it has one, lists some, or is empty.

    Others call modules, images, manifests or parts of a web page so.
    """
    listing = folder / LIST
    listed = listing.is_file() and LISTED.search(listing.read_text(encoding="utf-8", errors="replace"))
    return bool(any(folder.glob("*/component.py")) or listed or not any(folder.iterdir()))


def _files(folder: Path) -> Iterator[Path]:
    """Loop files, pipelines, and empty YAML files, which may be either; links are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("."))
        for name in sorted(names):
            file = Path(place) / name
            compiled = file.suffix in SUFFIXES and _is_candidate(file)
            if name == LOOP or compiled or (file.suffix == ".py" and _is_source(file)):
                yield file


def _is_source(file: Path) -> bool:
    """Whether a module defines pipelines of somebody else than kfloop, or would if it could be read."""
    return not is_own_module(file) and bool(sources_in(file) or unparsed(file))


def is_own_module(file: Path) -> bool:
    """Whether kfloop defines what is in a module: ``kfloop compile`` compiles that, with what a cluster needs."""
    import kfloop

    return file.resolve().is_relative_to((Path(kfloop.__file__).parent / "pipelines").resolve())


def _is_candidate(file: Path) -> bool:
    try:
        if file.stat().st_size > MOST_BYTES:
            return False
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return bool(IR_MARK.search(text)) or (file.suffix != ".json" and not text.strip())


def _add(targets: Targets, item: Path) -> None:
    if item.is_dir():
        targets.components.append(item)
        return
    if item.suffix == ".py":
        found = sources_in(item)
        targets.sources += found
        if not found:
            nothing = Finding(item, 1, "nothing-found", f"'{item}' defines no pipeline at its top")
            targets.findings.append(unparsed(item) or nothing)
        return
    try:
        documents = read_documents(item)
        content = documents[0][0]
        if item.name == LOOP or (isinstance(content, dict) and "name" in content and "root" not in content):
            targets.loops.append(item)
        else:
            targets.pipelines.append(read_ir(item, documents))
    except EmptyFileError as error:
        rule = "loop-empty" if item.name == LOOP else "ir-empty"
        targets.findings.append(Finding(item, 1, rule, error.message))
    except InputError as error:
        rule = "loop-invalid" if item.name == LOOP else "ir-unreadable"
        targets.findings.append(Finding(item, 1, rule, error.message))
