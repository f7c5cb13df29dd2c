"""What a model card says, gathered from the ledger, the decision and its evidence, and the reports in the store.

A card describes what is there: whatever cannot be read is null or empty in it, and never stops a promotion.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import report_if_any
from kfloop.core.cards.reasons import why_trained
from kfloop.core.decisions import reports_behind
from kfloop.core.state import open_state
from kfloop.core.store import Store

if TYPE_CHECKING:
    from kfloop.core.sections import AboutConfig
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

FORMAT = 1
ROLES = ("challenger", "champion", "baseline")
STATUS = {"hold": "on hold", "reject": "rejected"}
GROUP = "group:"
WEAKEST = 3  # slices that the limits name; the card lists all


def gather(workspace: Workspace, about: AboutConfig, entry: Entry) -> dict[str, Any]:
    """The content of a card.

    Args:
        workspace: Places of the loop.
        about: Section ``about`` of the loop file.
        entry: The ledger's row that promoted, held or rejected the version.
    """
    store = Store.of(workspace)
    decision, reports = reports_behind(workspace, entry)
    package = report_if_any(store.path("models", entry.model_digest))
    training = report_if_any(store.path("checkpoints", str(package.get("checkpoint_digest"))))
    evaluation = _mapping(reports.get("evaluate"))
    metrics = _metrics(evaluation)
    slices = _slices(evaluation)
    return {
        "format": FORMAT,
        "loop": workspace.loop,
        "version": entry.version,
        "model_digest": entry.model_digest,
        "status": STATUS.get(entry.action, "champion"),
        "since": _moment(entry.at),
        "ledger_row": entry.seq,
        "about": about.model_dump(mode="json"),
        "model": _model(package, training, _mapping(_mapping(evaluation.get("cost")).get("challenger"))),
        "data": _data(store, str(package.get("dataset_digest") or decision.get("dataset_digest"))),
        "trained_because": why_trained(workspace, entry, evaluation),
        "primary": evaluation.get("primary"),
        "direction": _mapping(evaluation.get("direction")),
        "metrics": metrics,
        "slices": slices,
        "groups": _groups(evaluation),
        "limits": _limits(about, decision, evaluation, slices),
        "decision": {
            key: decision.get(key)
            for key in ("outcome", "reason", "evidence_digest", "champion_digest", "looks", "holdout")
        }
        | {"blob": entry.details.get("decision")},
        "verdicts": [line for line in decision.get("verdicts") or [] if isinstance(line, dict)],
        "notes": [str(note) for note in decision.get("notes") or []],
        "overrides": [line for line in decision.get("overrides") or [] if isinstance(line, dict)],
        "people": _people(workspace, entry),
    }


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _model(package: dict[str, Any], training: dict[str, Any], cost: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: package.get(key) for key in ("family", "objective", "modality", "checkpoint_digest", "n_train")},
        "megabytes": cost.get("size_mb"),
        **{key: training.get(key) for key in ("parameters", "epochs", "best_epoch", "device", "seed", "mlflow_run_id")},
        "train_seconds": training.get("seconds"),
    }


def _data(store: Store, digest: str) -> dict[str, Any]:
    """The dataset version and where it came from."""
    try:
        card = _mapping(json.loads((store.path("datasets", digest) / "card.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        card = {}
    return {"digest": digest} | {
        key: card.get(key)
        for key in (
            "name",
            "task",
            "n_rows",
            "splits",
            "origins",
            "corrected",
            "quarantined",
            "sources",
            "lineage",
            "previous",
        )
    }


def _metrics(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Every overall figure, the main one first, with that of champion and baseline beside it."""
    by_role = {role: _mapping(_mapping(evaluation.get(role)).get("overall")) for role in ROLES}
    main = evaluation.get("primary")
    names = sorted(by_role["challenger"], key=lambda name: (name != main, name))
    return [{"metric": name} | {role: _estimate(by_role[role].get(name)) for role in ROLES} for name in names]


def _slices(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """The main figure on each slice, the weakest first; another figure where the slice lacks it."""
    main = str(evaluation.get("primary"))
    facts = _mapping(evaluation.get("slice_facts"))
    found = []
    for name, block in _mapping(_mapping(evaluation.get("challenger")).get("slices")).items():
        figures = _mapping(block)
        metric = main if main in figures else next(iter(sorted(figures)), None)
        estimate = _estimate(figures.get(metric)) if metric else None
        if estimate is not None and not name.startswith(GROUP):
            text = _mapping(facts.get(name)).get("text") or name
            found.append({"slice": name, "text": text, "metric": metric, **estimate})
    lower = _mapping(evaluation.get("direction")).get(main) == "lower"
    return sorted(
        found, key=lambda line: (line["metric"] != main, -line["value"] if lower else line["value"], line["slice"])
    )


def _groups(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Every figure of every group of people, and the gaps between the groups of a column."""
    facts = _mapping(evaluation.get("slice_facts"))
    blocks = _mapping(_mapping(evaluation.get("challenger")).get("slices"))
    return [
        {"group": name, "text": _mapping(facts.get(name)).get("text") or name, "metric": metric, **estimate}
        for name in sorted(blocks, key=lambda name: ("=" not in name, name))
        for metric, value in sorted(_mapping(blocks[name]).items())
        if name.startswith(GROUP) and (estimate := _estimate(value)) is not None
    ]


def _estimate(value: Any) -> dict[str, Any] | None:
    """An estimate whose value is a number; null for any other."""
    fields = _mapping(value)
    number = fields.get("value")
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return None
    return {key: fields.get(key) for key in ("value", "low", "high", "n", "level")}


def _limits(
    about: AboutConfig, decision: dict[str, Any], evaluation: dict[str, Any], slices: list[dict[str, Any]]
) -> list[str]:
    """Where the model is known to be weak, or not known at all."""
    found = [about.limits] if about.limits else []
    if evaluation.get("n_test"):
        found.append(
            f"Judged on {evaluation['n_test']} held-out rows of dataset {str(evaluation.get('dataset_digest'))[:12]}; nothing is known of "
            "data that differ from them."
        )
    weak = _weakest(evaluation, slices)
    if weak:
        names = "; ".join(f"{line['text']}: {line['value']:.3g} on {line['n']} rows" for line in weak)
        found.append(f"Weakest in {weak[0]['metric']}: {names}.")
    gaps = [line for line in _groups(evaluation) if line["metric"].endswith("_gap")]
    if gaps:
        widest = max(gaps, key=lambda line: line["value"])
        name = widest["metric"].removesuffix("_gap").replace("_", " ")
        found.append(f"Groups of people are treated most unlike in {name}: {widest['value']:.3g} is {widest['text']}.")
    verdicts = [line for line in decision.get("verdicts") or [] if isinstance(line, dict)]
    return found + [str(line.get("sentence")) for line in verdicts if line.get("verdict") != "pass"]


def _weakest(evaluation: dict[str, Any], slices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The slices on which the main figure is worse than on all rows, the worst first, a few of them."""
    main = str(evaluation.get("primary"))
    overall = _estimate(_mapping(_mapping(evaluation.get("challenger")).get("overall")).get(main))
    if overall is None:
        return []
    sign = -1 if _mapping(evaluation.get("direction")).get(main) == "lower" else 1
    worse = [line for line in slices if line["metric"] == main and sign * line["value"] < sign * overall["value"]]
    return worse[:WEAKEST]


def _people(workspace: Workspace, entry: Entry) -> list[dict[str, Any]]:
    """Who held, approved or rejected this decision, oldest first."""
    history = open_state(workspace.state).ledger.history(workspace.loop)
    same = [row for row in history if row.evidence_digest == entry.evidence_digest and row.phase in {"done", "noted"}]
    held = any(row.action == "hold" for row in same)
    words = {
        "hold": "held by the gate",
        "reject": "rejected",
        "promote": "approved" if held else "promoted by the gate",
    }
    return [
        {
            "who": row.actor,
            "what": words.get(row.action, row.action),
            "when": _moment(row.at),
            "why": row.reason,
            "ledger_row": row.seq,
        }
        for row in same
        if row.seq <= entry.seq
    ]


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
