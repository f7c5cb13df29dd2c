"""One check: gather, look, mend what is safe to mend, and say what was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.pipelines.checks import flow, pods, repetition, secrecy, wholeness, wiring
from kfloop.pipelines.checks.compiled import Committed, check_committed, committed, installed, is_kfloops, rewrite
from kfloop.pipelines.checks.differences import differences
from kfloop.pipelines.checks.gathering import gather
from kfloop.pipelines.checks.loops import check_loop
from kfloop.pipelines.checks.probing import is_own, probe_rooms
from kfloop.pipelines.checks.rooms import check_rooms, furnish
from kfloop.pipelines.checks.sources import at_source, compiled_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kfloop.pipelines.checks.gathering import Targets
    from kfloop.pipelines.checks.reading import Ir
    from kfloop.pipelines.checks.rules import Finding
    from kfloop.pipelines.checks.sources import Source

IR_RULES: tuple[Callable[[Ir], Iterator[Finding]], ...] = (
    wholeness.no_tasks,
    wholeness.unused,
    wholeness.broken_references,
    wiring.broken_wires,
    pods.unpinned_images,
    pods.packages_at_runtime,
    pods.missing_resources,
    pods.missing_timeouts,
    pods.missing_deadline,
    pods.missing_shared_memory,
    pods.root_users,
    secrecy.secret_parameters,
    secrecy.secret_values,
    repetition.implicit_caching,
    repetition.cached_side_effects,
    repetition.unsafe_retries,
    flow.bare_if_on_named_output,
    flow.quotes_in_conditions,
    flow.one_of_artifacts,
    flow.nested_with_artifacts_only,
    flow.loops_over_named_output,
)


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What a check found.

    Attributes:
        findings: Rules broken, by file and line.
        checked: How many components, loop files, pipelines and steps were looked at.
        fixed: Files that ``--fix`` wrote.
    """

    findings: tuple[Finding, ...]
    checked: dict[str, int]
    fixed: tuple[Path, ...] = ()


def check(paths: Sequence[Path], *, ignore: frozenset[str] = frozenset(), fix: bool = False) -> CheckReport:
    """Check everything under ``paths``.

    Args:
        paths: Folders, loop files, compiled pipelines; each must hold something.
        ignore: Ids of rules that are not told.
        fix: Write the committed IR, the missing ``__init__.py`` and the list of components, then look again.

    Raises:
        ConfigError: A path does not exist.
    """
    report, targets, folders = _look(paths, ignore)
    if not fix:
        return report
    fixed = [file for folder in folders for file in rewrite(folder)]
    fixed += [file for folder in targets.components for file in furnish(folder)]
    again = _look(paths, ignore)[0] if fixed else report
    return CheckReport(findings=again.findings, checked=again.checked, fixed=tuple(fixed))


def check_ir(ir: Ir) -> Iterator[Finding]:
    """Every rule about one compiled pipeline."""
    for rule in IR_RULES:
        yield from rule(ir)


def _look(paths: Sequence[Path], ignore: frozenset[str]) -> tuple[CheckReport, Targets, list[Committed]]:
    targets = gather(paths)
    findings = list(targets.findings)
    components = 0
    for folder in targets.components:
        rooms, wrong = check_rooms(folder)
        components += len(rooms)
        findings += [*wrong, *probe_rooms(folder, rooms)]
    for ir in targets.pipelines:
        findings += check_ir(ir)
    of_sources, steps = _from_sources(targets)
    findings += of_sources
    folders = _committed(paths, targets)
    for compiled in folders:
        findings += check_committed(compiled)
    if targets.loops:
        own = {ir.name: ir for folder in folders for ir in folder.pipelines}
        own = ((folders[0].fresh if folders else {}) or installed()) | own
        for loop in targets.loops:
            findings += check_loop(loop, own)
    checked = {
        "components": components,
        "loops": len(targets.loops),
        "pipelines": len(targets.pipelines) + len(targets.sources),
        "steps": steps + sum(map(_steps, targets.pipelines)),
    }
    told = sorted({finding for finding in findings if finding.rule not in ignore})
    return CheckReport(findings=tuple(told), checked=checked), targets, folders


def _from_sources(targets: Targets) -> tuple[list[Finding], int]:
    """Pipelines as Python: the rules about what each compiles to; where its IR is committed, those are told there, and whether it still is that.

    Returns:
        The findings, and how many steps those have whose IR is not committed.
    """
    by_name: dict[str, list[Ir]] = {}
    for ir in targets.pipelines:
        if not is_kfloops(ir):
            by_name.setdefault(ir.name, []).append(ir)
    findings, alone = [], []
    versions: dict[str, list[tuple[Source, Ir]]] = {}
    for source, fresh, told in compiled_sources(targets.sources):
        findings += told
        if fresh is not None and fresh.name in by_name:
            versions.setdefault(fresh.name, []).append((source, fresh))
        elif fresh is not None:
            alone.append((source, fresh))
    for name, fresh_ones in versions.items():
        compared = set()
        for ir in by_name[name]:
            told_of = [list(differences(ir, fresh)) for _, fresh in fresh_ones]
            nearest = min(range(len(told_of)), key=lambda number: len(told_of[number]))
            compared.add(nearest)
            findings += told_of[nearest]
        alone += [version for number, version in enumerate(fresh_ones) if number not in compared]
    for source, fresh in alone:
        findings += [at_source(source, finding) for finding in check_ir(fresh)]
    return findings, sum(_steps(fresh) for _, fresh in alone)


def _steps(ir: Ir) -> int:
    return sum(bool(task.executor) for task in ir.tasks())


def _committed(paths: Sequence[Path], targets: Targets) -> list[Committed]:
    """Folders of kfloop's pipelines; in kfloop's own checkout there must be one, even when every file of it is gone."""
    named = frozenset(path.resolve() for path in paths if path.is_file())
    homes = [path for path in paths if path.is_dir() and is_own(path / "components")]
    return committed(targets.pipelines, named, [home / "pipelines" / "compiled" for home in homes])
