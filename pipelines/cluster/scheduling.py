"""Schedules as code: what ``schedules.yaml`` says made true on Kubeflow Pipelines.

KFP has recurring runs and no way to change one, and making one twice gives two. So each carries a label in its description: the set, the
name, and a digest of everything it was made from. Equal digests mean nothing to do. A changed one is made anew switched off, switched on,
and only then is the old one deleted: a kill in between leaves the schedule running, at worst twice for a moment (of two rounds at
once the ledger lets one promote), and the next ``apply`` tidies up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import canonical_json, sha256_text
from kfloop.errors import ConfigError, TerminalError
from kfloop.pipelines.cluster.recurring import list_recurring, recurring_of
from kfloop.pipelines.cluster.submitting import open_target, pipeline_spec, run_parameters

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kfloop.pipelines.cluster.client import Server
    from kfloop.pipelines.cluster.recurring import Recurring
    from kfloop.pipelines.cluster.schedules import Schedule, Schedules
    from kfloop.pipelines.cluster.submitting import Target
    from kfloop.pipelines.cluster.transport import JSON, Patience


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A schedule of the file, ready to be made.

    Attributes:
        name: Its name.
        enabled: Whether it should run.
        digest: Digest of ``body``.
        body: Recurring run as the API takes it, without id of the experiment and state.
        experiment: Name of the experiment.
        target: Loop and server.
    """

    name: str
    enabled: bool
    digest: str
    body: JSON
    experiment: str
    target: Target


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing to do: ``create``, ``replace``, ``enable``, ``disable``, ``delete``, or ``keep`` for nothing.

    Attributes:
        action: What.
        name: The schedule.
        why: What differs, in words.
        old: Recurring runs to delete.
        current: The one that stays; null when one is made.
        wanted: What is made or kept; null for a deletion.
    """

    action: str
    name: str
    why: str
    server: Server
    old: tuple[Recurring, ...] = ()
    current: Recurring | None = None
    wanted: Wanted | None = None

    def as_dict(self) -> dict[str, Any]:
        """Action, name and reason."""
        return {"action": self.action, "name": self.name, "why": self.why}


@dataclass(kw_only=True)
class Plan:
    """What ``apply`` will do, and what it leaves alone."""

    changes: list[Change] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def todo(self) -> list[Change]:
        """Changes that change something."""
        return [change for change in self.changes if change.action != "keep"]


def plan(
    schedules: Schedules,
    root: Path,
    *,
    prune: bool = False,
    compiled: Path | None = None,
    ca: Path | None = None,
    patience: Patience | None = None,
) -> Plan:
    """Compare the file with the server; nothing is changed.

    Args:
        schedules: The file.
        root: Its folder.
        prune: Also delete schedules of this set that the file does not name.
        compiled: Folder of a reviewed IR; null compiles it now.
        ca: Certificates to trust.
        patience: Timeouts and repetitions.

    Raises:
        ConfigError: A loop file is wrong, a name is taken by another set, or the server refuses who asks.
    """
    targets = {loop: open_target(root / loop, ca=ca, patience=patience) for loop in _loops(schedules)}
    wanted = [
        _wanted(name, one, targets[one.loop or schedules.loop], schedules.set, compiled)
        for name, one in schedules.schedules.items()
    ]
    homes = {(one.server.endpoint, one.config.cluster.namespace): one for one in targets.values()}
    found = Plan()
    for (endpoint, namespace), home in homes.items():
        there = list_recurring(home.server, namespace)
        here = [
            one
            for one in wanted
            if (one.target.server.endpoint, one.target.config.cluster.namespace) == (endpoint, namespace)
        ]
        for one in here:
            _refuse_taken(one.name, there, schedules.set, namespace)
            found.changes.append(_change(one, [made for made in there if made.name == one.name]))
        named = {one.name for one in here}
        for made in there:
            if made.name in named:
                continue
            if prune and made.set == schedules.set:
                change = Change(
                    action="delete", name=made.name, why="the file does not name it", server=home.server, old=(made,)
                )
                found.changes.append(change)
            else:
                of = "" if made.set == schedules.set else f", of set '{made.set}'"
                found.left.append(f"{made.name} ({made.cron}{of})")
    return found


def apply(found: Plan, tell: Callable[[Change], None] = lambda _: None) -> None:
    """Carry a plan out, change by change; killed or failing anywhere, the next ``plan`` goes on from there."""
    for change in found.todo:
        made = change.current
        if made is None and change.wanted is not None:
            made = _create(change.wanted)
        if made is not None and change.wanted is not None and made.enabled != change.wanted.enabled:
            change.server.switch(made.id, on=change.wanted.enabled)
        for old in change.old:
            change.server.delete_recurring(old.id)
        tell(change)


def _loops(schedules: Schedules) -> list[str]:
    return sorted({one.loop or schedules.loop for one in schedules.schedules.values()} or {schedules.loop})


def _wanted(name: str, schedule: Schedule, target: Target, owner: str, compiled: Path | None) -> Wanted:
    cluster = target.config.cluster
    spec = pipeline_spec(target.config, schedule.pipeline, compiled)
    moments = {
        key: moment.isoformat()
        for key, moment in (("start_time", schedule.start), ("end_time", schedule.end))
        if moment
    }
    body = {
        "display_name": name,
        "pipeline_spec": spec,
        "runtime_config": {"parameters": run_parameters(target, schedule.pipeline, spec)},
        "service_account": cluster.service_account,
        "max_concurrency": "1",
        "no_catchup": True,
        "trigger": {"cron_schedule": {"cron": schedule.cron, **moments}},
    }
    experiment = schedule.experiment or target.experiment
    digest = sha256_text(canonical_json([body, experiment]))
    about = f"kfloop {schedule.pipeline} of loop {target.config.name}; kfloop-schedule set={owner} name={name} digest={digest}"
    return Wanted(
        name=name,
        enabled=schedule.enabled,
        digest=digest,
        body=body | {"description": about},
        experiment=experiment,
        target=target,
    )


def _refuse_taken(name: str, there: list[Recurring], owner: str, namespace: str) -> None:
    taken = next((made for made in there if made.name == name and made.set != owner), None)
    if taken is not None:
        raise ConfigError(
            f"schedule '{name}' of namespace '{namespace}' belongs to set '{taken.set}', not to '{owner}'",
            hint="choose another name, or write 'set:' of the file that made it",
        )


def _change(wanted: Wanted, there: list[Recurring]) -> Change:
    """What one schedule needs; of several recurring runs with its digest an enabled one stays."""
    server = wanted.target.server
    current = next((made for made in there if made.digest == wanted.digest), None)
    old = tuple(made for made in there if made is not current)
    if current is None:
        why = _difference(wanted, old[0]) if old else f"new, {wanted.body['trigger']['cron_schedule']['cron']}"
        return Change(
            action="replace" if old else "create", name=wanted.name, why=why, server=server, old=old, wanted=wanted
        )
    if current.enabled != wanted.enabled:
        action, why = ("enable", "it is off") if wanted.enabled else ("disable", "enabled: false")
    elif old:
        action, why = "delete", f"{len(old)} older of the same name, left by an apply that was cut short"
    else:
        action, why = "keep", "nothing changed"
    return Change(action=action, name=wanted.name, why=why, server=server, old=old, current=current, wanted=wanted)


def _difference(wanted: Wanted, old: Recurring) -> str:
    """What changed since the old one was made, in words."""
    new_cron, old_cron = (
        wanted.body["trigger"]["cron_schedule"],
        (old.made.get("trigger") or {}).get("cron_schedule") or {},
    )
    parts = [] if new_cron["cron"] == old.cron else [f"cron {old.cron} -> {new_cron['cron']}"]
    parts += [key for key in ("start_time", "end_time") if (key in new_cron) != bool(old_cron.get(key))]
    new, before = (thing.get("runtime_config", {}).get("parameters", {}) for thing in (wanted.body, old.made))
    parts += sorted(key for key in {*new, *before} if new.get(key) != before.get(key))
    if canonical_json(wanted.body["pipeline_spec"]) != canonical_json(old.made.get("pipeline_spec")):
        parts.append("the compiled pipeline")
    return "changed: " + (", ".join(parts) or "experiment, account or times")


def _create(wanted: Wanted) -> Recurring:
    """Make the recurring run, switched off."""
    server, namespace = wanted.target.server, wanted.target.config.cluster.namespace
    home = server.experiment(wanted.experiment, namespace)

    def arrived() -> JSON | None:
        found = (one for one in list_recurring(server, namespace) if one.name == wanted.name)
        return next((one.made for one in found if one.digest == wanted.digest), None)

    made = server.create_recurring(wanted.body | {"experiment_id": home, "mode": "DISABLE"}, arrived)
    recurring = recurring_of({"description": wanted.body["description"]} | made)
    if recurring is None:
        raise TerminalError(f"'{server.endpoint}' made schedule '{wanted.name}' and does not say its id")
    return recurring
