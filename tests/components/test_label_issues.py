"""Flags: those of cleanlab's default filter, in a fraction of its time; sets of classes; numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from kfloop.components.check_labels import confident
from kfloop.components.check_labels.issues import find_issues, find_number_issues, find_set_issues, normalized_margin
from kfloop.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def noisy(n: int, k: int, seed: int, sharpness: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a tenth is wrong, and probabilities of a decent model."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, k, n)
    labels = truth.copy()
    wrong = np.flatnonzero(generator.random(n) < 0.1)
    labels[wrong] = (labels[wrong] + generator.integers(1, k, len(wrong))) % k
    scores = np.exp(generator.normal(0, 1.5, (n, k)))
    scores[np.arange(n), truth] += np.exp(generator.normal(sharpness, 1.0, n))
    return labels, scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "k"), [(60, 2), (300, 3), (500, 40), (3000, 12), (20_000, 30)])
@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_flags_are_those_of_cleanlab(n: int, k: int, kind: type, sharpness: float) -> None:
    from cleanlab.filter import find_label_issues

    labels, probabilities = noisy(n, k, n + k, sharpness)
    probabilities = probabilities.astype(kind)
    theirs = find_label_issues(labels, probabilities, n_jobs=1)
    np.testing.assert_array_equal(find_issues(labels, probabilities), theirs)


def test_the_joint_is_that_of_cleanlab() -> None:
    from cleanlab.count import compute_confident_joint, get_confident_thresholds

    labels, probabilities = noisy(2000, 8, 1)
    joint = confident.confident_joint(labels, probabilities)
    np.testing.assert_allclose(joint.thresholds, get_confident_thresholds(labels, probabilities))
    np.testing.assert_array_equal(joint.calibrated, compute_confident_joint(labels, probabilities))
    np.testing.assert_array_equal(joint.calibrated.sum(axis=1), np.bincount(labels))


def test_a_class_without_rows_is_never_suggested() -> None:
    labels, probabilities = noisy(1000, 4, 2)
    wide = np.concatenate([probabilities, np.full((1000, 1), 0.01)], axis=1)
    np.testing.assert_array_equal(find_issues(labels, wide), find_issues(labels, probabilities))


def test_blocks_do_not_change_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities = noisy(3000, 5, 3, sharpness=1.0)
    whole = find_issues(labels, probabilities)
    monkeypatch.setattr(confident, "ELEMENTS", 700)
    monkeypatch.setattr(confident.blocks, "__defaults__", (97,))
    np.testing.assert_array_equal(find_issues(labels, probabilities), whole)


def test_probabilities_may_be_memory_mapped(tmp_path: Path) -> None:
    labels, probabilities = noisy(2000, 6, 4)
    np.save(tmp_path / "p.npy", probabilities.astype(np.float32))
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    np.testing.assert_array_equal(find_issues(labels, mapped), find_issues(labels, probabilities.astype(np.float32)))
    np.testing.assert_allclose(normalized_margin(labels, mapped), normalized_margin(labels, probabilities), atol=1e-6)


def test_equal_margins_are_flagged_in_order() -> None:
    values = np.array([0.5, 0.9, 0.5, 0.5, 0.1])
    np.testing.assert_array_equal(np.flatnonzero(confident._largest(values, 2)), [0, 1])
    assert confident._largest(values, 9).all()


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], np.full((3, 2), 0.5), r"shape \(3, 2\), expected \(2,"),
        ([0, 1], np.full(2, 0.5), "expected"),
        ([0, 2], np.full((2, 2), 0.5), "row 1 has the label 2, expected 0 to 1"),
        ([0, -1], np.full((2, 2), 0.5), "row 1 has the label -1"),
        ([0, 1], np.array([[0.5, 0.5], [np.nan, 0.5]]), "row 1 has a probability that is not a number"),
    ],
)
def test_wrong_inputs_name_the_row(labels: list[int], probabilities: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_issues(np.array(labels), probabilities)


def test_nothing_to_flag() -> None:
    assert not find_issues(np.empty(0, dtype=np.int64), np.empty((0, 3))).any()
    assert not find_issues(np.zeros(4, dtype=np.int64), np.ones((4, 1))).any()
    np.testing.assert_array_equal(normalized_margin(np.zeros(2, dtype=np.int64), np.ones((2, 1))), [1.0, 1.0])


def test_margin() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    np.testing.assert_allclose(normalized_margin(np.array([0, 1]), probabilities), [0.5, -0.5])


def test_sets_are_judged_as_cleanlab_does() -> None:
    from cleanlab.multilabel_classification.filter import find_label_issues

    generator = np.random.default_rng(0)
    truth = generator.random((800, 3)) < [0.3, 0.5, 0.1]
    given = truth ^ (generator.random(truth.shape) < 0.05)
    chance = np.clip(np.where(truth, 0.85, 0.15) + generator.normal(0, 0.1, truth.shape), 0.01, 0.99)
    ours = find_set_issues(given, chance)
    theirs = find_label_issues([np.flatnonzero(row).tolist() for row in given], chance, n_jobs=1)
    np.testing.assert_array_equal(ours.any(axis=1), theirs)
    assert (ours & (given != truth)).sum() > 0.7 * (given != truth).sum()


@pytest.mark.parametrize("tail", ["normal", "student"])
def test_wrong_numbers_are_found_whatever_the_tail(tail: str) -> None:
    generator = np.random.default_rng(5)
    predictions = generator.uniform(0, 10, 3000)
    noise = generator.normal(size=3000) if tail == "normal" else generator.standard_t(4, 3000)
    targets = predictions + noise * (0.5 + predictions / 5)  # larger numbers are noisier
    wrong = generator.choice(3000, 40, replace=False)
    targets[wrong] += np.where(generator.random(40) < 0.5, -1, 1) * (0.5 + predictions[wrong] / 5) * 30
    found = find_number_issues(targets, predictions)
    assert found.flagged[wrong].all()
    assert found.flagged.sum() <= 50
    assert (found.margin[found.flagged] <= 0).all()
    assert (found.margin[~found.flagged] > 0).all()


@pytest.mark.parametrize("n", [0, 1, 3, 50])
def test_few_or_equal_numbers_flag_nothing(n: int) -> None:
    found = find_number_issues(np.full(n, 3.0), np.full(n, 3.0))
    assert not found.flagged.any()
    np.testing.assert_array_equal(found.margin, np.ones(n))


def test_clean_numbers_are_left_alone() -> None:
    flags = [
        find_number_issues(np.random.default_rng(seed).normal(size=2000), np.zeros(2000)).flagged.sum()
        for seed in range(10)
    ]
    assert np.mean(flags) < 1


@pytest.mark.slow
def test_many_rows_get_the_flags_of_cleanlab() -> None:
    from cleanlab.filter import find_label_issues

    labels, probabilities = noisy(300_000, 100, 7, sharpness=5.0)
    np.testing.assert_array_equal(find_issues(labels, probabilities), find_label_issues(labels, probabilities))
