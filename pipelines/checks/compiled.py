"""kfloop's own pipelines in a project: which files they are, what the code compiles to now, and how to bring the files up to date."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.errors import ConfigError
from kfloop.pipelines.checks.differences import differences
from kfloop.pipelines.checks.gathering import LOOP
from kfloop.pipelines.checks.reading import Ir, read_ir
from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, kw_only=True)
class Committed:
    """A folder of committed pipelines.

    Attributes:
        folder: The folder.
        pipelines: Those of kfloop among its files.
        fresh: What the code compiles to with the settings of the project, by name.
        texts: The same as it would be written.
        whole: Whether the folder was checked as such, so that each pipeline must be there.
        problem: Why it is not known what it should hold; null when it is.
    """

    folder: Path
    pipelines: tuple[Ir, ...]
    fresh: dict[str, Ir]
    texts: dict[str, bytes]
    whole: bool
    problem: Finding | None = None


def is_kfloops(ir: Ir) -> bool:
    """Whether a pipeline is one that kfloop defines."""
    from kfloop.pipelines.worker import PIPELINES

    return ir.name in PIPELINES and any(ir.own_step(task) for task in ir.tasks())


def committed(pipelines: Sequence[Ir], named: frozenset[Path], expected: Sequence[Path]) -> list[Committed]:
    """Compile what the folders of kfloop's pipelines should hold.

    Args:
        pipelines: Everything compiled that was found.
        named: Files that were named one by one: of their folders nothing else is asked.
        expected: Folders that must hold kfloop's pipelines even though none was found there.
    """
    folders: dict[Path, list[Ir]] = {folder: [] for folder in expected}
    for ir in pipelines:
        if is_kfloops(ir):
            folders.setdefault(ir.file.parent, []).append(ir)
    found = []
    for folder, own in sorted(folders.items()):
        loop = _loop_above(folder)
        try:
            texts, fresh = _compile(loop)
        except ConfigError as error:
            problem = Finding(loop or folder, 1, "loop-invalid", error.message)
            found.append(
                Committed(folder=folder, pipelines=tuple(own), fresh={}, texts={}, whole=False, problem=problem)
            )
            continue
        whole = not own or any(ir.file.resolve() not in named for ir in own)
        found.append(Committed(folder=folder, pipelines=tuple(own), fresh=fresh, texts=texts, whole=whole))
    return found


def check_committed(folder: Committed) -> Iterator[Finding]:
    """Compare the files with what the code compiles to."""
    if folder.problem:
        yield folder.problem
    for ir in folder.pipelines:
        if ir.name in folder.fresh:
            yield from differences(ir, folder.fresh[ir.name])
    for name in _missing(folder):
        yield Finding(folder.folder, 1, "ir-missing", f"'{folder.folder}' has no {name}.yaml")


def rewrite(folder: Committed) -> list[Path]:
    """Write each pipeline that is missing, or is not what the code compiles to; all of a file or nothing."""
    names = {ir.file: ir.name for ir in folder.pipelines if ir.name in folder.fresh}
    stale = {ir.file for ir in folder.pipelines if ir.file in names and any(differences(ir, folder.fresh[ir.name]))}
    names |= {folder.folder / f"{name}.yaml": name for name in _missing(folder)}
    written = [file for file in names if file in stale or not file.exists()]
    for file in written:
        file.parent.mkdir(parents=True, exist_ok=True)
        staging = file.with_name(f".{file.name}.tmp")
        staging.write_bytes(folder.texts[names[file]])
        staging.replace(file)
    return written


def _missing(folder: Committed) -> list[str]:
    """Pipelines of which the folder has neither the pipeline nor the file."""
    there = {ir.name for ir in folder.pipelines}
    absent = [name for name in folder.fresh if name not in there and not (folder.folder / f"{name}.yaml").exists()]
    return absent if folder.whole else []


def installed() -> dict[str, Ir]:
    """The pipelines of the kfloop that is installed, with the defaults of a cluster."""
    return _compile(None)[1]


def _compile(loop: Path | None) -> tuple[dict[str, bytes], dict[str, Ir]]:
    """Texts and pipelines by name, with the section ``cluster`` of a loop file."""
    from kfloop.core.cluster import ClusterConfig
    from kfloop.core.config import load_config

    cluster = load_config(loop).cluster if loop else ClusterConfig()
    return _compiled_with(cluster.model_dump_json())


@functools.cache
def _compiled_with(cluster_json: str) -> tuple[dict[str, bytes], dict[str, Ir]]:
    """Once for each set of settings: within one process the code does not change."""
    from kfloop.core.cluster import ClusterConfig
    from kfloop.pipelines.cluster.compiling import compile_pipelines

    cluster = ClusterConfig.model_validate_json(cluster_json)
    with tempfile.TemporaryDirectory(prefix="kfloop-check-") as temporary:
        fresh = [read_ir(file) for file in compile_pipelines(cluster, Path(temporary))]
        return {ir.name: ir.file.read_bytes() for ir in fresh}, {ir.name: ir for ir in fresh}


def _loop_above(folder: Path) -> Path | None:
    """The nearest loop file above a folder, and not above the working directory: its section ``cluster`` says how to compile."""
    here = Path.cwd().resolve()
    for place in (folder.resolve(), *folder.resolve().parents):
        if (place / LOOP).is_file():
            return (place.relative_to(here) if place.is_relative_to(here) else place) / LOOP
        if place == here:
            break
    return None
