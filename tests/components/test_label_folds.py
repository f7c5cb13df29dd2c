"""Cross-fitting: groups and copies stay together, strata are level, a row is judged by models that never saw it."""

from __future__ import annotations

import numpy as np
import pytest

from kfloop.components.check_labels import probabilities as module
from kfloop.components.check_labels.folds import clusters, fold_of_rows
from kfloop.components.check_labels.learners import StandIn
from kfloop.components.check_labels.probabilities import cross_fit, folds_for
from kfloop.components.check_labels.targets import predict_numbers


def test_clusters_join_what_shares_a_group_or_a_content() -> None:
    group = np.array([0, 0, 1, -1, -1, 2])
    content = np.array([5, 6, 6, 7, 7, 8])
    found = clusters(6, group, content)
    assert found[0] == found[1] == found[2]
    assert found[3] == found[4]
    assert len(set(found.tolist())) == 3
    assert len(set(clusters(4, None).tolist())) == 4
    assert len(set(clusters(4, np.full(4, -1)).tolist())) == 4


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_clusters_whole_and_strata_level(seed: int) -> None:
    generator = np.random.default_rng(seed)
    strata = generator.choice(4, 600, p=[0.6, 0.3, 0.08, 0.02])
    cluster = np.where(np.arange(600) < 200, generator.integers(0, 40, 600), np.arange(600) + 1000)
    fold = fold_of_rows(strata, cluster, folds=5, seed=seed)
    assert set(fold.tolist()) == set(range(5))
    for value in np.unique(cluster):
        assert len(set(fold[cluster == value].tolist())) == 1
    for kind in range(4):
        counts = np.bincount(fold[strata == kind], minlength=5)
        assert counts.max() - counts.min() <= 2 + (strata == kind).sum() // 10
    np.testing.assert_array_equal(fold, fold_of_rows(strata, cluster, folds=5, seed=seed))


def test_single_rows_are_shared_out_evenly() -> None:
    strata = np.array([0] * 11 + [1] * 3 + [2])
    fold = fold_of_rows(strata, np.arange(15), folds=5, seed=0)
    assert sorted(np.bincount(fold[:11], minlength=5).tolist()) == [2, 2, 2, 2, 3]
    assert len(set(fold[11:14].tolist())) == 3


def test_folds_of_few_rows() -> None:
    assert folds_for(1000, 5) == 5
    assert folds_for(3, 5) == 3
    assert folds_for(1, 5) == 2
    assert fold_of_rows(np.empty(0, np.int64), np.empty(0, np.int64), folds=2, seed=0).shape == (0,)


class Remembering:
    """Says of each row what the fit rows with the same feature say; notes what it was shown."""

    name = "a memory"

    def __init__(self, features: np.ndarray, labels: np.ndarray, classes: int) -> None:
        self.features, self.labels, self.classes = features, labels, classes
        self.calls: list[tuple[np.ndarray, np.ndarray, bool]] = []

    def __call__(self, fit: np.ndarray, held: np.ndarray, *, clean: bool) -> np.ndarray:
        self.calls.append((fit, held, clean))
        result = np.full((len(held), self.classes), 1e-3)
        for place, row in enumerate(held):
            same = fit[self.features[fit] == self.features[row]]
            result[place] += np.bincount(self.labels[same], minlength=self.classes)
        return result / result.sum(axis=1, keepdims=True)


def test_no_row_is_judged_by_a_model_that_saw_its_cluster() -> None:
    generator = np.random.default_rng(0)
    labels, cluster = generator.integers(0, 3, 90), np.repeat(np.arange(30), 3)
    learner = Remembering(cluster, labels, 3)
    found = cross_fit(learner, labels, 3, fold_of_rows(labels, cluster, folds=5, seed=1))
    assert [clean for _, _, clean in learner.calls] == [False] * 5 + [True] * 5
    for fit, held, _ in learner.calls:
        assert not set(cluster[fit].tolist()) & set(cluster[held].tolist())
    np.testing.assert_allclose(found.probabilities, 1 / 3)  # so its memory is of no use


def test_the_second_round_learns_without_what_the_first_flagged() -> None:
    labels = np.arange(100) % 2
    truth = labels.copy()
    labels[[0, 1]] = 1 - labels[[0, 1]]
    learner = Remembering(truth, labels, 2)
    cross_fit(learner, labels, 2, fold_of_rows(labels, np.arange(100), folds=4, seed=0))
    for fit, _, clean in learner.calls:
        assert not clean or not set(fit.tolist()) & {0, 1}
    assert any({0} & set(fit.tolist()) for fit, _, clean in learner.calls if not clean)


def test_a_class_in_one_cluster_cannot_be_checked() -> None:
    labels = np.array([0, 1] * 20 + [2] + [3, 3])
    cluster = np.concatenate([np.arange(41), [100, 100]])
    features = np.random.default_rng(0).normal(size=(43, 2)) + labels[:, None]
    fold = fold_of_rows(labels, cluster, folds=5, seed=0)
    found = cross_fit(StandIn(features, labels, 4, modality="vector", seed=0), labels, 4, fold)
    assert np.flatnonzero(~found.checked).tolist() == [40, 41, 42]
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0)
    assert found.probabilities[40, 2] == 0


def test_large_sets_are_learned_from_a_sample_and_judged_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 300)
    monkeypatch.setattr(module, "SAMPLE", 100)
    labels = np.arange(400) % 2
    learner = Remembering(labels, labels, 2)
    order = np.random.default_rng(0).permutation(400)
    fold = fold_of_rows(labels, np.arange(400), folds=5, seed=0)
    found = cross_fit(learner, labels, 2, fold, order=order)
    assert all(set(fit.tolist()) <= set(order[:100].tolist()) for fit, _, _ in learner.calls)
    assert (found.probabilities.argmax(axis=1) == labels).all()


@pytest.mark.parametrize("modality", ["image", "table"])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_stand_ins_take_any_number_of_classes(modality: str, classes: int) -> None:
    labels = np.arange(60) % classes
    features = np.random.default_rng(0).normal(size=(60, 3)) + 3 * labels[:, None]
    learner = StandIn(features, labels, classes, modality=modality, seed=0)
    result = learner(np.arange(40), np.arange(40, 60), clean=False)
    np.testing.assert_allclose(result.sum(axis=1), 1.0)
    assert (result.argmax(axis=1) == labels[40:]).mean() > 0.8


def test_sparse_terms_are_learned_from_as_they_are() -> None:
    from scipy.sparse import csr_matrix

    labels = np.arange(60) % 2
    learner = StandIn(csr_matrix(np.eye(2)[labels]), labels, 2, modality="text", seed=0)
    assert (learner(np.arange(40), np.arange(40, 60), clean=True).argmax(axis=1) == labels[40:]).all()


def test_large_sets_have_a_linear_stand_in() -> None:
    learner = StandIn(np.zeros((7000, 2)), np.zeros(7000, np.int64), 2, modality="image", seed=0)
    assert "neighbours" not in learner.name


def test_numbers_are_predicted_out_of_sample() -> None:
    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(300, 4)), generator.normal(size=300)
    fold = fold_of_rows(np.zeros(300, np.int64), np.arange(300), folds=5, seed=0)
    predicted = predict_numbers(features, targets, fold, order=np.arange(300), seed=0)
    assert abs(np.corrcoef(predicted, targets)[0, 1]) < 0.2  # a model that saw its rows would remember them
    line = predict_numbers(features, features @ [1.0, 2, 0, 0], fold, order=np.arange(300), seed=0)
    assert np.corrcoef(line, features @ [1.0, 2, 0, 0])[0, 1] > 0.95


@pytest.mark.parametrize("seed", range(8))
def test_one_row_beside_folds_that_clusters_filled_unevenly(seed: int) -> None:
    """Groups of all sizes and few single rows: folds stay within their number, and groups whole."""
    random = np.random.default_rng(seed)
    cluster = np.sort(random.geometric(0.01, 400))
    strata = random.integers(0, 2, 400)
    fold = fold_of_rows(strata, cluster, folds=5, seed=seed)
    assert fold.min() == 0
    assert fold.max() == 4
    assert all(len(set(fold[cluster == name].tolist())) == 1 for name in np.unique(cluster))
