"""Where everything came from: digests of all artifacts, versions of all software, what stood in for what, and the cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report.sections.training import flat
from kfloop.report.sources import Context
from kfloop.report.values import items, mapping, text, words


def build(context: Context) -> Mapping[str, Any]:
    """What the lineage section shows."""
    record = context.record
    kinds = {name: text(mapping(line.get("artifact")).get("kind")) for name, line in context.steps.items()}
    digests = {name: text(mapping(line.get("artifact")).get("digest")) for name, line in context.steps.items()}
    digests |= {text(name): text(found) for name, found in mapping(record.get("digests")).items()}
    lineage = mapping(context.pictures.card.get("lineage"))
    return {
        "digests": [[words(name), kinds.get(name, ""), found] for name, found in digests.items() if found],
        "versions": [[text(name), text(found)] for name, found in mapping(record.get("versions")).items()],
        "facts": [
            ("run", text(record.get("run_id"))),
            ("configuration", text(record.get("config_digest"))),
            ("data source", text(record.get("source_digest"))),
            ("engine", text(record.get("engine"))),
            ("substitutes", ", ".join(text(name) for name in items(record.get("substitutes"))) or "none"),
            *(("cost, " + name, found) for name, found in flat(mapping(record.get("cost")))),
            *(("data, " + name, found) for name, found in flat(lineage)),
        ],
    }
