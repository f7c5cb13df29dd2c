"""Judging samples: formulas against independent ones, and generators with known faults."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg
from sklearn.datasets import load_digits

from kfloop.core.generation import GaussianBaseline, Judge, frechet_distance
from kfloop.core.generation.measures import clinging, covered, frechet_statistic, nearest
from kfloop.core.statistics.bootstrap import replicate
from kfloop.core.statistics.intervals import percentile
from kfloop.core.statistics.metrics import METRICS
from kfloop.errors import InputError

RESAMPLES = 200
Pictures = NDArray[np.uint8]
Labels = NDArray[np.int64]


def digits() -> tuple[Pictures, Labels]:
    pixels, labels = load_digits(return_X_y=True)
    return (pixels.reshape(-1, 8, 8, 1) / 16 * 255).round().astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="module")
def parts() -> dict[str, tuple[Pictures, Labels]]:
    images, labels = digits()
    order = np.random.default_rng(0).permutation(len(images))
    cuts = {"train": order[:900], "test": order[900:1350], "held": order[1350:]}
    return {name: (images[rows], labels[rows]) for name, rows in cuts.items()}


@pytest.fixture(scope="module")
def bench(parts: dict[str, tuple[Pictures, Labels]]) -> Judge:
    return Judge(*parts["train"], *parts["test"], n_classes=10, seed=0)


def test_frechet_distance_agrees_with_the_matrix_root() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.standard_normal((200, 6)) @ generator.standard_normal((6, 6)) for _ in range(2))
    covariances = [np.cov(rows, rowvar=False) for rows in (first, second)]
    means = [first.mean(0), second.mean(0) + 1]
    root = np.real(linalg.sqrtm(covariances[0] @ covariances[1]))
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(means[0], covariances[0], means[1], covariances[1]) == pytest.approx(expected, rel=1e-8)
    statistic = frechet_statistic((first + means[0] * 0).astype(np.float32), (second + 1).astype(np.float32))
    point = replicate({"d": statistic}, 200, resamples=1, seed=0)["d"].point
    assert point == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_of_numbers_is_that_of_means_and_deviations() -> None:
    found = frechet_distance(
        np.array([[3.0], [0.0]]), np.array([[[4.0]], [[9.0]]]), np.array([1.0]), np.array([[25.0]])
    )
    assert found == pytest.approx([(3 - 1) ** 2 + (2 - 5) ** 2, 1 + (3 - 5) ** 2])


def test_frechet_distance_of_the_same_rows_is_zero() -> None:
    rows = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    rows[:, 3] = 0.0  # a feature that never fires
    found = replicate({"d": frechet_statistic(rows, rows)}, 300, resamples=1, seed=0)["d"].point
    assert found == pytest.approx(0, abs=1e-6)


def test_neighbours_and_coverage_agree_with_all_distances() -> None:
    generator = np.random.default_rng(0)
    real, samples = (generator.standard_normal((size, 5)).astype(np.float32) for size in (90, 70))
    between = np.linalg.norm(real[:, None] - samples[None], axis=-1)
    assert nearest(real, samples, 3) == pytest.approx(np.sort(between, 1)[:, :3], abs=1e-5)
    radius = np.sort(np.linalg.norm(real[:, None] - real[None], axis=-1), 1)[:, 4]  # the first is the row itself
    assert (covered(real, samples, 4) == (between.min(1) <= radius)).all()
    assert covered(real, real, 1).all()


def test_a_copy_clings_and_a_mean_does_not() -> None:
    train = np.random.default_rng(0).standard_normal((400, 30)).astype(np.float32)
    assert clinging(train[:5] + 0.01, train, 20) == pytest.approx(0, abs=0.05)
    assert clinging(train.mean(0, keepdims=True), train, 20)[0] > 0.8  # nearer to all rows than any real row is


def test_held_out_rows_are_judged_well(bench: Judge, parts: dict[str, tuple[Pictures, Labels]]) -> None:
    found = bench.judge(*parts["held"], resamples=RESAMPLES, seed=0)
    assert tuple(found) == tuple(METRICS["generation"])
    assert found["classes"].point == 1
    assert found["coverage"].point > 0.9
    assert found["copies"].point < 0.05
    assert found["train_on_samples"].point == pytest.approx(found["train_on_real"].point, abs=0.05)
    assert found["train_on_samples"].point > 0.85
    for name, item in found.items():
        estimate = percentile(item, 0.95)
        assert estimate.known == (name != "classes"), name  # the classes are all there are
        assert name == "classes" or estimate.low <= estimate.value <= estimate.high, name


def test_test_rows_of_a_group_are_drawn_together(bench: Judge, parts: dict[str, tuple[Pictures, Labels]]) -> None:
    groups = np.arange(len(bench.test)) // 5
    alone, together = (
        bench.judge(*parts["held"], resamples=RESAMPLES, seed=0, groups=told)["train_on_samples"]
        for told in (None, np.argsort(bench.test_labels, kind="stable").argsort() // 45)
    )
    assert alone.point == together.point
    assert (alone.values != together.values).any()
    few = bench.judge(*parts["held"], resamples=RESAMPLES, seed=0, groups=groups % 4)
    assert not percentile(few["train_on_samples"], 0.95).known
    assert not percentile(few["coverage"], 0.95).known
    assert percentile(few["copies"], 0.95).known


def test_a_generator_that_memorises_is_found(bench: Judge, parts: dict[str, tuple[Pictures, Labels]]) -> None:
    images, labels = parts["held"]
    planted = images.copy()
    rows = np.arange(0, len(planted), 4)
    planted[rows] = parts["train"][0][rows]
    share = bench.judge(planted, labels, resamples=RESAMPLES, seed=0)["copies"].point
    assert share == pytest.approx(0.25, abs=0.05)
    noisy = parts["train"][0].astype(np.float32) + np.random.default_rng(0).normal(0, 3, parts["train"][0].shape)
    assert bench.judge(noisy, parts["train"][1], resamples=RESAMPLES, seed=0)["copies"].point > 0.95


def test_a_generator_that_collapsed_is_found(bench: Judge, parts: dict[str, tuple[Pictures, Labels]]) -> None:
    images, labels = parts["held"]
    first = np.array([np.flatnonzero(labels == label)[0] for label in range(10)])
    collapsed = images[first][labels]
    found = bench.judge(collapsed, labels, resamples=RESAMPLES, seed=0)
    good = bench.judge(images, labels, resamples=RESAMPLES, seed=0)
    assert found["coverage"].point < 0.3
    assert found["train_on_samples"].point < 0.8
    assert found["copies"].point < 0.2  # it repeats itself, but no training row
    worse = percentile(found["frechet_distance"] - good["frechet_distance"], 0.95)
    assert worse.low > 0


def test_classes_that_are_not_drawn_are_missed(bench: Judge, parts: dict[str, tuple[Pictures, Labels]]) -> None:
    images, labels = parts["held"]
    wrong = images.copy()
    wrong[labels >= 7] = images[labels == 0][0]
    assert bench.judge(wrong, labels, resamples=RESAMPLES, seed=0)["classes"].point == pytest.approx(0.7)


def test_the_baseline_lies_between_noise_and_real_rows(bench: Judge, parts: dict[str, tuple[Pictures, Labels]]) -> None:
    labels = parts["held"][1]
    baseline = GaussianBaseline(*parts["train"], n_classes=10)
    samples = baseline.sample(labels, seed=0)
    assert samples.shape == (len(labels), 8, 8, 1)
    assert 0 <= samples.min() <= samples.max() <= 255
    assert (samples == baseline.sample(labels, seed=0)).all()
    noise = np.random.default_rng(0).uniform(0, 255, samples.shape)
    found = [bench.judge(rows, labels, resamples=RESAMPLES, seed=0) for rows in (parts["held"][0], samples, noise)]
    distances = [item["frechet_distance"].point for item in found]
    assert distances == sorted(distances)
    assert found[1]["train_on_samples"].point > 0.7
    assert found[1]["classes"].point == 1


def test_the_same_question_gets_the_same_answer(parts: dict[str, tuple[Pictures, Labels]]) -> None:
    rows = [part[:120] for split in ("held", "train", "test") for part in parts[split]]
    first, second = (Judge(*rows[2:], n_classes=10, seed=3).judge(*rows[:2], seed=3, resamples=50) for _ in range(2))
    for name in first:
        assert first[name].point == second[name].point, name
        np.testing.assert_array_equal(first[name].values, second[name].values)


def test_samples_that_cannot_be_judged_are_refused(bench: Judge, parts: dict[str, tuple[Pictures, Labels]]) -> None:
    images, labels = parts["held"]
    with pytest.raises(InputError, match=r"shape .* 3 labels, expected \(N, 8, 8, 1\)"):
        bench.judge(images, labels[:3], resamples=10, seed=0)
    with pytest.raises(InputError, match="no finite numbers"):
        bench.judge(np.full(images.shape, np.nan), labels, resamples=10, seed=0)
    with pytest.raises(InputError, match="4 samples are too few"):
        bench.judge(images[:4], labels[:4], resamples=10, seed=0)
    with pytest.raises(InputError, match="3 training rows"):
        Judge(images[:3], labels[:3], images, labels, n_classes=10)
