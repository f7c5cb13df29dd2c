"""The launcher: attaches to the TrainJob of an order or creates it, follows it to its end, and deletes it when told to stop."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from kfloop.components.train.trainjob.api import AlreadyThere, KubernetesApi, NotThere
from kfloop.components.train.trainjob.following import FirstPod
from kfloop.components.train.trainjob.manifest import DIGEST, manifest, owner_reference
from kfloop.components.train.trainjob.order import Order
from kfloop.errors import StateError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kfloop.components.train.launching import Job

Answer = TypeVar("Answer")
AGAIN = "run again: the training goes on from its last checkpoint"
logger = logging.getLogger("kfloop")


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often the launcher looks, and how long it bears what is wrong.

    Attributes:
        poll: Seconds between two looks at the TrainJob.
        patience: Seconds in which an API server that does not answer is asked again: an upgrade of a control plane takes minutes.
        settle: Seconds in which files of a finished training may appear: a network share shows them late.
    """

    poll: float = 5.0
    patience: float = 900.0
    settle: float = 90.0


class _Stopped(BaseException):
    """SIGTERM came; no handler of ordinary errors shall swallow that."""


def launch_train_job(job: Job, *, api: KubernetesApi | None = None, pace: Pace | None = None) -> None:
    """Train in pods of their own, and put the result into ``job.out``.

    Args:
        job: What shall be trained.
        api: The cluster; null: the one that this pod is in.
        pace: How often the launcher looks.

    Raises:
        KfloopError: What ended the training, in the words of the process where it happened.
        ConfigError: No such TrainJob can be made; this is no cluster.
        StateError: The training is complete, and its result is missing or broken.
        TerminalError: The deadline has passed; a right is missing; another TrainJob has this name.
        TransientError: The cluster does not answer; the TrainJob was deleted, or failed without a reason that is final; this process was told to stop.
    """
    order = Order.of(job)
    launcher = _Launcher(order, api or KubernetesApi.here(job.config.launcher.namespace), pace or Pace())
    try:
        with _raising_on_sigterm():
            launcher.run()
    except (_Stopped, KeyboardInterrupt) as stop:
        launcher.delete()
        if isinstance(stop, KeyboardInterrupt):
            raise
        raise TransientError(f"told to stop (SIGTERM): TrainJob '{order.name}' was deleted", hint=AGAIN) from None
    order.deliver(job.out)


@contextlib.contextmanager
def _raising_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception: the launcher may be waiting for an answer of the API when its pod is told to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> NoReturn:
        del frame
        signal.signal(number, signal.SIG_IGN)  # the pods are told once
        raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Launcher:
    """One launch of one order."""

    def __init__(self, order: Order, api: KubernetesApi, pace: Pace) -> None:
        self.order = order
        self.api = api
        self.pace = pace
        self.manifest = manifest(order)

    def run(self) -> None:
        """Attach or create, and wait for the result."""
        found = self._attached() or self._created()
        pod = FirstPod(self.api, self.order.name)
        uid = str(found["metadata"]["uid"])
        suspended = False
        while True:
            found = self._ask(lambda: self.api.train_job(self.order.name), gone=True)
            if found["metadata"].get("uid") != uid or "deletionTimestamp" in found["metadata"]:
                self._deleted_by_others()
            pod.look()
            if _is(found, "Complete"):
                self._settled()
                return
            if _is(found, "Failed"):
                self._failed(found, pod)
            self._hold_deadline(self.order.started(uid, pod.running), uid)
            if _is(found, "Suspended") and not suspended:
                logger.info("TrainJob '%s' waits in its queue", self.order.name)
            suspended = _is(found, "Suspended")
            time.sleep(self.pace.poll)

    def delete(self) -> None:
        """Delete the TrainJob, as well as it goes: this pod has seconds left."""
        try:
            self.api.delete(self.order.name)
        except (TerminalError, TransientError) as error:
            logger.error(  # noqa: TRY400  # the message says it all
                "TrainJob '%s' could not be deleted (%s); do it with: kubectl delete trainjob %s -n %s",
                self.order.name,
                error.message,
                self.order.name,
                self.api.namespace,
            )

    def _attached(self) -> dict[str, Any] | None:
        """The TrainJob of an earlier attempt, if it runs or has a result; one that is of no use any more is deleted first."""
        name = self.order.name
        while True:
            try:
                found = self._ask(lambda: self.api.train_job(name))
            except NotThere:
                return None
            digest = (found["metadata"].get("annotations") or {}).get(DIGEST)
            if digest != self.order.digest:
                raise TerminalError(
                    f"TrainJob '{name}' exists and is not of this order: its {DIGEST} is {digest!r}, expected '{self.order.digest}'",
                    hint=f"look at it: kubectl get trainjob {name} -n {self.api.namespace} -o yaml",
                )
            if "deletionTimestamp" in found["metadata"]:
                logger.info("TrainJob '%s' is being deleted; waiting for its pods to end", name)
                time.sleep(self.pace.poll)
            elif self._of_use(found):
                logger.info("attached to TrainJob '%s'", name)
                self._own(found)
                return found
            else:
                self._delete(str(found["metadata"]["uid"]))

    def _of_use(self, found: dict[str, Any]) -> bool:
        """Whether an earlier TrainJob runs, or has a result. What failed for a reason that would come again, fails again."""
        if _is(found, "Failed"):
            error = self.order.error()
            if error is not None and not error.transient:
                raise error
            logger.info("TrainJob '%s' had failed; it starts anew", self.order.name)
            return False
        if _is(found, "Complete"):
            try:
                self.order.check_result()
            except StateError as error:
                logger.warning("%s; it starts anew", error.message)
                return False
        return True

    def _created(self) -> dict[str, Any]:
        self.order.write()
        try:
            found = self._ask(lambda: self.api.create(self.manifest))
        except AlreadyThere:  # an answer that got lost was a yes, or another launcher was faster
            there = self._attached()
            if there is None:
                raise TransientError(f"TrainJob '{self.order.name}' came and went", hint=AGAIN) from None
            return there
        logger.info("created TrainJob '%s' in namespace '%s'", self.order.name, self.api.namespace)
        return found

    def _own(self, found: dict[str, Any]) -> None:
        """Add this pod to the owners: that of the attempt before may be deleted while the training runs."""
        owner = owner_reference()
        owners = found["metadata"].get("ownerReferences") or []
        if owner is None or any(other.get("uid") == owner["uid"] for other in owners):
            return
        try:
            self.api.own(self.order.name, [*owners, owner], str(found["metadata"].get("resourceVersion", "")))
        except (TerminalError, TransientError) as error:
            logger.warning("this pod could not be made an owner of TrainJob '%s': %s", self.order.name, error.message)

    def _delete(self, uid: str) -> None:
        """Delete this very TrainJob, not one of the same name that came after it."""
        try:
            self._ask(lambda: self.api.delete(self.order.name, uid))
        except AlreadyThere:
            logger.info("TrainJob '%s' is already another one", self.order.name)

    def _ask(self, call: Callable[[], Answer], *, gone: bool = False) -> Answer:
        """Ask the API until it answers, for as long as patience lasts."""
        until = time.monotonic() + self.pace.patience
        told = False
        while True:
            try:
                return call()
            except NotThere:
                if gone:
                    self._deleted_by_others()
                raise
            except TransientError as error:
                if time.monotonic() >= until:
                    raise
                logger.log(logging.DEBUG if told else logging.WARNING, "%s; asking again", error.message)
                told = True
                time.sleep(self.pace.poll)

    def _hold_deadline(self, started: float | None, uid: str) -> None:
        minutes = self.order.job.config.launcher.deadline_minutes
        if minutes is None or started is None or time.time() - started < minutes * 60:
            return
        self._delete(uid)
        raise TerminalError(
            f"TrainJob '{self.order.name}' has been running for more than train.launcher.deadline_minutes, {minutes:g}: it was deleted",
            hint="raise the deadline and run again: the training goes on from its last checkpoint",
        )

    def _settled(self) -> None:
        until = time.monotonic() + self.pace.settle
        while True:
            try:
                self.order.check_result()
            except StateError:
                if time.monotonic() >= until:
                    raise
                time.sleep(min(self.pace.poll, 1.0))
            else:
                return

    def _failed(self, found: dict[str, Any], pod: FirstPod) -> NoReturn:
        error = self.order.error()
        words = " | ".join(pod.lines) or "(none)"
        if error is not None:
            logger.error("TrainJob '%s' failed. Its last words: %s", self.order.name, words)
            raise error
        raise TransientError(
            f"TrainJob '{self.order.name}' failed: {_message(found, 'Failed')}",
            hint=f"{AGAIN}. Its last words: {words}",
        )

    def _deleted_by_others(self) -> NoReturn:
        raise TransientError(f"TrainJob '{self.order.name}' was deleted while it trained", hint=AGAIN)


def _conditions(found: dict[str, Any]) -> list[dict[str, Any]]:
    return (found.get("status") or {}).get("conditions") or []


def _is(found: dict[str, Any], kind: str) -> bool:
    return any(item.get("type") == kind and item.get("status") == "True" for item in _conditions(found))


def _message(found: dict[str, Any], kind: str) -> str:
    told = [
        f"{item.get('reason', '')}: {item.get('message', '')}"
        for item in _conditions(found)
        if item.get("type") == kind
    ]
    return told[0] if told else kind
