"""Score intervals against statsmodels and published examples; tails of the bootstrap; shares row by row."""

import math

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

from kfloop.core.statistics.bootstrap import Replicates, Statistic, replicate
from kfloop.core.statistics.intervals import interval, logit, percentile
from kfloop.core.statistics.proportions import Hits, Pairs, paired, tango

DICE = np.random.default_rng(11)


def shares(n: int, **hits: np.ndarray) -> dict[str, Replicates]:
    return replicate({name: Statistic.share(item) for name, item in hits.items()}, n, resamples=200, seed=0)


@pytest.mark.parametrize(
    ("pairs", "low", "high"),
    [
        # Bentur et al. 2009, in Fagerland, Lydersen & Laake, Statistics in Medicine 33, 2014, table V.
        (Pairs(ours=1, theirs=7, n=21), -0.517, -0.026),
        # The other way round.
        (Pairs(ours=7, theirs=1, n=21), 0.026, 0.517),
    ],
)
def test_tango_gives_the_published_intervals(pairs: Pairs, low: float, high: float) -> None:
    assert tango(pairs) == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize("counts", [(0, 0, 30), (0, 3, 40), (12, 5, 200), (30, 31, 90), (20, 0, 20)])
@pytest.mark.parametrize("level", [0.9, 0.9975])
def test_tango_ends_where_the_score_test_rejects(counts: tuple[int, int, int], level: float) -> None:
    """The likelihood maximised by search, without the closed form."""
    b, c, n = counts

    def score(d: float) -> float:
        def minus_likelihood(q: float) -> float:
            cells = np.array([q + d, q, 1 - 2 * q - d])
            return -float((np.array([b, c, n - b - c]) * np.log(np.maximum(cells, 1e-300))).sum())

        found = optimize.minimize_scalar(
            minus_likelihood, bounds=(max(0, -d), (1 - d) / 2), method="bounded", options={"xatol": 1e-13}
        )
        return (b - c - n * d) ** 2 / (n * max(2 * found.x + d * (1 - d), 1e-300))

    for end in tango(Pairs(ours=b, theirs=c, n=n), level):
        if abs(end) < 1:
            assert score(end) == pytest.approx(stats.chi2.ppf(level, 1), rel=2e-3)


def test_no_rows_have_no_interval_and_no_disagreement_has_a_width() -> None:
    assert all(map(math.isnan, tango(Pairs(ours=0, theirs=0, n=0))))
    low, high = tango(Pairs(ours=0, theirs=0, n=10))
    assert (low, high) == pytest.approx((-0.2775, 0.2775), abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("level", [0.95, 0.9975])
def test_a_share_gets_wilsons_interval_also_of_a_slice(share: float, level: float) -> None:
    hits = np.arange(200) < 200 * share
    rows = np.arange(200) % 3 == 0
    whole = Statistic.share(hits)
    for statistic, n in ((whole, 200), (whole.among(rows), 67), (Statistic.share(hits, rows), 67)):
        found = interval(replicate({"a": statistic}, 200, resamples=50, seed=0)["a"], level)
        counted = hits[rows] if n == 67 else hits
        expected = proportion_confint(counted.sum(), n, 1 - level, method="wilson")
        assert (found.low, found.high, found.n) == pytest.approx((*expected, n), abs=1e-12)
        assert found.value == pytest.approx(counted.mean())


def test_the_difference_of_shares_of_the_same_rows_is_paired() -> None:
    ours, theirs = (DICE.random(300) < share for share in (0.9, 0.8))
    both = shares(300, a=ours, b=theirs)
    found = interval(both["a"] - both["b"], 0.95)
    counts = Pairs(ours=int((ours & ~theirs).sum()), theirs=int((theirs & ~ours).sum()), n=300)
    assert (found.low, found.high) == tango(counts)
    assert found.value == pytest.approx(ours.mean() - theirs.mean())


def test_shares_of_other_rows_are_not_paired() -> None:
    rows = np.arange(20) < 10
    one, two = Hits(hit=rows, counted=rows), Hits(hit=~rows, counted=~rows)
    assert paired(one, two) is None
    hits = DICE.random(20) < 0.5
    both = replicate(
        {"a": Statistic.share(hits, rows), "b": Statistic.share(hits, np.arange(20) < 14)}, 20, resamples=200, seed=0
    )
    found = both["a"] - both["b"]
    assert (found.pairs, found.n) == (None, 10)
    assert interval(found, 0.95) == percentile(found, 0.95)


@pytest.mark.parametrize("told", [{"block": 5}, {"groups": np.arange(100) // 5}])
def test_dependent_rows_keep_the_bootstrap(told: dict[str, object]) -> None:
    statistic = Statistic.share(DICE.random(100) < 0.8)
    found = replicate({"a": statistic}, 100, resamples=400, seed=0, **told)["a"]  # type: ignore[arg-type]
    assert found.hits is None
    assert interval(found, 0.95) == percentile(found, 0.95)


def test_an_unknown_row_leaves_a_share_unknown() -> None:
    hits = np.append(np.ones(9), np.nan)
    found = shares(10, a=hits, b=np.ones(10))
    for item in (found["a"], found["a"] - found["b"], found["b"] - found["a"]):
        assert not interval(item, 0.95).known
    assert interval(found["b"], 0.95).known
    none = replicate({"a": Statistic.share(hits, np.zeros(10, dtype=bool))}, 10, resamples=20, seed=0)["a"]
    assert not interval(none, 0.95).known


def test_tails_beyond_the_resamples_are_those_of_a_normal_distribution() -> None:
    values = DICE.normal(3, 2, 1000)
    far, near = (percentile(Replicates(point=3.0, values=values, n=50), level) for level in (0.9975, 0.95))
    longer = stats.norm.ppf(0.99875) / stats.norm.ppf(0.99)
    low, middle, high = np.quantile(values, [0.01, 0.5, 0.99])
    assert far.low == pytest.approx(middle - (middle - low) * longer)
    assert far.high == pytest.approx(middle + (high - middle) * longer)
    assert (near.low, near.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    few = percentile(Replicates(point=3.0, values=values[:30], n=50), 0.95)
    assert (few.low, few.high) == pytest.approx(tuple(np.quantile(values[:30], [0.025, 0.975])))


def test_the_logit_interval() -> None:
    values = DICE.normal(0.9, 0.02, 4000)
    found = logit(Replicates(point=0.9, values=values, n=41), 0.95)
    odds = math.log(9), stats.t.ppf(0.975, 40) * values.std(ddof=1) / 0.09
    assert found.low == pytest.approx(1 / (1 + math.exp(-(odds[0] - odds[1]))))
    assert found.high == pytest.approx(1 / (1 + math.exp(-(odds[0] + odds[1]))))
    perfect = Replicates(point=1.0, values=np.ones(100), n=41)
    assert logit(perfect, 0.95) == percentile(perfect, 0.95)
    assert not logit(Replicates(point=0.9, values=np.append(np.full(400, np.nan), values), n=9), 0.95).known
    assert not logit(Replicates(point=math.nan, values=values, n=41), 0.95).known
