"""Simulated champions for `quality.py`: answers with known chances of being right, traffic in time, and people who label some of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.quality.gauge import Gauge, open_gauge
from kfloop.core.quality.hours import Hours
from kfloop.core.quality.realised import Labels, Realised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

START_NS = 1_700_006_400 * 10**9  # a full hour
HOUR_NS = 3600 * 10**9


@dataclass(frozen=True, kw_only=True)
class World:
    """A classifier of two classes whose log-odds are Gaussian.

    Attributes:
        sure: Mean log-odds of being right; .1 less is about one point of accuracy less.
        over: How much it exaggerates its log-odds; 1 is calibrated.
    """

    sure: float = 2.0
    over: float = 1.3

    def draw(
        self, rng: np.random.Generator, n: int, *, harder: float = 0.0, flipped: float = 0.0
    ) -> tuple[Array, Array, Array]:
        """Rows: answers [n, 2], truth [n], and the chance that each answer is right [n].

        Args:
            rng: Source of chance.
            n: Rows.
            harder: Covariate shift: log-odds come down by so much.
            flipped: Change of concept: so many of the truths are the other class than they were.
        """
        odds = rng.normal(self.sure - harder, 1.5, n)
        sign = rng.choice([-1.0, 1.0], n)
        chance = 1 / (1 + np.exp(-odds * sign))  # of class 1
        chance = chance * (1 - flipped) + (1 - chance) * flipped
        truth = (rng.random(n) < chance).astype(float)
        stated = 1 / (1 + np.exp(-self.over * odds * sign))
        answers = np.stack([1 - stated, stated], axis=1)
        return answers, truth, np.where(stated > 0.5, chance, 1 - chance)  # noqa: PLR2004


def gauge_of(rng: np.random.Generator, world: World, n: int, **drops: float | None) -> Gauge:
    """A gauge on a reference of n rows."""
    answers, truth, _ = world.draw(rng, n)
    found = open_gauge(
        "classification", answers=answers, embedding=np.zeros((n, 0)), truth=truth, labels=("0", "1"), **drops
    )
    if found is None:
        raise AssertionError
    return found


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Traffic by the hour, and what part of it people label.

    Attributes:
        hours: Length.
        rows: Rows an hour.
        share: Share of the rows that are labelled.
        below: It is the share of rows whose stated confidence is below this.
        others: Share of the other rows that are labelled.
        delay_hours: Mean delay of labels.
    """

    hours: int
    rows: int = 40
    share: float = 0.05
    below: float = 2.0
    others: float = 0.0
    delay_hours: float = 24.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """Where the watch stands after a stream.

    Attributes:
        state: Of the realised quality.
        hours: The requests by the hour.
        found: Quality of the labelled answers in the order in which their truth came, [n].
        after: Whether their request is from after the change, [n].
    """

    state: Realised
    hours: Hours
    found: Array
    after: NDArray[np.bool_]


def play(
    rng: np.random.Generator,
    gauge: Gauge,
    world: World,
    stream: Stream,
    *,
    change_hour: int | None = None,
    harder: float = 0.0,
    flipped: float = 0.0,
) -> Played:
    """Traffic with a change at an hour, followed once a day."""
    n = stream.hours * stream.rows
    before = n if change_hour is None else change_hour * stream.rows
    parts = [world.draw(rng, before), world.draw(rng, n - before, harder=harder, flipped=flipped)]
    answers, truth = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    ts_ns = START_NS + np.arange(n) * (HOUR_NS // stream.rows)
    table = gauge.columns(answers, np.zeros((n, 0)))
    strata = gauge.strata(table[:, 1], None)
    doubtful = answers.max(axis=1) < stream.below
    rows = np.flatnonzero(rng.random(n) < np.where(doubtful, stream.share, stream.others))
    at_ns = ts_ns[rows] + (rng.exponential(stream.delay_hours * 3600, n)[rows] * 1e9).astype(np.int64)
    rows, at_ns = rows[np.argsort(at_ns)], np.sort(at_ns)
    found = gauge.expected.realised(answers[rows], truth[rows])
    labels = Labels(
        strata=strata[rows],
        expected=table[rows, 1],
        found=(found * 1_000_000).astype(np.int64),
        ts_ns=ts_ns[rows],
        at_ns=at_ns,
        delays=(at_ns - ts_ns[rows]) / 1e9,
    )
    state, hours = Realised(), Hours()
    for start in range(0, n, 24 * stream.rows):
        part = slice(start, start + 24 * stream.rows)
        hours = hours.add_rows(table[part], strata[part], ts_ns[part])
        end = ts_ns[part][-1] if part.stop < n else np.iinfo(np.int64).max
        state = state.advance(
            gauge, hours, taken(labels, (at_ns > (ts_ns[start - 1] if start else 0)) & (at_ns <= end))
        )
    return Played(state=state, hours=hours, found=found, after=rows >= before)


def taken(labels: Labels, rows: NDArray[np.bool_]) -> Labels:
    """Some of the labels."""
    return Labels(**{name: getattr(labels, name)[rows] for name in Labels.__dataclass_fields__})
