"""What people are told beside the evidence: what is wrong with the rows, what is not watched, and why nothing can be judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfloop.components.monitor.drift.evidence import Evidence
    from kfloop.components.monitor.drift.reference import Reference
    from kfloop.components.monitor.log.layout import Layout
    from kfloop.components.monitor.log.traffic import Reader
    from kfloop.components.monitor.memory import Memory
    from kfloop.core.sections import MonitorConfig
    from kfloop.core.signature import Signature

MOST_UNUSABLE = 0.5
UNWATCHED = {  # what the reference, the rows held out in training, cannot stand for
    "generation": "its traffic is noise that callers chose, and says nothing about data",
    "forecasting": "windows of one series follow each other; set monitor.unit (null: as many as the reference suggests) to bet on means of neighbours",
    "anomaly": "the rows held out for its test hold more odd ones than traffic does",
}


def quality_of(config: MonitorConfig, memory: Memory, reader: Reader, bad: int) -> tuple[str | None, tuple[str, ...]]:
    """Return why nothing can be judged, if so, and everything that is wrong with the rows."""
    quality = [*memory.told, *reader.problems]
    drift, new = memory.drift, reader.rows_new
    if drift.restarts:
        quality.append(f"the settings of the watch changed {drift.restarts} times: its evidence began anew")
    if memory.other_versions:
        named = ", ".join(f"{count} of version {version}" for version, count in sorted(memory.other_versions.items()))
        quality.append(f"rows of other versions are left out: {named}")
    if bad:
        quality.append(f"{bad} of {new} new rows are unusable: a value is missing, not finite, or of another shape")
    problem: str | None = None
    if not drift.rows:
        problem = "the request log has no rows of the champion's version"
        problem += f": {'; '.join(quality)}" if quality else ": it is empty; is the champion served with its log on?"
    elif new and bad >= MOST_UNUSABLE * new:
        problem = f"{bad} of {new} new rows are unusable: a value is missing, not finite, or of another shape"
    elif drift.rows - drift.unusable < config.min_rows:
        usable = drift.rows - drift.unusable
        problem = f"{usable} usable rows were logged, at least {config.min_rows} are needed"
    if problem is not None and problem not in quality:
        quality.append(problem)
    return problem, tuple(quality)


def unwatched(signature: Signature, config: MonitorConfig) -> str:
    """Why the traffic of a champion cannot be judged; empty when it can."""
    if signature.objective in UNWATCHED and not (signature.objective == "forecasting" and config.unit != 1):
        return f"the champion learned {signature.objective}: {UNWATCHED[signature.objective]}"
    if not signature.batched:
        return f"the champion answers about {signature.modality} in requests without rows, and those are not logged"
    return ""


def left_out(drift: Evidence, layout: Layout, reference: Reference, config: MonitorConfig) -> tuple[str, ...]:
    """What is not watched, and why."""
    told = []
    if layout.kinds and not reference.tensors:
        told.append(
            "columns of the request: the champion's package has none to compare them with; the next champion's will"
        )
    elif layout.kinds and not drift.inputs:
        told.append("columns of the request: they are not in the log (serve.log.inputs)")
    if layout.embedding and not drift.embedding:
        told.append("the embedding: it is not in the log (serve.log.inputs)")
    if private := sorted(set(config.unlogged) & set(layout.kinds)):
        told.append(f"{', '.join(private)}: the log holds no values of them (serve.log.hash, serve.log.drop)")
    return tuple(told)
