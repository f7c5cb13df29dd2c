"""``kfloop collect``: the request log beside a server that is not kfloop's own."""

from __future__ import annotations

from pathlib import Path

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import config_option, json_option
from kfloop.errors import EXIT_DONE


@click.command("collect")
@config_option
@click.option(
    "--socket",
    "address",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Socket to listen on, in a folder of its own; .kfloop/collect/log.sock beside the loop file when left out.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to; the loop's request log, .kfloop/requests, when left out.",
)
@json_option
def collect_command(path: Path, *, address: Path | None, out: Path | None, as_json: bool) -> int:
    """Collect what a server of `kfloop export` answers, until Ctrl-C or SIGTERM; needs no server to run yet.

    The server sends log rows to the socket that its variable KFLOOP_LOG_SOCKET names; both run on one machine, see the same folder of the socket
    and run as the same user (or the server as root). What is written, masked and kept is up to section serve.log of the loop file, as with
    kfloop serve; until this command ran once, the server sends nothing, because nobody told it what is private. kfloop monitor, feedback and
    review read the rows like those of the loop's own server. Where key requests of the loop file names a place, such as s3://bucket/path, rows
    are published there, and what waits for it lies in the folder: for many servers, each with a folder of its own.

    \b
    Example:
      kfloop collect --socket /run/kfloop/log.sock
      kfloop collect --socket /run/kfloop/log.sock --out /var/log/requests
    """
    from kfloop.core.config import load_config
    from kfloop.serving.collecting import collect, sentence
    from kfloop.serving.options import check_columns

    config = load_config(path)
    workspace = config.workspace(path.resolve().parent)
    check_columns(workspace, config.serve)
    folder = out or workspace.collected
    place = address or workspace.kfloop_dir / "collect" / "log.sock"
    done = collect(
        workspace,
        config.serve.log,
        folder=folder,
        address=place,
        ready=lambda: say(f"collecting for '{config.name}' at {place} into {folder}; end with Ctrl-C or SIGTERM"),
    )
    say(sentence(done))
    if as_json:
        print_json({"socket": str(place), "out": str(folder), "written": done.written, "dropped": done.dropped})
    return EXIT_DONE
