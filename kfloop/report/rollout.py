"""The page of one roll-out: ``kfloop rollout --report``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfloop.report.html import environment, write_page
from kfloop.report.sections.rollout import view
from kfloop.report.values import moment, number, percent, text

WORDS = {
    "rolling_out": "is rolled out",
    "promoted": "was promoted",
    "withdrawn": "was withdrawn",
    "replaced": "was replaced by something newer",
}
TONES = {"promoted": "good", "withdrawn": "bad"}


def render_rollout(loop: str, told: Mapping[str, Any], out: Path, *, made: float) -> Path:
    """Write the page of one roll-out.

    Args:
        loop: Name of the loop.
        told: As ``components.deploy.looking.story`` tells it.
        out: The file to write; it appears whole or not at all.
        made: Unix time that the page names as its own.

    Returns:
        ``out``.
    """
    outcome = text(told.get("outcome"))
    share = percent(number(told.get("share")), 0)
    page = (
        environment()
        .get_template("rollout.html.j2")
        .render(
            loop_name=loop,
            row=told.get("ledger_row"),
            title=f"Version {told.get('version')} {WORDS.get(outcome, outcome)}, a {text(told.get('mode'))} of {share}",
            tone=TONES.get(outcome, "wait"),
            view=view(told),
            made=moment(made),
        )
    )
    write_page(out, page)
    return out
