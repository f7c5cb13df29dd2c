"""``kfloop step``: one component alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import config_option, json_option
from kfloop.errors import EXIT_DONE, EXIT_REJECTED, EXIT_WAITING, ConfigError, nearest

SUITE = "suite.json"
OUTCOME_EXITS = {"reject": EXIT_REJECTED, "hold": EXIT_WAITING, "needs_labels": EXIT_WAITING}


@click.command("step")
@click.argument("name")
@config_option
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="NAME=FOLDER", help="An input of the step; repeat for each."
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder that receives the output (with --propose: the file)."
)
@click.option("--record", is_flag=True, help="Exit 0 whatever was decided: the decision stands in the output.")
@click.option("--propose", is_flag=True, help="With validate_data: write a suite that the data meet, to read and keep.")
@click.option("--force", is_flag=True, help="With --propose: replace a suite that somebody edited.")
@json_option
def step_command(
    name: str,
    path: Path,
    *,
    inputs: tuple[str, ...],
    out: Path | None,
    record: bool,
    propose: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Run one component alone, outside KFP: what dvc.yaml calls.

    \b
    Example:
      kfloop step ingest -o artifacts/dataset
      kfloop step train -i dataset=artifacts/dataset -i labels=artifacts/labels -o artifacts/checkpoint
      kfloop step validate_data --propose -o suite.json
    """
    if propose:
        return propose_suite(name, path, inputs=inputs, out=out, force=force, as_json=as_json)
    from kfloop.core.config import STEP_SECTIONS, load_config
    from kfloop.core.execution import perform
    from kfloop.pipelines.arguments import gate_section
    from kfloop.pipelines.steps import STEPS, core_of

    if name not in STEPS:
        raise ConfigError(f"no step is called '{name}'", hint=nearest(name, STEPS))
    config = load_config(path)
    workspace = config.workspace(path.resolve().parent)
    folders = parse_inputs(name, STEPS[name], inputs)
    step, core = core_of(name, folders)
    section = gate_section(config, workspace) if step == "gate" else config.section(STEP_SECTIONS[step])
    result = perform(step, core, workspace, section, folders)
    if out is not None:
        replace_folder(result.path, out)
    if as_json:
        print_json({"step": step, "digest": result.digest, "path": str(result.path), "value": result.value})
    else:
        say(f"{step}: {result.value} ({out or result.path})")
    return EXIT_DONE if record else OUTCOME_EXITS.get(result.value, EXIT_DONE)


def propose_suite(
    name: str, path: Path, *, inputs: tuple[str, ...], out: Path | None, force: bool, as_json: bool
) -> int:
    """Write a suite that a dataset version meets: the one given, else the last one that a run of the loop ingested.

    Raises:
        ConfigError: Only validate_data proposes; or the file holds somebody's work.
    """
    from kfloop.cli.loop_text import quoted
    from kfloop.components.validate_data.proposing import write_suite
    from kfloop.core.config import load_config
    from kfloop.core.review.places import last_artifacts
    from kfloop.core.versions import read_version

    if name != "validate_data":
        raise ConfigError(
            f"--propose goes with validate_data, not with '{name}'", hint="kfloop step validate_data --propose"
        )
    config = load_config(path)
    root = path.resolve().parent
    if inputs:
        dataset = parse_inputs(name, ("dataset",), inputs)["dataset"]
    else:
        dataset = last_artifacts(config, root, ["dataset"])["dataset"]
    place = out or Path(config.validation.suite or root / SUITE)
    version = read_version(dataset)
    expectations = write_suite(place, version, force=force)
    if as_json:
        print_json({"suite": str(place), "expectations": len(expectations), "dataset": version.digest})
        return EXIT_DONE
    critical = sum(item["severity"] == "critical" for item in expectations)
    say(f"{len(expectations)} expectations ({critical} critical) that dataset {version.digest[:12]} meets: {place}")
    say("read it, change what asks too much or too little, and commit it")
    if config.validation.suite is None or Path(config.validation.suite).resolve() != place.resolve():
        written = place.resolve()
        shown = written.relative_to(root) if written.is_relative_to(root) else written
        say(f"to enforce it, set in {path}:\n\n  validation:\n    suite: {quoted(str(shown))}\n")
    return EXIT_DONE


def parse_inputs(name: str, expected: tuple[str, ...], inputs: tuple[str, ...]) -> dict[str, Path]:
    """Folders by input name.

    Raises:
        ConfigError: One is missing, unknown, or not a folder.
    """
    folders = {}
    for item in inputs:
        key, _, folder = item.partition("=")
        if key not in expected:
            raise ConfigError(
                f"step '{name}' has no input '{key}'", hint=nearest(key, expected) if expected else "none"
            )
        if not Path(folder).is_dir():
            raise ConfigError(
                f"input '{key}' of step '{name}': no folder '{folder}'", hint="run the step that makes it"
            )
        folders[key] = Path(folder).resolve()
    missing = [key for key in expected if key not in folders]
    if missing:
        raise ConfigError(
            f"step '{name}' needs {', '.join(missing)}", hint=" ".join(f"-i {key}=FOLDER" for key in missing)
        )
    return folders


def replace_folder(source: Path, out: Path) -> None:
    """Put a copy of ``source`` at ``out``, complete or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(source, staging)
    shutil.rmtree(out, ignore_errors=True)
    staging.rename(out)
