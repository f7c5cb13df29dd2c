"""Every example of ``examples/`` to a blessed package, and the table of the README: parity, golden answers over both protocols, speed, memory.

    python benchmarks/examples.py              all of them; one to four minutes each on two cores
    python benchmarks/examples.py mlp gnn      some of them

Each example runs in a copy of its folder, with its own loop file. Whether the gate promotes it does not matter here; a package that is not
blessed does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"
REJECTED = 3  # exit status of kfloop run when the gate keeps the champion
HEADS = (
    "example",
    "family",
    "learns",
    "graph",
    "parity",
    "golden HTTP / gRPC",
    "HTTP p50 / p95 / p99 ms",
    "gRPC p50 / p95 / p99 ms",
    "req/s HTTP / gRPC",
    "memory",
)


def run(name: str, folder: Path) -> dict[str, Any]:
    """Run an example in a copy of its folder; the reports of its package and its blessing.

    Raises:
        SystemExit: The run failed, or left no package or blessing.
    """
    home = folder / name
    shutil.copytree(EXAMPLES / name, home, ignore=shutil.ignore_patterns(".kfloop", "__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "kfloop", "run", "-c", str(home / "loop.yaml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
    )
    if done.returncode not in {0, REJECTED}:
        raise SystemExit(f"{name}: kfloop run ended with {done.returncode}:\n{(done.stderr or done.stdout)[-1500:]}")
    return {kind: _report(home, kind) for kind in ("models", "blessings")}


def _report(home: Path, kind: str) -> dict[str, Any]:
    """The only report of a kind in the example's store."""
    found = sorted(home.rglob(f"{kind}/*/report.json"))
    if len(found) != 1:
        raise SystemExit(f"{home.name}: {len(found)} reports of {kind}, expected one")
    return dict(json.loads(found[0].read_text(encoding="utf-8")))


def row(name: str, reports: dict[str, Any]) -> list[str]:
    """A line of the table."""
    package, blessing = reports["models"], reports["blessings"]
    if not blessing["passed"]:
        raise SystemExit(f"{name}: not blessed: {'; '.join(blessing['failures'])}")
    golden, timed = blessing["golden"]["protocols"], blessing["latency_ms"]["protocols"]
    times = [" / ".join(f"{timed[kind][part]:.1f}" for part in ("p50", "p95", "p99")) for kind in ("http", "grpc")]
    return [
        f"`{name}/`",
        package["family"],
        package["objective"],
        f"{package['bytes']['model.onnx'] / 1e3:,.0f} kB",
        f"{package['max_abs_diff']:.0e}",
        f"{golden['http']:.0e} / {golden['grpc']:.0e}",
        *times,
        f"{timed['http']['throughput_rps']:,.0f} / {timed['grpc']['throughput_rps']:,.0f}",
        f"{blessing['memory_mb']:.0f} MiB",
    ]


def main() -> None:
    """Run and print."""
    every = sorted(place.name for place in EXAMPLES.iterdir() if (place / "loop.yaml").is_file())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="EXAMPLE", help=f"of {', '.join(every)}; all when none is named")
    names = parser.parse_args().names or every
    unknown = sorted(set(names) - set(every))
    if unknown:
        parser.error(f"no example is called {', '.join(unknown)}: there are {', '.join(every)}")
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}", flush=True)
    clients = set()
    with tempfile.TemporaryDirectory(prefix="kfloop-examples-") as folder:
        for name in names:
            reports = run(name, Path(folder))
            clients.add(reports["blessings"]["latency_ms"]["concurrency"])
            print(f"| {' | '.join(row(name, reports))} |", flush=True)
    told = ", ".join(map(str, sorted(clients)))
    print(
        f"\nParity: largest difference between torch and the graph; golden: between torch and the server; absolute for probabilities, else in units"
        f" of the output's largest magnitude. {told} clients, one example in a request."
    )


if __name__ == "__main__":
    main()
