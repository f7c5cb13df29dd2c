"""Pipelines as Python: found by their text, compiled, and held against the same rules and against the committed IR of the same name."""

from __future__ import annotations

import ast
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.pipelines.checks.importing import imported
from kfloop.pipelines.checks.reading import Ir, read_ir
from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DECORATED = re.compile(r"^[ \t]*@[\w.]*pipeline\w*\b", re.MULTILINE)
PIPELINE = r"\bdsl\.(pipeline_context\.)?pipeline$"
STARRED = {"kfp": {"dsl": "kfp.dsl"}, "kfp.dsl": {"pipeline": "kfp.dsl.pipeline"}}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A function with KFP's pipeline decorator.

    Attributes:
        file: Module that defines it.
        function: Its name.
        line: Where it begins.
        uses: What its body speaks of, each as the module (its last name; this file's path for what it defines itself) and the name in
            it: pipelines nested in it are among them.
    """

    file: Path
    function: str
    line: int
    uses: frozenset[tuple[str, str]]


def sources_in(file: Path) -> list[Source]:
    """Pipelines at the top of a module; none when it cannot be parsed."""
    tree = _parsed(file)
    if not isinstance(tree, ast.Module):
        return []
    names = _imports(file, tree)
    return [
        Source(file=file, function=node.name, line=node.lineno, uses=_uses(file, node, names))
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(_is_pipeline(item, names) for item in node.decorator_list)
    ]


def unparsed(file: Path) -> Finding | None:
    """What is wrong with a module that by its text defines a pipeline and is no Python."""
    error = _parsed(file)
    if not isinstance(error, SyntaxError):
        return None
    return Finding(file, error.lineno or 1, "pipeline-uncompilable", f"'{file.name}' is no Python: {error.msg}")


def _parsed(file: Path) -> ast.Module | SyntaxError | None:
    """The module, or why it cannot be parsed; null where its text speaks of no pipeline of KFP."""
    try:
        text = file.read_text(encoding="utf-8")
        return ast.parse(text) if "kfp" in text and "pipeline" in text else None
    except SyntaxError as error:
        return error if DECORATED.search(text) else None
    except (OSError, ValueError):
        return None


def _imports(file: Path, tree: ast.Module) -> dict[str, str]:
    """Dotted name of what each imported name stands for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            module = node.module or file.resolve().parent.name
            names |= {alias.asname or alias.name: f"{module}.{alias.name}" for alias in node.names}
            names |= STARRED.get(module, {}) if "*" in names else {}
    return names


def _is_pipeline(decorator: ast.expr, names: dict[str, str]) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    first, dot, rest = ast.unparse(called).partition(".")
    return re.search(PIPELINE, names.get(first, first) + dot + rest) is not None


def _uses(file: Path, function: ast.FunctionDef, names: dict[str, str]) -> frozenset[tuple[str, str]]:
    used = set()
    for node in (node for part in function.body for node in ast.walk(part)):
        if isinstance(node, ast.Name):
            module, _, name = names.get(node.id, "").rpartition(".")
            used.add((module.rpartition(".")[2], name) if name else (str(file), node.id))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            first, _, rest = ast.unparse(node.value).partition(".")
            used.add((f"{names.get(first, first)}.{rest}".rstrip(".").rpartition(".")[2], node.attr))
    return frozenset(used)


def whole(sources: Sequence[Source]) -> list[Source]:
    """Those that no other one nests: what holds for a run (a deadline) cannot be asked of its parts."""
    return [source for source in sources if not any(_nests(other, source) for other in sources)]


def _nests(other: Source, source: Source) -> bool:
    """Whether a pipeline speaks of another: as its own file's, or as its module's or its package's."""
    if (other.file, other.function) == (source.file, source.function):
        return False
    file = source.file
    return any((place, source.function) in other.uses for place in (str(file), file.stem, file.resolve().parent.name))


def compiled_sources(sources: Sequence[Source]) -> Iterator[tuple[Source, Ir | None, list[Finding]]]:
    """Each pipeline as IR, or null where it does not compile; and what the code says that its IR does not. Imports the modules."""
    from kfp.dsl.pipeline_context import Pipeline

    modules: dict[tuple[Path, bool], Any] = {}
    default = Pipeline.get_execution_caching_default()  # KFP_DISABLE_EXECUTION_CACHING_BY_DEFAULT decides
    for source in sources:
        try:
            fresh, otherwise = (_compiled(source, modules, cached=cached) for cached in (default, not default))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - importing runs somebody's code, which may raise anything
            told = " ".join(f"{type(error).__name__}: {error}".split())
            message = f"pipeline '{source.function}' does not compile: {told}"
            yield source, None, [Finding(source.file, source.line, "pipeline-uncompilable", message)]
        else:
            yield source, fresh, list(_implicit_caching(source, fresh, otherwise))


def _compiled(source: Source, modules: dict[tuple[Path, bool], Any], *, cached: bool) -> Ir:
    """The pipeline, compiled with KFP's default for caching on or off."""
    from kfp.compiler import Compiler
    from kfp.dsl.pipeline_context import Pipeline

    default = Pipeline._execution_caching_default  # noqa: SLF001 - what `kfp dsl compile --disable-execution-caching-by-default` sets
    Pipeline._execution_caching_default = cached  # noqa: SLF001
    try:
        if (source.file, cached) not in modules:
            modules[source.file, cached] = imported(source.file, "cached" if cached else "not_cached")
        with tempfile.TemporaryDirectory(prefix="kfloop-check-") as temporary:
            file = Path(temporary) / "pipeline.yaml"
            Compiler().compile(getattr(modules[source.file, cached], source.function), str(file))
            return read_ir(file)
    finally:
        Pipeline._execution_caching_default = default  # noqa: SLF001


def _implicit_caching(source: Source, fresh: Ir, otherwise: Ir) -> Iterator[Finding]:
    """Steps that are cached by default and would not be by another: nobody said which. The IR alone cannot tell."""
    for one, other in zip(fresh.tasks(), otherwise.tasks(), strict=True):
        if fresh.container(one) and one.spec.get("cachingOptions") != other.spec.get("cachingOptions"):
            message = f"pipeline '{source.function}': step '{one.name}' does not say whether it is cached"
            yield Finding(source.file, source.line, "caching-not-explicit", message)


def at_source(source: Source, finding: Finding) -> Finding:
    """A finding of a fresh compile, at the function it comes from."""
    return Finding(source.file, source.line, finding.rule, f"pipeline '{source.function}': {finding.message}")
