"""What the watch remembers between two calls, and how it is written down."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import StateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FORMAT = 2
_HINT = "Restore the state from a backup, or start the watch of this champion anew."


@dataclass(frozen=True, kw_only=True, eq=False)
class Bets:
    """Open bets of one learned group, oldest first.

    Attributes:
        directions: [B, p].
        scales: Standard deviation of the raw score in the learning half, [B].
        centres: Mean score there, [B].
        spreads: Standard deviation of the score there, [B].
        tolerances: Shift of the score that is borne, [B].
        knots: What the reference can pay, [B, k].
        values: What it takes, [B, k].
        stakes: [B, j].
        won: Sum of log(1 + stake * gain), [B, j].
        units: Units bet on, [B].
        discounts: Half of the variance that seasons explain by chance, [B].
        weights: Logarithm of the weight each was opened with, [B].
        opened: Block before which each was opened, [B].
    """

    directions: Array
    scales: Array
    centres: Array
    spreads: Array
    tolerances: Array
    knots: Array
    values: Array
    stakes: Array
    won: Array
    units: Array
    discounts: Array
    weights: Array
    opened: Array


BOOKS = 3
"""Books of the fixed streams: paid from the reference alone; a closed one; paid from the reference and earlier traffic."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Books:
    """What the fixed streams have won, kept in three books that differ in who pays.

    Attributes:
        log_wealth: At two tangent points, [3, f, j, 2].
        held: Mean units of the bets, weighted by wealth, [3, f, j, 2].
        paying: Paying units of each book, [3].
        values: What they take at each knot, [3, f, k].
        units: Units of traffic so far.
        taken: What they would take at each knot, [f, k].
    """

    log_wealth: Array
    held: Array
    paying: Array
    values: Array
    units: float
    taken: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """Everything the watch remembers.

    Attributes:
        reference: Fingerprint of the watch it belongs to.
        blocks: Blocks that were bet on.
        rows: Rows seen, the pending ones included.
        pending: Encoded rows that do not fill a block yet, [k, values + shares].
        seasons: Their seasons, [k].
        books: The fixed streams.
        visits: Units in a row that each season was met, [n_seasons].
        memory: Mean features of past blocks, a short and a long one, [2, p].
        linear: Bets on learned directions of the values.
        quadratic: Bets on learned directions of squares and products.
        size: Units of the coming block.
        ends: Times of the last rows of the block before the last one and of the last one, seconds since 1970; NaN before they are known, [2].
        log_drift: Logarithm of the evidence of drift after the last block, -inf before it.
        log_quality: The same of what is wrong with the rows.
        drift_row: Number of rows at which drift was declared, None if it was not. It never goes back, but by `acknowledged`.
        quality_row: The same for quality.
        alarms: Alarms that were acknowledged.
    """

    reference: str
    blocks: int
    rows: int
    pending: Array
    seasons: Array
    books: Books
    visits: Array
    memory: Array
    linear: Bets
    quadratic: Bets
    size: int
    ends: Array
    log_drift: float = -np.inf
    log_quality: float = -np.inf
    drift_row: int | None = None
    quality_row: int | None = None
    alarms: int = 0

    @property
    def drift_e(self) -> float:
        """The evidence of drift, at most 1e300, so that it is always a JSON number."""
        return float(np.exp(min(self.log_drift, 690.0)))

    @property
    def quality_e(self) -> float:
        """The evidence that something is wrong with the rows, at most 1e300."""
        return float(np.exp(min(self.log_quality, 690.0)))

    def acknowledged(self) -> State:
        """Throw away all evidence and both alarms, and go on from here, paid from the reference alone again.

        Wealth may be thrown away at any time, so the promise of a year holds over any number of such calls. That of a life does not.
        What was learned of recent rows stays: were it to depend on alarms, it would depend on the paying half.
        """
        held = self.books
        books = Books(
            log_wealth=np.full_like(held.log_wealth, -np.inf),
            held=np.zeros_like(held.held),
            paying=np.repeat(held.paying[:1], BOOKS, axis=0),
            values=np.repeat(held.values[:1], BOOKS, axis=0),
            units=0.0,
            taken=np.zeros_like(held.taken),
        )
        return replace(
            self,
            books=books,
            linear=last_bets(self.linear, 0),
            quadratic=last_bets(self.quadratic, 0),
            log_drift=-np.inf,
            log_quality=-np.inf,
            drift_row=None,
            quality_row=None,
            alarms=self.alarms + int(self.drift_row is not None) + int(self.quality_row is not None),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values. Arrays are base64 of little-endian doubles, so that every bit survives."""
        body = {field.name: _packed(getattr(self, field.name)) for field in fields(self)}
        return {"format": FORMAT, "digest": _digest(body), **body}

    @classmethod
    def from_dict(cls, payload: Any) -> State:
        """Read what `to_dict` wrote.

        Raises:
            StateError: It has another format, or was changed or cut since.
        """
        if not isinstance(payload, dict) or payload.get("format") != FORMAT:
            found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
            raise StateError(f"the drift state has format {found!r}, expected {FORMAT}", hint=_HINT)
        body = {key: value for key, value in payload.items() if key not in {"format", "digest"}}
        if set(body) != {field.name for field in fields(cls)} or _digest(body) != payload.get("digest"):
            raise StateError("the drift state is damaged: its digest does not fit its content", hint=_HINT)
        try:
            return cls(**{key: _unpacked(value) for key, value in body.items()})
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise StateError(f"the drift state cannot be read: {error}", hint=_HINT) from error


def last_bets(bets: Bets, count: int) -> Bets:
    """The newest bets."""
    start = len(bets.units) - count
    return Bets(**{field.name: getattr(bets, field.name)[start:] for field in fields(bets)})


def joined(first: Bets, second: Bets) -> Bets:
    """Two sets of bets as one."""
    return Bets(**{f.name: np.concatenate([getattr(first, f.name), getattr(second, f.name)]) for f in fields(first)})


def no_bets(width: int, stakes: int, knots: int) -> Bets:
    """Not one bet, on directions of this width."""
    wide = {"directions": width, "knots": knots, "values": knots, "stakes": stakes, "won": stakes}
    return Bets(**{f.name: np.zeros((0, wide[f.name]) if f.name in wide else 0) for f in fields(Bets)})


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        text = base64.b64encode(np.ascontiguousarray(value, dtype="<f8").tobytes()).decode()
        return {"shape": list(value.shape), "doubles": text}
    if isinstance(value, Bets | Books):
        return {field.name: _packed(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, float):
        return _packed(np.array(value))  # -inf is no JSON number
    return value


def _unpacked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "doubles" not in value:
        kind = Books if "held" in value else Bets
        return kind(**{key: _unpacked(item) for key, item in value.items()})
    raw = base64.b64decode(value["doubles"], validate=True)
    array = np.frombuffer(raw, dtype="<f8").reshape(value["shape"]).astype(float)
    return array if array.shape else float(array)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]
