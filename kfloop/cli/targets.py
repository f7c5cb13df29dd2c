"""What ``kfloop status`` says of where the champion is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfloop.core.config import LoopConfig
    from kfloop.core.workspace import Workspace


def target_facts(config: LoopConfig, workspace: Workspace) -> dict[str, Any]:
    """The target: its ``kind``, ``where`` it is (null for the loop's own server), and whether the champion is what it serves (``ready``).

    ``ready`` is null where that cannot be known now, and then ``why`` says so. Changes nothing.
    """
    from kfloop.components.deploy.verifying import target_of
    from kfloop.errors import KfloopError
    from kfloop.serving.repository import served

    target = config.deploy.target
    where = {"triton": target.url, "kserve": target.manifests}.get(target.kind)
    facts: dict[str, Any] = {"kind": target.kind, "where": where, "ready": None, "why": None}
    try:
        champion, _ = served(workspace.repository, workspace.loop)
        if champion is None:
            return facts | {"why": "there is no champion yet"}
        ready = target_of(workspace, config.deploy).ready(champion)
    except KfloopError as error:
        return facts | {"why": error.message}
    return facts | {"ready": ready, "why": "no answer" if ready is None else None}


def target_lines(target: dict[str, Any], server: dict[str, Any] | None) -> list[str]:
    """The target for people."""
    own = f"{server['http']} (http), {server['grpc']} (grpc)" if server else "not running (kfloop serve)"
    if target["kind"] == "embedded":
        return [f"server     {own}"]
    words = {
        ("triton", True): "the champion is ready there",
        ("triton", False): "the champion is not ready there: kfloop monitor or kfloop run loads it",
        ("kserve", True): "the manifest names the champion; whether it was applied, the cluster knows",
        ("kserve", False): "the manifest does not name the champion: kfloop monitor or kfloop run writes it",
    }
    said = words.get((target["kind"], target["ready"]), target["why"])
    return [f"target     {target['kind']} at {target['where']}: {said}"] + ([f"server     {own}"] if server else [])
