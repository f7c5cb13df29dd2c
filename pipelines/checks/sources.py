"""Pipelines as Python: found by their text, compiled, and held against the same rules and against the committed IR of the same name."""

from __future__ import annotations

import ast
import importlib.util
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.pipelines.checks.reading import Ir, read_ir
from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, kw_only=True)
class Source:
    """A function with KFP's pipeline decorator.

    Attributes:
        file: Module that defines it.
        function: Its name.
        line: Where it begins.
        uses: Every name its body speaks of: pipelines nested in it are among them.
    """

    file: Path
    function: str
    line: int
    uses: frozenset[str]


def sources_in(file: Path) -> list[Source]:
    """Pipelines at the top of a module; none when it cannot be parsed."""
    try:
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text) if "kfp" in text and "pipeline" in text else ast.Module(body=[], type_ignores=[])
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError):
        return []
    return [
        Source(file=file, function=node.name, line=node.lineno, uses=_names(node))
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(_is_pipeline(item) for item in node.decorator_list)
    ]


def _is_pipeline(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called) in {"dsl.pipeline", "kfp.dsl.pipeline", "pipeline"}


def _names(function: ast.FunctionDef) -> frozenset[str]:
    nodes = [node for part in function.body for node in ast.walk(part)]
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name)) | frozenset(
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    )


def whole(sources: Sequence[Source]) -> list[Source]:
    """Those that no other one nests: what holds for a run (a deadline) cannot be asked of its parts."""
    nested = {name for source in sources for name in source.uses if name != source.function}
    return [source for source in sources if source.function not in nested]


def compiled_sources(sources: Sequence[Source]) -> Iterator[tuple[Source, Ir | None, list[Finding]]]:
    """Each pipeline as IR, or null where it does not compile; and what the code says that its IR does not. Imports the modules."""
    modules: dict[tuple[Path, bool], Any] = {}
    for source in sources:
        try:
            fresh, otherwise = (_compiled(source, modules, cached=cached) for cached in (True, False))
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
            modules[source.file, cached] = _imported(source.file, "cached" if cached else "not_cached")
        with tempfile.TemporaryDirectory(prefix="kfloop-check-") as temporary:
            file = Path(temporary) / "pipeline.yaml"
            Compiler().compile(getattr(modules[source.file, cached], source.function), str(file))
            return read_ir(file)
    finally:
        Pipeline._execution_caching_default = default  # noqa: SLF001


def _implicit_caching(source: Source, fresh: Ir, otherwise: Ir) -> Iterator[Finding]:
    """Steps that are cached by default and would not be by another: nobody said which. The IR alone cannot tell."""
    for one, other in zip(fresh.tasks(), otherwise.tasks(), strict=True):
        if one.executor and one.spec.get("cachingOptions") != other.spec.get("cachingOptions"):
            message = f"pipeline '{source.function}': step '{one.name}' does not say whether it is cached"
            yield Finding(source.file, source.line, "caching-not-explicit", message)


def at_source(source: Source, finding: Finding) -> Finding:
    """A finding of a fresh compile, at the function it comes from."""
    return Finding(source.file, source.line, finding.rule, f"pipeline '{source.function}': {finding.message}")


def _imported(file: Path, variant: str) -> Any:
    """The module, with its own folder and the working directory at the end of the search path, as ``python -m`` has them."""
    for place in (str(file.resolve().parent), str(Path.cwd())):
        if place not in sys.path:
            sys.path.append(place)
    name = f"kfloop_check_{variant}_{file.stem}_{abs(hash(file.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # KFP asks for a component's source by its module
    spec.loader.exec_module(module)
    return module
