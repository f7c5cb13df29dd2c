"""Keeping cards: one folder for each state of a version in the store, and what MLflow shows of it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import plain
from kfloop.core.cards.facts import gather
from kfloop.core.cards.rendering import render_html, render_markdown
from kfloop.core.registry import Registry
from kfloop.core.store import Store
from kfloop.errors import KfloopError

if TYPE_CHECKING:
    from kfloop.core.sections import AboutConfig
    from kfloop.core.state.ledger import Entry
    from kfloop.core.workspace import Workspace

CARD, PAGE = "card.json", "card.html"
CARD_TAG = "kfloop.card"
MADE_BY = ("promote", "override", "hold", "reject")  # a rollback brings a version back that has its card


def kind_of(workspace: Workspace, version: int) -> str:
    """Where in the store the cards of a version stand."""
    return f"cards/{workspace.loop}-{version}"


def find_card(workspace: Workspace, version: int) -> Path | None:
    """The folder of a version's latest card; null where it has none."""
    store, kind = Store.of(workspace), kind_of(workspace, version)
    found = [(_row_of(folder), folder) for folder in (store.path(kind, digest) for digest in store.digests(kind))]
    known = [(row, folder) for row, folder in found if row]
    return max(known, default=(0, None))[1]


def ensure_card(workspace: Workspace, about: AboutConfig, entry: Entry) -> list[str]:
    """Write the card of a version that was promoted, held or rejected, unless it is there; a card never stops what it describes.

    Args:
        workspace: Places of the loop.
        about: Section ``about`` of the loop file.
        entry: The ledger's row.

    Returns:
        One sentence if anything was done, or could not be.
    """
    if entry.action not in MADE_BY:
        return []
    try:
        folder = find_card(workspace, entry.version)
        made = folder is None or _row_of(folder) < entry.seq
        if made or folder is None:
            folder = _write(workspace, about, entry)
        shown = _show(workspace, entry.version, folder)
    except (KfloopError, OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        return [f"the model card of version {entry.version} could not be written: {error}"]
    return [f"model card of version {entry.version}: {folder / PAGE}"] if made or shown else []


def _write(workspace: Workspace, about: AboutConfig, entry: Entry) -> Path:
    card = plain(gather(workspace, about, entry))
    scratch = workspace.kfloop_dir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    out = Path(tempfile.mkdtemp(prefix="card-", dir=scratch))
    try:
        (out / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (out / PAGE).write_text(render_html(card), encoding="utf-8")
        return Store.of(workspace).publish(out, kind_of(workspace, entry.version))
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _show(workspace: Workspace, version: int, folder: Path) -> bool:
    """Let MLflow show it: as the version's description, and as an artifact of the training run where MLflow knows that run."""
    registry, card = Registry(workspace.mlflow, workspace.loop), _read(folder)
    if registry.tags(version).get(CARD_TAG) == folder.name:
        return False
    registry.describe(version, render_markdown(card))
    registry.attach(str(card["model"].get("mlflow_run_id") or ""), folder, f"model-card-{version}")
    registry.tag(version, {CARD_TAG: folder.name, "kfloop.card_path": str(folder / PAGE)})
    return True


def _read(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / CARD).read_text(encoding="utf-8")))


def _row_of(folder: Path) -> int:
    """The ledger row that a card is about; 0 where it cannot be read."""
    try:
        return int(_read(folder)["ledger_row"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0
