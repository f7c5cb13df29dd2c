"""Bad input: exit 2, one clear message, nothing changed. Everything through the real command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)).save(path)


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def refused(shell: Any, *arguments: str) -> str:
    """Run, and hold that it exits with 2, writes nothing, and says one thing."""
    before = tree(shell.folder)
    done = shell.run(*arguments, timeout=60)
    assert done.returncode == 2, done.stderr
    assert tree(shell.folder) == before
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return str(done.stderr)


def test_no_loop_file(shell: Any) -> None:
    for command in ("run", "monitor", "status", "serve", "rollback"):
        message = refused(shell, command)
        assert "no loop file at 'loop.yaml'" in message
        assert "kfloop init" in message


def test_an_unknown_key_names_the_nearest(shell: Any) -> None:
    shell.write("name: x\ntrain: {epocs: 3}\n")
    message = refused(shell, "run")
    assert "unknown key 'train.epocs'" in message
    assert "did you mean 'epochs'" in message


def test_a_source_that_is_not_there(shell: Any) -> None:
    shell.write("name: x\ndata: {source: photos}\n")
    assert "photos" in refused(shell, "run")


def test_an_empty_data_folder(shell: Any) -> None:
    (shell.folder / "photos").mkdir()
    shell.write("name: x\ndata: {source: photos}\n")
    assert "photos" in refused(shell, "run")


def test_one_class_only(shell: Any) -> None:
    for number in range(3):
        image(shell.folder / "photos" / "cat" / f"{number}.png", number)
    shell.write("name: x\ndata: {source: photos}\n")
    message = refused(shell, "run")
    assert "one class" in message
    assert "cat" in message


def test_a_label_column_that_does_not_exist(shell: Any) -> None:
    for number in range(3):
        image(shell.folder / "photos" / f"{number}.png", number)
    (shell.folder / "photos" / "metadata.csv").write_text("file_name,kind\n0.png,a\n1.png,b\n2.png,a\n")
    shell.write("name: x\ndata: {source: photos, label: knd}\n")
    message = refused(shell, "run")
    assert "knd" in message
    assert "kind" in message


@pytest.mark.parametrize("arguments", [("init", "nowhere"), ("step", "trian"), ("nosuch",), ("run", "--nosuch")])
def test_wrong_words_on_the_command_line(shell: Any, arguments: tuple[str, ...]) -> None:
    shell.write("name: x\n", "other.yaml")
    refused(shell, *arguments)


def test_init_does_not_overwrite(shell: Any) -> None:
    shell.write("name: mine\n")
    assert "there already" in refused(shell, "init", "digits")
    assert (shell.folder / "loop.yaml").read_text() == "name: mine\n"


def test_json_errors_are_one_object_on_stdout(shell: Any) -> None:
    done = shell.run("run", "--json", timeout=60)
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "config"
    assert error["exit_code"] == 2


def test_the_help_answers_and_shows_how_to_begin(shell: Any) -> None:
    done = shell.run("--help", timeout=20)
    assert done.returncode == 0
    assert "kfloop demo" in done.stdout
    for command in ("run", "monitor", "serve", "step", "rollback"):
        text = shell.run(command, "--help", timeout=30).stdout
        assert "Example:" in text
