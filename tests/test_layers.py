"""What may import what: the rules that import-linter cannot say."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS = ROOT / "components"
FOLDERS = sorted(path for path in COMPONENTS.iterdir() if path.is_dir() and path.name != "__pycache__")
HEAVY = {
    "torch",
    "pytorch_lightning",
    "mlflow",
    "kfp",
    "pandas",
    "numpy",
    "sqlalchemy",
    "pydantic",
    "datasets",
    "sklearn",
}


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a python that sees installed packages only: not the working directory, not PYTHONPATH."""
    return subprocess.run(
        [sys.executable, "-I", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


def imported_packages(path: Path) -> set[str]:
    """Top-level names of every import in a file, those inside functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_command_line_starts_without_heavy_packages(tmp_path: Path) -> None:
    code = "import json, sys, kfloop.cli.main; print(json.dumps(sorted(sys.modules)))"
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert HEAVY.isdisjoint(json.loads(done.stdout))


def test_help_lists_every_command(tmp_path: Path) -> None:
    from kfloop.cli.main import COMMANDS

    done = python("-m", "kfloop", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = done.stdout.partition("Commands:")[2].split()
    assert set(COMMANDS) <= set(listed)


@pytest.mark.parametrize("name", ["components", "pipelines", "serving"])
def test_top_folders_are_not_packages_of_their_own(name: str, tmp_path: Path) -> None:
    done = python("-c", f"import kfloop.{name}; print('imported'); import {name}", cwd=tmp_path)
    assert done.stdout == "imported\n", done.stderr
    assert f"No module named '{name}'" in done.stderr


@pytest.mark.parametrize("name", ["components", "pipelines", "serving"])
def test_package_is_a_relative_link_to_the_top_folder(name: str) -> None:
    link = ROOT / "kfloop" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name


def test_there_are_components() -> None:
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_component_has_shell_and_readme(folder: Path) -> None:
    missing = [name for name in ("__init__.py", "component.py", "README.md") if not (folder / name).is_file()]
    assert missing == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_only_the_shell_imports_kfp(folder: Path) -> None:
    shells = {"component.py"}
    importers = {path.name for path in folder.rglob("*.py") if {"kfp", "kfp_kubernetes"} & imported_packages(path)}
    assert importers <= shells


def test_imports_inside_functions_and_lookalikes_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text("import kfplike\nfrom . import kfp\ndef f():\n    from kfp.dsl import x\n", encoding="utf-8")
    assert imported_packages(path) == {"kfplike", "kfp"}
    path.write_text("import kfplike\nfrom . import kfp\n", encoding="utf-8")
    assert imported_packages(path) == {"kfplike"}
