"""Sequential two-sample testing by betting against a finite reference that is used again and again.

A champion is watched for weeks, so a test that is valid "per check" is sure to fire in the end. Here one number, the
evidence `M`, is kept over the whole life of a champion, and P(M ever reaches 1/alpha) <= alpha while nothing drifts
(Markov/Ville for e-values; Ramdas, Gruenwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid
inference", arXiv 2210.01948). Bets along learned directions follow Podkopaev and Ramdas, "Sequential Predictive
Two-Sample and Independence Testing", NeurIPS 2023.

How one bet works. A direction `w` is learned from the learning half of the reference and from batches that are past.
It is then frozen, and every row gets the score s = (1 + tanh(u)) / 2 with u = (w.x - centre) / scale. With c the mean
score of the learning half, and m the unknown true mean of s in the reference's population:

    current rows   K(m) = mean_j prod_i (1 + l_j (s_i - c)) exp(-l_j (m + tol - c))
    paying half    R(m) = mean_j prod_i (1 + l_j (c - s_i)) exp(+l_j (m - c))

Since 1 + x <= exp(x), K(m) is a test supermartingale while the current mean is at most m + tol, and R(m) has mean at most 1
for the true m. Their product is worth min over m of K(m) R(m): a convex problem in one variable, because the logarithm
of each factor is a log-sum-exp of functions linear in m. This minimum is what pays for the sampling error of the reference, so the
bound holds however many rows are monitored: no condition "reference larger than the traffic" is needed.

One bet is opened per view at every batch, with prior weight k0 / ((k + k0 - 1)(k + k0)) (a mixture over change points that
needs no horizon), and is banked after `lifetime` batches. Weighted e-values may be added without any independence; bets
that have not started count as 0, which keeps the sum honest although all bets are paid from the same reference rows.

What is assumed: rows are independent of each other, and a row's bets never use the paying half before they are placed.
Traffic that comes in long runs of one kind breaks the first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.statistics.wealth import STAKES, log_sum, worth
from kfloop.errors import InputError, StateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STATE_FORMAT = 1
_PRIOR_SCALE = 20
_MEMORY = 0.75
_MIN_HALF = 10


@dataclass(frozen=True, kw_only=True)
class View:
    """A block of feature columns that is bet on together.

    Attributes:
        name: What the block is called in reports.
        start: First column.
        stop: One past the last column.
        direction: A fixed direction, or None to learn it from past batches.
    """

    name: str
    start: int
    stop: int
    direction: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Bet:
    """One frozen direction and what it has won so far (natural logarithms of wealth, one per stake)."""

    view: str
    opened: int
    direction: tuple[float, ...]
    centre: float
    scale: float
    mean_score: float
    tolerance: float
    reference: tuple[float, ...]
    current: tuple[float, ...]
    rows: int


@dataclass(frozen=True, kw_only=True)
class BettingState:
    """Everything the test remembers between two calls.

    Attributes:
        batches: Batches that have been bet on.
        rows: Valid rows seen, the pending ones included.
        skipped: Rows with a value that is not finite; they never bet.
        pending: Rows that do not fill a batch yet.
        average: Exponentially weighted mean of past batches, one value per feature; empty before the first batch.
        bets: Open bets.
        banked: Logarithm of the weighted wealth of closed bets, None when there is none.
        log_e: Logarithm of the evidence M after the last full batch, None before it.
        alarm_row: Number of rows at which M first reached 1/alpha, None if it never did. It never goes back.
    """

    batches: int = 0
    rows: int = 0
    skipped: int = 0
    pending: tuple[tuple[float, ...], ...] = ()
    average: tuple[float, ...] = ()
    bets: tuple[Bet, ...] = ()
    banked: float | None = None
    log_e: float | None = None
    alarm_row: int | None = None

    @property
    def e_value(self) -> float:
        """The evidence M; 0 before the first batch. At most 1e300, so that it is always a JSON number."""
        return 0.0 if self.log_e is None else float(np.exp(min(self.log_e, 690.0)))

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain JSON values; floats survive the round trip exactly."""
        return {"format": STATE_FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, payload: dict[str, Any]) -> BettingState:
        """Read what `to_dict` wrote.

        Raises:
            StateError: The payload has another format or lacks a field.
        """
        found = payload.get("format")
        if found != STATE_FORMAT:
            message = f"the betting state has format {found!r}, expected {STATE_FORMAT}"
            raise StateError(message, hint="It was written by another version of kfloop; use that one or start anew.")
        try:
            fields = {key: value for key, value in payload.items() if key != "format"}
            fields["pending"] = tuple(tuple(row) for row in fields["pending"])
            fields["average"] = tuple(fields["average"])
            fields["bets"] = tuple(Bet(**{k: _frozen(v) for k, v in bet.items()}) for bet in fields["bets"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            message = f"the betting state cannot be read: {error}"
            raise StateError(message, hint="Restore the state database from a backup.") from error


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True, eq=False)
class Betting:
    """The test: a reference in two halves, the views, and the budget.

    Attributes:
        learn: Reference rows that directions, centres and scales come from, [n_learn, d].
        pay: Reference rows that pay the bets, [n_pay, d]; never used for a decision on what to bet.
        views: Blocks of columns; each gets an equal share of the prior.
        level: Largest chance of a false alarm over the whole life of the state, in (0, 1).
        tolerance: A shift of the score below that of `tolerance` standard deviations of its direction is not drift.
        batch: Rows per bet; directions change only between batches.
        lifetime: Batches after which a bet is closed and its wealth banked. Bounds the size of the state.
    """

    learn: Array
    pay: Array
    views: tuple[View, ...]
    level: float = 0.05
    tolerance: float = 0.1
    batch: int = 50
    lifetime: int = 40

    def __post_init__(self) -> None:
        """Check shapes and finiteness.

        Raises:
            InputError: A half is too small, or holds a value that is not finite, or a view has no columns.
        """
        for name, half in (("learning", self.learn), ("paying", self.pay)):
            if half.ndim != 2 or len(half) < _MIN_HALF or not np.isfinite(half).all():  # noqa: PLR2004 - a matrix
                message = f"the {name} half of the reference has shape {half.shape}, expected at least {_MIN_HALF} finite rows"
                raise InputError(message, hint="Package the model with more validation and test rows.")
        if not self.views or any(not 0 <= view.start < view.stop <= self.learn.shape[1] for view in self.views):
            message = (
                f"the views {[(v.name, v.start, v.stop) for v in self.views]} do not fit {self.learn.shape[1]} columns"
            )
            raise InputError(message, hint="Every view needs at least one existing column.")

    @property
    def threshold(self) -> float:
        """The evidence at which drift is declared, 1 / level."""
        return 1.0 / self.level

    def advance(self, state: BettingState, rows: Array) -> BettingState:
        """Bet on new rows, in order, and return the state after them.

        Splitting the rows over several calls gives the same state as one call.

        Args:
            state: The state so far, `BettingState()` at the start.
            rows: Features, [n, d]. Rows with a value that is not finite are counted and skipped.
        """
        valid = np.isfinite(rows).all(axis=1)
        pending = np.array(state.pending, dtype=float).reshape(-1, self.learn.shape[1])
        queue = np.concatenate([pending, np.asarray(rows, dtype=float)[valid]])
        full = len(queue) // self.batch * self.batch
        first_row = state.rows - len(pending)
        for start in range(0, full, self.batch):
            state = self._bet(state, queue[start : start + self.batch], first_row + start + self.batch)
        return replace(
            state,
            rows=first_row + len(queue),
            skipped=state.skipped + int((~valid).sum()),
            pending=tuple(tuple(row) for row in queue[full:].tolist()),
        )

    def wealth(self, state: BettingState) -> dict[str, float]:
        """Return, for each view, the logarithm of the largest wealth of one of its open bets (0 without bets)."""
        values = worth(state.bets, len(self.pay))
        best: dict[str, float] = {view.name: 0.0 for view in self.views}
        for bet, value in zip(state.bets, values, strict=True):
            best[bet.view] = max(best[bet.view], float(value))
        return best

    def _bet(self, state: BettingState, rows: Array, seen: int) -> BettingState:
        opened = tuple(bet for view in self.views if (bet := self._open(state, view)) is not None)
        bets = tuple(
            self._play(view, [b for b in state.bets + opened if b.view == view.name], rows) for view in self.views
        )
        flat = tuple(bet for group in bets for bet in group)
        values = worth(flat, len(self.pay)) + np.array([self._log_prior(bet.opened) for bet in flat])
        parts = [] if state.banked is None else [state.banked]
        log_e = log_sum(np.array([*parts, *values]))
        closing = [state.batches + 1 - bet.opened >= self.lifetime for bet in flat]
        banked = [*parts, *(value for value, close in zip(values, closing, strict=True) if close)]
        mean = rows.mean(axis=0)
        average = mean if not state.average else _MEMORY * np.array(state.average) + (1 - _MEMORY) * mean
        alarm = state.alarm_row
        if alarm is None and log_e is not None and log_e >= np.log(self.threshold):
            alarm = seen
        return replace(
            state,
            batches=state.batches + 1,
            average=tuple(average.tolist()),
            bets=tuple(bet for bet, close in zip(flat, closing, strict=True) if not close),
            banked=log_sum(np.array(banked)),
            log_e=log_e,
            alarm_row=alarm,
        )

    def _log_prior(self, opened: int) -> float:
        k = opened + 1
        return float(np.log(_PRIOR_SCALE / ((k + _PRIOR_SCALE - 1) * (k + _PRIOR_SCALE)) / len(self.views)))

    def _open(self, state: BettingState, view: View) -> Bet | None:
        learn = self.learn[:, view.start : view.stop]
        if view.direction is not None:
            direction = np.array(view.direction)
        elif state.average:
            effective = self.batch * min(state.batches, (1 + _MEMORY) / (1 - _MEMORY))
            direction = _shrunken(np.array(state.average)[view.start : view.stop], learn, effective)
        else:
            return None
        raw = learn @ direction
        centre, scale = float(raw.mean()), float(raw.std())
        if not scale > 0:
            return None
        score = _score(raw, centre, scale)
        mean = float(score.mean())
        allowed = float(_score(raw + self.tolerance * scale, centre, scale).mean()) - mean
        paid = _score(self.pay[:, view.start : view.stop] @ direction, centre, scale)
        reference = np.log1p(STAKES[:, None] * (mean - paid)).sum(axis=1)
        return Bet(
            view=view.name,
            opened=state.batches,
            direction=tuple(direction.tolist()),
            centre=centre,
            scale=scale,
            mean_score=mean,
            tolerance=allowed,
            reference=tuple(reference.tolist()),
            current=(0.0,) * len(STAKES),
            rows=0,
        )

    @staticmethod
    def _play(view: View, bets: list[Bet], rows: Array) -> list[Bet]:
        if not bets:
            return []
        raw = rows[:, view.start : view.stop] @ np.array([bet.direction for bet in bets]).T
        score = _score(raw, np.array([bet.centre for bet in bets]), np.array([bet.scale for bet in bets]))
        gain = score - np.array([bet.mean_score for bet in bets])
        won = np.log1p(STAKES[:, None, None] * gain).sum(axis=1).T + np.array([bet.current for bet in bets])
        return [
            replace(bet, current=tuple(row), rows=bet.rows + len(rows))
            for bet, row in zip(bets, won.tolist(), strict=True)
        ]


def _score(raw: Array, centre: float | Array, scale: float | Array) -> Array:
    return np.asarray((1.0 + np.tanh((raw - centre) / scale)) / 2.0)


def _shrunken(average: Array, learn: Array, rows: float) -> Array:
    """Return the mean difference, each coordinate shrunken by the share of it that chance explains."""
    difference = average - learn.mean(axis=0)
    noise = learn.var(axis=0) * (1.0 / rows + 1.0 / len(learn))
    kept = difference * np.maximum(0.0, 1.0 - noise / np.maximum(difference**2, 1e-300))
    return np.asarray(kept if np.any(kept) else difference)
