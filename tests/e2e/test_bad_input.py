"""Bad usage, configuration and data: exit 2, one clear message, and not a single file created or changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kfloop.cli.main import COMMANDS

Prepare = Callable[[Path], None]


def photos(folder: Path, *classes: str, rows: int = 3) -> None:
    random = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(rows):
            Image.fromarray(random.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")


def loop(text: str) -> Prepare:
    return lambda folder: (folder / "loop.yaml").write_text(text, encoding="utf-8") and None


def nothing(folder: Path) -> None:
    """Leave the folder empty."""


def empty_data(folder: Path) -> None:
    (folder / "photos").mkdir()
    loop("name: x\ndata: {source: photos}\n")(folder)


def one_class(folder: Path) -> None:
    photos(folder / "photos", "cat")
    loop("name: x\ndata: {source: photos}\n")(folder)


def no_such_column(folder: Path) -> None:
    photos(folder / "photos", "cat", "dog")
    lines = ["file_name,species", *(f"{name}/{number}.png,{name}" for name in ("cat", "dog") for number in range(3))]
    (folder / "photos" / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    loop("name: x\ndata: {source: photos, label: specis}\n")(folder)


def loose_images(folder: Path) -> None:
    photos(folder, "photos")


def loop_file_there(folder: Path) -> None:
    photos(folder / "photos", "cat", "dog")
    loop("name: mine\n")(folder)


CASES: dict[str, tuple[Prepare, tuple[str, ...], tuple[str, ...]]] = {
    "no loop file": (nothing, ("run",), ("no loop file at 'loop.yaml'", "kfloop init")),
    "misspelt command": (nothing, ("stauts",), ("No such command 'stauts'", "'status'")),
    "no loop file, monitor": (nothing, ("monitor",), ("no loop file at 'loop.yaml'",)),
    "no loop file, serve": (nothing, ("serve",), ("no loop file at 'loop.yaml'",)),
    "no loop file, rollback": (nothing, ("rollback",), ("no loop file at 'loop.yaml'",)),
    "no loop file, report": (nothing, ("report",), ("no loop file at 'loop.yaml'",)),
    "no loop file, status": (nothing, ("status",), ("no loop file at 'loop.yaml'",)),
    "not YAML": (loop("name: [x\n"), ("run",), ("not valid YAML",)),
    "unknown key": (
        loop("name: x\ntrain: {epoch: 3}\n"),
        ("run",),
        ("unknown key 'train.epoch'", "did you mean 'epochs'?"),
    ),
    "unknown key, monitor": (loop("name: x\nmonitr: {}\n"), ("monitor",), ("unknown key 'monitr'", "'monitor'")),
    "value out of range": (loop("name: x\ntrain: {epochs: 0}\n"), ("run",), ("'train.epochs' is 0",)),
    "no such source": (
        loop("name: x\ndata: {source: fotos}\n"),
        ("run",),
        ("fotos' does not exist", "'digits', 'sample:NAME'"),
    ),
    "empty data folder": (empty_data, ("run",), ("photos' cannot be read by kfloop: it is empty",)),
    "one class only": (one_class, ("run",), ("one class only ('cat', 3 files)", "two or more")),
    "no such label column": (no_such_column, ("run",), ("no column 'specis'", "did you mean 'species'?")),
    "no such label column, init": (
        no_such_column,
        ("init", "photos", "--label", "nope", "--force"),
        ("no column 'nope'",),
    ),
    "init on a wrong path": (nothing, ("init", "fotos"), ("fotos' does not exist",)),
    "init finds nothing": (nothing, ("init",), ("found 0 data sets", "kfloop init PATH")),
    "init on loose images": (loose_images, ("init", "photos"), ("nothing says their class", "subfolder per class")),
    "init twice": (loop_file_there, ("init", "photos"), ("'loop.yaml' is there already", "--force")),
    "unknown step": (loop("name: x\n"), ("step", "trian"), ("no step is called 'trian'", "did you mean 'train'?")),
    "step without its input": (loop("name: x\n"), ("step", "train"), ("needs dataset, labels", "-i dataset=FOLDER")),
    "step with a wrong input": (
        loop("name: x\n"),
        ("step", "validate_data", "-i", "dataset=gone"),
        ("no folder 'gone'", "run the step that makes it"),
    ),
    "unknown command": (nothing, ("trian",), ("No such command 'trian'",)),
    "unknown option": (loop("name: x\n"), ("run", "--forse"), ("No such option '--forse'", "--force")),
    "demo in a folder that holds something": (
        loose_images,
        ("demo", "--folder", "photos"),
        ("no demo made it", "--folder DIR"),
    ),
}


@pytest.mark.parametrize(("prepare", "arguments", "words"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_refused_with_one_message_and_changes_nothing(
    shell: Any, prepare: Prepare, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    prepare(shell.folder)
    before = shell.tree()
    done = shell.run(*arguments, timeout=30)
    assert done.returncode == 2, done.stderr
    assert shell.tree() == before
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.lower().count("error:") == 1
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    "name", ["no loop file", "unknown key", "one class only", "init on a wrong path", "unknown step", "unknown option"]
)
def test_with_json_the_error_is_one_object_on_stdout(shell: Any, name: str) -> None:
    prepare, arguments, words = CASES[name]
    prepare(shell.folder)
    before = shell.tree()
    done = shell.run(*arguments, "--json", timeout=30)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["exit_code"], error["transient"]) == (2, 2, False)
    assert words[0] in error["message"]
    assert shell.tree() == before


def test_a_loop_that_never_ran_has_a_status_and_asking_creates_nothing(shell: Any) -> None:
    shell.write(shell.small)
    before = shell.tree()
    facts = shell.json("status")
    assert (facts["champion"], facts["runs"], facts["server"], facts["ledger_rows"]) == (None, [], None, 0)
    assert shell.run("status").returncode == 0
    assert shell.tree() == before


def test_the_help_shows_how_to_begin_and_each_command_an_example(shell: Any) -> None:
    done = shell.run("--help", timeout=20)
    assert done.returncode == 0
    assert "kfloop demo" in done.stdout
    for command in COMMANDS:
        assert "Example:" in shell.run(command, "--help", timeout=30).stdout, command
    assert shell.tree() == {}
