"""What ``kfloop status`` says of the traffic: answers and failures since the server started, the edge, and the request log."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kfloop.core.addresses import redacted
from kfloop.errors import KfloopError

if TYPE_CHECKING:
    from kfloop.core.workspace import Workspace
    from kfloop.serving.endpoint import Endpoint

REFUSED, FAILED = "4", "5"  # first digit of a status
FRESH_SECONDS = 10.0
BEHIND_SECONDS = 900.0  # thirty slots: a server publishes every half minute; as in operations/alerts.yaml


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
        "published": _published(workspace),
    }


def bring_log(workspace: Workspace, every: float = FRESH_SECONDS) -> str:
    """Bring what servers published; what kept it from being brought, in words, so that the rest can be told all the same."""
    from kfloop.serving.log_mirror import bring

    try:
        bring(workspace, every=every)
    except (KfloopError, OSError) as error:
        return str(getattr(error, "message", error))
    return ""


def _published(workspace: Workspace) -> dict[str, Any] | None:
    """What was brought from the place where all servers publish their logs, at the last look; null for a loop without one."""
    from kfloop.serving.log_mirror import read_mirrored

    if not workspace.requests:
        return None
    told = read_mirrored(workspace)
    facts: dict[str, Any] = {"place": redacted(workspace.requests), "problem": "", "writers": []}
    if told is None:
        return facts | {"waits_for": "", "behind_seconds": None, "late_files": 0, "damaged": [], "strange": []}
    writers = [
        {"writer": name, "until": one.until_ns / 1e9, "silent_seconds": round(one.silent)}
        for name, one in sorted(told.writers.items())
    ]
    more = {
        "waits_for": told.waits_for,
        "behind_seconds": None if told.behind is None else round(told.behind),
        "late_files": told.late_files,
        "damaged": told.damaged,
        "strange": told.strange,
    }
    return facts | more | {"writers": writers}


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
    return text + (_of_published(facts["published"]) if facts.get("published") else [])


def _of_published(told: dict[str, Any]) -> list[str]:
    """What is to be known of the servers that publish their logs."""
    text = [f"log        {len(told['writers'])} servers published theirs at {told['place']}"]
    if told["problem"]:
        text.append(f"log        as of the last look; now {told['problem']}")
    if told["waits_for"]:
        text.append(f"log        rows wait for writer {told['waits_for']}, which is behind the others")
    if (behind := told["behind_seconds"] or 0) > BEHIND_SECONDS:
        text.append(
            f"log        a server that lives published up to {behind / 60:.0f} min ago, at the last look; "
            "its own log says what keeps it"
        )
    if silent := [one["writer"] for one in told["writers"] if one["silent_seconds"]]:
        text.append(f"log        writers that ended without a word, and are not waited for: {', '.join(silent)}")
    if told["late_files"]:
        text.append(
            f"log        {told['late_files']} files came after their time; kfloop monitor says how many rows it left out"
        )
    if told["damaged"]:
        text.append(f"log        {len(told['damaged'])} files are not what their names say: {told['damaged'][0]}")
    if told["strange"]:
        text.append(
            f"log        {len(told['strange'])} files are none of kfloop's and are left alone: {told['strange'][0]}"
        )
    return text
