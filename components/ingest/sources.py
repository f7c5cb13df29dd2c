"""Finding the reader of a source, and looking at a source before anything is decoded or written."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.ingest.object_source import fetch_objects, is_object_source
from kfloop.components.ingest.readers.images import reader as images
from kfloop.components.ingest.readers.images.reader import DIGITS, digits_source
from kfloop.components.ingest.readers.requests.served import open_served
from kfloop.components.ingest.revisions import fetch
from kfloop.components.ingest.samples import is_sample, sample_path
from kfloop.core.artifacts import DIGEST_LENGTH, canonical_json, file_sha256
from kfloop.core.sections import REQUESTS, RecipeConfig
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from types import ModuleType

    from kfloop.components.ingest.source import Source
    from kfloop.core.sections import DataConfig

# In the order in which they are asked: the more particular layouts first.
READERS = ("requests", "graphs", "series", "arrays", "images", "audio", "text", "table")
LOOK = 4096
ALONE = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".npz", ".txt"})  # files that are a source each
_TO_CSV = "save it as Parquet, or as CSV with the names of the columns in the first line"
WAYS_OUT = {
    ".json": "write one object a line into a .jsonl file; with pandas: frame.to_json(path, orient='records', lines=True)",
    ".npy": "write inputs and labels into one file: numpy.savez('data.npz', X=..., y=...)",
    ".xlsx": _TO_CSV,
    ".xls": _TO_CSV,
    ".zip": "unpack it, and name the file or folder inside",
    ".tar": "unpack it, and name the file or folder inside",
}
METADATA = "metadata.csv"
LAYOUTS = "a CSV, Parquet or JSON lines file; lines of text; npz or IDX arrays; a folder of images, of wav or flac files, of texts or of graphs; a request log"


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """What a source holds.

    Attributes:
        kind: Name of the layout, such as ``csv`` or ``image_folder``.
        modality: What a row is.
        task: What is to be learned.
        uri: Where it is.
        labels: Class names in the order of their indices; empty without classes.
        n: Rows, fresh ones included, before any is set aside.
        n_fresh: Freshly labelled rows among them.
        digest: Digest of all that goes into a version: files, fresh files, votes, corrections.
        suggestions: Values of ``DataConfig`` fields that were guessed.
        notes: What a person should know.
    """

    kind: str
    modality: str
    task: str
    uri: str
    labels: tuple[str, ...]
    n: int
    n_fresh: int
    digest: str
    suggestions: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The source, the freshly labelled rows where there are any, and the commit of a DVC source."""

    base: Source
    fresh: Source | None
    commit: str | None


def inspect(config: DataConfig) -> SourceInfo:
    """Look at a source without writing anything.

    Raises:
        InputError: There is no such source, nobody can read it, its labels cannot be found, or freshly labelled rows have a class that the
            source does not have.
    """
    return describe(config, open_sources(config))


def describe(config: DataConfig, opened: Opened) -> SourceInfo:
    """What an opened source holds."""
    base, fresh = opened.base, opened.fresh
    n_fresh = fresh.n if fresh else 0
    parts = [base.digest, fresh.digest if fresh else "", opened.commit or ""]
    parts += [_optional_digest(path) for path in (config.votes, config.corrections)]
    if fresh is not None and config.recipe != RecipeConfig():
        parts.append(canonical_json(config.recipe.model_dump(mode="json")))
    return SourceInfo(
        kind=base.kind,
        modality=base.modality,
        task=base.task,
        uri=config.source,
        labels=base.labels,
        n=min(base.n, config.limit or base.n) + n_fresh,
        n_fresh=n_fresh,
        digest=hashlib.sha256("\n".join(parts).encode()).hexdigest()[:DIGEST_LENGTH],
        suggestions=base.suggestions,
        notes=(*base.notes, *(fresh.notes if fresh else ())),
    )


def open_sources(config: DataConfig) -> Opened:
    """Open the source and the fresh rows.

    Raises:
        InputError: As for ``inspect``.
    """
    if config.source == DIGITS and config.dvc is None:
        base = digits_source(config)
        return Opened(base=base, fresh=_fresh(config, base), commit=None)
    _refuse_addresses(config)
    path, commit = Path(config.source), None
    if is_sample(config.source) and config.dvc is None:
        path = sample_path(config.source)
    if config.dvc is not None:
        fetched = fetch(config.dvc, config.source)
        path, commit = fetched.path, fetched.commit
    elif is_object_source(config.source):
        path = fetch_objects(config.source)
    if not path.exists():
        raise InputError(
            f"data.source '{config.source}' does not exist: expected 'digits', 'sample:NAME' or {LAYOUTS}",
            hint=f"{_meant(path)}paths are relative to the loop file (kfloop init: to the current folder)",
            source=config.source,
        )
    base = reader_of(path, config).open_source(path, config)
    return Opened(base=base, fresh=_fresh(config, base), commit=commit)


def _refuse_addresses(config: DataConfig) -> None:
    """These may be absent, so an address that nobody reads would pass for labels that are yet to come."""
    for key in ("fresh", "votes", "corrections"):
        value = getattr(config, key)
        if value is not None and "://" in value:
            raise InputError(
                f"data.{key} '{value}' is an address: expected a path",
                hint="only data.source may stand in S3; bring the file to this disk",
            )


def reader_of(path: Path, config: DataConfig) -> ModuleType:
    """The module that reads ``path``.

    Raises:
        InputError: Nobody does.
    """
    for name in READERS:
        module = importlib.import_module(f"kfloop.components.ingest.readers.{name}.reader")
        if module.recognise(path, config):
            return module
    if path.is_dir() and config.label is not None and config.modality in {"auto", "image"}:
        return images  # a folder whose metadata.csv is at fault: its reader knows what is wrong with it
    what = f"as {config.modality} rows" if config.modality != "auto" else "by kfloop"
    if path.is_dir():
        inside = sorted(child.name for child in path.iterdir() if not child.name.startswith("."))[:5]
        holds = f"it holds {', '.join(inside)}" if inside else "it is empty"
    else:
        holds = "the file is empty" if not path.stat().st_size else f"its suffix is '{path.suffix}'"
    raise InputError(
        f"'{path}' cannot be read {what}: {holds}",
        hint=_way_out(path) + ("" if config.modality == "auto" else "; or leave data.modality out"),
        source=str(path),
    )


def _way_out(path: Path) -> str:
    """What to do with a path that nobody reads."""
    suffix = path.suffix.lower()
    if path.is_dir():
        single = sorted(child.name for child in path.iterdir() if child.suffix.lower() in ALONE and child.is_file())
        one = f"name one file of the folder, such as '{path / single[0]}'; otherwise " if single else ""
        return f"{one}data.source takes {LAYOUTS}"
    if path.is_file() and suffix in WAYS_OUT:
        return WAYS_OUT[suffix]
    if path.is_file() and path.stat().st_size and is_text_file(path):
        return (
            "if it is a table, call it .csv, .parquet or .jsonl; if it is a text with its label on each line, call it .txt or tell how a line is "
            "made in data.pattern (kfloop init: --pattern '{label} {text}')"
        )
    return f"data.source takes {LAYOUTS}"


def is_text_file(path: Path) -> bool:
    """Whether a file begins like text: without a zero byte."""
    with path.open("rb") as stream:
        return b"\0" not in stream.read(LOOK)


def _fresh(config: DataConfig, base: Source) -> Source | None:
    """Newly labelled rows; an absent or empty file or folder is no error, because labels come later."""
    if config.fresh is None:
        return None
    if config.fresh == REQUESTS:
        return open_served(config, base)
    path = Path(config.fresh)
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return None
    folder = config.source == DIGITS or Path(base.uri).is_dir()
    if folder and path.is_file():
        raise InputError(
            f"data.fresh '{config.fresh}' is a file: expected a folder of labelled rows, as data.source is one",
            hint="name a folder; it need not exist yet",
        )
    labelled = path.is_file() or (path / METADATA).is_file()
    like = config.model_copy(update={"modality": base.modality, "limit": None} | ({} if labelled else {"label": None}))
    if path.is_dir() and not any(child.is_file() and not child.name.startswith(".") for child in path.rglob("*")):
        return None
    return reader_of(path, like).open_source(path, like, base)


def _optional_digest(path: str | None) -> str:
    return file_sha256(Path(path)) if path is not None and Path(path).is_file() else ""


def _meant(path: Path) -> str:
    """What the person may have meant; nothing when no name beside it is near, for there may be thousands."""
    if not path.parent.is_dir():
        return f"there is no folder '{path.parent}'; "
    said = nearest(path.name, [DIGITS, *(child.name for child in path.parent.iterdir())])
    return f"{said} " if said.startswith("did you mean") else ""
