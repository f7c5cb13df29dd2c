"""Features of every modality: finite, as many rows as there are, and of use."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from kfloop.components.check_labels.features import MODULES, features
from kfloop.components.check_labels.features.audio import log_mel, mel_filters, sound_features
from kfloop.components.check_labels.features.graphs import graph_features
from kfloop.components.check_labels.features.image import edge_features, image_features, pixel_features
from kfloop.components.check_labels.features.nodes import node_features
from kfloop.components.check_labels.features.series import series_features
from kfloop.components.check_labels.features.table import table_features
from kfloop.components.check_labels.features.text import folded, terms
from kfloop.components.check_labels.features.vector import vector_features
from kfloop.core.sections import MODALITIES
from kfloop.errors import InputError


def test_every_modality_can_be_described() -> None:
    assert set(MODULES) == set(MODALITIES)


def test_an_unknown_modality_is_an_input_error() -> None:
    with pytest.raises(InputError, match="'smell'"):
        features(SimpleNamespace(modality="smell", digest="d"), ["train"])


@pytest.mark.parametrize("shape", [(5, 8, 8, 1), (5, 20, 20, 3), (5, 64, 64, 3), (5, 1, 1, 1)])
def test_pixels_are_bounded_in_number_and_size(shape: tuple[int, ...]) -> None:
    found = pixel_features(np.full(shape, 255, np.uint8))
    assert found.shape[0] == 5
    assert found.shape[1] <= 31 * 31 * 3
    np.testing.assert_allclose(found, 1.0)


@pytest.mark.parametrize("shape", [(3, 64, 48, 3), (3, 128, 128, 1), (3, 200, 5, 1)])
def test_large_images_have_means_and_edges(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = image_features(images)
    assert found.shape[1] <= 64 * (shape[3] + 8)
    assert np.isfinite(found).all()


def test_edges_tell_directions_apart_where_means_do_not() -> None:
    stripes = np.tile(np.arange(64) // 4 % 2 * 255, (64, 1)).astype(np.uint8)
    found = edge_features(np.stack([stripes, stripes.T])[..., None])
    assert np.abs(found[0] - found[1]).max() > 0.5


def tone(hertz: float, seconds: float = 0.5, rate: int = 8000) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


def test_sounds_are_told_apart_by_pitch_not_by_loudness() -> None:
    low, soft, high = (sound_features(samples, 8000) for samples in (tone(300), tone(300) // 4, tone(1200)))
    assert np.linalg.norm(low - soft) < 0.1 * np.linalg.norm(low - high)


@pytest.mark.parametrize(
    "samples", [np.empty(0, np.int16), np.ones(1, np.int16), np.zeros(4000, np.int16), tone(50, 3)]
)
def test_any_sound_has_finite_features_of_one_length(samples: np.ndarray) -> None:
    found = sound_features(samples, 8000)
    assert found.shape == sound_features(tone(300), 8000).shape
    assert np.isfinite(found).all()


def test_mel_bands_peak_where_the_tone_is() -> None:
    filters = mel_filters(256, 8000)
    assert filters.shape == (40, 129)
    assert log_mel(tone(300), 8000).mean(0).argmax() < log_mel(tone(1200), 8000).mean(0).argmax()


def test_texts_about_the_same_are_near() -> None:
    found = folded(
        terms(["the cat sat on the mat", "the cat sat on a mat", "stocks fell sharply today", "stocks fell today"] * 3)
    )
    assert found[0] @ found[1] > found[0] @ found[2] + 0.3
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("texts", [["", "", ""], ["!!", "??", ".."], ["one"], ["a", "b"]])
def test_texts_without_words(texts: list[str]) -> None:
    found = folded(terms(texts))
    assert len(found) == len(texts)
    assert np.isfinite(found).all()


def test_a_table_of_every_type() -> None:
    n = 200
    generator = np.random.default_rng(0)
    table = pa.table(
        {
            "whole": generator.integers(0, 9, n),
            "gap": pa.array([None if k % 4 == 0 else float(k) for k in range(n)]),
            "skewed": np.exp(generator.normal(0, 3, n)),
            "flag": generator.random(n) < 0.5,
            "few": pa.array([None if k == 0 else "ab"[k % 2] for k in range(n)]),
            "many": [f"name {k}" for k in range(n)],
            "when": pa.array(np.arange(n) * 3_600_000_000, type=pa.timestamp("us")),
            "constant": np.ones(n),
            "empty": pa.nulls(n, pa.float64()),
        }
    )
    found = table_features(table)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 10.0
    assert found.shape[0] == n
    missing = np.arange(n) % 4 == 0
    assert any(np.array_equal(column, missing) for column in found.T)
    assert (
        table_features(table.select(["constant"])).shape == (n, 1)
        or not table_features(table.select(["constant"])).any()
    )


def test_vectors_are_scaled_and_long_ones_folded() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(5, 3, (50, 4)).astype(np.float32)
    vectors[3, 2] = np.nan
    vectors[:, 1] = 7
    found = vector_features(vectors)
    assert found[3, 2] == 0
    assert not found[:, 1].any()
    np.testing.assert_allclose(found[:, 0].std(), 1.0, rtol=1e-5)
    assert vector_features(generator.normal(size=(300, 400)).astype(np.float32)).shape == (300, 128)
    assert vector_features(generator.normal(size=(20, 400)).astype(np.float32)).shape == (20, 20)
    assert vector_features(np.empty((0, 4), np.float32)).shape[0] == 0


def test_nodes_know_their_neighbours() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]], dtype=np.float32)
    edges = pa.table({"source": [10, 12, 99], "target": [11, 13, 10]})  # node 99 is not there
    names = np.array([10, 11, 12, 13, 14])
    found = node_features(vectors, names, edges)
    assert found.shape == (5, 6)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert not found[4].any()  # alone, and nothing known of it
    linked = node_features(vectors, names, pa.table({"source": [14], "target": [10]}))
    assert linked[4, 2] > 0.9
    assert node_features(vectors, names, None).shape == (5, 2)


def test_graphs_differ_by_shape() -> None:
    nodes = np.ones((4, 2))
    ring = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])
    star = np.array([[0, 1], [0, 2], [0, 3], [0, 9]])  # one edge dangles
    assert np.abs(graph_features(nodes, ring) - graph_features(nodes, star)).max() > 0.1
    lone = graph_features(np.empty((0, 2)), np.empty((0, 2), np.int64))
    assert lone.shape == graph_features(nodes, ring).shape
    assert np.isfinite(lone).all()


def test_series_features_do_not_look_ahead() -> None:
    values = np.random.default_rng(0).normal(size=(100, 2))
    whole, half = series_features(values), series_features(values[:50])
    changed = values.copy()
    changed[50:] += 100
    later = series_features(changed)
    np.testing.assert_allclose(whole[:, :2], values)
    np.testing.assert_allclose(later[:50], whole[:50], atol=1e-6)
    np.testing.assert_allclose(half, whole[:50], atol=1e-6)
    wanted = [values[max(0, k - 3) : k + 1, 0].std() for k in range(100)]
    np.testing.assert_allclose(whole[:, 6], wanted, atol=1e-6)
