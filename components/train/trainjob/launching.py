"""The launcher: attaches to the TrainJob of an order or creates it, follows it to its end, and deletes it when told to stop."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from kfloop.components.train.trainjob.api import KubernetesApi, NotThere
from kfloop.components.train.trainjob.attaching import AGAIN, Launch, Pace, condition
from kfloop.components.train.trainjob.following import FirstPod
from kfloop.components.train.trainjob.manifest import manifest
from kfloop.components.train.trainjob.order import Order
from kfloop.errors import StateError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.components.train.launching import Job

logger = logging.getLogger("kfloop")


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
    api = api or KubernetesApi.here(job.config.launcher.namespace)
    launch = Launch(order=order, manifest=manifest(order), api=api, pace=pace or Pace())
    with _raising_on_sigterm():
        try:
            _follow(launch, launch.found_or_made())
        except (_Stopped, KeyboardInterrupt) as stop:
            _cancel(launch)
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
        signal.signal(number, signal.SIG_IGN)  # nothing shall break into the deletion
        raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _follow(launch: Launch, found: dict[str, Any]) -> None:
    """Wait for the end of a TrainJob, and for its result."""
    order, api = launch.order, launch.api
    pod = FirstPod(api, order.name)
    uid = str(found["metadata"]["uid"])
    suspended = False
    while True:
        try:
            found = launch.ask(lambda: api.train_job(order.name))
        except NotThere:
            _deleted_by_others(order)
        if found["metadata"].get("uid") != uid or "deletionTimestamp" in found["metadata"]:
            _deleted_by_others(order)
        pod.look()
        if condition(found, "Complete"):
            _settle(launch)
            return
        if condition(found, "Failed"):
            _failed(order, found, pod)
        _hold_deadline(launch, uid, running=pod.running)
        if condition(found, "Suspended") and not suspended:
            logger.info("TrainJob '%s' waits in its queue", order.name)
        suspended = bool(condition(found, "Suspended"))
        time.sleep(launch.pace.poll)


def _cancel(launch: Launch) -> None:
    """Delete the TrainJob, as well as it goes: this pod has seconds left."""
    name, namespace = launch.order.name, launch.api.namespace
    try:
        launch.api.delete(name)
    except (TerminalError, TransientError) as error:
        logger.error(  # noqa: TRY400  # the message says it all
            "TrainJob '%s' could not be deleted (%s); do it with: kubectl delete trainjob %s -n %s",
            name,
            error.message,
            name,
            namespace,
        )


def _hold_deadline(launch: Launch, uid: str, *, running: bool) -> None:
    started = launch.order.started(uid, running)
    minutes = launch.order.job.config.launcher.deadline_minutes
    if minutes is None or started is None or time.time() - started < minutes * 60:
        return
    error = TerminalError(
        f"TrainJob '{launch.order.name}' has been running for more than train.launcher.deadline_minutes, {minutes:g}: it was deleted",
        hint="raise the deadline and run again: the training goes on from its last checkpoint",
    )
    launch.order.give_up(error)  # before the job is gone: KFP tries the step again, and that shall not train once more
    launch.delete(uid)
    raise error


def _settle(launch: Launch) -> None:
    """Wait until the share shows the result."""
    until = time.monotonic() + launch.pace.settle
    while True:
        try:
            launch.order.check_result()
        except StateError:
            if time.monotonic() >= until:
                raise
            time.sleep(min(launch.pace.poll, 1.0))
        else:
            return


def _failed(order: Order, found: dict[str, Any], pod: FirstPod) -> NoReturn:
    error = order.error()
    words = " | ".join(pod.lines) or "(none)"
    if error is not None:
        logger.error("TrainJob '%s' failed. Its last words: %s", order.name, words)
        raise error
    raise TransientError(
        f"TrainJob '{order.name}' failed: {condition(found, 'Failed')}", hint=f"{AGAIN}. Its last words: {words}"
    )


def _deleted_by_others(order: Order) -> NoReturn:
    raise TransientError(f"TrainJob '{order.name}' was deleted while it trained", hint=AGAIN)
