"""A source in an object store, brought to this disk: the same cache, and the same care, as for a DVC repository.

Every object is named by its address and its version (the ETag that the store lists), so that a fetch which was cut off goes on with the objects that are
missing, and an object that changed is fetched anew. What is read is what the listing named: an object that changes in between is an error.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kfloop.components.ingest.remote_files import arriving, bring_all, hand_out
from kfloop.components.ingest.revisions import CONTENT, FILES, ORIGIN, cache_root, publish, sweep
from kfloop.core.addresses import redacted, resolved
from kfloop.core.artifacts import DIGEST_LENGTH
from kfloop.core.object_errors import failure
from kfloop.errors import InputError, KfloopError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMES = ("s3://", "gs://", "abfs://")


def is_object_source(source: str) -> bool:
    """Whether a source stands in an object store."""
    return source.startswith(SCHEMES)


def fetch_objects(source: str) -> Path:
    """Bring an object, or all objects below an address, to this disk.

    Args:
        source: ``s3://bucket/path`` of a file or a folder; gs and abfs likewise, where their packages are.

    Returns:
        The file or folder, under its own name; not to be changed.

    Raises:
        InputError: There is nothing, or the store refuses.
        ConfigError: A package that such an address needs is missing.
        TransientError: The store cannot be reached, or an object changed meanwhile; what came is kept.
    """
    shown = redacted(source)
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        store, root = url_to_fs(resolved(source), skip_instance_cache=True, use_listings_cache=False)
        root = str(root).rstrip("/")
        wanted = _listed(store, root, shown)
        entry = cache_root() / _digest([shown, *(f"{name}\0{told}" for name, (_, told) in sorted(wanted.items()))])
        leaf = PurePosixPath(root).name
        if not (entry / CONTENT / leaf).exists():
            sweep(cache_root())
            _bring(store, shown, wanted, entry, leaf)
    except KfloopError:
        raise
    except Exception as error:
        message = f"data.source '{shown}' cannot be read"
        raise failure(error, source, message, absent="is the bucket there, and the path in it?") from error
    return entry / CONTENT / leaf


def _listed(store: Any, root: str, shown: str) -> dict[str, tuple[str, str]]:
    """Address and version of each object, by its path below ``root`` (empty for ``root`` itself)."""
    if "/" not in root:
        raise InputError(
            f"data.source '{shown}' is a whole bucket", hint="name a file or a folder in it: s3://bucket/path"
        )
    found: Mapping[str, Any] = store.find(root, detail=True)
    objects = {path: info for path, info in found.items() if info["type"] == "file" and not path.endswith("/")}
    if len(objects) > 1:
        objects.pop(root, None)  # the mark that some stores keep for a folder
    if not objects:
        raise FileNotFoundError(shown)
    names = {path: path[len(root) + 1 :] for path in objects}
    for name in names.values():
        if name and (PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts):
            raise InputError(f"data.source '{shown}' holds an object called '{name}', which is no name of a file")
    return {names[path]: (path, _version(info)) for path, info in objects.items()}


def _version(info: Mapping[str, Any]) -> str:
    told = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    return f"{told or info.get('LastModified') or info.get('last_modified')}:{info.get('size')}"


def _bring(store: Any, shown: str, wanted: Mapping[str, tuple[str, str]], entry: Path, leaf: str) -> None:
    kept = entry.parent / FILES
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=entry.parent, prefix=".fetch-", ignore_cleanup_errors=True) as staging:
        to = Path(staging) / CONTENT / leaf
        to.parent.mkdir()
        bring_all(
            [partial(_bring_one, store, path, version, to / name, kept) for name, (path, version) in wanted.items()]
        )
        (Path(staging) / ORIGIN).write_text(json.dumps({"source": shown}) + "\n", encoding="utf-8")
        publish(Path(staging), entry)


def _bring_one(store: Any, path: str, version: str, place: Path, kept: Path) -> None:
    """One object; it appears among the kept ones whole or not at all."""
    name = _digest([path, version])
    held = kept / name[:2] / f"{name[2:]}.object"
    if not held.is_file():
        with arriving(held) as staging:
            store.get_file(path, str(staging))
            if _version(store.info(path)) != version or f":{staging.stat().st_size}" != version[version.rindex(":") :]:
                raise TransientError(f"object '{path}' changed while it was read", hint="run it again once it is whole")
    place.parent.mkdir(parents=True, exist_ok=True)
    hand_out(held, place)


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:DIGEST_LENGTH]
