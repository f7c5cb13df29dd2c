"""One monitoring round: read the champion's traffic, bet on it, size what was found, and conclude one trigger."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kfloop.components.monitor.beside import Beside, open_beside
from kfloop.components.monitor.drift.evidence import Evidence
from kfloop.components.monitor.drift.fitting import Watched, fit_watched
from kfloop.components.monitor.drift.reference import Reference, read_reference
from kfloop.components.monitor.drift.sizing import Sizes, measure, rows_sized
from kfloop.components.monitor.judgeable import left_out, quality_of, unwatched
from kfloop.components.monitor.log.ahead import ahead
from kfloop.components.monitor.log.layout import layout_of
from kfloop.components.monitor.log.sampling import write_samples
from kfloop.components.monitor.log.spark import open_reader
from kfloop.components.monitor.memory import Memory
from kfloop.components.monitor.policy.asking import ask
from kfloop.components.monitor.policy.causes import DRIFT, Cause
from kfloop.components.monitor.policy.circumstances import judge
from kfloop.components.monitor.policy.concluding import NONE
from kfloop.components.monitor.reporting import MonitorReport
from kfloop.core.artifacts import read_report, write_report
from kfloop.core.scoring import ENCODER, read_encoder
from kfloop.core.signature import read_signature
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.core.workspace import run_id
from kfloop.errors import InputError
from kfloop.serving.log_mirror import bring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kfloop.components.monitor.log.layout import Layout
    from kfloop.components.monitor.log.traffic import Reader, Traffic
    from kfloop.core.sections import MonitorConfig
    from kfloop.core.signature import Signature
    from kfloop.core.state import State
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round works with.

    Attributes:
        config: Section `monitor`.
        champion: The champion's entry in the ledger.
        package: Its package.
        signature: Its signature.
        state: State of the loop.
        workspace: Places of the loop.
        now: Clock of the round, seconds since 1970.
    """

    config: MonitorConfig
    champion: Entry
    package: Path
    signature: Signature
    state: State
    workspace: Workspace
    now: float

    def unjudged(self, reason: str) -> MonitorReport:
        """The report of a round whose rows cannot be judged: a schedule or a person may call for a retraining all the same."""
        return MonitorReport(
            **self.judged((), reason),
            champion_digest=self.champion.model_digest,
            champion_version=self.champion.version,
        )

    def judged(self, causes: tuple[Cause, ...], problem: str | None) -> dict[str, Any]:
        """What the policy concludes from these causes."""
        return judge(
            self.config,
            causes=causes,
            problem=problem,
            champion=self.champion,
            state=self.state,
            workspace=self.workspace,
            now=self.now,
        )


def run(config: MonitorConfig, *, out: Path, workspace: Workspace, now: float | None = None) -> MonitorReport:
    """Run one monitoring round.

    Evidence and watermark are saved in one compare-and-set before anything is concluded: a round that is killed either
    counted its rows, or did not.

    Args:
        config: Section `monitor`.
        out: Empty folder for `report.json` and `samples.npz`.
        workspace: Places of the loop.
        now: Clock of the round, seconds since 1970; the time now when left out.

    Raises:
        StateError: The champion's package is missing, its memory is damaged, or another round saved at the same moment.
        KfloopError: The request logs that servers publish elsewhere cannot be brought; nothing was counted.
        ConfigError: Seasons are asked for, but the champion's reference has no times.
    """
    now = time.time() if now is None else now
    state = open_state(workspace.state)
    champion = state.ledger.champion(workspace.loop)
    if champion is None:
        reason = "there is no champion yet: nothing to watch before the first promotion (kfloop run)"
        report = MonitorReport(outcome="not_evaluated", reason=reason, at=now)
    else:
        bring(workspace)
        package = Store.of(workspace).require("models", champion.model_digest)
        signature = read_signature(package)
        report = _watch(
            Round(
                config=config,
                champion=champion,
                package=package,
                signature=signature,
                state=state,
                workspace=workspace,
                now=now,
            ),
            out,
        )
    write_report(out, report)
    return report


def after_publish(path: Path, workspace: Workspace) -> None:
    """Record the trigger, once its evidence stands in the store.

    A round that is killed before this comes to the same conclusion the next time: a declared drift stays declared.
    """
    report = read_report(path)
    open_state(workspace.state).triggers.add(
        workspace.loop,
        run_id=run_id(),
        trigger=report["outcome"],
        reason=report["reason"],
        champion_digest=report["champion_digest"] or "",
        fingerprint=report["fingerprint"],
        evidence_digest=path.name,
        at=report["at"],
        cause=report["cause"],
        labels=report["known_labels"],
    )


def _watch(this: Round, out: Path) -> MonitorReport:
    config, workspace, state = this.config, this.workspace, this.state
    blind = unwatched(this.signature, config)
    if blind:
        return this.unjudged(blind)
    reference = read_reference(this.package, this.signature.answer)
    encoder = read_encoder(this.package) if (this.package / ENCODER).is_file() else None
    layout = layout_of(this.signature, encoder, reference.answers.shape[1], reference.embedding.shape[1])
    payload, row_version = state.monitors.load(workspace.loop, this.champion.model_digest)
    before = Memory.from_dict(payload)
    reader = open_reader(config, workspace, this.champion.version, layout, this.now)
    memory, watched, beside = _advanced(this, before, reader, reference, layout)
    kept = memory.to_dict()
    if kept != payload:
        state.monitors.save(workspace.loop, this.champion.model_digest, kept, row_version)

    drift = memory.drift
    bad = drift.unusable - before.drift.unusable
    problem, quality = quality_of(config, memory, reader, bad)
    if isinstance(watched, str):
        return _without_drift(this, memory, beside, reader, out, (watched, problem, quality))
    size = rows_sized(watched, drift.state.size if drift.state else 1, config.min_rows)
    latest = reader.latest(size, memory.watermark.newest_ns)
    sizes = measure(watched, reference, latest, layout.columns)
    causes = (
        _drift_cause(drift, sizes, config.materiality, reader.rows_new, watched),
        drift.quality_cause(watched),
        *beside.causes(config, this.now),
    )
    concluded = this.judged(causes, problem)
    questions = ask(config, concluded, version=this.champion.version, out=out, workspace=workspace)
    if latest is not None:
        write_samples(out, this.package, latest)
    return MonitorReport(
        **concluded,
        questions=questions,
        champion_digest=this.champion.model_digest,
        champion_version=this.champion.version,
        rows_seen=drift.rows,
        rows_new=reader.rows_new,
        rows_unusable=drift.unusable,
        other_versions=memory.other_versions,
        e_value=drift.share(watched),
        alarm_row=drift.declared[0] if drift.declared else None,
        history=drift.history,
        streams=drift.streams(watched),
        guarantee=watched.watch.guarantee,
        rehearsal=drift.rehearsal,
        unwatched=left_out(drift, layout, reference, config),
        effects=sizes.effects,
        columns=sizes.columns,
        moved=sizes.moved,
        drifted=sizes.parts if drift.declared or drift.wrong else (),
        c2st_auc=sizes.auc,
        data_quality=quality,
        **beside.reported(config, this.now),
    )


def _advanced(
    this: Round, before: Memory, reader: Reader, reference: Reference, layout: Layout
) -> tuple[Memory, Watched | str, Beside]:
    """The memory after the new rows, and the watches; what is in the log when the first rows come decides what is watched.

    In place of the watch over drift stands why there is none, where the reference is too small for one.
    """
    drift = before.drift
    watched: Watched | str | None = None
    beside = open_beside(
        before.others,
        this.config,
        champion=this.champion,
        package=this.package,
        signature=this.signature,
        workspace=this.workspace,
    )

    def fitted(drift: Evidence) -> Watched | str:
        try:
            return fit_watched(
                this.config,
                reference,
                layout,
                this.signature,
                inputs=drift.inputs and bool(reference.tensors),
                embedding=drift.embedding and layout.embedding > 0,
                champion=this.champion.model_digest,
            )
        except InputError as error:
            return f"{error.message}; {error.hint}"

    def read() -> Iterator[Traffic]:
        nonlocal beside
        for chunk in reader.chunks(before.watermark):
            beside = beside.advance(chunk)
            yield chunk

    for chunk in ahead(read()):  # drift takes as long as reading and the other watches together
        if watched is None:
            if drift.state is None:
                drift = replace(drift, inputs=bool(chunk.inputs), embedding=chunk.embedded)
            watched = fitted(drift)
        # Rows that no watch over drift has seen are counted all the same.
        drift = (
            replace(drift, before=drift.before + len(chunk))
            if isinstance(watched, str)
            else drift.advance(chunk, watched)
        )
    watched = watched or fitted(drift)
    if drift.state is not None and not isinstance(watched, str):
        drift = drift.on(watched)  # the settings may be others now, and no row came that would have said so
    beside = beside.closed(this.config, this.workspace, this.now)
    others = dict(before.other_versions)
    for version, count in reader.other_versions.items():
        others[version] = others.get(version, 0) + count
    memory = replace(
        before, watermark=reader.watermark, drift=drift, other_versions=others, others=before.others | beside.kept()
    )
    return memory, watched, beside


def _without_drift(
    this: Round,
    memory: Memory,
    beside: Beside,
    reader: Reader,
    out: Path,
    told: tuple[str, str | None, tuple[str, ...]],
) -> MonitorReport:
    """The report of a round that cannot watch drift: quality, a schedule and a person are heard, and silence is no good news."""
    why, problem, quality = told
    unseen = Cause(kind=DRIFT, declared=False, matters=None, reason=f"drift is not watched: {why}")
    causes = (unseen, *beside.causes(this.config, this.now))
    concluded = this.judged(causes, problem)
    if concluded["outcome"] == NONE:
        concluded = this.judged(causes, why)
    return MonitorReport(
        **concluded,
        questions=ask(this.config, concluded, version=this.champion.version, out=out, workspace=this.workspace),
        champion_digest=this.champion.model_digest,
        champion_version=this.champion.version,
        rows_seen=memory.drift.rows,
        rows_new=reader.rows_new,
        other_versions=memory.other_versions,
        unwatched=(unseen.reason,),
        data_quality=quality,
        **beside.reported(this.config, this.now),
    )


def _drift_cause(drift: Evidence, sizes: Sizes, materiality: float, new: int, watched: Watched) -> Cause:
    """What the watch over drift found, and whether it matters."""
    known, share = sizes.auc.known, drift.share(watched)
    if drift.declared is None:
        reason = f"no drift in {drift.rows} rows: evidence {share:.3g}, 1 would declare it"
        if new == 0:
            reason = f"no new rows since the last round; evidence {share:.3g} of 1 after {drift.rows} rows"
        return Cause(kind=DRIFT, declared=False, matters=None, size=sizes.auc, unit="C2ST AUC", reason=reason)
    row, since = drift.declared
    return Cause(
        kind=DRIFT,
        declared=True,
        matters=sizes.auc.value >= materiality if known else None,
        size=sizes.auc,
        unit="C2ST AUC",
        since=since,
        key=str(row),
        moved=sizes.moved,
        reason=f"drift since row {row}"
        + (f", C2ST AUC {sizes.auc.value:.2f} ({materiality:.2f} matters)" if known else ", of unknown size"),
    )
