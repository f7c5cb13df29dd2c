"""A card as a page and as the short text of a registered version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_TEMPLATES = Path(__file__).parent / "templates"
_LARGE = 1000.0  # from here on the decimals of a number say nothing
MISSING = "\N{EN DASH}"


def render_html(card: dict[str, Any]) -> str:
    """One HTML page that loads nothing from anywhere."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": spelled, "estimate": estimate, "short": short}
    levels = [
        line["challenger"]["level"] for line in card["metrics"] if line["challenger"] and line["challenger"]["level"]
    ]
    page = environment.get_template("card.html.j2")
    try:
        return page.render(card=card, rows=_rows(card), level=levels[0] if levels else None)
    except TemplateError as error:
        message = f"the card has a shape that nobody foresaw: {error}"
        raise ValueError(message) from error


def render_markdown(card: dict[str, Any]) -> str:
    """The description of a registered version: a few lines."""
    model, decision = card["model"], card["decision"]
    lines = [
        f"**{card['loop']} version {card['version']}**, {card['status']} since {card['since']} (ledger row {card['ledger_row']})."
    ]
    if card["about"].get("intended_use"):
        lines.append(f"Intended use: {card['about']['intended_use']}")
    lines.append(
        f"{model['family'] or 'model'} for {model['objective'] or 'its task'}; {card['trained_because']['sentence']}"
    )
    if card["metrics"]:
        main = card["metrics"][0]
        lines.append(f"{main['metric']}: {estimate(main['challenger'])}")
    lines.append(f"Dataset `{short(card['data']['digest'])}`, evidence `{short(decision['evidence_digest'])}`.")
    lines += [
        f"{person['what']} by {person['who']}, {person['when']}: {person['why']}"
        for person in card["people"]
        if person["what"] in {"approved", "rejected"}
    ]
    if card["overrides"]:
        lines.append(
            "Overridden rules: "
            + "; ".join(f"{line['rule']} ({line['who']}: {line['why']})" for line in card["overrides"])
        )
    return "\n\n".join(lines)


def spelled(value: Any) -> str:
    """A number for people; a dash for none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return MISSING if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= _LARGE else f"{value:.4g}"


def estimate(value: dict[str, Any] | None) -> str:
    """``0.912 (0.881 to 0.94, 360 rows)``."""
    if not value or value.get("value") is None:
        return MISSING
    parts = []
    if value.get("low") is not None and value.get("high") is not None:
        parts.append(f"{spelled(value['low'])} to {spelled(value['high'])}")
    if value.get("n") is not None:
        parts.append(f"{spelled(value['n'])} rows")
    return spelled(value["value"]) + (f" ({', '.join(parts)})" if parts else "")


def short(digest: Any) -> str:
    """The beginning of a digest."""
    return str(digest)[:12] if digest else MISSING


def _rows(card: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Tables of names and values."""
    model, data = card["model"], card["data"]
    splits = data.get("splits") or {}
    sources = [
        ", ".join(f"{key} {value}" for key, value in source.items() if value not in (None, "", [], {}))
        for source in data.get("sources") or []
        if isinstance(source, dict)
    ]
    return {
        "model": [
            ("family", spelled(model["family"])),
            ("objective", spelled(model["objective"])),
            ("data kind", spelled(model["modality"])),
            ("parameters", spelled(model["parameters"])),
            ("size", f"{model['megabytes']:.3g} MB" if model["megabytes"] else MISSING),
            ("epochs", spelled(model["epochs"])),
            ("training time", f"{model['train_seconds']:.3g} s" if model["train_seconds"] else MISSING),
            ("device", spelled(model["device"])),
            ("seed", spelled(model["seed"])),
            ("MLflow run", short(model["mlflow_run_id"])),
            ("package", short(card["model_digest"])),
            ("checkpoint", short(model["checkpoint_digest"])),
        ],
        "data": [
            ("dataset version", short(data["digest"])),
            ("rows", spelled(data.get("n_rows"))),
            *((f"{name} rows", spelled(size)) for name, size in splits.items()),
            ("corrected labels", spelled(data.get("corrected"))),
            ("left out as unusable", spelled(data.get("quarantined"))),
            ("version before", short(data.get("previous"))),
        ],
        "sources": [(f"source {index}", line) for index, line in enumerate(sources, start=1)],
    }
