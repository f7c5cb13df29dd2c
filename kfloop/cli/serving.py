"""``kfloop serve`` and ``kfloop predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import config_option, json_option
from kfloop.errors import EXIT_DONE

if TYPE_CHECKING:
    from kfloop.core.signature import Signature
    from kfloop.serving.client import Prediction

HALF = 0.5  # probability from which on a label is told


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
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@config_option
@json_option
def predict_command(files: tuple[Path, ...], path: Path, *, as_json: bool) -> int:
    """Send files to the champion and print its answers.

    The server has to run (kfloop serve --detach). Pictures for models of images; text files, a text on each line, for models of texts;
    CSV files with the columns of the training (others are passed over) for models of tables. Every other model, and each of these, takes
    an .npz file with its tensors by name.

    \b
    Example:
      kfloop predict incoming/3/*.png
      kfloop predict customers.csv --json      # confidence and id of the request of each row
      kfloop predict questions.txt
      kfloop predict windows.npz               # numpy.savez("windows.npz", window=...)
    """
    from kfloop.cli.inputs import read_inputs
    from kfloop.pipelines.rounds import open_loop
    from kfloop.serving.client import predict
    from kfloop.serving.endpoint import require
    from kfloop.serving.repository import served, served_signature

    loop = open_loop(path)
    endpoint = require(loop.workspace)
    repository, model = loop.workspace.repository, loop.config.name
    signature = served_signature(repository, model)
    inputs, names = read_inputs(files, repository / model / str(served(repository, model)[0]), signature)
    answer = predict(endpoint, model, inputs)
    rows = answer_rows(signature, answer, names)
    if as_json:
        print_json({"version": answer.version, "answers": rows})
    else:
        click.echo("\n".join("\t".join([row["file"], *_told(signature, row)]) for row in rows))
    return EXIT_DONE


def answer_rows(signature: Signature, answer: Prediction, names: list[str]) -> list[dict[str, Any]]:
    """One row for each answer: where it came from, the answer in the words of the model's objective, and the id of its request."""
    values = answer.outputs[signature.answer]
    names = names if len(names) == len(values) else [f"{names[0]}#{row}" for row in range(len(values))]
    ids = answer.ids if len(answer.ids) == len(values) else answer.ids * len(values)
    rows: list[dict[str, Any]] = []
    for name, value, request in zip(names, values, ids, strict=True):
        if signature.objective == "classification":
            told = {"label": signature.labels[int(value.argmax())], "confidence": float(value.max())}
        elif signature.objective == "multilabel":
            told = {"labels": [label for label, p in zip(signature.labels, value, strict=True) if p >= HALF]}
        else:
            told = {signature.answer: value.tolist()}
        rows.append({"file": name, **told, "id": request})
    return rows


def _told(signature: Signature, row: dict[str, Any]) -> list[str]:
    """An answer for people; whole arrays are for --json."""
    if signature.objective == "classification":
        return [str(row["label"]), f"{row['confidence']:.3f}"]
    if signature.objective == "multilabel":
        return [", ".join(row["labels"]) or "-"]
    value = row[signature.answer]
    return [f"{value:.6g}" if isinstance(value, float) else f"{signature.answer} (see --json)"]
