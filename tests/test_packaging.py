"""The wheel: holds what the checkout holds, installs into a clean environment, imports and answers there."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Run by others in places of their own: Triton's python backend and alembic.
NOT_IMPORTABLE = ("kfloop.serving.model.", "kfloop.core.state.migrations.env")
DATA = (
    "kfloop/py.typed",
    "kfloop/core/images.lock",
    "kfloop/report/templates/*",
    "kfloop/serving/model/*.py",
    "kfloop/core/state/migrations/*",
)

IMPORT_ALL = """
import importlib, json, sys, traceback
failed = {}
for name in json.loads(sys.stdin.read()):
    try:
        importlib.import_module(name)
    except BaseException:
        failed[name] = traceback.format_exc(limit=-3)
import kfloop
print(json.dumps({"failed": failed, "file": kfloop.__file__}))
"""


def run(*command: str | Path, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command and fail with what it said when it fails; PYTHONPATH must not lend it the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def python_files(folder: Path) -> set[str]:
    """Every module under ``folder/kfloop``, links followed, relative to ``folder``."""
    found = set()
    for parent, folders, names in os.walk(folder / "kfloop", followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found.update(str((Path(parent) / name).relative_to(folder)) for name in names if name.endswith(".py"))
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what a build reads, so that the checkout gains neither build/ nor egg-info."""
    source = tmp_path_factory.mktemp("source")
    for name in ("kfloop", "components", "pipelines", "serving"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """The files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel, and sees third parties but no editable kfloop."""
    home = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", home, cwd=home)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(run(home / "bin" / "python", "-c", code, cwd=home).stdout.strip())
    # Plain lines of a .pth file add folders without running the .pth files in them: the editable kfloop stays out.
    (own / "third_parties.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    run(home / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", "--ignore-installed", wheel, cwd=home)
    return home / "bin"


def test_wheel_holds_the_modules_on_disk_and_no_others(names: set[str]) -> None:
    packed = {name for name in names if name.endswith(".py")}
    assert packed == python_files(ROOT)


def test_wheel_has_one_top_level_package(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kfloop"}


@pytest.mark.parametrize("pattern", DATA)
def test_wheel_holds_package_data(names: set[str], pattern: str) -> None:
    expected = {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern) if path.is_file()}
    assert expected, f"nothing on disk matches {pattern}"
    assert expected <= names


def test_wheel_carries_the_licence(names: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_every_module_imports_from_the_wheel(clean: Path, tmp_path: Path) -> None:
    modules = sorted(
        name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in python_files(ROOT)
    )
    wanted = [name for name in modules if not name.startswith(NOT_IMPORTABLE)]
    done = run(clean / "python", "-c", IMPORT_ALL, cwd=tmp_path, stdin=json.dumps(wanted))
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["failed"] == {}
    assert Path(answer["file"]).is_relative_to(clean.parent)


def test_console_script_answers(clean: Path, tmp_path: Path) -> None:
    assert "Commands:" in run(clean / "kfloop", "--help", cwd=tmp_path).stdout
