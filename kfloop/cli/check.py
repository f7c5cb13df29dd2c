"""``kfloop check``."""

from __future__ import annotations

from pathlib import Path

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import json_option
from kfloop.errors import EXIT_DONE, EXIT_FAILED

FORMATS = ("text", "json", "sarif")


@click.command("check")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="How to tell.")
@click.option("--ignore", multiple=True, metavar="RULE", help="A rule that is not told; repeat for each.")
@click.option("--fix", is_flag=True, help="Write the committed IR, a missing __init__.py, and the list of components.")
@click.option("--rules", "list_rules", is_flag=True, help="List every rule, and check nothing.")
@json_option
def check_command(
    paths: tuple[Path, ...], *, form: str, ignore: tuple[str, ...], fix: bool, list_rules: bool, as_json: bool
) -> int:
    """Check components, loop files and compiled pipelines, kfloop's own and anybody's; for CI.

    PATHS are folders, loop files and compiled pipelines (KFP v2 IR); the working directory when left out. A path
    that holds nothing to check is a finding. The text goes to stderr, JSON and SARIF to stdout. Exit codes: 0 nothing found, 1 something found, 2 a path does not exist.

    \b
    Example:
      kfloop check
      kfloop check path/to/ir.yaml my_pipelines/ --format sarif > check.sarif
      kfloop check --rules
    """
    import json
    import sys
    from contextlib import redirect_stdout

    from kfloop.pipelines.checks import reports
    from kfloop.pipelines.checks.checking import check
    from kfloop.pipelines.checks.rules import known_rules

    if list_rules:
        say(reports.rules_text())
        return EXIT_DONE
    with redirect_stdout(sys.stderr):  # what the code that is checked prints is no JSON
        report = check(paths or (Path(),), ignore=known_rules(ignore), fix=fix)
    say(reports.as_text(report))
    if as_json or form == "json":
        print_json(reports.as_json(report))
    elif form == "sarif":
        click.echo(json.dumps(reports.as_sarif(report), indent=1))
    return EXIT_FAILED if report.findings else EXIT_DONE
