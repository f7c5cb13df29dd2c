"""How many requests were answered, failed, refused, logged and lost: totals of the running server, its edge and the request log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace
    from kfloop.serving.endpoint import Endpoint

COUNTED = re.compile(r'^nv_inference_request_(success|failure)\{[^}]*model="([^"]*)"[^}]*\} ([0-9.e+]+)$', re.MULTILINE)
SECONDS = 2.0
REFUSED = "4"  # first digit of a status


def triton_requests(endpoint: Endpoint, model: str) -> dict[str, int] | None:
    """Requests by their end, as Triton's metrics count them since it started; null when it does not answer.

    The supervisor's own golden requests are among them.
    """
    from urllib.request import urlopen

    try:
        with urlopen(f"http://{endpoint.metrics}/metrics", timeout=SECONDS) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    found = {"success": 0, "failure": 0}
    for end, name, count in COUNTED.findall(text):
        if name == model:
            found[end] += int(float(count))
    return found


def read_counters(workspace: Workspace) -> dict[str, int]:
    """Totals by name: ``answered`` and ``failed`` (Triton), ``refused`` (the edge), ``written`` and ``dropped`` (rows of the request log).

    Each falls back to 0 when what counts it starts anew. What does not run now is left out.
    """
    from kfloop.serving.edge.process import read_state
    from kfloop.serving.endpoint import attach
    from kfloop.serving.retention import COUNTS, read_counts

    found: dict[str, int] = {}
    endpoint = attach(workspace)
    if endpoint is not None:
        requests, edge = triton_requests(endpoint, workspace.loop), read_state(workspace)
        if requests is not None:
            found |= {"answered": requests["success"], "failed": requests["failure"]}
        if edge is not None:
            found["refused"] = sum(count for status, count in edge["answers"].items() if status.startswith(REFUSED))
    if (workspace.request_log / COUNTS).is_file():
        counts = read_counts(workspace.request_log)
        found |= {"written": counts.written, "dropped": counts.dropped}
    return found
