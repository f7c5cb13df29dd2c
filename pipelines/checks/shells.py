"""``component.py`` as text: what it imports, how much it does itself, and the signature of each component. Nothing is imported here."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

# What whoever compiles a pipeline has at hand anyway.
LIGHT = frozenset({"kfp", "__future__", "typing_extensions"})
LIGHT_MODULES = frozenset({"kfloop.core.image"})
MAX_STATEMENTS = 12
OUTPUT = re.compile(r"(?:\w+\.)*Output(?:Path)?\b")
DECORATORS = frozenset({"component", "container_component", "notebook_component"})


@dataclass(frozen=True, kw_only=True)
class Shell:
    """One KFP component, from the text of component.py.

    Attributes:
        file: component.py.
        name: The function.
        line: Where it begins.
        inputs: Names of its parameters and input artifacts.
        outputs: Names of its output artifacts and output paths; a returned value has no name.
        statements: How many statements its body has, docstring and imports left out.
        core: Dotted name of the function that it hands to ``kfloop.core.execution.execute``; null when it does not.
        handed: Names of the artifacts it hands on with it.
    """

    file: Path
    name: str
    line: int
    inputs: frozenset[str]
    outputs: frozenset[str]
    statements: int
    core: str | None
    handed: tuple[str, ...]


def read_shell(file: Path) -> tuple[tuple[Shell, ...], list[Finding]]:
    """The components of a component.py, and what is wrong with the file as a whole."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        return (), [Finding(file, line, "shell-unreadable", f"'{file.name}' is no Python: {error}")]
    shells = tuple(_shell(file, node) for node in tree.body if _is_component(node))
    findings = [
        Finding(file, line, "shell-imports", f"'{name}' is imported at the top")
        for name, line in _top_imports(tree.body)
        if name.partition(".")[0] not in LIGHT | sys.stdlib_module_names and name not in LIGHT_MODULES
    ]
    if not shells:
        findings.append(Finding(file, 1, "shell-empty", f"'{file}' defines no component"))
    return shells, findings


def shell_findings(shell: Shell) -> Iterator[Finding]:
    """What is wrong with one shell."""
    if shell.statements > MAX_STATEMENTS:
        message = f"'{shell.name}' has {shell.statements} statements, more than {MAX_STATEMENTS}"
        yield Finding(shell.file, shell.line, "shell-thick", message)


def _is_component(node: ast.stmt) -> bool:
    if not isinstance(node, ast.FunctionDef):
        return False
    called = [item.func if isinstance(item, ast.Call) else item for item in node.decorator_list]
    names = [item.attr if isinstance(item, ast.Attribute) else getattr(item, "id", "") for item in called]
    return bool(DECORATORS & set(names))


def _shell(file: Path, node: ast.stmt) -> Shell:
    if not isinstance(node, ast.FunctionDef):  # _is_component let it pass
        raise TypeError(file)
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    outputs = {item.arg for item in arguments if item.annotation is not None and _is_output(item.annotation)}
    body = [item for part in node.body for item in ast.walk(part) if isinstance(item, ast.stmt)]
    docstring = ast.get_docstring(node) is not None
    work = [item for item in body if not isinstance(item, ast.Import | ast.ImportFrom)]
    return Shell(
        file=file,
        name=node.name,
        line=node.lineno,
        inputs=frozenset(item.arg for item in arguments) - outputs,
        outputs=frozenset(outputs),
        statements=len(work) - docstring,
        core=_core(node)[0],
        handed=_core(node)[1],
    )


def _core(function: ast.FunctionDef) -> tuple[str | None, tuple[str, ...]]:
    """What ``execute(step, core, workspace, config_json, out, **inputs)`` is given, by the imports of the function."""
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and imported.get(ast.unparse(node.func)) == "kfloop.core.execution.execute":
            core = imported.get(ast.unparse(node.args[1])) if len(node.args) > 1 else None
            return core, tuple(item.arg for item in node.keywords if item.arg)
    return None, ()


def _is_output(annotation: ast.expr) -> bool:
    return bool(OUTPUT.match(ast.unparse(annotation).strip("'\"")))


def _top_imports(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Modules imported when the file is, with their lines; blocks for type checkers are left out, others are not."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level + (node.module or ""), node.lineno)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                continue
            branches = [node.body, getattr(node, "orelse", []), getattr(node, "finalbody", [])]
            branches += [handler.body for handler in getattr(node, "handlers", [])]
            for branch in branches:
                yield from _top_imports(branch)
