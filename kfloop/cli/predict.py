"""``kfloop predict``: files or arrays to a served model, and its answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfloop.cli.console import print_json
from kfloop.cli.options import config_option, json_option
from kfloop.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.core.signature import Signature
    from kfloop.core.workspace import Workspace
    from kfloop.pipelines.rounds import Loop
    from kfloop.serving.client import Prediction
    from kfloop.serving.wire import TLS

HALF = 0.5  # probability from which on a label is told
MANY = 1000  # examples from which on the terminal shows how many are answered


@click.command("predict")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@config_option
@click.option("--url", metavar="[https://]HOST[:PORT]", help="Ask this server instead of the loop's own; an edge, say.")
@click.option("--protocol", type=click.Choice(["http", "grpc"]), default="http", show_default=True)
@click.option("--tls", "secured", is_flag=True, help="With TLS, trusting the system's authorities; so does https://.")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="With TLS, trusting these authorities (PEM).")
@click.option("--cert", type=click.Path(exists=True, dir_okay=False), help="This client's certificate (PEM).")
@click.option("--cert-key", type=click.Path(exists=True, dir_okay=False), help="Its key (PEM).")
@click.option("--model", help="Name of the model at --url; the loop's when left out.")
@click.option("--key", help="What a canary's split goes by, such as a customer's id.")
@json_option
def predict_command(
    files: tuple[Path, ...],
    path: Path,
    *,
    url: str | None,
    protocol: str,
    secured: bool,
    ca: str | None,
    cert: str | None,
    cert_key: str | None,
    model: str | None,
    key: str | None,
    as_json: bool,
) -> int:
    """Send files to the champion and print its answers.

    The server has to run (kfloop serve --detach), or be that of deploy.target. Pictures for models of images; wav or flac files for models of
    sounds; text files, a text on each line (blank ones are passed over), or JSON lines, Parquet or CSV with the column data.text, for models of texts;
    CSV, JSON lines or Parquet files with the columns of the training (others are passed over) for models of tables; CSV or Parquet files of a
    time series, whose last rows (as many as a window has, for each group) are asked about, for models of series. Every other model, and each of
    these, takes an .npz file with its tensors by name, or an .npy file where it takes one tensor.

    With --url and without the loop's files beside it, only .npz and .npy files can be sent: nobody knows how to encode others.

    \b
    Example:
      kfloop predict incoming/3/*.png
      kfloop predict customers.csv --json      # confidence and id of the request of each row
      kfloop predict until_now.csv --json      # the forecast after the last row of a series
      kfloop predict arrays.npz                # numpy.savez("arrays.npz", vector=...)
      kfloop predict rows.npy --url https://models.example.org --model churn
      kfloop predict rows.npy --url models.example.org:443 --ca ca.pem --model churn
    """
    from kfloop.serving.client import TLS, Client, predict
    from kfloop.serving.takes import takes_of

    if url is None and (model or secured or ca or cert or cert_key):
        raise ConfigError(
            "--model, --tls, --ca, --cert and --cert-key are about the server at --url", hint="give --url too"
        )
    progress = _progress(as_json=as_json)
    tls = None
    if url is None and path.is_file():
        url, tls = _elsewhere(path, protocol)
    if url is None:
        from kfloop.serving.endpoint import require

        loop = _open(path)
        endpoint = require(loop.workspace)
        signature, inputs, names = _encoded(loop, files)
        answer = predict(endpoint, loop.workspace.loop, inputs, key=key, protocol=protocol, progress=progress)
        return _print(answer_rows(signature, answer, names), answer.version, as_json=as_json)
    beside = _open(path) if path.is_file() else None
    name = model or (beside.workspace.loop if beside else "")
    if not name:
        raise ConfigError("--model is missing: nobody says which model is meant", hint="add --model NAME")
    if cert_key and not cert:
        raise ConfigError("--cert-key needs --cert", hint="give both, or neither")
    url, secured = place_of(url, secured=secured or bool(ca or cert))
    tls = TLS(ca=ca or "", cert=cert or "", key=cert_key or "") if secured else tls
    client = Client(url, name, protocol=protocol, tls=tls)
    if beside is not None and name == beside.workspace.loop and _has_served(beside.workspace):
        signature, inputs, names = _encoded(beside, files)
        takes = takes_of(signature, tells_version=client.takes.tells_version)
        client = Client(url, name, protocol=protocol, tls=tls, takes=takes)
        answer = client.predict(inputs, key=key, progress=progress)
        return _print(answer_rows(signature, answer, names), answer.version, as_json=as_json)
    from kfloop.cli.inputs import read_arrays

    arrays, names = read_arrays(files, client.takes.inputs)
    answer = client.predict(arrays, key=key, progress=progress)
    return _print(plain_rows(answer, names), answer.version, as_json=as_json)


def place_of(url: str, *, secured: bool) -> tuple[str, bool]:
    """Host and port of an address as people paste it, and whether it is reached by TLS.

    Raises:
        ConfigError: It has a path, or says ``http://`` where TLS is asked for.
    """
    scheme, _, rest = url.rpartition("://")
    rest = rest.rstrip("/")
    if scheme not in {"", "http", "https"} or "/" in rest:
        raise ConfigError(f"'{url}' is no host and port", hint="write it as HOST:PORT or https://HOST")
    if scheme == "http" and secured:
        raise ConfigError(f"'{url}' says http, but TLS is asked for", hint="write https://, or leave TLS out")
    if scheme and ":" not in rest.rpartition("]")[2]:
        rest += ":443" if scheme == "https" else ":80"
    return rest, secured or scheme == "https"


def _elsewhere(path: Path, protocol: str) -> tuple[str | None, TLS | None]:
    """Where ``deploy.target`` says that the model is; nothing for the loop's own server.

    Raises:
        ConfigError: It does not say it for this protocol.
    """
    from kfloop.core.config import load_config
    from kfloop.serving.remote import addresses

    target = load_config(path).deploy.target
    if target.kind == "kserve":
        raise ConfigError("deploy.target is kserve, and kfloop does not know the cluster's address", hint="give --url")
    if target.kind == "embedded":
        return None, None
    found = next((address for address in addresses(target) if address.protocol == protocol), None)
    if found is None:
        raise ConfigError(
            "deploy.target has no address for gRPC", hint="add deploy.target.grpc, or use --protocol http"
        )
    return found.url, found.tls


def _open(path: Path) -> Loop:
    from kfloop.pipelines.rounds import open_loop

    return open_loop(path)


def _has_served(workspace: Workspace) -> bool:
    from kfloop.serving.repository import served

    return served(workspace.repository, workspace.loop)[0] is not None


def _encoded(loop: Loop, files: tuple[Path, ...]) -> tuple[Signature, dict[str, Any], list[str]]:
    """What the champion takes, its tensors made of the files, and where each example came from."""
    from kfloop.cli.inputs import read_inputs
    from kfloop.serving.repository import served, served_signature

    workspace = loop.workspace
    signature = served_signature(workspace.repository, workspace.loop)
    version, _ = served(workspace.repository, workspace.loop)
    folder = workspace.repository / workspace.loop / str(version)
    inputs, names = read_inputs(files, folder, signature, loop.config.data)
    return signature, inputs, names


def _progress(*, as_json: bool) -> Callable[[int, int], None] | None:
    """A line on the terminal for those who wait, from a thousand examples on."""
    if as_json or not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        if total >= MANY:
            click.echo(f"\r{done} of {total}", nl=done == total, err=True)

    return show


def _print(rows: list[dict[str, Any]], version: int, *, as_json: bool) -> int:
    if as_json:
        print_json({"version": version, "answers": rows})
    else:
        click.echo("\n".join("\t".join([row["file"], *_told(row)]) for row in rows))
    return EXIT_DONE


def plain_rows(answer: Prediction, names: list[str]) -> list[dict[str, Any]]:
    """One row for each example of a model of which nothing is known but its tensors: every output as it came."""
    if len(names) != len(answer.ids):  # one answer to the whole
        whole = {name: _plain(value) for name, value in answer.outputs.items()}
        return [{"file": names[0].rpartition("#")[0], "outputs": whole, "id": answer.ids[0]}]
    return [
        {"file": name, "outputs": {key: _plain(value[place]) for key, value in answer.outputs.items()}, "id": request}
        for place, (name, request) in enumerate(zip(names, answer.ids, strict=True))
    ]


def _plain(value: Any) -> Any:
    """A value of an output for JSON."""
    found = value.tolist() if hasattr(value, "tolist") else value
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else found


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


def _told(row: dict[str, Any]) -> list[str]:
    """An answer for people; whole arrays are for --json."""
    if "label" in row:
        return [str(row["label"]), f"{row['confidence']:.3f}"]
    if "labels" in row:
        return [", ".join(row["labels"]) or "-"]
    outputs = row.get("outputs") or {key: value for key, value in row.items() if key not in {"file", "id"}}
    return [
        f"{value:.6g}" if isinstance(value, float) else str(value) if isinstance(value, str) else f"{name} (see --json)"
        for name, value in outputs.items()
    ]
