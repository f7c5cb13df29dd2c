"""One monitoring round: read the champion's traffic, bet on it, size what was found, and conclude one trigger."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.monitor.freshness import count_fresh_labels
from kfloop.components.monitor.memory import Memory
from kfloop.components.monitor.policy import Conclusion, Facts, conclude
from kfloop.components.monitor.projection import CLASSES, SmallReferenceError, finite_rows, fit_projection
from kfloop.components.monitor.reporting import UNJUDGED, MonitorReport
from kfloop.components.monitor.sampling import write_samples
from kfloop.components.monitor.sizing import Sizes, measure
from kfloop.components.monitor.traffic import Traffic, read_traffic
from kfloop.core.artifacts import canonical_json, read_report, sha256_text, write_report
from kfloop.core.signature import read_signature
from kfloop.core.state import open_state
from kfloop.core.statistics.effects import BLIND_SPOT
from kfloop.core.store import Store
from kfloop.core.workspace import run_id
from kfloop.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.sections import MonitorConfig
    from kfloop.core.signature import Signature
    from kfloop.core.state import State
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

BATCHES_SIZED = 4
"""Effects are those of the latest rows: enough to be stable, few enough not to dilute a recent change."""
MOST_UNUSABLE = 0.5
UNWATCHED = {  # what the reference, the rows held out in training, cannot stand for
    "generation": "its traffic is noise that callers chose, and says nothing about data",
    "forecasting": "windows of one series follow each other, and the bets of the monitor are about independent rows",
    "anomaly": "the rows held out for its test hold more odd ones than traffic does",
}
MONTH_SECONDS = 30 * 24 * 3600
DECIDED = ("succeeded", "rejected", "held")


def run(config: MonitorConfig, *, out: Path, workspace: Workspace) -> MonitorReport:
    """Run one monitoring round.

    Evidence and watermark are saved in one compare-and-set before anything is concluded: a round that is killed either
    counted its rows, or did not.

    Args:
        config: Section `monitor`.
        out: Empty folder for `report.json` and `samples.npz`.
        workspace: Places of the loop.

    Raises:
        StateError: The champion's package is missing, or another round saved at the same moment.
    """
    state = open_state(workspace.state)
    champion = state.ledger.champion(workspace.loop)
    if champion is None:
        reason = "there is no champion yet: nothing to watch before the first promotion (kfloop run)"
        report = MonitorReport(outcome="not_evaluated", reason=reason, threshold=1 / config.false_alarm)
    else:
        try:
            report = _watch(config, champion, state, out=out, workspace=workspace)
        except SmallReferenceError as error:
            report = MonitorReport(
                outcome="not_evaluated",
                reason=f"{error.message}; {error.hint}",
                champion_digest=champion.model_digest,
                champion_version=champion.version,
                threshold=1 / config.false_alarm,
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
    )


def _watch(config: MonitorConfig, champion: Entry, state: State, *, out: Path, workspace: Workspace) -> MonitorReport:
    package = Store(workspace.store).require("models", champion.model_digest)
    signature = read_signature(package)
    blind = _unwatched(signature)
    if blind:
        return MonitorReport(
            outcome="not_evaluated",
            reason=blind,
            champion_digest=champion.model_digest,
            champion_version=champion.version,
            threshold=1 / config.false_alarm,
        )
    embedding, answers = _reference(package, signature.answer)
    projection = fit_projection(embedding, answers, signature.objective)
    test = projection.betting(level=config.false_alarm, tolerance=config.tolerance, batch=config.batch)
    payload, row_version = state.monitors.load(workspace.loop, champion.model_digest)
    before = Memory.from_dict(payload)
    traffic = read_traffic(
        workspace.request_log,
        workspace.loop,
        champion.version,
        answer=signature.answer,
        embedding=embedding.shape[1],
        answers=answers.shape[1],
    )
    usable = finite_rows(traffic.embedding, traffic.answers, signature.objective)
    unseen = before.unseen(traffic)
    memory = before.advance(test, projection.features(traffic.embedding, traffic.answers), traffic)
    if unseen.any():
        state.monitors.save(workspace.loop, champion.model_digest, memory.to_dict(), row_version)

    problem, quality = _quality(config, traffic, usable, unseen, memory.betting.rows)
    latest = np.flatnonzero(usable)[-max(BATCHES_SIZED * config.batch, config.min_rows) :]
    sizes = measure(projection, (embedding, answers), traffic, latest, list(signature.labels))
    fresh = count_fresh_labels(config.fresh, package, workspace) if memory.betting.alarm_row is not None else None
    fingerprint = sha256_text(canonical_json([champion.model_digest, "drift", memory.betting.alarm_row, fresh]))
    conclusion = _conclude(config, memory, sizes, fresh, problem, int(unseen.sum()), fingerprint, state, workspace.loop)
    write_samples(out, package, traffic, latest)
    return MonitorReport(
        outcome=conclusion.outcome,
        reason=conclusion.reason,
        champion_digest=champion.model_digest,
        champion_version=champion.version,
        rows_seen=memory.betting.rows,
        rows_new=int(unseen.sum()),
        rows_unusable=memory.betting.skipped,
        other_versions=traffic.other_versions,
        e_value=memory.betting.e_value,
        threshold=test.threshold,
        alarm_row=memory.betting.alarm_row,
        history=memory.history,
        views=test.wealth(memory.betting),
        effects=sizes.effects,
        c2st_auc=sizes.auc,
        estimated_accuracy=sizes.accuracy,
        reference_accuracy=sizes.reference_accuracy,
        blind_spot=BLIND_SPOT if signature.objective == CLASSES else UNJUDGED,
        data_quality=quality,
        fresh_labels=fresh,
        fingerprint=fingerprint,
    )


def _conclude(
    config: MonitorConfig,
    memory: Memory,
    sizes: Sizes,
    fresh: int | None,
    problem: str | None,
    new: int,
    fingerprint: str,
    state: State,
    loop: str,
) -> Conclusion:
    now = time.time()
    last = state.triggers.last(loop, "retrain")
    return conclude(
        Facts(
            problem=problem,
            rows_seen=memory.betting.rows,
            rows_new=new,
            e_value=memory.betting.e_value,
            threshold=1 / config.false_alarm,
            alarm_row=memory.betting.alarm_row,
            size=sizes.auc,
            materiality=config.materiality,
            active_runs=tuple(name for name in state.runs.active(loop) if name != run_id()),
            fresh_labels=fresh,
            min_fresh_labels=config.min_fresh_labels,
            minutes_since_retrain=None if last is None else (now - last.at) / 60,
            cooldown_minutes=config.cooldown_minutes,
            retrains=len(state.triggers.history(loop, "retrain", since=now - MONTH_SECONDS)),
            budget=config.max_retrains_per_month,
            tried=last is not None and last.fingerprint == fingerprint and _decided(state, last.run_id),
        )
    )


def _decided(state: State, run: str) -> bool:
    """Whether a run came to a decision; one that failed or was killed may be tried again."""
    record: dict[str, Any] = (state.runs.get(run) if run else None) or {}
    return record.get("status") in DECIDED


def _quality(
    config: MonitorConfig, traffic: Traffic, usable: NDArray[np.bool_], unseen: NDArray[np.bool_], rows_seen: int
) -> tuple[str | None, tuple[str, ...]]:
    """Return why nothing can be judged, if so, and everything that is wrong with the rows."""
    quality = list(traffic.problems)
    if traffic.other_versions:
        named = ", ".join(f"{count} of version {version}" for version, count in sorted(traffic.other_versions.items()))
        quality.append(f"rows of other versions are left out: {named}")
    bad, new = int((unseen & ~usable).sum()), int(unseen.sum())
    if bad:
        quality.append(f"{bad} of {new} new rows are unusable: a value is missing, not finite, or of another shape")
    problem: str | None = None
    if not len(traffic):
        problem = "the request log has no rows of the champion's version"
        problem += f": {'; '.join(quality)}" if quality else ": it is empty; is the champion served with its log on?"
    elif new and bad >= MOST_UNUSABLE * new:
        problem = f"{bad} of {new} new rows are unusable: a value is missing, not finite, or of another shape"
    elif rows_seen < config.min_rows:
        problem = f"{rows_seen} usable rows were logged, at least {config.min_rows} are needed"
    if problem is not None and problem not in quality:
        quality.append(problem)
    return problem, tuple(quality)


def _unwatched(signature: Signature) -> str:
    """Why the traffic of a champion cannot be judged; empty when it can."""
    if signature.objective in UNWATCHED:
        return f"the champion learned {signature.objective}: {UNWATCHED[signature.objective]}"
    if not signature.batched:
        return f"the champion answers about {signature.modality} in requests without rows, and those are not logged"
    return ""


def _reference(package: Path, answer: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Embeddings and answers of the reference, one row each, flat."""
    path = package / "reference.npz"
    try:
        with np.load(path) as arrays:
            embedding, answers = (arrays[name].astype(float) for name in ("embedding", answer))
            return embedding.reshape(len(embedding), -1), answers.reshape(len(answers), -1)
    except (OSError, KeyError, ValueError) as error:
        message = f"the champion's reference '{path.name}' cannot be read: {error}"
        raise StateError(message, hint="The package was changed after it was published; restore the store.") from error
