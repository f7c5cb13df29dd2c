"""Backup: state as JSON lines with a list of digests, and every blob of the store, put together into another store.

A backup is a blob of kind ``state`` in the store that holds backups: it appears there whole or not at all. State is read first and in one
transaction, the blobs after it: whatever the copy of state names is among them, because blobs are published before they are named. Blobs that
the backup has already are not copied again; what is copied is read back. A damaged blob is named and left out, and everything else is backed
up. Leases are not kept: they are about processes.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from kfloop import __version__
from kfloop.core.addresses import redacted, resolved
from kfloop.core.artifacts import file_sha256, folder_digest
from kfloop.core.housekeeping.copying import STATE, at_hand, copy_blobs, put, read_contents, write_contents
from kfloop.core.housekeeping.references import loops_of
from kfloop.core.state.database import HEAD, POSTGRES
from kfloop.core.state.schema import leases, metadata
from kfloop.core.store import Store
from kfloop.errors import ConfigError, StateError

if TYPE_CHECKING:
    from sqlalchemy import Table

    from kfloop.core.housekeeping.copying import Damaged
    from kfloop.core.state import State
    from kfloop.core.workspace import Workspace

INDEX = "backup.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A backup that was made.

    Attributes:
        name: Its name; a later one sorts after it.
        rows: Rows of each table.
        loops: Loops that it has state of.
        copied: Blobs that were copied now.
        present: Blobs that the backup had already.
        damaged: Blobs that are not in the backup, because they could not be read.
    """

    name: str
    rows: dict[str, int]
    loops: tuple[str, ...]
    copied: int
    present: int
    damaged: tuple[Damaged, ...]


def tables() -> list[Table]:
    """The tables that a backup has."""
    return [table for table in metadata.sorted_tables if table is not leases]


def back_up(state: State, workspace: Workspace, destination: str) -> Saved:
    """Put state and store into the store at ``destination``.

    Args:
        state: State of the loop, and of all loops that share it.
        workspace: Places of the loop.
        destination: Folder or fsspec URL.

    Raises:
        ConfigError: The destination is no place of its own.
        StateError: The destination cannot be written, or gives back something else than it was given.
        TransientError: State, store or destination are away.
    """
    refuse_own_store(workspace, destination)
    scratch = workspace.kfloop_dir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="backup-", dir=scratch) as made:
        there = Store(destination, Path(made) / "mirror")
        out = Path(made) / "state"
        out.mkdir()
        rows = dump(state, out)
        loops = loops_of(state)
        earlier = sorted(there.digests(STATE))
        contents = read_contents(there.require(STATE, earlier[-1])) if earlier else {}
        copies = copy_blobs(Store.of(workspace), there, Path(made) / "blob", contents)
        write_contents(there, out, Path(made) / "blob", contents)
        name = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + folder_digest(out)[:6]
        put(there, out, STATE, name)
        with at_hand(there, STATE, name, Path(made) / "back") as back:
            read_dump(back)
    return Saved(name=name, rows=rows, loops=tuple(loops), **vars(copies))


def refuse_own_store(workspace: Workspace, destination: str) -> None:
    """Refuse a place that is the store, lies in it or holds it: a backup there is lost together with what it is of, or takes itself for blobs.

    Raises:
        ConfigError: It is such a place, or empty.
    """
    if not destination.strip():
        raise ConfigError("the place of the backup is empty", hint="name a folder or URL; is a variable not set?")
    store = Store.of(workspace)
    one, other = (
        f"{there.root.resolve() if there.blobs is None else resolved(there.url).rstrip('/')}/"
        for there in (store, Store(destination, store.root))
    )
    if one.startswith(other) or other.startswith(one):
        raise ConfigError(
            f"'{redacted(destination)}' and the store '{redacted(workspace.store)}' are not apart",
            hint="name a folder or URL that is used for backups only, best on another disk",
        )


def dump(state: State, out: Path) -> dict[str, int]:
    """Write every table as JSON lines, and the list of them with their digests; all of one moment.

    Returns:
        Rows of each table.
    """
    counts = {}
    with state.engine.connect() as connection:
        if state.engine.dialect.name == POSTGRES:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")  # noqa: PLW2901 - the same one
        with connection.begin():
            for table in tables():
                with (out / f"{table.name}.jsonl").open("w", encoding="utf-8") as stream:
                    counts[table.name] = 0
                    found = connection.execute(select(table).order_by(*table.primary_key.columns))
                    for row in found.mappings():
                        stream.write(json.dumps(dict(row), sort_keys=True) + "\n")
                        counts[table.name] += 1
    index = {
        "format": FORMAT,
        "schema": HEAD,
        "kfloop": __version__,
        "at": time.time(),
        "files": {
            name: {"rows": count, "sha256": file_sha256(out / f"{name}.jsonl")} for name, count in counts.items()
        },
    }
    (out / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return counts


def read_dump(folder: Path) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """Schema version and rows by table of what ``dump`` wrote.

    Raises:
        StateError: It is damaged, or from a newer kfloop.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        version, schema, files = index["format"], str(index["schema"]), dict(index["files"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StateError(f"'{folder}' is no backup of state: {error!r}", hint="see: kfloop restore --help") from error
    if version != FORMAT or schema > HEAD:
        raise StateError(
            f"the backup has format {version} and schema {schema}, this kfloop knows {FORMAT} and {HEAD}",
            hint="update kfloop",
        )
    rows = {}
    for name, facts in files.items():
        path = folder / f"{name}.jsonl"
        if not path.is_file() or file_sha256(path) != facts["sha256"]:
            raise StateError(
                f"'{path}' is not what the backup's list says", hint="take another backup: kfloop restore --at NAME"
            )
        rows[name] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return schema, rows
