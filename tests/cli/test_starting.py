"""``kfloop init`` writes a file that works or none; help texts, and a loop without a run."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kfloop.cli.init import init_command
from kfloop.cli.inspection import report_command
from kfloop.cli.loop_text import loop_name
from kfloop.cli.main import cli
from kfloop.core.config import load_config
from kfloop.errors import ConfigError

ROWS = "a,b,label\n" + "".join(f"{n * 7 % 31},{n * 5 % 13},{'xy'[n % 2]}\n" for n in range(80))


def test_a_name_that_is_none_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(ROWS)
    asked = ["rows.csv", "--name", "Köln Mieten"]
    with pytest.raises(ConfigError, match="'name' is 'Köln Mieten'") as caught:
        CliRunner().invoke(init_command, asked, standalone_mode=False, catch_exceptions=False)
    assert "lower-case letters" in caught.value.hint
    assert not (tmp_path / "loop.yaml").exists()
    (tmp_path / "loop.yaml").write_text("name: mine\n")
    with pytest.raises(ConfigError):
        CliRunner().invoke(init_command, [*asked, "--force"], standalone_mode=False, catch_exceptions=False)
    assert (tmp_path / "loop.yaml").read_text() == "name: mine\n"


def test_a_loop_that_forecasts_can_be_monitored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"2026-{1 + n // 672:02d}-{1 + n // 24 % 28:02d} {n % 24:02d}:00,{n % 24}\n" for n in range(1344))
    (tmp_path / "load.csv").write_text("time,load\n" + rows)
    CliRunner().invoke(init_command, ["load.csv"], standalone_mode=False, catch_exceptions=False)
    assert load_config(tmp_path / "loop.yaml").monitor.unit is None  # one row a unit cannot be watched


@pytest.mark.parametrize(
    ("source", "name"), [("Töne/", "tone"), ("Straße 7.csv", "strasse-7"), ("数据.csv", "loop"), ("a_b.csv", "a-b")]
)
def test_a_name_keeps_the_letters_of_the_data(source: str, name: str) -> None:
    assert loop_name(source) == name


def test_a_loop_without_a_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("name: mine\n")
    with pytest.raises(ConfigError, match="loop 'mine' has no run yet"):
        CliRunner().invoke(
            report_command, ["-c", str(tmp_path / "loop.yaml")], standalone_mode=False, catch_exceptions=False
        )


def test_examples_in_help_stand_on_lines_of_their_own() -> None:
    def helps(command: click.Command, path: list[str]) -> list[str]:
        assert r"\b" not in (command.help or ""), path
        told = [command.help or ""]
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                told += helps(found, [*path, name])
        return told

    assert sum("Example:" in told for told in helps(cli, [])) > 5
