"""Real data for `quality.py`: the census and the car loans in nannyml's wheel (Apache-2.0), with the answers of the models that come with them.

pip download nannyml==0.13.1 --no-deps
"""

from __future__ import annotations

import io
import zipfile
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kfloop.core.quality.estimated import Estimated, fall, quality
from kfloop.core.quality.gauge import Gauge, open_gauge
from kfloop.core.quality.hours import Hours
from kfloop.core.quality.realised import Labels, Realised
from kfloop.core.statistics.effects import c2st_auc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DATA = "nannyml/datasets/data/"
YEAR_NS = int(365.25 * 86400e9)
DAY_NS = 86400 * 10**9
C2ST_ROWS = 20000


def real(wheel: str) -> None:
    """Print what the watch says of both."""
    with zipfile.ZipFile(wheel) as archive:
        census(archive)
        car_loans(archive)


def census(archive: zipfile.ZipFile) -> None:
    """Employment in Massachusetts, 2015 to 2018: certain drift, the same accuracy."""
    known = pd.read_parquet(io.BytesIO(archive.read(f"{DATA}employment_MA_reference.pq")))
    later = pd.read_parquet(io.BytesIO(archive.read(f"{DATA}employment_MA_analysis.pq")))
    truth = pd.read_parquet(io.BytesIO(archive.read(f"{DATA}employment_MA_analysis_target.pq")))
    later = later.merge(truth, on="id").sample(frac=1, random_state=0).sort_values("year", kind="stable")
    for rows in (5000, len(known)):
        reference = known.sample(rows, random_state=0)
        gauge = gauge_of(reference["predicted_probability"], reference["employed"])
        print(f"census, reference {rows} rows of 2015: accuracy {gauge.quality:.4f}")
        counts = later.groupby("year").cumcount() / later.groupby("year")["id"].transform("count")
        ts_ns = ((later["year"] - 1970 + counts) * YEAR_NS).astype(np.int64).to_numpy()
        for labelled in (0.02, 0.1, 1.0):
            follow(gauge, later["predicted_probability"], later["employed"], ts_ns, later["year"].to_numpy(), labelled)
    columns = [
        name for name in known.columns if name not in {"id", "employed", "year", "prediction", "predicted_probability"}
    ]
    for year in (2015, 2016, 2017, 2018):
        if year == 2015:  # noqa: PLR2004 - two halves of the reference's own year
            both = known.sample(frac=1, random_state=1)
            one, other = both.iloc[:C2ST_ROWS], both.iloc[C2ST_ROWS : 2 * C2ST_ROWS]
        else:
            one = known.sample(C2ST_ROWS, random_state=1)
            other = later[later["year"] == year].sample(C2ST_ROWS, random_state=1)
        as_numbers = c2st_auc(one[columns].to_numpy(float), other[columns].to_numpy(float))
        coded = pd.get_dummies(
            pd.concat([one[columns], other[columns]]).astype({n: "str" for n in columns if n != "AGEP"})
        )
        coded_rows = coded.to_numpy(float)
        as_levels = c2st_auc(coded_rows[: len(one)], coded_rows[len(one) :])
        outputs = [np.log(np.clip(part[["predicted_probability"]].to_numpy(float), 1e-6, 1)) for part in (one, other)]
        told = [
            f"{name} {a.value:.3f} [{a.low:.3f}, {a.high:.3f}]"
            for name, a in (("columns", as_numbers), ("levels", as_levels), ("answers", c2st_auc(*outputs)))
        ]
        print(
            f"  C2ST AUC 2015 against {year}, {C2ST_ROWS} rows each: {', '.join(told)}; it matters from .6 on",
            flush=True,
        )


def car_loans(archive: zipfile.ZipFile) -> None:
    """Simulated car loans of nannyml: half way through the analysis the debts change, and accuracy falls."""
    known = pd.read_csv(io.BytesIO(archive.read(f"{DATA}synthetic_car_loan_reference.csv")))
    later = pd.read_csv(io.BytesIO(archive.read(f"{DATA}synthetic_car_loan_analysis.csv")))
    truth = pd.read_csv(io.BytesIO(archive.read(f"{DATA}synthetic_car_loan_analysis_target.csv")))
    later = later.merge(truth, on="id").sort_values("timestamp", kind="stable")
    ts_ns = pd.to_datetime(later["timestamp"]).to_numpy("datetime64[ns]").astype(np.int64)
    chunk = np.arange(len(later)) // 5000
    for rows in (5000, len(known)):
        reference = known.sample(rows, random_state=0)
        for drops in ((0.05, 0.02), (0.02, 0.01)):
            gauge = gauge_of(reference["y_pred_proba"], reference["repaid"], *drops)
            print(
                f"car loans, reference {rows} rows: accuracy {gauge.quality:.4f}; chunks of 5000 rows; drops that matter {drops}"
            )
            for labelled in (0.02, 0.1, 1.0):
                follow(gauge, later["y_pred_proba"], later["repaid"], ts_ns, chunk, labelled)


def gauge_of(probability: pd.Series, truth: pd.Series, estimated: float = 0.05, realised: float = 0.02) -> Gauge:
    """The gauge of these rows."""
    found = open_gauge(
        "classification",
        answers=two(probability),
        embedding=np.zeros((len(probability), 0)),
        truth=truth.to_numpy(float),
        labels=("0", "1"),
        estimated_drop=estimated,
        realised_drop=realised,
    )
    if found is None:
        raise AssertionError
    return found


def two(probability: pd.Series) -> Array:
    """Probabilities of both classes."""
    p = probability.to_numpy(float)
    return np.stack([1 - p, p], axis=1)


def follow(
    gauge: Gauge,
    probability: pd.Series,
    truth: pd.Series,
    ts_ns: NDArray[np.int64],
    period: NDArray[np.int64],
    labelled: float,
) -> None:
    """Follow the rows day by day, labels a week later, and print what each period showed."""
    rng = np.random.default_rng(41)
    answers, right = two(probability), truth.to_numpy(float)
    table = gauge.columns(answers, np.zeros((len(answers), 0)))
    strata = gauge.strata(table[:, 1], None)
    found = (gauge.expected.realised(answers, right) * 1_000_000).astype(np.int64)
    picked = rng.random(len(answers)) < labelled
    known_ns = ts_ns + 7 * DAY_NS
    estimated, realised, hours = Estimated(), Realised(), Hours()
    days = ts_ns // DAY_NS
    last = int(days[-1])
    edges = np.searchsorted(days, np.arange(days[0], last + 2))
    lines = []
    for start, stop in pairwise(edges):
        day = days[start] if start < len(days) else last
        part = slice(start, stop)
        estimated = estimated.advance(gauge, table[part], ts_ns[part])
        hours = hours.add_rows(table[part], strata[part], ts_ns[part])
        due = np.flatnonzero(picked & ((known_ns // DAY_NS) == day))
        realised = realised.advance(gauge, hours, labels_of(due, strata, table, found, ts_ns, known_ns))
    rest = np.flatnonzero(picked & ((known_ns // DAY_NS) > last))
    realised = realised.advance(gauge, hours, labels_of(rest, strata, table, found, ts_ns, known_ns))
    row = np.flatnonzero(picked)
    at = {
        "estimated": None if estimated.since_row is None else int(period[estimated.since_row - 1]),
        "realised": None if realised.since_label is None else int(period[row[realised.since_label - 1]]),
    }
    for value in np.unique(period):
        mine = period == value
        sums = table[mine].sum(axis=0).tolist()
        told, fell = quality(gauge, sums), fall(gauge, sums)
        lines.append(
            f"    {value}: true accuracy {found[mine].mean() / 1e6:.4f} ({gauge.quality - found[mine].mean() / 1e6:+.4f} lost), estimated {told.value:.4f} "
            f"[{told.low:.4f}, {told.high:.4f}], estimated fall {fell.value:+.4f}"
        )
    if labelled == 1:
        print("\n".join(lines))
    print(
        f"  {labelled:.0%} labelled: estimated declared {at['estimated']} (row {estimated.since_row}, evidence {estimated.evidence.value:.3g}), realised declared {at['realised']} "
        f"(label {realised.since_label} of {picked.sum()}, evidence {realised.evidence.value:.3g}), refutes {realised.refutes(int(ts_ns[-1]))}",
        flush=True,
    )


def labels_of(
    rows: NDArray[np.intp],
    strata: NDArray[np.int64],
    table: NDArray[np.int64],
    found: NDArray[np.int64],
    ts_ns: NDArray[np.int64],
    known_ns: NDArray[np.int64],
) -> Labels:
    """Labels of some rows."""
    return Labels(
        strata=strata[rows],
        expected=table[rows, 1],
        found=found[rows],
        ts_ns=ts_ns[rows],
        at_ns=known_ns[rows],
        delays=(known_ns[rows] - ts_ns[rows]) / 1e9,
    )
