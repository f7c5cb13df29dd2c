"""Runs the pods of TrainJobs as processes of this machine: what Trainer, JobSet and a kubelet do with a manifest, on one CPU.

It differs from a cluster in this: all pods see this machine's files, ``python`` is this python, and the first pod's name leads to 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from kubernetes_server import Cluster

GRACE_SECONDS = 60


class Kubelet:
    """Starts the pods of each TrainJob that a cluster gets.

    Args:
        cluster: The server.
        runtime: The ClusterTrainingRuntime.
    """

    def __init__(self, cluster: Cluster, runtime: dict[str, Any]) -> None:
        spec = runtime["spec"]["template"]["spec"]
        job = spec["replicatedJobs"][0]["template"]["spec"]
        self.restarts = spec["failurePolicy"]["maxRestarts"]
        self.final = job["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]
        self.pods: list[subprocess.Popen[str]] = []
        self.starts = 0
        self._cluster = cluster
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        cluster.lingering = True
        cluster.created = self._created
        cluster.deleted = lambda _: self._stop()

    def _created(self, job: dict[str, Any]) -> None:
        self._stopping.clear()
        self._thread(self._run, job)

    def _thread(self, *what: Any) -> threading.Thread:
        thread = threading.Thread(target=what[0], args=what[1:])
        self._threads.append(thread)
        thread.start()
        return thread

    def _run(self, job: dict[str, Any]) -> None:
        """A JobSet: all pods end well, or all of them start again, or the set has failed."""
        name = job["metadata"]["name"]
        kind, reason = "Failed", "ReachedMaxRestarts"
        for _ in range(self.restarts + 1):
            codes = self._attempt(name, job["spec"]["trainer"])
            if not any(codes):
                kind, reason = "Complete", "JobsCompleted"
            elif set(codes) & set(self.final):
                reason = "FailedJobs: PodFailurePolicy"
            elif not self._stopping.is_set():
                continue
            break
        if self._stopping.is_set():
            self._cluster.vanish(name)
        else:
            self._cluster.condition(name, kind, reason.partition(":")[0], reason)

    def _attempt(self, name: str, trainer: dict[str, Any]) -> list[int]:
        self.starts += 1
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        told = {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }
        told |= {item["name"]: item["value"] for item in trainer["env"]}
        command = [sys.executable, *trainer["command"][1:], *trainer["args"]]
        self.pods, readers, names = [], [], []
        for rank in range(trainer["numNodes"]):
            environment = os.environ | told | {"PET_NODE_RANK": str(rank)}
            process = subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            self.pods.append(process)
            names.append(self._cluster.pod(name, "Running", index=rank))
            readers.append(self._thread(self._keep, process, names[-1]))
        codes = self._codes()
        for reader in readers:
            reader.join()
        for rank, (pod, code) in enumerate(zip(names, codes, strict=True)):
            self._cluster.pod(name, "Failed" if code else "Succeeded", index=rank, name=pod)
        return codes

    def _codes(self) -> list[int]:
        """Exit codes of the pods, 0 for those that were only taken along when another one failed or the TrainJob was deleted."""
        going = list(self.pods)
        codes: dict[int, int] = {}
        taken_along = False
        while going:
            for pod in list(going):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = pod.wait(0.05)
                    going.remove(pod)
                    codes[pod.pid] = 0 if taken_along and code not in self.final else code
            if not taken_along and (any(codes.values()) or self._stopping.is_set()):
                taken_along = True
                self._end(going)
        if self._stopping.is_set():
            return [1 for _ in self.pods]
        return [codes[pod.pid] for pod in self.pods]

    def _keep(self, process: subprocess.Popen[str], pod: str) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._cluster.write(pod, line.rstrip("\n"))

    def _end(self, pods: list[subprocess.Popen[str]]) -> None:
        for pod in pods:
            if pod.poll() is None:
                pod.send_signal(signal.SIGTERM)

    def _stop(self) -> None:
        self._stopping.set()

    def close(self) -> None:
        """End what still runs."""
        self._stopping.set()
        for pod in self.pods:
            if pod.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pod.pid, signal.SIGKILL)
        for thread in self._threads:
            thread.join(GRACE_SECONDS)


@contextlib.contextmanager
def running(cluster: Cluster, runtime: dict[str, Any]) -> Iterator[Kubelet]:
    """A kubelet whose pods end with the block."""
    kubelet = Kubelet(cluster, runtime)
    try:
        yield kubelet
    finally:
        kubelet.close()
