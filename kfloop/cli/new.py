"""``kfloop new``: the furniture of a component's room, and the CI of a project."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from pathlib import Path

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import json_option
from kfloop.errors import EXIT_DONE, ConfigError

WORKFLOWS = {"github": Path(".github/workflows/kfloop.yaml"), "gitlab": Path(".gitlab-ci.yml")}


@click.group("new")
def new_command() -> None:
    """Write the files of a new component, or the CI of a project.

    \b
    Example:
      kfloop new component count_tokens
      kfloop new workflow github
    """


@new_command.command("component")
@click.argument("name")
@json_option
def component_command(name: str, *, as_json: bool) -> int:
    """Scaffold components/NAME: shell, core, README, and a test that fails until the core is written.

    \b
    Example:
      kfloop new component clean_names
      python -m pytest tests/components/test_clean_names.py
    """
    from kfloop.cli import scaffolding
    from kfloop.pipelines.checks.probing import is_own
    from kfloop.pipelines.checks.rooms import furnish

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(
            f"'{name}' cannot name a component", hint="lower-case letters, digits and _, a letter first: clean_names"
        )
    folder = Path("components")
    room = folder / name
    names = {"name": name, "package": "kfloop.components" if is_own(folder) else "components"}
    files = {
        room / "__init__.py": f'"""Component {name}."""\n',
        room / "component.py": scaffolding.SHELL.substitute(names),
        room / "core.py": scaffolding.CORE.substitute(names),
        room / "README.md": scaffolding.README.substitute(names),
        Path("tests/components") / f"test_{name}.py": scaffolding.component_test(**names),
    }
    if not (folder / "__init__.py").exists():
        files[folder / "__init__.py"] = '"""Components: one folder for each step."""\n'
    _write(files, as_json=as_json, also=lambda: furnish(folder))
    return EXIT_DONE


@new_command.command("workflow")
@click.argument("host", type=click.Choice(sorted(WORKFLOWS)))
@json_option
def workflow_command(host: str, *, as_json: bool) -> int:
    """Write the CI file of a project: compile, check, test on each change.

    \b
    Example:
      kfloop new workflow github
    """
    from kfloop import __version__
    from kfloop.cli import scaffolding

    template = {"github": scaffolding.GITHUB, "gitlab": scaffolding.GITLAB}[host]
    _write({WORKFLOWS[host]: template.substitute(version=__version__)}, as_json=as_json)
    return EXIT_DONE


def _write(files: dict[Path, str], *, as_json: bool, also: Callable[[], list[Path]] = list) -> None:
    """Write every file, or none when one is there already.

    Raises:
        ConfigError: A file exists.
    """
    there = sorted(str(file) for file in files if file.exists())
    if there:
        raise ConfigError(f"there is a file '{there[0]}' already", hint="choose another name, or move it away")
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    written = sorted(file.as_posix() for file in {*files, *also()})
    if as_json:
        print_json({"files": written})
    else:
        say("\n".join(written))
