"""The watch over one champion: fit it on the reference, hand it rows, read the evidence. See README.md for what is promised."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.drift.block import count_block
from kfloop.core.drift.budget import Budget
from kfloop.core.drift.columns import Columns, Table
from kfloop.core.drift.features import Features
from kfloop.core.drift.fixed import Fixed
from kfloop.core.drift.learned import Learned
from kfloop.core.drift.settings import Settings, checked_seasons
from kfloop.core.drift.state import State
from kfloop.errors import InputError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Single = NDArray[np.float32]
    Ints = NDArray[np.int64]

WEIGHTS = {"mean": 0.35, "spread": 0.2, "linear": 0.25, "quadratic": 0.2}
"""How the wealth of the drift family is shared out; the streams of a group share evenly. Quality streams share theirs evenly."""
_SHORT, _LONG = 0.15, 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class Watch:
    """Everything fixed about the watch; made by `kfloop.core.drift.fitting.fit_watch`.

    Attributes:
        settings: How it bets.
        budget: What it promises.
        features: The fitted map from rows to features.
        fixed: The fixed streams.
        linear: Learned directions of the values.
        quadratic: Learned directions of squares and products.
        season_units: Learning units of each season, [n_seasons].
        fingerprint: Names this watch; a state of another one is refused.
    """

    settings: Settings
    budget: Budget
    features: Features
    fixed: Fixed
    linear: Learned
    quadratic: Learned
    season_units: Array
    fingerprint: str

    @property
    def columns(self) -> Columns:
        """The columns of the reference."""
        return self.features.columns

    @property
    def guarantee(self) -> str:
        """What is promised and how the finite reference is dealt with, one sentence."""
        learning, paying = self.linear.learn.shape[1], self.linear.pay.shape[1]
        how = f"paid from {paying} of {learning + paying} reference units"
        borne = f", tolerance {self.settings.tolerance:g} sd"
        seasonal = f", relative to {self.settings.n_seasons} seasons" if self.settings.n_seasons > 1 else ""
        return f"{self.budget.statement}; {how}{borne}{seasonal}; units of {self.settings.unit} rows are taken as independent"

    def start(self) -> State:
        """The state before the first row."""
        return State(
            reference=self.fingerprint,
            blocks=0,
            rows=0,
            pending=np.zeros((0, self.columns.size)),
            seasons=np.zeros(0),
            books=self.fixed.books(),
            visits=np.zeros(self.settings.n_seasons),
            memory=np.zeros((2, len(self.features.spread))),
            linear=self.linear.empty(),
            quadratic=self.quadratic.empty(),
            size=self.settings.batch,
            ends=np.full(2, np.nan),
        )

    def advance(self, state: State, table: Table, seasons: Any = None, times: Any = None) -> State:
        """Bet on new rows, in the order they came, and return the state after them.

        Rows in two calls give the same state as in one, bit for bit. No rows change nothing.

        Args:
            state: The state so far, `start()` at first.
            table: Columns by name. Missing, infinite and unreadable cells, absent and new columns are counted by the quality streams.
            seasons: Season of each row, whole numbers from 0, [n]; None where there is only one.
            times: Time of each row in seconds, [n]; a budget for the year needs them.

        Raises:
            InputError: Columns have different lengths, a season is out of range, or times are missing.
            StateError: The state belongs to another watch.
        """
        return deque(self.steps(state, table, seasons, times), maxlen=1)[0]

    def steps(self, state: State, table: Table, seasons: Any = None, times: Any = None) -> Iterator[State]:
        """As `advance`: the state after each block that is filled, and at last the one after all rows."""
        if state.reference != self.fingerprint or state.pending.shape[1:] != (self.columns.size,):
            message = f"the drift state belongs to watch {state.reference}, this one is {self.fingerprint}"
            raise StateError(message, hint="The champion, its reference or the settings changed: start anew.")
        fresh = self.columns.encode(table)
        marks = checked_seasons(seasons, len(fresh), self.settings.n_seasons)
        at = self._times(times, len(fresh))
        held, first = len(state.pending), state.rows - len(state.pending)
        queue = np.concatenate([state.pending.T.astype(np.float32), fresh.T], axis=1)
        marks = np.concatenate([state.seasons.astype(np.int64), marks])
        start = 0
        while (stop := start + state.size * self.settings.unit) <= queue.shape[1]:
            end = float(at[stop - held - 1])
            state = self._bet(state, queue[:, start:stop], marks[start:stop], first + stop, end)
            start = stop
            yield replace(state, rows=first + stop, pending=state.pending[:0], seasons=np.zeros(0))
        left = queue[:, start:].T.astype(float)
        yield replace(state, rows=first + queue.shape[1], pending=left, seasons=marks[start:].astype(float))

    def _times(self, times: Any, n: int) -> Array:
        if times is None and self.budget.kind == "per_year" and n:
            raise InputError("the rows have no times", hint="A budget for the year needs the time of every row.")
        at = np.full(n, np.nan) if times is None else np.asarray(times, dtype=float)
        if len(at) != n:
            raise InputError(f"{len(at)} times for {n} rows", hint="Give each row its time, in seconds.")
        return at

    @property
    def _learned(self) -> dict[str, Learned]:
        return {"linear": self.linear, "quadratic": self.quadratic}

    def streams(self, state: State) -> dict[str, float]:
        """Logarithm of the evidence of every fixed stream, by name, and of the best bet on a learned direction."""
        values = self.fixed.evidence(state.books)
        found = {name: float(value) for name, value in zip(self.fixed.names, values, strict=True)}
        for name, bets in (("all values together", state.linear), ("spread and correlation", state.quadratic)):
            found[name] = float(Learned.evidence(bets).max(initial=-np.inf))
        return found

    def _bet(self, state: State, rows: Single, seasons: Ints, row: int, end: float) -> State:
        passed = float(np.nan_to_num(state.ends[1] - state.ends[0]))
        weight = self.budget.log_weight(state.blocks, passed)
        groups = {"linear": state.linear, "quadratic": state.quadratic}
        for name, learned in self._learned.items():
            if state.blocks and len(learned.learn):
                groups[name] = self._open(learned, groups[name], state, self.features.slices[name], weight)
        block = count_block(
            self.features, rows, seasons, {name: Learned.directions(bets) for name, bets in groups.items()}
        )
        discount, visits = self._discount(state.visits, block.seasons)
        books = self.fixed.advance(state.books, block, weight, discount)
        for name, bets in groups.items():
            groups[name] = Learned.played(bets, block.learned[name], block.units, discount)
        log_drift, log_quality = self._evidence(self.fixed.evidence(books), groups)
        size = self.settings.next_size(state.size, end - float(state.ends[1]), row // self.settings.unit)
        keep = 1 - np.array([_SHORT, _LONG]) if state.blocks else np.zeros(2)
        return replace(
            state,
            blocks=state.blocks + 1,
            books=books,
            visits=visits,
            memory=keep[:, None] * state.memory + (1 - keep)[:, None] * block.mean,
            linear=groups["linear"],
            quadratic=groups["quadratic"],
            size=size,
            ends=np.array([state.ends[1], end]),
            log_drift=log_drift,
            log_quality=log_quality,
            drift_row=self._alarm(state.drift_row, log_drift, "drift", row),
            quality_row=self._alarm(state.quality_row, log_quality, "quality", row),
        )

    def _open(self, learned: Learned, bets: Any, state: State, part: slice, weight: float) -> Any:
        """Open a bet: by turns on the recent past as it is, and on the longer past without what chance explains."""
        long = state.blocks % 4 == 3  # noqa: PLR2004 - the last of every four
        rate = _LONG if long else _SHORT
        blocks = min(state.blocks, (2 - rate) / rate)
        past = state.memory[int(long)][part]
        return learned.opened(bets, past, blocks * state.size, state.blocks % 2 == 1, weight, state.blocks)

    def _discount(self, visits: Array, counts: Array) -> tuple[float, Array]:
        """Half the variance that the errors of the seasons' means add to a sum over this block, and the visits after it.

        Over one visit to a season its error is one and the same, so that its variance grows with the square of the units.
        """
        added = ((visits + counts) ** 2 - visits**2) / np.maximum(self.season_units, 1.0)
        seasonal = self.settings.n_seasons > 1
        return float(added[counts > 0].sum() / 2) if seasonal else 0.0, np.where(counts > 0, visits + counts, 0.0)

    def _evidence(self, fixed: Array, bets: Mapping[str, Any]) -> tuple[float, float]:
        parts = {name: fixed[self.fixed.groups == name] for name in ("mean", "spread", "quality")}
        logs = {name: _log_total(part) - np.log(max(len(part), 1)) for name, part in parts.items()}
        logs |= {name: _log_total(Learned.evidence(group)) for name, group in bets.items()}
        drift = np.array([np.log(weight) + logs[name] for name, weight in WEIGHTS.items()])
        return _log_total(drift), float(logs["quality"])

    def _alarm(self, earlier: int | None, log_e: float, family: str, row: int) -> int | None:
        return row if earlier is None and log_e >= self.budget.log_needed(family) else earlier


def _log_total(logs: Array) -> float:
    top = float(logs.max(initial=-np.inf))
    return top if top == -np.inf else float(top + np.log(np.exp(logs - top).sum()))
