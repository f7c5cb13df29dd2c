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


def compiled_sources(sources: Sequence[Source]) -> Iterator[tuple[Source, Ir | Finding]]:
    """Each pipeline as IR, or why it cannot be had. Imports the modules, as compiling does."""
    from kfp.compiler import Compiler

    modules: dict[Path, Any] = {}
    for source in sources:
        try:
            if source.file not in modules:
                modules[source.file] = _imported(source.file)
            with tempfile.TemporaryDirectory(prefix="kfloop-check-") as temporary:
                file = Path(temporary) / "pipeline.yaml"
                Compiler().compile(getattr(modules[source.file], source.function), str(file))
                yield source, read_ir(file)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - importing runs somebody's code, which may raise anything
            told = " ".join(f"{type(error).__name__}: {error}".split())
            message = f"pipeline '{source.function}' does not compile: {told}"
            yield source, Finding(source.file, source.line, "pipeline-uncompilable", message)


def at_source(source: Source, finding: Finding) -> Finding:
    """A finding of a fresh compile, at the function it comes from."""
    return Finding(source.file, source.line, finding.rule, f"pipeline '{source.function}': {finding.message}")


def _imported(file: Path) -> Any:
    """The module, with its own folder and the working directory at the end of the search path, as ``python -m`` has them."""
    for place in (str(file.resolve().parent), str(Path.cwd())):
        if place not in sys.path:
            sys.path.append(place)
    name = f"kfloop_check_{file.stem}_{abs(hash(file.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # KFP asks for a component's source by its module
    spec.loader.exec_module(module)
    return module
