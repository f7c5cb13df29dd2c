"""What kfloop makes of a model behind somebody else's endpoint: errors in its words, figures for the gate, and the look for a silent change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from kfloop.core.external import DESCRIPTION
from kfloop.core.external.answers import BadAnswer
from kfloop.core.external.calling import CallFailed
from kfloop.core.external.remote import Remote
from kfloop.core.external.rows import BadRows
from kfloop.core.signature import MEND
from kfloop.errors import ServerUnavailable, StateError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.core.scoring import PackagedModel

GOLDEN_TOLERANCE = 1e-3  # as section bless: between what the endpoint says now and what it said when it was packaged
LATER = (
    "start the server, or wait until it answers again; then run the same command again: finished steps are not repeated"
)
MEND_ANSWER = "look at train.external in the loop file, or ask whoever serves the model"
THOUSAND = 1000


class ExternalSession:
    """The endpoint in the place of an ONNX session.

    Args:
        folder: Package, with ``external.json``.

    Raises:
        StateError: The description is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.remote = Remote(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(f"'{folder / DESCRIPTION}' is damaged: {error!r}", hint=MEND) from error

    def run(self, names: Sequence[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The named outputs.

        Raises:
            ServerUnavailable: No answer, after the retries.
            TerminalError: The endpoint refuses, or what it answers cannot be scored.
        """
        with_url = {"url": self.remote.url}
        try:
            return self.remote.run(names, feed)
        except CallFailed as error:
            if error.later:
                raise ServerUnavailable(error.message, hint=LATER, **with_url) from error
            raise TerminalError(error.message, hint=MEND_ANSWER, **with_url) from error
        except (BadAnswer, BadRows) as error:
            raise TerminalError(str(error), hint=MEND_ANSWER, **with_url) from error

    def cost(self) -> dict[str, Any]:
        """Calls and rows so far, their price, and the wall time of a call.

        Returns:
            ``url``, ``calls``, ``rows``, ``retries``; ``call_ms_p50`` and ``call_ms_p95`` in ms and ``rows_per_call`` (null before the first
            call); ``price_per_1000`` rows and ``price`` of all so far (null without a price, or before the first call for one by call).
        """
        caller, told = self.remote.caller, self.remote.told
        calls, rows = len(caller.seconds), self.remote.rows
        p50, p95 = np.percentile(caller.seconds, (50, 95)) * THOUSAND if calls else (None, None)
        per_1000 = told["price_per_1000"]
        if per_1000 is not None and told["price_of"] == "calls":
            per_1000 = per_1000 * calls / rows if rows else None
        return {
            "url": self.remote.url,
            "calls": calls,
            "rows": rows,
            "rows_per_call": rows / calls if calls else None,
            "retries": caller.retries,
            "call_ms_p50": None if p50 is None else float(p50),
            "call_ms_p95": None if p95 is None else float(p95),
            "price_per_1000": per_1000,
            "price": None if per_1000 is None else per_1000 * rows / THOUSAND,
        }


def check_unchanged(model: PackagedModel, role: str) -> float:
    """Ask an endpoint for its golden answers again: its owner may have changed the model without a word.

    Args:
        model: The package.
        role: ``challenger`` or ``champion``, for the message.

    Returns:
        The largest difference, in the unit of ``kfloop.core.scoring.unit_of``; 0 for a model that runs here.

    Raises:
        StateError: It answers otherwise than when it was packaged.
        ServerUnavailable: It does not answer.
    """
    from kfloop.core.scoring import difference, unit_of

    if model.external is None:
        return 0.0
    inputs, expected = read_golden_arrays(model)
    found = model.run(inputs)
    worst = max(difference(value, found[name], unit_of(name, value)) for name, value in expected.items())
    if not worst <= GOLDEN_TOLERANCE:
        raise StateError(
            f"the model behind {model.external.remote.url} is not the {role} '{model.folder.name}' any more: its golden answers differ by "
            f"{worst:.3g}, allowed are {GOLDEN_TOLERANCE:g}. Whoever serves it has changed it since it was packaged",
            hint="a challenger: change train.external.revision (or version) to judge the new model as another one; a champion: have the old model "
            "served again, or bring another version back with: kfloop rollback",
            role=role,
            difference=worst if np.isfinite(worst) else None,
        )
    return worst


def read_golden_arrays(model: PackagedModel) -> tuple[list[NDArray[Any]], dict[str, NDArray[Any]]]:
    """Golden inputs in the order of the signature, and the answers by name.

    Raises:
        StateError: They are missing or damaged.
    """
    from kfloop.core.scoring import GOLDEN

    path = model.folder / GOLDEN
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs = [arrays[f"input.{port.name}"] for port in model.signature.inputs]
            return inputs, {port.name: arrays[f"output.{port.name}"] for port in model.signature.outputs}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise StateError(f"'{path}' holds no golden answers: {error!r}", hint=MEND) from error
