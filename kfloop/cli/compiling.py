"""``kfloop compile``."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from kfloop.cli.console import print_json, say
from kfloop.cli.options import config_option, json_option
from kfloop.errors import EXIT_DONE

OUT = Path("pipelines/compiled")


@click.command("compile")
@config_option
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=OUT,
    show_default=True,
    help="Folder for the IR files.",
)
@json_option
@click.pass_context
def compile_command(context: click.Context, path: Path, out: Path, *, as_json: bool) -> int:
    """Compile the pipelines to the YAML that Kubeflow Pipelines runs, to be reviewed and committed like code.

    Section cluster of the loop file says what each step is given: resources, GPUs, timeouts, secrets by name, labels.
    Without a loop file its defaults hold. The same input gives the same bytes.

    \b
    Example:
      kfloop compile && git diff --exit-code pipelines/compiled
      kfloop compile -c examples/digits/loop.yaml -o compiled
    """
    from kfloop.core.cluster import ClusterConfig
    from kfloop.core.config import load_config
    from kfloop.pipelines.cluster.compiling import compile_pipelines

    asked = context.get_parameter_source("path") is not ParameterSource.DEFAULT
    config = load_config(path).cluster if asked or path.is_file() else ClusterConfig()
    files = [str(file) for file in compile_pipelines(config, out)]
    if as_json:
        print_json({"files": files})
    else:
        say("\n".join(files))
    return EXIT_DONE
