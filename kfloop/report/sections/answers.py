"""What models answered, to look at: the curves and samples that ``evaluate`` left beside its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfloop.report import answer_plots
from kfloop.report.pictures import DAMAGE, png_uri
from kfloop.report.sources import LARGEST, Context, read_beside
from kfloop.report.values import items, mapping, number, rows, text

_LARGEST_NUMBER = 1e150  # matplotlib squares what it draws
_COLUMNS = 16
_SCALED = 24  # pixels: smaller pictures are enlarged to at least this
_SHEET = 1200  # pixels of the longer side of a sheet of samples
_MODELS = ("challenger", "champion", "baseline")


def build(context: Context) -> Mapping[str, Any]:
    """Plots by what they show, and sheets of samples; empty where the evaluation left nothing of the kind."""
    folder = context.source("evaluate").folder
    told = read_beside(folder, "shown.json")
    try:
        return {"plots": list(_plots(told)), "sheets": _sheets(folder, told)}
    except DAMAGE:
        return {"plots": [], "sheets": []}


def _plots(told: Mapping[str, Any]) -> list[str]:
    found = []
    scatter = mapping(told.get("scatter"))
    true, predicted = _numbers(scatter.get("true")), _by_model(scatter.get("predicted"))
    predicted = {name: values for name, values in predicted.items() if len(values) == len(true)}
    if true and predicted:
        found.append(answer_plots.scatter(true, predicted))
    curves = {
        name: (_numbers(mapping(one).get("false")), _numbers(mapping(one).get("true")))
        for name, one in mapping(mapping(told.get("roc")).get("curves")).items()
    }
    curves = {name: both for name, both in curves.items() if both[0] and len(both[0]) == len(both[1])}
    if curves:
        found.append(answer_plots.roc(curves, text(mapping(told.get("roc")).get("positive"))))
    spread = mapping(told.get("scores"))
    edges, normal, odd = (_numbers(spread.get(name)) for name in ("edges", "normal", "odd"))
    if normal and len(edges) == len(normal) + 1 == len(odd) + 1:
        found.append(answer_plots.scores(edges, normal, odd))
    steps = _by_model(told.get("errors_by_step"))
    if steps:
        found.append(answer_plots.by_step(steps))
    return found + _forecasts(told)


def _forecasts(told: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for place, window in enumerate(rows(told.get("forecasts"))[:4]):
        for channel, one in list(mapping(window.get("channels")).items())[:2]:
            part = mapping(one)
            past, true = _numbers(part.get("past")), _numbers(part.get("true"))
            said = {
                name: values
                for name, values in _by_model(part.get("forecast")).items()
                if len(values) == len(true) and name != "champion"
            }
            if past and true and said:
                name = f"forecast-{place}-{len(found)}"
                title = f"{text(channel, limit=30)}, from {text(window.get('id'), limit=40)}"
                found.append(answer_plots.forecast(name, title, past, true, said))
    return found


def _sheets(folder: Path | None, told: Mapping[str, Any]) -> list[dict[str, str]]:
    """Real rows and samples of each model, each as one picture."""
    import numpy as np

    names = [text(name, limit=40) for name in items(told.get("samples"))]
    path = None if folder is None else folder / "samples.npy"
    if not names or path is None or not path.is_file() or path.stat().st_size > LARGEST:
        return []
    samples = np.load(path, allow_pickle=False)
    return [
        {"title": f"samples of the {name}" if name in _MODELS else f"{name} rows", "uri": png_uri(sheet(one), _SHEET)}
        for name, one in zip(names, samples, strict=False)
    ]


def sheet(images: Any) -> Any:
    """Images uint8 [n, H, W, C] in rows of 16, small ones enlarged, as one image."""
    import numpy as np

    count, height, width, channels = images.shape
    columns = min(_COLUMNS, count)
    lines = -(-count // columns)
    scale = max(1, -(-_SCALED // height))
    large = images.repeat(scale, axis=1).repeat(scale, axis=2)
    page = np.full((lines, height * scale + 2, columns, width * scale + 2, channels), 255, dtype=np.uint8)
    for place, image in enumerate(large):
        page[place // columns, : height * scale, place % columns, : width * scale] = image
    return page.reshape(lines * page.shape[1], columns * page.shape[3], channels)


def _numbers(value: Any) -> list[float]:
    """A list of finite numbers; empty when one is none."""
    found = [number(item) for item in items(value)]
    known = [item for item in found if item is not None and abs(item) < _LARGEST_NUMBER]
    return known if len(known) == len(found) else []


def _by_model(value: Any) -> dict[str, list[float]]:
    found = {name: _numbers(one) for name, one in mapping(value).items() if name in _MODELS}
    return {name: values for name, values in found.items() if values}
