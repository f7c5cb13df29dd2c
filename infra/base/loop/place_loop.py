"""Write the loop file that servers on the cluster read: the same loop, with the places of its section ``cluster``.

``python place_loop.py GIVEN OUT_FOLDER`` writes ``OUT_FOLDER/loop.yaml``, readable by its owner only because addresses of state may hold
a password, and beside it a link ``.kfloop`` to the loop's folder on the shared volume. ``${NAME}`` is taken from the environment.
"""

import os
import re
import sys
from pathlib import Path

import yaml

PLACES = {"state": "sqlite:///{root}/.kfloop/state.db", "store": "{root}/.kfloop/store", "mlflow": "sqlite:///{root}/.kfloop/mlflow.db"}


def filled(text: str) -> str:
    """The text with every ``${NAME}`` from the environment; one that is not set is an error, not an empty word."""
    missing = [name for name in re.findall(r"\$\{(\w+)\}", text) if not os.environ.get(name)]
    if missing:
        sys.exit(f"error: the loop file names {', '.join(missing)}, which is not in this container's environment\n  -> give it by env or envFrom")
    return re.sub(r"\$\{(\w+)\}", lambda found: os.environ[found[1]], text)


def main(given: Path, out: Path) -> None:
    """Write the file and the link."""
    loop = yaml.safe_load(given.read_text(encoding="utf-8"))
    cluster = loop.get("cluster") or {}
    root = Path(cluster.get("root") or "/kfloop") / loop["name"]
    for place, default in PLACES.items():
        loop[place] = filled(cluster.get(place) or default.format(root=root))
    (root / ".kfloop").mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    link = out / ".kfloop"
    if not link.is_symlink():
        link.symlink_to(root / ".kfloop")
    written = out / "loop.yaml.tmp"
    with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        yaml.safe_dump(loop, stream, sort_keys=False, allow_unicode=True)
    written.rename(out / "loop.yaml")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
