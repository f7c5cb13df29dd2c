"""Somebody's module imported to be looked at: as its project imports it, without the files that it would write and kfloop's own arguments."""

from __future__ import annotations

import ast
import importlib.util
import sys
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType


class _AsItStands(SourceFileLoader):
    """Reads the source each time, and leaves no bytecode: what Python keeps of a file tells changes within one second by its length alone."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return self.source_to_code(self.get_data(self.path), self.path)


def spec_of(name: str, file: Path) -> ModuleSpec | None:
    """What a module is made from, as its file stands now."""
    return importlib.util.spec_from_file_location(name, file, loader=_AsItStands(name, str(file)))


def imported(file: Path, variant: str) -> Any:
    """Import a module under a name of its own, so that a second variant is imported anew.

    Its folder, the folder above its package and the working directory stand at the end of the search path, as ``python -m`` has them.

    Args:
        file: The module.
        variant: Part of its name.
    """
    package, above = _package(file)
    for place in (str(file.resolve().parent), str(above), str(Path.cwd())):
        if place not in sys.path:
            sys.path.append(place)
    name = f"kfloop_check_{variant}_{file.stem}_{abs(hash(file.resolve()))}"
    name = f"{package}.{name}" if package and _is_relative(file) else name
    spec = spec_of(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # KFP asks for a component's source by its module
    with _looking_only(file):
        spec.loader.exec_module(module)
    return module


def _package(file: Path) -> tuple[str, Path]:
    """Dotted name of the package that a module stands in, and the folder that holds it.

    The package is told by ``__init__.py``; without one it is the path from the working directory, as for ``python -m``.
    """
    above = file.resolve().parent
    names: list[str] = []
    while (above / "__init__.py").is_file():
        names.insert(0, above.name)
        above = above.parent
    here = Path.cwd().resolve()
    if not names and above != here and above.is_relative_to(here):
        above, names = here, list(above.relative_to(here).parts)
    return ".".join(names), above


def _is_relative(file: Path) -> bool:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))


@contextmanager
def _looking_only(file: Path) -> Iterator[None]:
    """Keep a module that compiles its pipeline when it is imported from writing over the IR that is checked, or reading our arguments."""
    from kfp.compiler import Compiler

    compile_, arguments = Compiler.compile, sys.argv
    Compiler.compile = _compile_nothing
    sys.argv = [str(file)]
    try:
        yield
    finally:
        Compiler.compile, sys.argv = compile_, arguments


def _compile_nothing(*_: Any, **__: Any) -> None:
    """What a module's own call of the compiler does while it is looked at."""
