"""``kfloop review``: ask people about doubtful examples, and take their answers back."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import config_option, json_option
from kfloop.core.records import DIGEST_SHOWN
from kfloop.errors import EXIT_DONE, ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.core.config import LoopConfig
    from kfloop.core.review import Answer, QueueItem
    from kfloop.core.versions import DatasetVersion

VARIABLE = "LABEL_STUDIO_TOKEN"
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Places:
    """An opened loop file, and the artifacts that a review is about."""

    config: LoopConfig
    folders: dict[str, Path]


@click.group("review")
def review_command() -> None:
    """Ask people about doubtful examples, and take their answers into the next dataset version.

    \b
    Example:
      kfloop run --until check_labels
      kfloop review export -o review/       open review/sheet.html, answer, save
      kfloop review import answers.jsonl
      kfloop run
    """


def label_studio_options(command: Callable[..., int]) -> Callable[..., int]:
    """The options that name a Label Studio server and a project in it."""
    for option in (
        click.option("--project", type=int, metavar="N", help="Project of Label Studio."),
        click.option(
            "--token-env",
            default=VARIABLE,
            show_default=True,
            metavar="NAME",
            help="NAME of the environment variable that holds Label Studio's access token.",
        ),
        click.option("--label-studio", "server", metavar="URL", help="Address of a Label Studio server."),
        click.option(
            "-i",
            "--input",
            "inputs",
            multiple=True,
            metavar="NAME=FOLDER",
            help="Take dataset or labels from this folder instead of the loop's last run.",
        ),
    ):
        command = option(command)
    return command


@review_command.command("export")
@config_option
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("review"),
    show_default=True,
    help="Folder that receives queue.jsonl and sheet.html.",
)
@click.option("--limit", type=click.IntRange(min=1), default=200, show_default=True, help="Most examples to ask about.")
@click.option("--reason", "reasons", multiple=True, help="Ask only for this reason; repeat for more.")
@click.option(
    "--below",
    type=click.FloatRange(0, 1),
    help="Confidence below which a prediction is doubtful; left out: what check_labels decided.",
)
@click.option("--again", is_flag=True, help="Ask also about what people settled before.")
@label_studio_options
@json_option
def export_command(
    path: Path,
    *,
    out: Path,
    limit: int,
    reasons: tuple[str, ...],
    below: float | None,
    again: bool,
    inputs: tuple[str, ...],
    server: str | None,
    token_env: str,
    project: int | None,
    as_json: bool,
) -> int:
    """Write the doubtful examples as a queue and as a sheet to answer in a browser, or give them to Label Studio.

    Doubtful are, the first of them first: requests whose labels the monitor needs (worth_labelling), requests that the served model flagged (flagged_request; see package.review), equal or alike examples with different labels (conflict), labels that are probably wrong (label_issue),
    examples on which the given votes disagree (annotators), predictions of low confidence (low_confidence), and, when asked
    for, outliers (outlier).

    \b
    Example:
      kfloop review export -o review/ --limit 100
      kfloop review export --reason conflict --reason outlier
      LABEL_STUDIO_TOKEN=... kfloop review export --label-studio http://127.0.0.1:8080
    """
    from kfloop.core.review import build_queue, decide, write_queue
    from kfloop.core.review.items import QUEUE
    from kfloop.core.review.queue import DEFAULT_REASONS
    from kfloop.core.review.sheet import SHEET, write_sheet
    from kfloop.core.versions import read_version

    check_project(server, project)
    places = open_places(path, inputs, ("dataset", "labels"))
    version = read_version(places.folders["dataset"])
    corrections = places.config.data.corrections
    settled = decide(Path(corrections)) if corrections and not again else {}
    items = build_queue(
        version,
        places.folders["labels"],
        limit=limit,
        reasons=reasons or DEFAULT_REASONS,
        below=below,
        answered=settled,
    )
    items = [*_of_requests(places.config, path, version, limit, reasons, again=again), *items][:limit]
    told: dict[str, Any] = {"dataset": version.digest, "items": len(items), "reasons": counted(items)}
    told |= {"settled_before": len(settled), "queue": None, "sheet": None, "label_studio": None}
    if len(items) == limit:
        say(f"these are the {limit} most doubtful; --limit asks about more")
    if not items:
        say(nothing_to_ask(version, len(settled)))
    elif server is None:
        write_queue(out / QUEUE, items)
        write_sheet(out / SHEET, items, loop=places.config.name, dataset=version.digest)
        told |= {"queue": str(out / QUEUE), "sheet": str(out / SHEET)}
        say(
            asked(items)
            + f"\nopen {(out / SHEET).resolve().as_uri()} in a browser, answer, press 'Save answers', then:"
        )
        say(f"  kfloop review import answers.jsonl{loop_flag(path)}")
    else:
        told["label_studio"] = send(items, server, token_env, project, places.config.name, path)
    if as_json:
        print_json(told)
    return EXIT_DONE


@review_command.command("import")
@click.argument("answers", required=False, type=click.Path(path_type=Path, dir_okay=False))
@config_option
@label_studio_options
@json_option
def import_command(
    answers: Path | None,
    path: Path,
    *,
    inputs: tuple[str, ...],
    server: str | None,
    token_env: str,
    project: int | None,
    as_json: bool,
) -> int:
    """Take the answers of people from the file ANSWERS, or from a project of Label Studio.

    They are added to the file that data.corrections names, with who and when; the next run puts them into its dataset version. The
    newest answer of each person counts, and what more than half of them say; a tie or 'unsure' changes nothing.

    \b
    Example:
      kfloop review import answers.jsonl
      LABEL_STUDIO_TOKEN=... kfloop review import --label-studio http://127.0.0.1:8080 --project 3
    """
    from kfloop.core.review import decide, merge_answers, read_answers
    from kfloop.core.review.places import known_contents
    from kfloop.core.review.requests import about_requests
    from kfloop.core.versions import read_version

    if (answers is None) == (server is None):
        raise ConfigError(
            "give either a file of answers or --label-studio URL", hint="see: kfloop review import --help"
        )
    check_project(server, project)
    places = open_places(path, inputs, ("dataset",))
    corrections = places.config.data.corrections
    if corrections is None:
        raise ConfigError(
            "data.corrections is null: there is no file that could keep the answers",
            hint=f"set 'corrections: corrections.jsonl' under 'data:' in '{path}'",
        )
    version = read_version(places.folders["dataset"])
    if answers is not None:
        found = read_answers(answers, labels=version.labels, task=version.task)
    else:
        found = fetch(version, str(server), token_env, project)
    asked_for, found = about_requests(found)
    feedback = _feedback(places.config, path, asked_for)
    result = merge_answers(Path(corrections), found, version.labels, known_contents(version, found))
    settled = len(decide(Path(corrections)))
    told = {
        "corrections": corrections,
        "answers": len(found),
        "added": result.added,
        "repeated": result.repeated,
        "open": list(result.conflicting),
        "unknown": list(result.unknown),
        "settled": settled,
        "feedback": feedback,
    }
    say(imported(told))
    if as_json:
        print_json(told)
    return EXIT_DONE


def _of_requests(
    config: LoopConfig, path: Path, version: DatasetVersion, limit: int, reasons: tuple[str, ...], *, again: bool
) -> list[QueueItem]:
    """Requests that nobody has answered: those that the monitor wants labelled, then those that the served model flagged."""
    from kfloop.core.ground_truth import truth_file
    from kfloop.core.review.choosing import open_questions
    from kfloop.core.review.items import FLAGGED, WORTH
    from kfloop.core.review.requests import answered_requests, flagged_requests, requests_worth_labelling
    from kfloop.serving.log_mirror import bring

    workspace = config.workspace(path.resolve().parent)
    answered = set() if again else answered_requests(truth_file(config.data.feedback, workspace.root))
    log, versions = bring(workspace) / config.name, workspace.repository / config.name
    items: list[QueueItem] = []
    if not reasons or WORTH in reasons:
        questions = open_questions(workspace)
        items = requests_worth_labelling(log, versions, version, questions, limit=limit, answered=answered)
    if not reasons or FLAGGED in reasons:
        known = answered | {item.id for item in items}
        items += flagged_requests(log, versions, version, limit=limit - len(items), answered=known)
    return items


def _feedback(config: LoopConfig, path: Path, answers: list[Answer]) -> int:
    """Keep what people said about requests; gives how many lines are new."""
    from kfloop.core.ground_truth import truth_file
    from kfloop.core.review.requests import write_feedback

    return write_feedback(truth_file(config.data.feedback, path.resolve().parent), answers) if answers else 0


def open_places(path: Path, inputs: tuple[str, ...], needed: tuple[str, ...]) -> Places:
    """The loop file and the folders of the artifacts that are needed: as given, else of the loop's last run that has them.

    Raises:
        ConfigError: The loop file is wrong, an input is none, or the loop has not run so far.
    """
    from kfloop.core.config import load_config
    from kfloop.core.review.places import STEPS, last_artifacts

    config = load_config(path)
    folders = {}
    for item in inputs:
        key, _, folder = item.partition("=")
        if key not in needed:
            raise ConfigError(f"this command has no input '{key}'", hint=nearest(key, needed))
        if not Path(folder).is_dir():
            raise ConfigError(f"input '{key}': no folder '{folder}'", hint=f"make it with: kfloop step {STEPS[key]}")
        folders[key] = Path(folder).resolve()
    missing = [name for name in needed if name not in folders]
    if missing and folders:
        raise ConfigError(
            f"give {missing[0]} too: dataset and labels must belong together", hint=f"-i {missing[0]}=FOLDER"
        )
    if missing:
        folders |= last_artifacts(config, path.resolve().parent, needed)
    return Places(config=config, folders=folders)


def check_project(server: str | None, project: int | None) -> None:
    """Refuse a project that no server was named for.

    Raises:
        ConfigError: It is so.
    """
    if project is not None and server is None:
        raise ConfigError(f"--project {project} needs --label-studio URL", hint="say which server has that project")


def loop_flag(path: Path) -> str:
    """What a command needs to find this loop file again; nothing for the usual name."""
    return "" if path == Path("loop.yaml") else f" -c {path}"


def counted(items: list[QueueItem]) -> dict[str, int]:
    """How many items have each reason."""
    counts: dict[str, int] = {}
    for item in items:
        for reason in item.reasons:
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def asked(items: list[QueueItem]) -> str:
    """What is asked, in one line."""
    parts = ", ".join(f"{reason} {count}" for reason, count in counted(items).items())
    return f"{len(items)} example{'' if len(items) == 1 else 's'} to look at ({parts})"


def nothing_to_ask(version: DatasetVersion, settled: int) -> str:
    """Why the queue is empty."""
    from kfloop.core.review.items import ANSWERABLE

    if version.task not in ANSWERABLE:
        return f"nothing to review: a {version.task} dataset has no labels that a person could settle"
    before = f" ({settled} were settled before; --again asks about them once more)" if settled else ""
    return f"nothing to review: no example of dataset {version.digest[:DIGEST_SHOWN]} is doubtful{before}"


def send(
    items: list[QueueItem], server: str, token_env: str, project: int | None, loop: str, path: Path
) -> dict[str, Any]:
    """Give the queue to Label Studio, and say where it is."""
    from kfloop.core.review.label_studio import LabelStudio, send_queue

    title = f"{loop} {time.strftime('%Y-%m-%d %H:%M', time.gmtime())}"
    sent = send_queue(LabelStudio(server, token_env), items, title=title, project=project)
    token = "" if token_env == VARIABLE else f" --token-env {token_env}"
    had = f" ({sent.present} were there before)" if sent.present else ""
    say(f"{asked(items)}: {sent.tasks} tasks in {sent.url}{had}\nwhen people have answered:")
    say(f"  kfloop review import --label-studio {server} --project {sent.project}{token}{loop_flag(path)}")
    return {"url": sent.url, "project": sent.project, "tasks": sent.tasks, "present": sent.present}


def fetch(version: DatasetVersion, server: str, token_env: str, project: int | None) -> list[Answer]:
    """The answers of a project of Label Studio.

    Raises:
        ConfigError: No project was named.
    """
    from kfloop.core.review.label_studio import LabelStudio, fetch_answers

    if project is None:
        raise ConfigError("--label-studio needs --project N", hint="kfloop review export printed the number")
    return fetch_answers(LabelStudio(server, token_env), project, labels=version.labels, task=version.task)


def imported(told: dict[str, Any]) -> str:
    """What an import did, for people."""
    counts = f"{told['answers']} answers: {told['added']} new, {told['repeated']} known before"
    lines = [f"{counts}; {told['settled']} examples are settled in {told['corrections']}"]
    if told["feedback"]:
        lines.append(f"{told['feedback']} answers about requests were added to data.feedback")
    if told["open"]:
        lines.append(f"{len(told['open'])} stay open (people disagree or are unsure): {shortened(told['open'])}")
    if told["unknown"]:
        lines.append(
            f"{len(told['unknown'])} are about examples that this dataset does not have, left out: {shortened(told['unknown'])}"
        )
    if told["added"]:
        lines.append("the next dataset version takes them: kfloop run")
    return "\n".join(lines)


def shortened(digests: list[str]) -> str:
    """A few content hashes, cut."""
    more = ", ..." if len(digests) > SHOWN else ""
    return ", ".join(digest[:DIGEST_SHOWN] for digest in digests[:SHOWN]) + more
