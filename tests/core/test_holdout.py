"""Sketches of test rows: the share that two test sets have in common, from 128 hashes each."""

import numpy as np
import pytest

from kfloop.core.holdout import SKETCH_SIZE, shared, sketched


def rows(start: int, stop: int, name: str = "row") -> list[str]:
    return [f"{name}-{index}" for index in range(start, stop)]


def test_order_and_repetition_of_ids_do_not_matter() -> None:
    ids = rows(0, 500)
    mixed = list(np.random.default_rng(1).permutation(ids + ids[:100]))
    assert sketched(mixed) == sketched(ids)
    assert sketched(ids)["digest"] != sketched(ids[1:])["digest"]
    assert len(sketched(ids)["sketch"]) == SKETCH_SIZE
    assert all(len(name) == 16 for name in sketched(ids)["sketch"])


def test_small_sets_are_compared_exactly() -> None:
    now, then = sketched(rows(0, 40))["sketch"], sketched(rows(30, 90))["sketch"]
    assert shared(now, then) == pytest.approx(10 / 40)
    assert shared(then, now) == pytest.approx(10 / 60)
    assert shared(now, now) == 1.0
    assert shared(now, sketched(rows(100, 140))["sketch"]) == 0.0


@pytest.mark.parametrize("common", [0, 250, 500, 900, 1000])
def test_the_share_of_large_sets_is_estimated_without_bias(common: int) -> None:
    """Against the exact share, over 60 pairs of sets of 1000 rows: the mean within 3 standard errors of a binomial with 128 draws."""
    found = []
    for seed in range(60):
        ids = rows(0, 2000, f"set{seed}")
        now, then = sketched(ids[:1000])["sketch"], sketched(ids[1000 - common : 2000 - common])["sketch"]
        found.append(shared(now, then))
    share = common / 1000
    error = (share * (1 - share) / (SKETCH_SIZE * 0.9) / len(found)) ** 0.5
    assert sum(found) / len(found) == pytest.approx(share, abs=3 * error + 1e-12)


def test_a_set_that_grew_still_counts_nearly_whole() -> None:
    ids = rows(0, 1030)
    assert shared(sketched(ids)["sketch"], sketched(ids[:1000])["sketch"]) == pytest.approx(1000 / 1030, abs=0.05)
    assert shared(sketched(ids[:100])["sketch"], sketched(rows(0, 100_000))["sketch"]) == 1.0


def test_sketches_without_a_common_range_count_as_a_whole_look() -> None:
    assert shared([], ["0" * 16]) == 1.0
    assert shared(["f" * 16] * SKETCH_SIZE, [f"{index:016x}" for index in range(SKETCH_SIZE)]) == 1.0
