"""What ``kfloop status`` says of the traffic: answers and failures since the server started, the edge, and the request log."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace
    from kfloop.serving.endpoint import Endpoint

REFUSED, FAILED = "4", "5"  # first digit of a status


def traffic_facts(workspace: Workspace, endpoint: Endpoint | None) -> dict[str, Any]:
    """Counts of the running server, of its edge and of the request log; null where there is none."""
    from kfloop.serving.counting import triton_requests
    from kfloop.serving.edge.process import read_state
    from kfloop.serving.retention import COUNTS, log_files, read_counts

    edge = None if endpoint is None else read_state(workspace)
    folder, log = workspace.request_log, None
    if (folder / COUNTS).is_file():
        sizes = [path.stat().st_size for path in log_files(folder) if path.exists()]
        log = asdict(read_counts(folder)) | {"files": len(sizes), "bytes": sum(sizes)}
    return {
        "requests": None if endpoint is None else triton_requests(endpoint, workspace.loop),
        "edge": None if edge is None else {"address": edge["address"], "answers": edge["answers"]},
        "log": log,
    }


def traffic_lines(facts: dict[str, Any]) -> list[str]:
    """The counts for people."""
    requests, edge, log = facts["requests"], facts["edge"], facts["log"]
    text = []
    if requests:
        text.append(f"requests   {requests['success']} answered, {requests['failure']} failed since the server started")
    if edge:
        refused, failed = (
            sum(count for status, count in edge["answers"].items() if status.startswith(first))
            for first in (REFUSED, FAILED)
        )
        text.append(f"edge       {edge['address']} (http): {refused} requests refused, {failed} failed")
    if log:
        deleted = f", {log['deleted_rows']} rows deleted by serve.log" if log["deleted_files"] else ""
        text.append(
            f"log        {log['written']} rows written, {log['dropped']} dropped{deleted}; "
            f"{log['files']} files, {log['bytes'] / 1e6:.1f} MB"
        )
        if log["damaged_files"]:
            text.append(f"log        {log['damaged_files']} files cannot be read; kfloop monitor names them")
        if log["full"]:
            text.append(
                f"log        {log['full']} of the dropped found it full: the monitor reads it with kfloop monitor"
            )
    return text
