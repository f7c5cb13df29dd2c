"""The first pod of a TrainJob: whether it runs, what it waits for, and its log, handed to our own."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from kfloop.components.train.launching import LAST_LINES, LEVELS
from kfloop.components.train.trainjob.manifest import CONTAINER
from kfloop.errors import KfloopError

if TYPE_CHECKING:
    from kfloop.components.train.trainjob.api import KubernetesApi

FIRST_POD = "jobset.sigs.k8s.io/jobset-name={name},jobset.sigs.k8s.io/replicatedjob-name=node,batch.kubernetes.io/job-completion-index=0"
WITH_A_LOG = ("Running", "Succeeded", "Failed")
SECONDS_OF_A_TIME = 19  # characters of 2026-11-22T08:50:40, to which sinceTime is cut
logger = logging.getLogger("kfloop")


class FirstPod:
    """Follows the pod with rank 0.

    The log is asked for again and again from the last line on instead of held open for hours: a connection that breaks costs nothing then.

    Args:
        api: The cluster.
        name: Name of the TrainJob.
    """

    def __init__(self, api: KubernetesApi, name: str) -> None:
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        self.running = False
        self._api = api
        self._selector = FIRST_POD.format(name=name)
        self._pod = ""
        self._time = ""  # of the last line
        self._seen = 0  # lines with that very time
        self._told = ""
        self._deaf = False

    def look(self) -> None:
        """See what the pod does, and tell what it wrote since the last look. What cannot be seen is told once and is no error: the TrainJob decides."""
        try:
            pods = self._api.pods(self._selector)
            if not pods:
                return
            pod = max(pods, key=lambda item: str(item["metadata"].get("creationTimestamp", "")))
            status = pod.get("status", {})
            self.running = status.get("phase") == "Running"
            self._tell_once(_waiting_for(status))
            name = str(pod["metadata"]["name"])
            if name != self._pod:
                self._pod, self._time, self._seen = name, "", 0
                logger.info("first pod of the training: '%s'", name)
            if status.get("phase") in WITH_A_LOG:
                self._read()
            self._deaf = False
        except KfloopError as error:
            if not self._deaf:
                logger.warning("the log of the training cannot be followed at this moment: %s", error.message)
            self._deaf = True

    def _read(self) -> None:
        since = f"{self._time[:SECONDS_OF_A_TIME]}Z" if self._time else None
        last, known = self._time, self._seen
        for line in self._api.log(self._pod, CONTAINER, since):
            time, _, text = line.partition(" ")
            if time < last:
                continue
            if time == last and known > 0:
                known -= 1
                continue
            self._seen = self._seen + 1 if time == self._time else 1
            self._time = time
            self._tell(text)

    def _tell(self, line: str) -> None:
        level, _, message = line.partition(" ")
        if level in LEVELS:
            logger.log(LEVELS[level], "%s", message)
        else:
            logger.debug("%s", line)
        if line.strip():
            self.lines.append(line.strip())

    def _tell_once(self, waiting: str) -> None:
        if waiting and waiting != self._told:
            logger.warning("the first pod of the training waits: %s", waiting)
        self._told = waiting


def _waiting_for(status: dict[str, Any]) -> str:
    """Why a pod does not run yet: no node takes it, or its image does not come; empty where nothing is wrong."""
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}".rstrip(": ")
    return ""
