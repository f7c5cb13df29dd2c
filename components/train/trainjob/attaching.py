"""The TrainJob of an order, found or made: a retry attaches to what an earlier attempt left, if that is of use."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from kfloop.components.train.trainjob.api import AlreadyThere, NotThere
from kfloop.components.train.trainjob.manifest import DIGEST, owner_reference
from kfloop.errors import StateError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.components.train.trainjob.api import KubernetesApi
    from kfloop.components.train.trainjob.order import Order

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


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One launch of one order.

    Attributes:
        order: What shall be trained.
        manifest: The TrainJob that is created where there is none.
        api: The cluster.
        pace: How often it is looked at.
    """

    order: Order
    manifest: dict[str, Any]
    api: KubernetesApi
    pace: Pace

    def found_or_made(self) -> dict[str, Any]:
        """The TrainJob, running or with a result.

        Raises:
            KfloopError: The TrainJob of an earlier attempt failed for a reason that would come again, or ran past its deadline.
            TerminalError: Another TrainJob has this name; a right is missing.
            TransientError: The cluster does not answer.
        """
        return self._found() or self._made()

    def ask(self, call: Callable[[], Answer]) -> Answer:
        """Ask the API until it answers, for as long as patience lasts."""
        until = time.monotonic() + self.pace.patience
        told = False
        while True:
            try:
                return call()
            except TransientError as error:
                if time.monotonic() >= until:
                    raise
                logger.log(logging.DEBUG if told else logging.WARNING, "%s; asking again", error.message)
                told = True
                time.sleep(self.pace.poll)

    def delete(self, uid: str) -> None:
        """Delete this very TrainJob, not one of the same name that came after it."""
        try:
            self.ask(lambda: self.api.delete(self.order.name, uid))
        except AlreadyThere:
            logger.info("TrainJob '%s' is already another one", self.order.name)

    def _found(self) -> dict[str, Any] | None:
        """The TrainJob of an earlier attempt, if it runs or has a result; one that is of no use any more is deleted first."""
        name = self.order.name
        while True:
            try:
                found = self.ask(lambda: self.api.train_job(name))
            except NotThere:
                given_up = self.order.given_up()
                if given_up is not None:
                    raise given_up from None
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
                self.delete(str(found["metadata"]["uid"]))

    def _of_use(self, found: dict[str, Any]) -> bool:
        """Whether an earlier TrainJob runs, or has a result. What failed for a reason that would come again, fails again."""
        if condition(found, "Failed"):
            error = self.order.error()
            if error is not None and not error.transient:
                raise error
            logger.info("TrainJob '%s' had failed; it starts anew", self.order.name)
            return False
        if condition(found, "Complete"):
            try:
                self.order.check_result()
            except StateError as error:
                logger.warning("%s; it starts anew", error.message)
                return False
        return True

    def _made(self) -> dict[str, Any]:
        self.order.write()
        try:
            found = self.ask(lambda: self.api.create(self.manifest))
        except AlreadyThere:  # an answer that got lost was a yes, or another launcher was faster
            there = self._found()
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


def condition(found: dict[str, Any], kind: str) -> str:
    """Reason and message of a condition that a TrainJob is in (``Complete``, ``Failed``, ``Suspended``); empty where it is not."""
    for item in (found.get("status") or {}).get("conditions") or ():
        if item.get("type") == kind and item.get("status") == "True":
            return f"{item.get('reason') or kind}: {item.get('message') or ''}"
    return ""
