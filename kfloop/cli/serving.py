"""``kfloop serve``: the embedded Triton of a loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import config_option, json_option
from kfloop.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from kfloop.core.sections import TargetConfig
    from kfloop.core.workspace import Workspace
    from kfloop.serving.endpoint import Endpoint


@click.command("serve")
@config_option
@click.option("--http-port", type=int, help="Port for HTTP; a free one when left out.")
@click.option("--grpc-port", type=int, help="Port for gRPC; a free one when left out.")
@click.option(
    "--edge", is_flag=True, help="Also open a port that checks every request (HTTP), for callers not trusted."
)
@click.option("--edge-port", type=int, help="Its port; a free one when left out.")
@click.option("--edge-host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address it listens on.")
@click.option("--detach", is_flag=True, help="Return once the server is ready; end it with: kfloop serve --stop")
@click.option("--stop", "ask_stop", is_flag=True, help="Stop the server of this loop.")
@json_option
def serve_command(
    path: Path,
    *,
    http_port: int | None,
    grpc_port: int | None,
    edge: bool,
    edge_port: int | None,
    edge_host: str,
    detach: bool,
    ask_stop: bool,
    as_json: bool,
) -> int:
    """Run the embedded Triton for this loop, on loopback, until Ctrl-C.

    Requests are logged (inputs, outputs, version, id, time) to .kfloop/requests for `kfloop monitor`; section serve.log of the loop
    file says how many, what of them, and for how long.

    The ports of Triton are for trusted callers. --edge opens one more, which speaks HTTP alone (no gRPC): health, metadata and inference
    of this model, and a clear 4xx for everything that does not fit it.

    \b
    Example:
      kfloop serve
      kfloop serve --detach && kfloop run; kfloop serve --stop
      kfloop serve --edge --edge-port 8000
    """
    from kfloop.pipelines.rounds import open_loop
    from kfloop.serving import supervisor
    from kfloop.serving.options import EdgePlace, ServeOptions, check_columns

    loop = open_loop(path)
    if ask_stop:
        stopped = supervisor.stop(loop.workspace)
        say("stopped" if stopped else "no server of this loop is running")
        if as_json:
            print_json({"stopped": stopped})
        return EXIT_DONE
    refuse_elsewhere(loop.config.deploy.target)
    check_columns(loop.workspace, loop.config.serve)
    place = EdgePlace(host=edge_host, port=edge_port or 0) if edge or edge_port is not None else None
    options = ServeOptions(serve=loop.config.serve, edge=place)
    if detach:
        endpoint = supervisor.start_background(
            loop.workspace, http_port=http_port, grpc_port=grpc_port, options=options
        )
        announce(loop.workspace, endpoint, as_json=as_json)
        return EXIT_DONE
    supervisor.serve(
        loop.workspace,
        http_port=http_port,
        grpc_port=grpc_port,
        options=options,
        ready=lambda endpoint: announce(loop.workspace, endpoint, as_json=as_json),
    )
    return EXIT_DONE


def refuse_elsewhere(target: TargetConfig) -> None:
    """Say whose server it is where it is not this one.

    Raises:
        ConfigError: ``deploy.target`` is another one than the embedded server.
    """
    if target.kind == "embedded":
        return
    where = (
        f"the Triton at {target.url}" if target.kind == "triton" else f"the cluster that applies '{target.manifests}'"
    )
    raise ConfigError(
        f"deploy.target is {target.kind}: {where} serves this loop, is somebody else's, and kfloop neither starts nor stops it",
        hint="whether the champion is ready there: kfloop status; to serve it here, too, take a loop file with target embedded",
    )


def announce(workspace: Workspace, endpoint: Endpoint, *, as_json: bool) -> None:
    """Say where the server is."""
    from kfloop.serving.edge.process import read_state

    model, edge = workspace.loop, read_state(workspace)
    where = {} if edge is None else {"edge": edge["address"]}
    if as_json:
        print_json({"model": model, "http": endpoint.http, "grpc": endpoint.grpc} | where)
    say(
        f"serving model '{model}' at {endpoint.http} (http) and {endpoint.grpc} (grpc); trusted callers on this machine only"
    )
    if edge is None:
        return
    say(f"edge at {edge['address']} (http): every request is checked")
    host = edge["address"].rpartition(":")[0]
    if not (host.startswith("127.") or host in {"::1", "localhost"}):
        say(f"the edge listens on {host} without TLS and without authentication: both belong in front of it")
