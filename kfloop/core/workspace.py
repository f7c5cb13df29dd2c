"""Where one loop lives: its folder and the URLs of its state, store and registry."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

RUN_ID_VARIABLE = "KFLOOP_RUN_ID"


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The places of one loop; travels to every step as one JSON parameter.

    Attributes:
        loop: Name of the loop, also the name of its registered and served model.
        root: Folder of ``loop.yaml``.
        state: SQLAlchemy URL of runs, ledger, leases and monitor state.
        store: fsspec URL or folder of immutable blobs.
        mlflow: Tracking and registry URI.
        requests: fsspec URL or folder that all servers of the loop publish their request logs to; empty where the log is this disk's alone.
    """

    loop: str
    root: Path
    state: str
    store: str
    mlflow: str
    requests: str = ""

    @property
    def kfloop_dir(self) -> Path:
        """Local working folder of the loop."""
        return self.root / ".kfloop"

    @property
    def request_log(self) -> Path:
        """Folder of the request log (Parquet by model and hour) that is read: where servers publish theirs, this disk's mirror of it (``serving/log_mirror.py``)."""
        if not self.requests:
            return self.collected
        return self.kfloop_dir / "mirrored-requests" / hashlib.sha256(self.requests.encode()).hexdigest()[:12]

    @property
    def collected(self) -> Path:
        """Folder that a server's collector on this machine writes to."""
        return self.kfloop_dir / "requests"

    @property
    def repository(self) -> Path:
        """Triton's model repository."""
        return self.kfloop_dir / "triton" / "repository"

    @property
    def serve_file(self) -> Path:
        """Endpoint and key of the running supervisor, readable by the owner only."""
        return self.kfloop_dir / "serve.json"

    def find_modules(self) -> None:
        """Let modules beside the loop file be imported: a model of one's own. They come last, so that they hide nothing."""
        if str(self.root) not in sys.path:
            sys.path.append(str(self.root))

    def to_json(self) -> str:
        """Canonical JSON, stable between runs so that it may be part of a cache key."""
        fields = asdict(self) | {"root": str(self.root)}
        if not self.requests:  # a loop without it keeps the key that it had
            del fields["requests"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Workspace:
        """The workspace that ``to_json`` wrote."""
        fields = json.loads(text)
        return cls(**(fields | {"root": Path(fields["root"])}))


def run_id() -> str:
    """Id of the run this process belongs to; empty outside a run.

    It is read from the environment and never a parameter: a parameter that changes with every run would spoil each cache key.
    """
    return os.environ.get(RUN_ID_VARIABLE, "")
