"""``kfloop init``: look at the data, then write a loop file that works without editing."""

from __future__ import annotations

import re
from pathlib import Path

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import json_option
from kfloop.errors import EXIT_DONE, ConfigError, InputError

TEMPLATE = """\
# The loop of one model. `kfloop run` trains a challenger and lets it prove itself; `kfloop monitor` watches the champion.
# Every key is explained in the README; an unknown key is an error that names the nearest one.
name: {name}

data:
  source: {source}        # {found}
{label}  fresh: {fresh}        # put newly labelled images here (same layout); it may stay empty
  split: {{validation: 0.15, test: 0.25}}

labels:
  policy: report          # report | weight | quarantine

train:
  family: cnn
  epochs: {epochs}
  batch_size: {batch}
  seed: 0

gate:
  approval: auto          # auto | manual
{rules}
monitor:
  false_alarm: 0.05       # chance of any false drift alarm in the life of one champion
  min_fresh_labels: 60    # newly labelled rows needed to retrain
"""

FEW_ROWS = 400
SMALL_RULES = """\
  # Small data: with {test} test images an interval is wide, so the floor is put on the point estimate.
  rules:
    - {{metric: accuracy, at_least: 0.7}}
    - {{metric: accuracy, versus: champion, at_least: -0.05}}
    - {{metric: p95_ms, source: bless, at_most: 200}}
"""


@click.command("init")
@click.argument("data", required=False)
@click.option("--name", help="Name of the loop; the folder's name when left out.")
@click.option("--label", help="Column of metadata.csv that holds the label.")
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
    data: str | None, *, name: str | None, label: str | None, out: Path, force: bool, as_json: bool
) -> int:
    """Look at DATA (an image folder, or 'digits') and write a loop file for it.

    Without DATA the current folder is searched for a folder of images.

    \b
    Example:
      kfloop init photos/
      kfloop init digits --name my-first-loop
    """
    from kfloop.components.ingest.sources import inspect
    from kfloop.core.config import load_config
    from kfloop.core.sections import DataConfig

    if out.exists() and not force:
        raise ConfigError(f"'{out}' is there already", hint="use --force to replace it, or -o to write another file")
    source = data or find_images(Path.cwd())
    absolute = source if source == "digits" else str(Path(source).resolve())
    info = inspect(DataConfig(source=absolute, label=label))
    text = loop_text(name or loop_name(source), source, label, info.n, list(info.labels), out.resolve().parent)
    out.write_text(text, encoding="utf-8")
    load_config(out)
    if as_json:
        print_json({"path": str(out), "rows": info.n, "labels": list(info.labels)})
    else:
        say(f"{info.n} images of {len(info.labels)} classes ({', '.join(info.labels[:8])}) in '{source}'")
        say(f"wrote {out}; next: kfloop run" + ("" if str(out) == "loop.yaml" else f" -c {out}"))
    return EXIT_DONE


def loop_text(name: str, source: str, label: str | None, rows: int, labels: list[str], folder: Path) -> str:
    """The loop file for what was found."""
    where = source
    if source != "digits":
        resolved = Path(source).resolve()
        where = str(resolved.relative_to(folder)) if resolved.is_relative_to(folder) else str(resolved)
    few = rows < FEW_ROWS
    return TEMPLATE.format(
        name=name,
        source=quoted(where),
        found=f"{rows} images, {len(labels)} classes",
        label=f"  label: {quoted(label)}\n" if label else "",
        fresh="incoming",
        epochs=40 if few else 12,
        batch=16 if few else 64,
        rules=SMALL_RULES.format(test=round(rows * 0.25)) if few else "",
    )


def quoted(text: str) -> str:
    """A YAML scalar that always means this text."""
    return text if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", text) else "'" + text.replace("'", "''") + "'"


def loop_name(source: str) -> str:
    """A valid loop name made from the data's name."""
    name = re.sub(r"[^a-z0-9]+", "-", Path(source).resolve().name.lower() if source != "digits" else source).strip("-")
    return (name or "loop")[:48].strip("-")


def find_images(folder: Path) -> str:
    """The one subfolder of ``folder`` that looks like an image dataset.

    Raises:
        InputError: There is none, or more than one.
    """
    suffixes = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
    found = [
        child.name
        for child in sorted(folder.iterdir())
        if child.is_dir()
        and not child.name.startswith(".")
        and any(path.suffix.lower() in suffixes for path in child.glob("*/*"))
    ]
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"found {len(found)} folders of images in '{folder}'" + (f": {', '.join(found)}" if found else ""),
        hint="name the data: kfloop init FOLDER (one subfolder per class), or: kfloop init digits",
    )
