"""``kfloop feedback``: what turned out to be true of served requests, kept for the next training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import by_option, config_option, json_option
from kfloop.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from kfloop.core.ground_truth import Kept
    from kfloop.core.workspace import Workspace

SHOWN = 3
CLASSES = 8


@click.command("feedback")
@click.argument("source", metavar="FILE|ID")
@click.argument("label", required=False)
@config_option
@by_option
@json_option
def feedback_command(source: str, label: str | None, path: Path, *, by: str, as_json: bool) -> int:
    """Keep the truth about served requests: one ID with its LABEL, or a FILE of many.

    FILE is CSV with the columns request_id and label (by and at if they are there), or JSON lines with the same keys; ids are those that
    `kfloop predict --json` and the Python client give. Answers are added to data.feedback of the loop file, or to feedback.jsonl beside
    it. Nothing is lost: ids that are not in the request log are kept and named, and of two answers to one request the later counts.

    \b
    Example:
      kfloop feedback 4f1c9b0e2a#3 cat
      kfloop feedback truth.csv --by ann
    """
    from kfloop.core.config import load_config
    from kfloop.core.ground_truth import keep, read_answers, truth_file
    from kfloop.serving.log_mirror import bring
    from kfloop.serving.requests import logged_ids

    config = load_config(path)
    workspace = config.workspace(path.resolve().parent)
    place = truth_file(config.data.feedback, workspace.root)
    if label is not None:
        answers = [{"request_id": source, "label": label}]
    elif Path(source).is_file():
        answers = read_answers(Path(source))
    else:
        raise ConfigError(f"'{source}' is no file, and no label was given", hint=f"kfloop feedback {source} LABEL")
    kept = keep(place, answers, logged_ids(bring(workspace), workspace.loop), by=by)
    expected, strange = _not_answers(workspace, answers)
    if as_json:
        print_json({"file": str(place)} | kept.as_dict() | {"strange": strange})
    else:
        click.echo("\n".join(_lines(kept, place)))
        if strange:
            click.echo(
                f"{len(strange)} of the answers tell what the champion never answers ({expected}): {_some(tuple(strange))}"
            )
        if config.data.fresh is None and config.data.modality != "series":
            say("to learn from them in the next run, write in the loop file: data: {fresh: requests}")
    return EXIT_DONE


def _not_answers(workspace: Workspace, answers: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """What the champion tells, and the ids of answers that it cannot be compared with: a misspelt class, a word for a number.

    They are kept all the same, for a class may be new and the champion another one tomorrow.
    """
    from kfloop.core.quality.answers import of_model, spelled
    from kfloop.serving.repository import served, served_signature

    if served(workspace.repository, workspace.loop)[0] is None:
        return "", []
    signature = served_signature(workspace.repository, workspace.loop)
    if signature.objective not in {"classification", "regression"}:
        return "", []
    known = ", ".join(signature.labels[:CLASSES]) + (", ..." if len(signature.labels) > CLASSES else "")
    strange = [
        str(line["request_id"])
        for line in answers
        if of_model(spelled(line["label"]), signature.objective, signature.labels) is None
    ]
    return known if signature.objective == "classification" else "numbers", strange


def _lines(kept: Kept, place: Path) -> list[str]:
    """What was done, for people."""
    text = [f"{kept.added} answers added to '{place}'"]
    for told, names in (
        (f"{len(kept.unknown)} of them are about requests that are not in the request log (yet)", kept.unknown),
        (
            f"{len(kept.changed)} of them differ from an earlier answer to the same request: the later counts",
            kept.changed,
        ),
        (f"{len(kept.repeated)} were there already, and are not added again", kept.repeated),
    ):
        if names:
            text.append(f"{told}: {_some(names)}")
    return text


def _some(names: tuple[Any, ...]) -> str:
    return ", ".join(map(str, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
