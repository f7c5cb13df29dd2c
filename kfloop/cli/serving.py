"""``kfloop serve`` and ``kfloop predict``."""

from __future__ import annotations

from pathlib import Path

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import config_option, json_option
from kfloop.errors import EXIT_DONE


@click.command("serve")
@config_option
@click.option("--http-port", type=int, help="Port for HTTP; a free one when left out.")
@click.option("--grpc-port", type=int, help="Port for gRPC; a free one when left out.")
@click.option("--detach", is_flag=True, help="Return once the server is ready; end it with: kfloop serve --stop")
@click.option("--stop", "ask_stop", is_flag=True, help="Stop the server of this loop.")
@json_option
def serve_command(
    path: Path, *, http_port: int | None, grpc_port: int | None, detach: bool, ask_stop: bool, as_json: bool
) -> int:
    """Run the embedded Triton for this loop, on loopback, until Ctrl-C.

    Every request is logged (inputs, outputs, version, id, time) to .kfloop/requests for `kfloop monitor`.

    \b
    Example:
      kfloop serve
      kfloop serve --detach && kfloop run; kfloop serve --stop
    """
    from kfloop.pipelines.rounds import open_loop
    from kfloop.serving import supervisor
    from kfloop.serving.endpoint import require

    loop = open_loop(path)
    if ask_stop:
        stopped = supervisor.stop(loop.workspace)
        say("stopped" if stopped else "no server of this loop is running")
        if as_json:
            print_json({"stopped": stopped})
        return EXIT_DONE
    if detach:
        supervisor.start_background(loop.workspace, http_port=http_port, grpc_port=grpc_port)
        announce(loop.config.name, require(loop.workspace), as_json=as_json)
        return EXIT_DONE
    supervisor.serve(
        loop.workspace,
        http_port=http_port,
        grpc_port=grpc_port,
        ready=lambda endpoint: announce(loop.config.name, endpoint, as_json=as_json),
    )
    return EXIT_DONE


def announce(model: str, endpoint: object, *, as_json: bool) -> None:
    """Say where the server is."""
    http, grpc = getattr(endpoint, "http", ""), getattr(endpoint, "grpc", "")
    if as_json:
        print_json({"model": model, "http": http, "grpc": grpc})
    say(f"serving model '{model}' at {http} (http) and {grpc} (grpc); trusted callers on this machine only")


@click.command("predict")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@config_option
@json_option
def predict_command(images: tuple[Path, ...], path: Path, *, as_json: bool) -> int:
    """Send image files to the champion and print its answers.

    \b
    Example:
      kfloop predict incoming/3/*.png
    """
    import numpy as np

    from kfloop.components.ingest.readers.images.decoding import decode
    from kfloop.pipelines.rounds import open_loop
    from kfloop.serving.client import predict
    from kfloop.serving.endpoint import require
    from kfloop.serving.repository import served_signature

    loop = open_loop(path)
    endpoint = require(loop.workspace)
    signature = served_signature(loop.workspace.repository, loop.config.name)
    height, _, channels = signature.image_shape
    arrays = [decode(image, height, channels).pixels for image in images]
    answer = predict(endpoint, loop.config.name, np.stack(arrays))
    rows = [
        {"file": str(image), "label": signature.labels[label], "confidence": float(p.max()), "id": request}
        for image, label, p, request in zip(images, answer.labels, answer.probabilities, answer.ids, strict=True)
    ]
    if as_json:
        print_json({"version": answer.version, "answers": rows})
    else:
        click.echo("\n".join(f"{row['file']}\t{row['label']}\t{row['confidence']:.3f}" for row in rows))
    return EXIT_DONE
