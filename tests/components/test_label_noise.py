"""Noise estimates and groups, against planted truths."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kfloop.components.check_labels.confident import confident_joint
from kfloop.components.check_labels.groups import worse_groups
from kfloop.components.check_labels.noise import class_noise, imbalance, noise_matrix, overall_noise
from kfloop.errors import ConfigError

RATES = np.array([[0.9, 0.1, 0.0], [0.0, 0.8, 0.2], [0.05, 0.0, 0.95]])


def sampled(seed: int, n: int = 900) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Given and true labels with the noise matrix RATES (given to true), and a model that errs a little."""
    generator = np.random.default_rng(seed)
    given = generator.integers(0, 3, n)
    truth = (generator.random(n)[:, None] > np.cumsum(RATES, axis=1)[given]).sum(axis=1)
    scores = np.exp(generator.normal(0, 0.3, (n, 3)))
    scores[np.arange(n), truth] += np.exp(generator.normal(4.0, 0.3, n))
    return given, truth, scores / scores.sum(axis=1, keepdims=True)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # Approximately: the joint has the model's errors in it, which no interval of a proportion knows of.
    overall, by_class, cells = [], [], []
    for seed in range(200):
        given, truth, probabilities = sampled(seed)
        joint = confident_joint(given, probabilities)
        doubted = probabilities.argmax(axis=1) != given
        estimate = overall_noise(joint, int(doubted.sum()))
        overall.append(estimate.low <= (1 - RATES.diagonal()).mean() <= estimate.high)
        by_class += [
            e.low <= 1 - RATES[k, k] <= e.high for k, e in enumerate(class_noise(joint, np.bincount(given[doubted])))
        ]
        matrix = noise_matrix(joint, ["a", "b", "c"])
        assert matrix is not None
        cells += [
            cell.low - 1e-9 <= RATES[i, j] <= cell.high
            for i, row in enumerate(matrix["given_true"])
            for j, cell in enumerate(row)
        ]
        assert abs(estimate.value - (given != truth).mean()) < 0.03
    assert np.mean(overall) >= 0.88
    assert np.mean(by_class) >= 0.88
    assert np.mean(cells) >= 0.85


def test_the_matrix_is_null_where_it_says_nothing() -> None:
    labels = np.arange(200) % 20
    joint = confident_joint(labels, np.eye(20)[labels] * 0.9 + 0.005)
    matrix = noise_matrix(joint, [str(k) for k in range(20)])
    assert matrix is not None
    assert matrix["given_true"][0][1] is None
    assert matrix["given_true"][0][0].value == 1.0
    assert noise_matrix(joint, [str(k) for k in range(101)]) is None


def test_rows_without_a_confident_guess_leave_the_noise_of_a_class_unknown() -> None:
    joint = confident_joint(np.array([0, 0, 0]), np.array([[0.9, 0.1]] * 3))
    assert math.isnan(class_noise(joint, np.zeros(2, np.int64))[1].value)
    assert overall_noise(joint, 0).value == 0.0


def test_noise_is_at_most_what_the_models_disagree_with() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 5000)
    scores = generator.random((5000, 10))
    scores[np.arange(5000), labels] += 0.5  # right in most rows, and sure in none
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    joint = confident_joint(labels, probabilities)
    assert overall_noise(joint, 5000).value > 0.1
    assert overall_noise(joint, 100).value == pytest.approx(0.02)
    assert [estimate.value for estimate in class_noise(joint, np.zeros(10, np.int64))] == [0.0] * 10


def test_imbalance() -> None:
    found = imbalance(np.array([30, 10, 60]), ["a", "b", "c"])
    assert found is not None
    assert (found["largest"]["label"], found["smallest"]["n"], found["ratio"]) == ("c", 10, 6.0)
    assert 0.8 < found["entropy"] < 0.9
    even = imbalance(np.array([5, 5]), ["a", "b"])
    assert even is not None
    assert even["entropy"] == pytest.approx(1.0)
    lacking = imbalance(np.array([5, 0]), ["a", "b"])
    assert lacking is not None
    assert lacking["ratio"] is None
    assert imbalance(np.array([], dtype=np.int64), []) is None


def test_a_worse_group_is_found_and_the_others_are_not() -> None:
    generator = np.random.default_rng(0)
    site = generator.choice(["north", "south", "west"], 2000)
    hand = generator.choice(["left", "right"], 2000)
    flagged = generator.random(2000) < np.where(site == "south", 0.2, 0.05)
    lines = worse_groups({"site": site, "hand": hand}, flagged)
    assert (lines[0]["column"], lines[0]["value"]) == ("site", "south")
    assert lines[0]["p_adjusted"] < 1e-6
    assert lines[0]["noise"].low > 0.1
    assert all(line["p_adjusted"] > 0.05 for line in lines[1:])
    assert len(lines) == 5


def test_false_alarms_over_many_groups_are_rare() -> None:
    alarms = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        columns = {f"c{k}": generator.choice(list("abcdefgh"), 500) for k in range(4)}
        lines = worse_groups(columns, generator.random(500) < 0.1)
        alarms += lines[0]["p_adjusted"] < 0.05
    assert alarms <= 5


def test_groups_too_many_too_small_or_missing() -> None:
    flagged = np.zeros(100, dtype=bool)
    unique = np.array([f"v{k}" for k in range(100)])
    assert worse_groups({"x": unique}, flagged) == []
    assert worse_groups({"group": unique}, flagged) == []  # named, but each has fewer than five rows
    constant = np.full(100, "same")
    assert worse_groups({"x": constant}, flagged) == []
    some = np.where(np.arange(100) < 50, "", "a")
    assert [line["value"] for line in worse_groups({"x": some}, flagged)] == ["a"]


def test_an_unknown_group_column_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="'sight'") as error:
        worse_groups({"site": np.array(["a", "b"])}, np.zeros(2, dtype=bool), ["sight"])
    assert "site" in error.value.hint
