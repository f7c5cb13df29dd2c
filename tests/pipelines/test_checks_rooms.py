"""Rooms of components under ``kfloop check``: a scaffolded one is sound, and each planted fault is told by its own rule."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from kfloop.cli.main import cli
from kfloop.components.gate.component import gate
from kfloop.errors import ConfigError
from kfloop.pipelines.checks.checking import check
from kfloop.pipelines.checks.probing import probe_rooms
from kfloop.pipelines.checks.rooms import Room, check_rooms
from kfloop.pipelines.checks.shells import read_shell

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent.parent
KFLOOPS = ROOT / "kfloop" / "components"


@pytest.fixture(scope="module")
def scaffolded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one component, as ``kfloop new`` writes it."""
    project = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        done = CliRunner().invoke(cli, ["new", "component", "clean_names"])
    assert done.exit_code == 0, done.output
    return project


@pytest.fixture
def project(scaffolded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scaffolded, tmp_path / "project"))


def rules_of(project: Path) -> set[str]:
    return {finding.rule for finding in check([project]).findings}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def shell_of(project: Path) -> Path:
    return project / "components" / "clean_names" / "component.py"


def test_a_scaffolded_room_is_sound(project: Path) -> None:
    report = check([project])
    assert report.findings == ()
    assert report.checked["components"] == 1
    for path in (project / "components", project / "components" / "clean_names"):
        assert check([path]).checked["components"] == 1


def test_a_scaffolded_test_fails_until_the_core_is_written(project: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    failed = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=120)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "NotImplementedError: write what clean_names makes" in failed.stdout
    core = project / "components" / "clean_names" / "core.py"
    text = core.read_text(encoding="utf-8").partition("    message = ")[0]
    work = '    out.mkdir()\n    (out / "report.json").write_text(\'{"outcome": "clean"}\', encoding="utf-8")\n    return "clean"\n'
    core.write_text(text + work, encoding="utf-8")
    passed = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=120)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert rules_of(project) == set()


@pytest.mark.parametrize("name", ["run", "json"])
def test_a_component_may_be_called_as_something_in_its_test(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["new", "component", name]).exit_code == 0
    core = Path("components", name, "core.py")
    work = '    out.mkdir()\n    (out / "report.json").write_text(\'{"outcome": "done"}\')\n    return "done"\n'
    core.write_text(core.read_text(encoding="utf-8").partition("    message = ")[0] + work, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def no_rooms(project: Path) -> None:
    shutil.rmtree(project / "components")
    (project / "components").mkdir()


def no_shell(project: Path) -> None:
    shell_of(project).unlink()


def no_readme(project: Path) -> None:
    (project / "components" / "clean_names" / "README.md").unlink()


def not_listed(project: Path) -> None:
    edit(project / "components" / "README.md", "| [clean_names](clean_names/README.md) |\n", "")


def listed_and_gone(project: Path) -> None:
    listing = project / "components" / "README.md"
    listing.write_text(listing.read_text(encoding="utf-8") + "| [lost](lost/README.md) |\n", encoding="utf-8")


def no_list(project: Path) -> None:
    (project / "components" / "README.md").unlink()


def no_python(project: Path) -> None:
    edit(shell_of(project), "def clean_names(", "def clean_names((")


def import_fails(project: Path) -> None:
    edit(shell_of(project), "from kfp import dsl\n", "from kfp import dsl\nfrom kfp import no_such_thing\n")


def no_component(project: Path) -> None:
    edit(shell_of(project), "@dsl.component(base_image=IMAGE, install_kfp_package=False)\n", "")


def heavy_import(project: Path) -> None:
    edit(shell_of(project), "from kfp import dsl\n", "from kfp import dsl\nimport numpy\n")


def heavy_import_in_a_try(project: Path) -> None:
    text = "try:\n    import numpy\nexcept ImportError:\n    numpy = None\n"
    edit(shell_of(project), "from kfp import dsl\n", f"from kfp import dsl\n{text}")


def work_in_the_shell(project: Path) -> None:
    work = "".join(f"    x{number} = limit + {number}\n" for number in range(15))
    edit(shell_of(project), "    from pathlib import Path\n", f"    from pathlib import Path\n{work}")


def input_renamed(project: Path) -> None:
    edit(shell_of(project), "(limit: int,", "(most: int,")
    edit(shell_of(project), "limit=limit", "limit=most")


def output_not_named(project: Path) -> None:
    edit(project / "components" / "clean_names" / "README.md", "`result`", "a folder")


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (no_rooms, "components-none"),
        (no_shell, "room-incomplete"),
        (no_readme, "room-incomplete"),
        (not_listed, "room-unlisted"),
        (listed_and_gone, "room-unlisted"),
        (no_list, "room-unlisted"),
        (no_python, "shell-unreadable"),
        (import_fails, "shell-unreadable"),
        (no_component, "shell-empty"),
        (heavy_import, "shell-imports"),
        (heavy_import_in_a_try, "shell-imports"),
        (work_in_the_shell, "shell-thick"),
        (input_renamed, "readme-signature"),
        (output_not_named, "readme-signature"),
    ],
)
def test_a_fault_is_told_by_its_rule(plant: Callable[[Path], None], rule: str, project: Path) -> None:
    plant(project)
    assert rules_of(project) == {rule}


def test_a_type_checkers_import_is_not_heavy(project: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\n"
    edit(shell_of(project), "from kfp import dsl\n", f"from kfp import dsl\n{text}")
    assert rules_of(project) == set()


def test_a_second_component_that_nobody_furnished_is_counted(project: Path) -> None:
    bare = project / "components" / "bare"
    bare.mkdir()
    (bare / "notes.py").touch()
    report = check([project])
    assert report.checked["components"] == 2
    assert {finding.rule for finding in report.findings} == {"room-incomplete", "room-unlisted"}


def test_what_is_safe_is_mended_and_no_more(project: Path) -> None:
    (project / "components" / "clean_names" / "__init__.py").unlink()
    not_listed(project)
    assert rules_of(project) == {"room-incomplete", "room-unlisted"}
    report = check([project], fix=True)
    assert report.findings == ()
    assert {path.name for path in report.fixed} == {"__init__.py", "README.md"}
    no_shell(project)
    again = check([project], fix=True)
    assert ({finding.rule for finding in again.findings}, again.fixed) == ({"room-incomplete"}, ())


def test_a_list_that_cannot_be_read_is_never_written(project: Path) -> None:
    listing = project / "components" / "README.md"
    listing.write_bytes(b"# components\n\xff\n")
    assert {finding.rule for finding in check([project], fix=True).findings} == {"room-unlisted"}
    assert listing.read_bytes() == b"# components\n\xff\n"


@pytest.mark.parametrize("files", [("base/kustomization.yaml",), ()])
def test_what_others_call_components_is_left_alone(files: tuple[str, ...], tmp_path: Path) -> None:
    for file in files:
        (tmp_path / "components" / file).parent.mkdir(parents=True)
        (tmp_path / "components" / file).write_text("kind: Component\n", encoding="utf-8")
    assert rules_of(tmp_path) == {"nothing-found"}


# kfloop's own components, run by KFP's executor on a section that cannot be.


def planted(tmp_path: Path, old: str, new: str) -> Path:
    """A folder with kfloop's gate, changed."""
    folder = tmp_path / "components"
    shutil.copytree(KFLOOPS / "gate", folder / "gate")
    (folder / "README.md").write_text("[gate](gate/README.md)\n", encoding="utf-8")
    if old:
        edit(folder / "gate" / "component.py", old, new)
    return folder


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("labels=labels,\n", "labelled=labels,\n", "TypeError: missing a required argument: 'labels'"),
        ("gate.deciding import run", "gate.deciding import ran", "ImportError: cannot import name 'ran'"),
        ('"gate",\n', '"gaet",\n', "KeyError: 'gaet'"),
        ("return execute(", "return str(", "TypeError"),
    ],
)
def test_a_shell_that_is_wired_wrongly_is_told(old: str, new: str, told: str, tmp_path: Path) -> None:
    findings = check([planted(tmp_path, old, new)]).findings
    assert {finding.rule for finding in findings} == {"harness-fails"}
    assert told in findings[0].message


def test_the_same_shell_unchanged_is_sound(tmp_path: Path) -> None:
    assert check([planted(tmp_path, "", "")]).findings == ()


def test_a_shell_that_takes_any_section_is_told(tmp_path: Path) -> None:
    folder = planted(tmp_path, "", "")
    file = folder / "gate" / "component.py"
    body = file.read_text(encoding="utf-8").partition("    from kfloop.components")[0]
    file.write_text(body + '    return "promote"\n', encoding="utf-8")
    findings = check([folder]).findings
    assert [finding.rule for finding in findings] == ["harness-fails"]
    assert "took a section with a key that does not exist" in findings[0].message


def test_kfloops_registry_and_its_rooms_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    from kfloop.core import config

    rooms, _ = check_rooms(KFLOOPS)
    assert list(probe_rooms(KFLOOPS, rooms)) == []
    assert gate.component_spec.name in {shell.name for room in rooms for shell in room.shells}
    without = [Room(folder=room.folder, shells=room.shells) for room in rooms if room.folder.name != "gate"]
    assert [finding.rule for finding in probe_rooms(KFLOOPS, without)] == ["room-unlisted"]
    monkeypatch.setitem(config.STEP_SECTIONS, "polish", "train")
    assert "'polish'" in next(probe_rooms(KFLOOPS, rooms)).message


def test_outputs_are_told_from_inputs(tmp_path: Path) -> None:
    file = tmp_path / "component.py"
    signature = "a: int, b: Input[Model], c: Output[Model], d: dsl.OutputPath(str), e: dsl.Input[dsl.OutputLike], *, f: 'dsl.Output[dsl.Model]'"
    file.write_text(
        f"@component\ndef one({signature}): pass\n@dsl.component()\ndef two(): pass\ndef three(): pass\n",
        encoding="utf-8",
    )
    (one, two), findings = read_shell(file)
    assert findings == []
    assert (one.inputs, one.outputs) == ({"a", "b", "e"}, {"c", "d", "f"})
    assert two.name == "two"


# The scaffolds.


@pytest.mark.parametrize("name", ["Clean", "1st", "class", "a-b", "", "../x", "sale price"])
def test_a_name_that_cannot_be_a_module_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["new", "component", name])
    assert isinstance(done.exception, ConfigError)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    done = CliRunner().invoke(cli, ["new", "component", "clean_names"])
    assert isinstance(done.exception, ConfigError)
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_a_second_component_joins_the_list(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert CliRunner().invoke(cli, ["new", "component", "score"]).exit_code == 0
    assert rules_of(project) == set()
    assert check([project]).checked["components"] == 2
