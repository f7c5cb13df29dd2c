"""How each sample is made from what installed packages carry; always the same from the same package."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

PACKAGES = ("matplotlib", "numpy", "pandas", "sklearn", "sqlalchemy")
MOST_SENTENCES = 700  # of each package
SHORTEST, LONGEST = 25, 200  # characters of a sentence
RATE = 8000  # samples per second
SECONDS = 0.5
TIMBRES = ("bell", "clarinet", "flute", "organ", "string", "wind")
EACH_TIMBRE = 120
NEIGHBOURS = 6
LABELLED = 20  # nodes of each class that are trained on
VALIDATION, TEST = 400, 700


def breast_cancer(folder: Path) -> Path:
    """scikit-learn's breast cancer table (Wolberg et al., UCI, CC BY 4.0): 569 rows, 30 numbers, malignant or benign."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    rows = [[*map(float, row), data.target_names[kind]] for row, kind in zip(data.data, data.target, strict=True)]
    return _write_csv(folder / "breast_cancer.csv", [*names, "label"], rows)


def diabetes(folder: Path) -> Path:
    """scikit-learn's diabetes table (Efron et al. 2004): 442 patients, 10 numbers, progression after a year."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    rows = [[*map(float, row), float(value)] for row, value in zip(data.data, data.target, strict=True)]
    return _write_csv(folder / "diabetes.csv", [*data.feature_names, "target"], rows)


def carbon_dioxide(folder: Path) -> Path:
    """Weekly CO2 of statsmodels at Mauna Loa, 1958 to 2001 (Keeling & Whorf, public domain); gaps are filled by interpolation."""
    if importlib.util.find_spec("statsmodels") is None:
        raise InputError(
            "data.source 'sample:co2' comes with the package statsmodels, which is not installed",
            hint="pip install 'kfloop[samples]'",
        )
    from statsmodels.datasets import co2

    series = co2.load_pandas().data["co2"].interpolate()
    rows = [[moment.date().isoformat(), round(float(value), 4)] for moment, value in series.items()]
    return _write_csv(folder / "co2.csv", ["time", "co2"], rows)


def docstrings(folder: Path) -> Path:
    """First sentences of docstrings in five installed packages, each to be told by its package; names of packages are masked."""
    path = folder / "docstrings.txt"
    with path.open("w", encoding="utf-8") as stream:
        for package in PACKAGES:
            for sentence in _thinned(sorted(_sentences(package)), MOST_SENTENCES):
                stream.write(f"{package}\t{sentence}\n")
    return path


def sounds(folder: Path) -> Path:
    """Half a second each of six synthesised instruments, at random pitch, loudness and noise; no recording is involved."""
    import soundfile

    generator = np.random.default_rng(0)
    root = folder / "sounds"
    for timbre in TIMBRES:
        (root / timbre).mkdir(parents=True)
        for number in range(EACH_TIMBRE):
            soundfile.write(root / timbre / f"{number:03d}.wav", _tone(timbre, generator), RATE, subtype="PCM_16")
    return root


def digits_graph(folder: Path) -> Path:
    """scikit-learn's digits as nodes, each tied to its nearest neighbours; 20 labelled nodes of each class, as graphs are usually split."""
    from sklearn.datasets import load_digits
    from sklearn.neighbors import kneighbors_graph

    pixels, labels = load_digits(return_X_y=True)
    ties = kneighbors_graph(pixels, NEIGHBOURS).tocoo()
    generator = np.random.default_rng(0)
    order = generator.permutation(len(labels))
    chosen = np.concatenate([order[labels[order] == k][:LABELLED] for k in range(10)])
    rest = np.setdiff1d(order, chosen, assume_unique=True)
    rest = generator.permutation(rest)
    arrays: dict[str, Any] = {}
    held = {"train_mask": chosen, "val_mask": rest[:VALIDATION], "test_mask": rest[VALIDATION : VALIDATION + TEST]}
    for name, rows in held.items():
        arrays[name] = np.zeros(len(labels), dtype=np.bool_)
        arrays[name][rows] = True
    path = folder / "digits_graph.npz"
    # Blurred half away: with whole digits the pixels alone tell nearly all, and the ties add nothing.
    features = (pixels + generator.normal(0, 8, pixels.shape)).astype(np.float32)
    np.savez_compressed(path, edge_index=np.stack([ties.row, ties.col]), features=features, labels=labels, **arrays)
    return path


def _write_csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows(rows)
    return path


def _sentences(package: str) -> Iterator[str]:
    """First sentences of the docstrings of a package's modules, classes and functions, read without importing anything."""
    import ast

    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise InputError(f"'sample:docstrings' reads the package '{package}', which is not installed")
    seen: set[str] = set()
    for path in sorted(Path(found.origin).parent.rglob("*.py")):
        if "tests" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                sentence = _first_sentence(ast.get_docstring(node) or "")
                if SHORTEST <= len(sentence) <= LONGEST and sentence not in seen:
                    seen.add(sentence)
                    yield sentence


def _first_sentence(text: str) -> str:
    import re

    first = re.split(r"\n\s*\n|\.\s", text.strip(), maxsplit=1)[0]
    masked = re.sub(
        "|".join((*PACKAGES, "scikit-learn", "sqla", r"\bnp\b", r"\bpd\b")), "it", first, flags=re.IGNORECASE
    )
    return " ".join(masked.split()).rstrip(".")


def _thinned(items: Sequence[str], most: int) -> list[str]:
    """Up to ``most`` of the items, evenly spread."""
    places = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[place] for place in places]


def _tone(timbre: str, generator: np.random.Generator) -> NDArray[np.float32]:
    """One tone: partials of the instrument, its course in time, and noise."""
    time = np.arange(int(RATE * SECONDS)) / RATE
    pitch = 110 * 2 ** generator.uniform(0, 2)
    voices: dict[str, list[tuple[float, float]]] = {
        "bell": [(1, 1.0), (2.76, 0.6), (5.4, 0.4)],
        "clarinet": [(1, 1.0), (3, 0.5), (5, 0.3), (7, 0.15)],
        "flute": [(1, 1.0), (2, 0.15)],
        "organ": [(1, 0.8), (2, 0.8), (4, 0.6), (8, 0.4)],
        "string": [(k, 1.0 / k) for k in range(1, 9)],
        "wind": [],
    }
    wave = np.zeros_like(time)
    for ratio, strength in voices[timbre]:
        if ratio * pitch < RATE / 2:
            wave += strength * np.sin(2 * np.pi * ratio * pitch * time + generator.uniform(0, 2 * np.pi))
    if timbre == "wind":
        wave = np.convolve(generator.normal(size=len(time)), np.hanning(max(3, int(RATE / pitch))), mode="same")
    course = np.exp(-4 * time) if timbre in {"bell", "string"} else np.minimum(1, time / 0.05)
    wave = wave * course / max(float(np.abs(wave).max()), 1e-9)
    noisy = generator.uniform(0.2, 0.8) * (wave + generator.uniform(0.05, 0.6) * generator.normal(size=len(time)))
    return np.clip(noisy, -1, 1).astype(np.float32)
