# ruff: noqa: INP001 - a script, part of no package
"""Write the loop file that servers on the cluster read: the same loop, with the places of its section ``cluster``.

``python place_loop.py GIVEN OUT_FOLDER`` writes ``OUT_FOLDER/loop.yaml`` and beside it a link ``.kfloop`` to the loop's folder on the shared
volume. A secret stands in an address as ``${NAME}`` and stays so: whoever opens the address takes it from the environment.
"""

import sys
from pathlib import Path

import yaml

PLACES = {
    "state": "sqlite:///.kfloop/state.db",
    "store": ".kfloop/store",
    "mlflow": "sqlite:///.kfloop/mlflow.db",
}
SQLITE = "sqlite:///"


def below(root: Path, url: str) -> str:
    """A path or a database that the loop file names relative to itself lies in the loop's folder on the volume, as it does for the steps."""
    if url.startswith(SQLITE):
        return SQLITE + str(root / url.removeprefix(SQLITE))
    return url if "://" in url or url.startswith("${") else str(root / url)


def main(given: Path, out: Path) -> None:
    """Write the file and the link."""
    loop = yaml.safe_load(given.read_text(encoding="utf-8"))
    cluster = loop.get("cluster") or {}
    root = Path(cluster.get("root") or "/kfloop") / loop["name"]
    for place, default in PLACES.items():
        loop[place] = below(root, cluster.get(place) or loop.get(place) or default)
    if requests := cluster.get("requests") or loop.get("requests"):
        loop["requests"] = below(root, requests)
    (root / ".kfloop").mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    link = out / ".kfloop"
    if not link.is_symlink():
        link.symlink_to(root / ".kfloop")
    written = out / "loop.yaml.tmp"
    written.write_text(yaml.safe_dump(loop, sort_keys=False, allow_unicode=True), encoding="utf-8")
    written.rename(out / "loop.yaml")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
