"""``kfloop init``: look at the data, then write a loop file that works without editing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import json_option
from kfloop.errors import EXIT_DONE, ConfigError, InputError

if TYPE_CHECKING:
    from kfloop.core.sections import DataConfig

DIGITS = "digits"
TEXT = ".txt"
FILES = frozenset({".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson", ".npz", TEXT})
SHOWN = 8  # names of classes
GIVEN = ("modality", "task", "label", "text", "id", "group", "time", "delimiter", "pattern", "votes")


@click.command("init")
@click.argument("data", required=False)
@click.option("--name", help="Name of the loop; the data's name when left out.")
@click.option("--label", help="Column that holds the label (of metadata.csv, for a folder).")
@click.option("--text", help="Column that holds the text.")
@click.option("--id", help="Column that names each row.")
@click.option("--group", help="Column of what must not cross splits: a patient, a speaker.")
@click.option("--time", help="Column of the time of each row.")
@click.option(
    "--modality",
    help="What a row is, where kfloop guesses wrong: table, text, series, image, audio, vector, nodes, graphs.",
)
@click.option("--task", help="What is to be learned: multiclass, multilabel, regression, forecasting.")
@click.option("--delimiter", help="What stands between the columns of a CSV file, or between label and text.")
@click.option("--pattern", help="What names of files tell, such as '{label}_{group}_{take}'.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("loop.yaml"),
    show_default=True,
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Replace a loop file that is there.")
@json_option
def init_command(
    data: str | None, *, name: str | None, out: Path, force: bool, as_json: bool, **given: str | None
) -> int:
    """Look at DATA and write a loop file for it that works without editing.

    DATA is a CSV, Parquet or JSON lines file, lines of text (label<TAB>text), npz or IDX arrays, a time series, a graph, a folder of
    images or of sounds, an address of one of these in S3, 'digits', or one of the samples that packages carry ('sample:co2'). Without DATA the
    current folder is searched.

    \b
    Example:
      kfloop init photos/
      kfloop init people.csv --label income
      kfloop init digits --name my-first-loop
    """
    from kfloop.cli.loop_text import NOUNS, loop_text
    from kfloop.components.ingest.sources import inspect
    from kfloop.core.config import load_config

    if out.exists() and not force:
        raise ConfigError(f"'{out}' is there already", hint="use --force to replace it, or -o to write another file")
    source, votes = (data, None) if data else find_data(Path.cwd())
    if source == DIGITS and Path(source).exists():
        source = f"./{DIGITS}"  # what lies here is meant, not scikit-learn's
    config = _config(source, given | ({"votes": votes} if votes else {}))
    info = inspect(config)
    told = {key: getattr(config, key) for key in GIVEN if getattr(config, key) not in {None, "auto"}}
    before = out.read_bytes() if out.exists() else None
    out.write_text(loop_text(name, source, info, told, out.resolve().parent), encoding="utf-8")
    try:
        load_config(out)
    except ConfigError:  # such as a --name that is none: nothing was changed
        out.unlink() if before is None else out.write_bytes(before)
        raise
    if as_json:
        found = {"modality": info.modality, "task": info.task, "guessed": info.suggestions, "notes": list(info.notes)}
        print_json({"path": str(out), "rows": info.n, "labels": list(info.labels), **found})
        return EXIT_DONE
    more = ", ..." if len(info.labels) > SHOWN else ""
    classes = (
        f" of {len(info.labels)} classes ({', '.join(info.labels[:SHOWN])}{more})"
        if info.labels
        else f", for {info.task}"
    )
    say(f"{info.n} {NOUNS[info.modality]}{classes} in '{source}'")
    for key, value in info.suggestions.items():
        say(f"  guessed: data.{key} is {value!r}")
    for note in info.notes:
        say(f"  note: {note}")
    say(f"wrote {out}; next: kfloop run" + ("" if str(out) == "loop.yaml" else f" -c {out}"))
    return EXIT_DONE


def _config(source: str, given: dict[str, str | None]) -> DataConfig:
    """The data section that was asked for on the command line.

    Raises:
        ConfigError: A value that the section refuses.
    """
    from pydantic import ValidationError

    from kfloop.components.ingest.samples import is_sample
    from kfloop.core.sections import DataConfig

    named = source == DIGITS or is_sample(source) or "://" in source
    absolute = source if named else str(Path(source).resolve())
    told = {key: value for key, value in given.items() if value is not None}
    try:
        return DataConfig.model_validate({"source": absolute, "corrections": None} | told)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"--{problem['loc'][0]} is {problem['input']!r}: {problem['msg']}") from error


def find_data(folder: Path) -> tuple[str, str | None]:
    """The one file or subfolder of ``folder`` that looks like data, and the file of several people's answers where there is one.

    Raises:
        InputError: There is none, or more than one.
    """
    from kfloop.components.ingest.sources import reader_of
    from kfloop.components.ingest.votes import are_votes
    from kfloop.core.sections import DataConfig

    found: list[str] = []
    votes: list[str] = []
    for child in sorted(folder.iterdir()):
        if child.name.startswith(".") or (child.is_file() and child.suffix.lower() not in FILES):
            continue
        try:
            reader = reader_of(child, DataConfig())
            if child.suffix.lower() == TEXT:  # most text files are not data: it must open
                reader.open_source(child, DataConfig())
        except InputError:
            continue
        (votes if are_votes(child) else found).append(child.name)
    if len(found) == 1:
        return found[0], votes[0] if len(votes) == 1 else None
    raise InputError(
        f"found {len(found)} data sets in '{folder}'" + (f": {', '.join(found)}" if found else ""),
        hint="name the data: kfloop init PATH (a table, a folder of images or sounds, ...), or: kfloop init digits",
    )
