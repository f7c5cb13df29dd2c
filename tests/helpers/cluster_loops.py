"""Loop files for a Kubeflow Pipelines server of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kfloop.pipelines.cluster.transport import Patience

IMAGE = f"registry.example/digits@sha256:{'a' * 64}"
QUICK = Patience(connect=1.0, answer=0.3, whole=2.0, attempts=4, pause=0.01, longest_pause=0.02)


def write_loop(folder: Path, url: str, name: str = "digits", **cluster: Any) -> Path:
    """A loop file whose cluster is at ``url``; its image is a released one unless told otherwise."""
    path = folder / "loop.yaml"
    content = {"name": name, "cluster": {"endpoint": url, "image": IMAGE} | cluster}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
