"""Windows of a series: exact rows, no look-ahead, no group crossed, no copy."""

from __future__ import annotations

import numpy as np
import pytest

from kfloop.core.windows import count_windows, windows


def _rows(n: int, channels: int = 1) -> np.ndarray:
    """Each value tells its row: row r, channel c holds r + 1000 c."""
    return np.arange(n, dtype=np.float64)[:, None] + 1000.0 * np.arange(channels)


def test_a_window_sees_context_rows_and_its_target_is_what_follows() -> None:
    inputs, targets, starts = windows(_rows(10, 2), None, context=4, horizon=2, stride=3)
    assert starts.tolist() == [0, 3]
    assert inputs[1, :, 0].tolist() == [3, 4, 5, 6]
    assert targets[1, :, 0].tolist() == [7, 8]
    assert targets[1, :, 1].tolist() == [1007, 1008]
    assert (inputs.shape, targets.shape) == ((2, 4, 2), (2, 2, 2))


@pytest.mark.parametrize(("context", "horizon", "stride"), [(1, 1, 1), (5, 3, 1), (5, 3, 4), (7, 0, 2), (2, 9, 5)])
def test_no_window_looks_ahead(context: int, horizon: int, stride: int) -> None:
    inputs, targets, starts = windows(_rows(60), None, context, horizon, stride)
    assert len(starts) == count_windows(60, context, horizon, stride)
    for window, target, start in zip(inputs, targets, starts, strict=True):
        np.testing.assert_array_equal(window[:, 0], np.arange(start, start + context))
        np.testing.assert_array_equal(target[:, 0], np.arange(start + context, start + context + horizon))


def test_a_change_of_the_future_changes_no_input() -> None:
    values = _rows(50)
    before = windows(values, None, 6, 3)[0][:20].copy()
    changed = values.copy()
    changed[26:] = -1.0
    np.testing.assert_array_equal(windows(changed, None, 6, 3)[0][:20], before)


def test_one_series_is_a_view_without_copy_that_cannot_be_written() -> None:
    values = _rows(1000, 3)
    inputs, targets, _ = windows(values, None, 96, 24, 2)
    assert np.shares_memory(inputs, values)
    assert np.shares_memory(targets, values)
    with pytest.raises(ValueError, match="read-only"):
        inputs[0, 0, 0] = 1.0
    one_group, _, _ = windows(values, np.zeros(1000), 96, 24, 2)
    assert np.shares_memory(one_group, values)


def test_no_window_crosses_a_group() -> None:
    groups = np.array(["a"] * 7 + ["b"] * 3 + ["c"] * 9)
    inputs, targets, starts = windows(_rows(19), groups, 3, 2)
    for window, target in zip(inputs, targets, strict=True):
        seen = np.concatenate([window[:, 0], target[:, 0]]).astype(int)
        assert len(set(groups[seen])) == 1
    assert starts.tolist() == [0, 1, 2, 10, 11, 12, 13, 14]  # b is too short


def test_a_group_that_comes_back_is_one_series() -> None:
    groups = np.array([0, 1] * 6)
    inputs, targets, starts = windows(_rows(12), groups, 3, 1)
    assert starts.tolist() == [0, 2, 4, 1, 3, 5]
    assert inputs[0, :, 0].tolist() == [0, 2, 4]
    assert targets[0, :, 0].tolist() == [6]
    assert inputs[3, :, 0].tolist() == [1, 3, 5]


def test_random_groups_never_cross_and_never_look_ahead() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = int(rng.integers(1, 80))
        groups = rng.integers(0, 4, n)
        context, horizon, stride = int(rng.integers(1, 6)), int(rng.integers(0, 4)), int(rng.integers(1, 4))
        inputs, targets, starts = windows(_rows(n), groups, context, horizon, stride)
        lengths = np.bincount(groups)
        assert len(starts) == sum(count_windows(int(length), context, horizon, stride) for length in lengths)
        seen = np.concatenate([inputs[..., 0], targets[..., 0]], axis=1).astype(int)
        for rows, start in zip(seen, starts, strict=True):
            mine = np.flatnonzero(groups == groups[start])
            first = int(np.searchsorted(mine, start))
            np.testing.assert_array_equal(rows, mine[first : first + context + horizon])


@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_short_a_series_has_no_window(n: int) -> None:
    inputs, targets, starts = windows(_rows(n, 2), None, 4, 2)
    assert (inputs.shape, targets.shape, starts.shape) == ((0, 4, 2), (0, 2, 2), (0,))


def test_exactly_one_window_fits() -> None:
    assert len(windows(_rows(6), None, 4, 2)[2]) == 1


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((0, 1, 1), "context is 0: expected at least 1"),
        ((1, -1, 1), "horizon is -1"),
        ((1, 1, 0), "stride is 0"),
    ],
)
def test_sizes_below_their_least_are_refused(sizes: tuple[int, int, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        windows(_rows(9), None, *sizes)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected rows and channels \[T, C\]"):
        windows(np.zeros(5), None, 1, 1)
    with pytest.raises(ValueError, match="one group for each row"):
        windows(_rows(5), np.zeros(4), 1, 1)
