"""``kfloop export``: the champion as a Triton repository for production."""

from __future__ import annotations

from pathlib import Path

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import config_option, json_option
from kfloop.errors import EXIT_DONE, ServingError


@click.command("export")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@config_option
@click.option(
    "--target", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True, help="Where it will run."
)
@click.option(
    "--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="GPUs, each with instances of its own."
)
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Instances of the model on each GPU, or on the CPU.",
)
@click.option(
    "--delay-us",
    type=click.IntRange(min=0),
    help="Microseconds that a request waits for a fuller batch; left out: 2000 on GPUs, else 0.",
)
@click.option("--tensorrt", is_flag=True, help="Let onnxruntime hand the model to TensorRT in FP16 (GPUs only).")
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "python"]),
    default="onnxruntime",
    show_default=True,
    help="What runs the graph; python for servers without the onnxruntime backend.",
)
@click.option(
    "--package",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Take this package instead of the champion.",
)
@json_option
def export_command(
    out: Path,
    path: Path,
    *,
    target: str,
    gpus: int,
    instances: int,
    delay_us: int | None,
    tensorrt: bool,
    backend: str,
    package: Path | None,
    as_json: bool,
) -> int:
    """Write the champion to the new folder OUT as a Triton repository for a server that is not kfloop's own.

    It holds an ensemble: raw rows or tensors in, the ONNX graph, labels with confidence and review flag out, and every answer
    logged; OUT/README.md says how to run it. Nothing runs here: the configurations are checked, the server is yours. Where champions are to go there by
    themselves, say so in deploy.target of the loop file.

    \b
    Example:
      kfloop export production/ --target gpu --gpus 2 --tensorrt
      kfloop export production/ --package model/     without a champion
    """
    from kfloop.core.config import load_config
    from kfloop.serving.production import write_production
    from kfloop.serving.production_configs import Production
    from kfloop.serving.repository import served

    config = load_config(path)
    version = 1
    if package is None:
        repository = config.workspace(path.resolve().parent).repository
        champion, _ = served(repository, config.name)
        if champion is None:
            raise ServingError(
                f"model '{config.name}' has no champion yet", hint="promote one with kfloop run, or name a --package"
            )
        package, version = repository / config.name / str(champion), champion
    options = Production(
        target=target,
        gpus=gpus,
        instances=instances,
        delay_us=delay_us,
        tensorrt=tensorrt,
        version=version,
        backend=backend,
    )
    texts = write_production(package, out, config.name, options)
    say(f"wrote {', '.join(sorted(texts))} (version {version}) to {out}; how to run it: {out / 'README.md'}")
    if as_json:
        print_json(
            {"model": config.name, "version": version, "target": target, "out": str(out), "models": sorted(texts)}
        )
    return EXIT_DONE
