"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

config_option = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("loop.yaml"),
    show_default=True,
    help="The loop file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
by_option = click.option("--by", default="", metavar="NAME", help="Who decides; your user name when left out.")
ca_option = click.option(
    "--ca",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="KFLOOP_CA",
    help="PEM file with the certificates to trust, for a cluster with an authority of its own.",
)
