"""The Kubernetes API, as much of it as the launcher needs, spoken with the service account of this pod.

It is spoken with the standard library: four calls do not need a client of ten thousand files in every image, and Trainer's own SDK cannot attach
to a job, resume one, or delete it on cancel.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kfloop.errors import ConfigError, TerminalError, TransientError

URL_VARIABLE = "KFLOOP_KUBERNETES_URL"  # such as that of `kubectl proxy`, outside of a cluster
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TRAIN_JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs"
PODS = "/api/v1/namespaces/{namespace}/pods"
SECONDS = 30.0  # for one answer
LONGEST = 500  # characters of the server's words that are repeated
DENIED = (401, 403)
NOT_THERE = 404
ALREADY_THERE = 409
WRONG = (400, 422)
LATER = (408, 429)
RIGHTS = "trainjobs.trainer.kubeflow.org: get, create, patch, delete; pods: list; pods/log: get"


class NotThere(TerminalError):
    """The object that was asked for does not exist."""

    code = "not_there"


class AlreadyThere(TerminalError):
    """An object of that name exists, or is not as it was expected to be."""

    code = "already_there"


@dataclass(frozen=True, kw_only=True)
class KubernetesApi:
    """One namespace of a Kubernetes API server.

    Attributes:
        url: Of the server, without a path.
        namespace: Where the TrainJob and its pods are.
        account: Folder with ``token`` and ``ca.crt``, read anew for each call because tokens are rotated; files that are missing are not used.
        seconds: Longest wait for an answer, in seconds.
    """

    url: str
    namespace: str
    account: Path = SERVICE_ACCOUNT
    seconds: float = SECONDS

    @classmethod
    def here(cls, namespace: str | None, account: Path = SERVICE_ACCOUNT) -> KubernetesApi:
        """The server of the cluster that this process runs in.

        Args:
            namespace: Of the TrainJob; null: that of this pod.
            account: Folder of the service account.

        Raises:
            ConfigError: This is no pod, or its service account is not mounted.
        """
        url = os.environ.get(URL_VARIABLE)
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not url and host:
            url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        own = account / "namespace"
        if namespace is None and own.is_file():
            namespace = own.read_text(encoding="utf-8").strip()
        if not url or not namespace:
            missing = f"neither KUBERNETES_SERVICE_HOST nor {URL_VARIABLE} is set" if not url else f"'{own}' is missing"
            raise ConfigError(
                f"train.launcher.kind is 'trainjob', but this process is in no Kubernetes pod with a service account: {missing}",
                hint="run the pipeline on the cluster (kfloop submit), or set train.launcher.kind: local",
            )
        return cls(url=url.rstrip("/"), namespace=namespace, account=account)

    def train_job(self, name: str) -> dict[str, Any]:
        """A TrainJob as it stands now."""
        return self._json("GET", f"{TRAIN_JOBS}/{name}")

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Create a TrainJob."""
        return self._json("POST", TRAIN_JOBS, body=manifest)

    def own(self, name: str, owners: list[dict[str, Any]], version: str) -> dict[str, Any]:
        """Set the owners of a TrainJob, unless it has changed since ``version``."""
        body = {"metadata": {"ownerReferences": owners, "resourceVersion": version}}
        return self._json("PATCH", f"{TRAIN_JOBS}/{name}", body=body)

    def delete(self, name: str, uid: str | None = None) -> None:
        """Delete a TrainJob; its name stays taken until its pods are gone. One that is not there is no error."""
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            self._json("DELETE", f"{TRAIN_JOBS}/{name}", body=body)
        except NotThere:
            return

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Pods with certain labels."""
        found = self._json("GET", PODS, query={"labelSelector": selector}).get("items")
        return found if isinstance(found, list) else []

    def log(self, pod: str, container: str, since: str | None) -> list[str]:
        """Whole lines of a container's log, each after its time; of an answer that broke off, those that arrived.

        Args:
            pod: Name of the pod.
            container: Name of the container.
            since: Time (RFC 3339, whole seconds) from which on; null: from the start.
        """
        query = {"container": container, "timestamps": "true"} | ({"sinceTime": since} if since else {})
        text = self._call("GET", f"{PODS}/{pod}/log", query=query, partial=True).decode("utf-8", errors="replace")
        return text[: text.rfind("\n") + 1].splitlines()

    def _json(self, method: str, path: str, *, body: Any = None, query: dict[str, str] | None = None) -> dict[str, Any]:
        answer = self._call(method, path, body=body, query=query)
        try:
            plain = json.loads(answer)
        except ValueError as error:
            raise TransientError(
                f"the Kubernetes API at '{self.url}' answered {method} with something that is no JSON: {answer[:80]!r}",
                hint="look at what stands between this pod and the API server",
            ) from error
        if not isinstance(plain, dict):
            raise TransientError(f"the Kubernetes API at '{self.url}' answered {method} with {type(plain).__name__}")
        return plain

    def _call(
        self, method: str, path: str, *, body: Any = None, query: dict[str, str] | None = None, partial: bool = False
    ) -> bytes:
        place = path.format(namespace=self.namespace)
        address = f"{self.url}{place}{'?' + urlencode(query) if query else ''}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data=data, method=method, headers=self._headers(method))  # noqa: S310  # the cluster's own address
        try:
            with self._opener().open(request, timeout=self.seconds) as answer:
                return _read(answer, partial=partial)
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(method, place, error.code, _words(error)) from error
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(
                f"the Kubernetes API at '{self.url}' did not answer {method} {place}: {str(error) or type(error).__name__}",
                hint="run again: the launcher finds its TrainJob by name",
            ) from error

    def _headers(self, method: str) -> dict[str, str]:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": kind, "Accept": "application/json, */*"}
        token = self.account / "token"
        if token.is_file():
            headers["Authorization"] = f"Bearer {token.read_text(encoding='utf-8').strip()}"
        return headers

    def _opener(self) -> urllib.request.OpenerDirector:
        """Straight to the server: a proxy of the environment is for what is outside of the cluster."""
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self.url.startswith("https://"):
            authority = self.account / "ca.crt"
            context = ssl.create_default_context(cafile=str(authority) if authority.is_file() else None)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        return urllib.request.build_opener(*handlers)


def _read(answer: http.client.HTTPResponse, *, partial: bool) -> bytes:
    if not partial:
        return answer.read()
    found = bytearray()
    try:
        while chunk := answer.read1(1 << 16):
            found += chunk
    except http.client.IncompleteRead as broken:
        found += broken.partial
    except OSError:
        if not found:
            raise
    return bytes(found)


def _words(error: urllib.error.HTTPError) -> str:
    """What the server says in its ``Status`` object."""
    try:
        answer = error.read()
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        return str(json.loads(answer)["message"])[:LONGEST]
    except (ValueError, KeyError, TypeError):
        return (answer.decode("utf-8", errors="replace") or str(error.reason))[:LONGEST]


def _refused(method: str, place: str, status: int, words: str) -> TerminalError | TransientError:
    told = f"the Kubernetes API refused {method} {place} with {status}: {words}"
    if status in DENIED:
        return TerminalError(told, hint=f"the service account of this pod needs: {RIGHTS}")
    if status == NOT_THERE:
        return NotThere(told, hint="is Kubeflow Trainer v2 installed? kubectl get crd trainjobs.trainer.kubeflow.org")
    if status == ALREADY_THERE:
        return AlreadyThere(told)
    if status in WRONG:
        return ConfigError(told, hint="section train.launcher is what the TrainJob is made from")
    if status in LATER or status >= http.client.INTERNAL_SERVER_ERROR:
        return TransientError(told, hint="run again: the launcher finds its TrainJob by name")
    return TerminalError(told)
