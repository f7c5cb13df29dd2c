"""Fit the watch on a champion's reference."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.drift.budget import SHARES, Budget
from kfloop.core.drift.columns import Table, fit_columns
from kfloop.core.drift.features import fit_features
from kfloop.core.drift.fixed import fit_fixed
from kfloop.core.drift.learned import Learned
from kfloop.core.drift.levels import SCORES
from kfloop.core.drift.payment import KNOTS, STAKES
from kfloop.core.drift.settings import Settings, checked_seasons
from kfloop.core.drift.watch import WEIGHTS, Watch
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

MIN_UNITS = 50
_LEARNING_SHARE = 0.3
_SEED = 0


def dealt(n: int, unit: int) -> tuple[Ints, Ints]:
    """Rows of the learning and of the paying half, each in order; those that fill no unit are in neither.

    What is estimated from the learning half alone may be bet on: maps of rows to columns are to be fitted on these rows, too.

    Args:
        n: Rows of the reference.
        unit: Rows a unit.
    """
    order = np.random.default_rng(_SEED).permutation(n // unit)
    cut = int(len(order) * _LEARNING_SHARE)
    learn, pay = ((np.sort(part)[:, None] * unit + np.arange(unit)).ravel() for part in (order[:cut], order[cut:]))
    return learn, pay


def fit_watch(
    table: Table,
    budget: Budget,
    *,
    kinds: Mapping[str, str],
    seasons: Any = None,
    settings: Settings | None = None,
    identity: str = "",
) -> Watch:
    """Fit the watch on the champion's reference.

    Units of the reference are dealt out to a learning half (30 %), from which everything is estimated, and a paying half.

    Args:
        table: The reference, columns by name, in the order of time where `unit` is above 1.
        budget: What to promise.
        kinds: Columns to watch, each ``numeric`` or ``categorical``.
        seasons: Season of each row; None where there is only one.
        settings: How to bet.
        identity: Names the reference, such as the digest of the package that it is in: a state goes on with every watch on it, also where another machine computed
            the last digits of a column otherwise. Empty: the rows themselves name it.

    Raises:
        InputError: There are fewer than 50 units, or columns do not fit.
    """
    settings = settings or Settings()
    n = len(next(iter(table.values()), ()))
    count = n // settings.unit
    if count < MIN_UNITS:
        message = (
            f"the reference has {n} rows, that is {count} units of {settings.unit}, expected at least {MIN_UNITS} units"
        )
        raise InputError(message, hint="Package the model with more validation and test rows, or make units smaller.")
    marks = checked_seasons(seasons, n, settings.n_seasons)
    halves = dealt(n, settings.unit)
    held: dict[str, Any] = {name: np.asarray(cells) for name, cells in table.items()}
    columns = fit_columns({name: cells[halves[0]] for name, cells in held.items()}, kinds)
    rows = [columns.encode({name: cells[half] for name, cells in held.items() if name in kinds}).T for half in halves]
    features = fit_features(columns, rows[0], marks[halves[0]], settings.n_seasons, settings.unit)
    learn, pay = (features.units(part, marks[half]) for part, half in zip(rows, halves, strict=True))
    learned = {
        name: Learned(
            learn=learn.features[features.slices[name]],
            pay=pay.features[features.slices[name]],
            learned_from=learn.whole,
            paid_by=pay.whole,
            tolerance=settings.tolerance,
            lifetime=settings.lifetime,
        )
        for name in ("linear", "quadratic")
    }
    described = [(item.name, item.kind) for item in columns.items] if identity else columns.items
    named = hashlib.sha256(
        repr(
            (settings, budget, identity, described, WEIGHTS, SHARES, KNOTS.tolist(), STAKES.tolist(), len(SCORES))
        ).encode()
    )
    for part in () if identity else rows:
        named.update(part.tobytes())
    return Watch(
        settings=settings,
        budget=budget,
        features=features,
        fixed=fit_fixed(features, learn, pay, settings.tolerance),
        **learned,
        season_units=np.bincount(learn.seasons, minlength=settings.n_seasons).astype(float),
        fingerprint=named.hexdigest()[:16],
    )
