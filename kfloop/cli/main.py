"""Entry of the ``kfloop`` command: the group, its lazily loaded commands, and how errors become messages and exit codes."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from kfloop import __version__
from kfloop.errors import EXIT_FAILED, ConfigError, KfloopError

# Name -> module that defines it. Loaded when used, so that ``kfloop --help`` answers at once.
COMMANDS = {
    "init": ("kfloop.cli.init", "Write a loop.yaml for my data, after looking at it."),
    "run": ("kfloop.cli.rounds", "One training round, with live progress."),
    "review": ("kfloop.cli.review", "Ask people about doubtful examples, and take their answers."),
    "monitor": ("kfloop.cli.rounds", "One monitoring round; retrains when the trigger says so."),
    "simulate": ("kfloop.cli.simulate", "Replay past rows: when would the monitor have retrained, at what cost?"),
    "step": ("kfloop.cli.steps", "One component alone (what dvc.yaml calls)."),
    "status": ("kfloop.cli.inspection", "Whether the model is well, in one screen."),
    "metrics": ("kfloop.cli.metrics", "The loop for Prometheus and Grafana."),
    "report": ("kfloop.cli.inspection", "Write the HTML report of a run again."),
    "approve": ("kfloop.cli.champions", "Promote a challenger that waits for a person."),
    "reject": ("kfloop.cli.champions", "Turn down a challenger that waits for a person."),
    "override": ("kfloop.cli.overrides", "Let a gate rule rest for a while, on record."),
    "rollout": ("kfloop.cli.rollouts", "Where a canary or shadow stands; advance or withdraw it."),
    "rollback": ("kfloop.cli.champions", "Bring the champion before back."),
    "serve": ("kfloop.cli.serving", "Run the embedded Triton for this loop."),
    "predict": ("kfloop.cli.predict", "Send files or arrays to the running server."),
    "export": ("kfloop.cli.export", "Write the champion as a Triton repository for production."),
    "collect": ("kfloop.cli.collect", "Log what an exported repository's server answers."),
    "feedback": ("kfloop.cli.feedback", "Keep what turned out to be true of served requests."),
    "compile": ("kfloop.cli.compiling", "Compile the pipelines to KFP's IR."),
    "check": ("kfloop.cli.check", "CI: every component, loop file and compiled pipeline."),
    "new": ("kfloop.cli.new", "The files of a new component, or the CI of a project."),
    "submit": ("kfloop.cli.submit", "Run a pipeline on Kubeflow Pipelines and follow it."),
    "schedule": ("kfloop.cli.schedule", "Recurring runs on Kubeflow Pipelines, from a file in git."),
    "gc": ("kfloop.cli.housekeeping", "Remove from the store what nothing names any more."),
    "backup": ("kfloop.cli.housekeeping", "Copy state and store to another place."),
    "restore": ("kfloop.cli.housekeeping", "Bring state and store back from a backup."),
    "demo": ("kfloop.cli.demo", "The whole story on real data, end to end."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names in the order of the life cycle."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command called ``cmd_name``."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), f"{cmd_name}_command")
        if not isinstance(command, click.Command):
            message = f"{cmd_name} is not a command"
            raise TypeError(message)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first word; of a word that is none, click's message names what is like it."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kfloop")
def cli() -> None:
    """Close the loop around a deep-learning model: validate, train, prove, serve, watch, retrain.

    \b
    Start here:
      kfloop demo                  watch the whole story on real data
      kfloop init photos/          write a loop.yaml for my data, after looking at it
      kfloop run                   train a challenger and let it prove itself

    Exit codes: 0 done, 1 failed at run time, 2 bad usage, config or input, 3 rejected by a gate, 4 waits for a person or for labels.
    """


def main() -> NoReturn:
    """Run the command line and end the process with the right status."""
    try:
        status = cli.main(standalone_mode=False)
    except KfloopError as error:
        fail(error)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(EXIT_FAILED)
    except click.ClickException as error:
        if "--json" in sys.argv:
            print_error(ConfigError(error.format_message(), hint="see: kfloop --help"))
        error.show()
        sys.exit(error.exit_code)
    sys.exit(status if isinstance(status, int) else 0)


def fail(error: KfloopError) -> NoReturn:
    """Print an error for people, or as JSON when ``--json`` was asked for, and end with its status."""
    if "--json" in sys.argv:
        print_error(error)
    click.echo(f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"  -> {error.hint}", err=True)
    sys.exit(error.exit_code)


def print_error(error: KfloopError) -> None:
    """An error as the one JSON object on stdout."""
    import json

    click.echo(json.dumps({"error": error.as_dict()}, default=str))
