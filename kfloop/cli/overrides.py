"""``kfloop override``: a rule rests for a while, on somebody's word and on record."""

from __future__ import annotations

from pathlib import Path

import click

from kfloop.cli.console import print_json, say
from kfloop.cli.options import by_option, config_option, json_option
from kfloop.errors import EXIT_DONE, ConfigError


@click.command("override")
@click.argument("rule", required=False)
@config_option
@click.option("--reason", default="", help="Why; stands in the ledger and in every report while it lasts.")
@click.option("--until", help="When it ends: a date, or a length such as 7d; at most 90 days ahead.")
@click.option("--list", "listed", is_flag=True, help="Show the overrides that last.")
@click.option("--end", "ended", metavar="RULE", help="End the override of RULE now.")
@by_option
@json_option
def override_command(
    rule: str | None,
    path: Path,
    *,
    reason: str,
    until: str | None,
    listed: bool,
    ended: str | None,
    by: str,
    as_json: bool,
) -> int:
    """Let a gate rule fail without blocking, for a while. RULE is its name as the report prints it, in quotes, or a unique beginning.

    The verdict still says that it failed. Conditions that hold for every decision cannot be overridden. `kfloop run` afterwards decides
    again at once: finished steps come from the cache.

    \b
    Example:
      kfloop override "p95_ms <= 100" --reason "the machine is busy with a migration" --until 7d
      kfloop override --list
      kfloop override --end "p95_ms"
    """
    from kfloop.components.gate.granting import end, grant
    from kfloop.core.state.standing import active_overrides
    from kfloop.pipelines.rounds import open_loop

    if sum([rule is not None, listed, ended is not None]) != 1:
        raise ConfigError("give a RULE, --list or --end RULE, and only one of them", hint="see: kfloop override --help")
    loop = open_loop(path)
    if rule is not None:
        if not until or not reason.strip():
            raise ConfigError(
                f"an override of '{rule}' needs a reason and an end",
                hint=f'kfloop override "{rule}" --reason "..." --until 7d',
            )
        made = grant(loop.workspace, loop.config.gate, rule, until=until, reason=reason, actor=by)
        say(f"'{made.rule}' does not block until {made.ends} ({made.who}: {made.why}; ledger row {made.row})")
        say("decide again with: kfloop run")
    elif ended is not None:
        made = end(loop.workspace, ended, reason=reason, actor=by)
        say(f"'{made.rule}' blocks again (overridden by {made.who}: {made.why})")
    lasting = active_overrides(loop.state.ledger.history(loop.config.name))
    if listed:
        for override in lasting:
            say(
                f"'{override.rule}' until {override.ends}, by {override.who}: {override.why} (ledger row {override.row})"
            )
        if not lasting:
            say("no rule is overridden")
    if as_json:
        print_json({"overrides": [override.as_dict() for override in lasting]})
    return EXIT_DONE
