"""What a target can do: prove a version, and serve what the ledger says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A version that answered rightly.

    Attributes:
        version: The version.
        where: ``running server``, ``private server`` or ``server at URL``.
        n: Number of golden images.
        max_abs_diff: Largest absolute difference over all protocols.
        tolerance: Largest difference allowed.
        note: What is left to do or to know, for people; often nothing.
    """

    version: int
    where: str
    n: int
    max_abs_diff: float
    tolerance: float
    note: str = ""


class Target(Protocol):
    """Where the champion of a loop is served.

    The loop's own repository (``.kfloop/triton/repository``) has every champion and the policy whatever the target is: what encodes requests,
    exports and reviews reads it there.
    """

    def told(self) -> dict[str, Any] | None:
        """The policy that it follows; null where it follows none, or another one than it should: then ``serve`` is called."""

    def verify(self, version: int, package: Path) -> Verification:
        """Compare a version's golden answers by value, beside whatever answers now. On failure everything is as it was before.

        Raises:
            ServingError: It does not load, or answers wrongly.
            ServerUnavailable: No answer.
            StateError: Something else stands in its place.
        """

    def serve(self, told: dict[str, Any]) -> None:
        """Serve what a policy says (see ``serving.repository.policy``) and hold exactly the versions it names; may be repeated."""

    def holds(self, version: int) -> bool:
        """Whether it can answer with a version at once."""

    def ready(self, version: int) -> bool | None:
        """Whether the champion of this version is what the target serves; null where nobody answers. Changes nothing."""

    def switch(self, version: int, package: Path) -> bool:
        """Let a version that it holds answer from now on, after its golden answers came back right.

        Returns:
            Whether it does; where not, ``verify`` and ``serve`` say what is wrong.
        """


def differs(model: str, version: int, where: str, worst: float, allowed: float) -> str:
    """The sentence of a version that answers wrongly."""
    return f"version {version} of model '{model}' answers {worst:g} away from its golden answers on the {where}, allowed are {allowed:g}"
