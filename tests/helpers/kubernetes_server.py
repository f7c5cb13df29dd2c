"""A Kubernetes API server, as much of it as a launcher of TrainJobs speaks with: real HTTP, strict about what it is sent.

TrainJobs are held against Trainer's published schema, pods against that of Kubernetes. What a controller and a kubelet would do is done by the test.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

import trainer_schema

TOKEN = "token-of-the-launcher"
NAMESPACE = "team"
RELEASE = "1.32"
JOBS = re.compile(rf"/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs(?:/([^/]+))?$")
PODS = re.compile(rf"/api/v1/namespaces/{NAMESPACE}/pods(?:/([^/]+)/log)?$")
OF_A_DELETE = {
    "apiVersion",
    "kind",
    "gracePeriodSeconds",
    "preconditions",
    "propagationPolicy",
    "orphanDependents",
    "dryRun",
}
DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?$")
LABEL_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass
class Fault:
    """What goes wrong with the next requests of a kind: a status, or ``drop``, ``lose`` (done, but the answer is lost), ``hang``, ``cut``, ``garbage``."""

    method: str
    part: str
    kind: int | str
    times: int


@dataclass
class Cluster:
    """What the server knows.

    Attributes:
        jobs: TrainJobs by name.
        pods: Pods by name.
        logs: Of each pod, (time, line).
        lingering: Whether a TrainJob that was deleted stays until ``vanish``: its pods take their time to end.
        requests: Method and path of each request, in order.
        faults: What shall go wrong.
        created: Told of each new TrainJob.
        deleted: Told of each TrainJob that is to go.
    """

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    lingering: bool = False
    requests: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    created: Callable[[dict[str, Any]], None] = lambda _: None
    deleted: Callable[[str], None] = lambda _: None
    url: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)
    closing: threading.Event = field(default_factory=threading.Event)
    version: int = 0

    def fault(self, method: str, part: str, kind: int | str, times: int = 1) -> None:
        self.faults.append(Fault(method, part, kind, times))

    def condition(self, name: str, kind: str, reason: str = "Because", message: str = "") -> None:
        """What the controller says of a TrainJob."""
        with self.lock:
            job = self.jobs[name]
            others = [item for item in job.get("status", {}).get("conditions", []) if item["type"] != kind]
            told = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now()}
            job["status"] = {"conditions": [*others, told]}
            self._changed(job)

    def pod(self, job: str, phase: str, index: int = 0, name: str | None = None, **status: Any) -> str:
        """A pod of a TrainJob, with the labels that JobSet and Job give it."""
        name = name or f"{job}-node-0-{index}-{uuid.uuid4().hex[:5]}"
        labels = {
            "jobset.sigs.k8s.io/jobset-name": job,
            "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-completion-index": str(index),
        }
        with self.lock:
            made = self.pods.get(name, {}).get("metadata", {}).get("creationTimestamp") or now()
            plain = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "creationTimestamp": made},
                "spec": {"containers": [{"name": "node"}]},
                "status": {"phase": phase, **status},
            }
            kubernetes_validate.validate(plain, RELEASE, strict=True)
            self.pods[name] = plain
            self.logs.setdefault(name, [])
        return name

    def write(self, pod: str, *lines: str, at: str | None = None) -> None:
        with self.lock:
            self.logs[pod] += [(at or now(fine=True), line) for line in lines]

    def vanish(self, name: str) -> None:
        """A deleted TrainJob's pods have ended."""
        with self.lock:
            self.jobs.pop(name, None)
            for pod in [pod for pod in self.pods if pod.startswith(f"{name}-")]:
                del self.pods[pod], self.logs[pod]

    def _changed(self, job: dict[str, Any]) -> None:
        self.version += 1
        job["metadata"]["resourceVersion"] = str(self.version)
        refuse(trainer_schema.problems("TrainJob", job))

    # What the API does.

    def create(self, plain: dict[str, Any]) -> dict[str, Any]:
        refuse(trainer_schema.problems("TrainJob", plain))
        refuse(strict_metadata(plain["metadata"]))
        if (plain["apiVersion"], plain["kind"]) != ("trainer.kubeflow.org/v1alpha1", "TrainJob"):
            raise Refused(400, f"{plain['apiVersion']} {plain['kind']} does not match the address")
        refuse(
            [
                f"env {item['name']} is reserved"
                for item in plain["spec"]["trainer"].get("env", [])
                if item["name"].startswith("PET_")
            ]
        )
        name = plain["metadata"]["name"]
        if name in self.jobs:
            raise Refused(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        job = copy.deepcopy(plain)
        job["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": NAMESPACE, "creationTimestamp": now()}
        self.jobs[name] = job
        self._changed(job)
        self.created(job)
        return job

    def get(self, name: str) -> dict[str, Any]:
        if name not in self.jobs:
            raise Refused(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        return self.jobs[name]

    def patch(self, name: str, change: dict[str, Any]) -> dict[str, Any]:
        job = self.get(name)
        refuse([] if set(change) == {"metadata"} else ["only metadata"])
        version = change["metadata"].pop("resourceVersion", None)
        if version is not None and version != job["metadata"]["resourceVersion"]:
            raise Refused(409, "the object has been modified")
        job["metadata"] |= change["metadata"]
        self._changed(job)
        return job

    def delete(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        job = self.get(name)
        refuse([f"DeleteOptions has no {key}" for key in set(options) - OF_A_DELETE])
        refuse([] if options.get("propagationPolicy") == "Foreground" else ["pods would outlive the TrainJob's name"])
        wanted = options.get("preconditions", {}).get("uid")
        if wanted not in {None, job["metadata"]["uid"]}:
            raise Refused(409, f"the UID in the precondition ({wanted}) does not match")
        job["metadata"]["deletionTimestamp"] = now()
        self._changed(job)
        if not self.lingering:
            self.vanish(name)
        self.deleted(name)
        return job

    def list_pods(self, selector: str) -> dict[str, Any]:
        wanted = dict(part.split("=", 1) for part in selector.split(","))
        items = [pod for pod in self.pods.values() if wanted.items() <= pod["metadata"]["labels"].items()]
        return {"apiVersion": "v1", "kind": "PodList", "items": items}

    def log(self, pod: str, query: dict[str, list[str]]) -> bytes:
        if pod not in self.pods:
            raise Refused(404, f'pods "{pod}" not found')
        if query.get("container") != ["node"]:
            raise Refused(400, f"container {query.get('container')} is not valid for pod {pod}")
        lines = self.logs[pod]
        if "sinceTime" in query:
            since = datetime.fromisoformat(query["sinceTime"][0])
            lines = [(at, line) for at, line in lines if datetime.fromisoformat(f"{at[:19]}Z") >= since]
        stamped = query.get("timestamps") == ["true"]
        return "".join(f"{at} {line}\n" if stamped else f"{line}\n" for at, line in lines).encode()


def now(*, fine: bool = False) -> str:
    """A time as Kubernetes writes it, of logs in nanoseconds."""
    if fine:
        whole, part = divmod(time.time_ns(), 10**9)
        return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{part:09d}Z"
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def refuse(found: list[str]) -> None:
    if found:
        raise Refused(422, "; ".join(found))


def strict_metadata(metadata: dict[str, Any]) -> list[str]:
    found = [] if DNS_NAME.match(metadata["name"]) else [f"metadata.name {metadata['name']!r} is no DNS-1123 label"]
    for key, value in metadata.get("labels", {}).items():
        if not LABEL_KEY.match(key) or not LABEL_VALUE.match(value):
            found.append(f"metadata.labels {key}: {value!r} is no label")
    found += [f"metadata.{key} is the server's" for key in ("uid", "creationTimestamp", "status") if key in metadata]
    return found


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        with self.cluster.lock:
            self.cluster.requests.append(f"{self.command} {self.path}")
            fault = self._fault()
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "hang":
            self.cluster.closing.wait()
            self.close_connection = True
            return
        try:
            self._admit(fault)
            with self.cluster.lock:
                answer = self._answer(body)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            status = 201 if self.command == "POST" else 200
        except Refused as refused:
            status = refused.status
            told = {
                "apiVersion": "v1",
                "kind": "Status",
                "status": "Failure",
                "code": status,
                "message": refused.message,
            }
            data = json.dumps(told).encode()
        if fault == "lose":
            self.close_connection = True
            return
        if fault == "garbage":
            data = b"<html>gateway</html>"
        self._send(status, data, cut=fault == "cut")

    def _admit(self, fault: int | str | None) -> None:
        if isinstance(fault, int):
            raise Refused(fault, "told by the test")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Unauthorized")

    def _send(self, status: int, data: bytes, *, cut: bool) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection |= cut

    def _fault(self) -> int | str | None:
        for fault in self.cluster.faults:
            if fault.times and fault.method == self.command and fault.part in self.path:
                fault.times -= 1
                return fault.kind
        return None

    def _answer(self, body: Any) -> dict[str, Any] | bytes:
        parts = urlsplit(self.path)
        cluster, query = self.cluster, parse_qs(parts.query)
        if (found := JOBS.match(parts.path)) is not None:
            name = found.group(1)
            if self.command == "POST" and name is None:
                return cluster.create(body)
            if self.command == "GET" and name:
                return cluster.get(name)
            if self.command == "PATCH" and name:
                if self.headers["Content-Type"] != "application/merge-patch+json":
                    raise Refused(415, "a merge patch, please")
                return cluster.patch(name, body)
            if self.command == "DELETE" and name:
                return cluster.delete(name, body)
        if (found := PODS.match(parts.path)) is not None and self.command == "GET":
            if found.group(1):
                return cluster.log(found.group(1), query)
            return cluster.list_pods(query["labelSelector"][0])
        raise Refused(404, f"the server could not find the requested resource {self.command} {parts.path}")


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A server on a free port, which ends with the block."""
    cluster = Cluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHandler", (Handler,), {"cluster": cluster}))
    server.daemon_threads = True
    cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        cluster.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
