"""Augmentation: changed a little, the same for the same seed, never in place, and only where it makes sense."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kfloop.components.train.augment import audio, augment_for, edges, image, series, table, text
from kfloop.core.encoding.bare.tokens import PADDING, UNKNOWN
from kfloop.core.families import NetworkSpec
from kfloop.core.signature import Port
from kfloop.errors import ConfigError

Inputs = tuple[NDArray[Any], ...]


def spec(modality: str, objective: str = "classification", facts: dict[str, Any] | None = None) -> NetworkSpec:
    inputs = (Port(name="node", dtype="float32", shape=(4,)), Port(name="edges", dtype="int64", shape=(2, -1)))
    return NetworkSpec(
        family="cnn",
        objective=objective,
        modality=modality,
        inputs=inputs,
        labels=("a", "b"),
        facts=facts or {"std": [1.0, 2.0]},
    )


def batches() -> dict[str, Inputs]:
    random = np.random.default_rng(0)
    tokens = random.integers(2, 90, size=(6, 20))
    tokens[:, 15:] = PADDING
    ring = np.arange(50)
    ends = np.stack([ring, (ring + 1) % 50])
    return {
        "image": (random.integers(0, 256, size=(9, 28, 28, 3), dtype=np.uint8),),
        "audio": (random.normal(scale=3000, size=(5, 400)).astype(np.int16),),
        "text": (tokens, random.integers(1, 9, size=(6, 20, 3))),
        "series": (random.normal(size=(7, 30, 2)).astype(np.float32),),
        "table": (random.normal(size=(40, 5)).astype(np.float32), random.integers(0, 4, size=(40, 3))),
        "nodes": (random.normal(size=(50, 4)).astype(np.float32), np.concatenate([ends, ends[::-1]], axis=1)),
    }


@pytest.mark.parametrize("modality", sorted(batches()))
def test_a_seed_decides_shapes_stay_and_nothing_is_changed_in_place(modality: str) -> None:
    inputs = batches()[modality]
    augment = augment_for(spec(modality))
    first, again, other = (augment(inputs, np.random.default_rng([seed, 3])) for seed in (1, 1, 2))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))
    for new, old, untouched in zip(first, inputs, batches()[modality], strict=True):
        assert new.dtype == old.dtype
        assert new.ndim == old.ndim
        assert new.shape == old.shape or modality == "nodes"
        assert new.flags.c_contiguous
        assert np.array_equal(old, untouched)


def test_images_move_by_one_pixel_when_small_and_a_tenth_when_large() -> None:
    assert image.largest_shift(8, 8) == image.largest_shift(16, 40) == 1
    assert image.largest_shift(28, 28) == 3
    spot = np.zeros((200, 9, 9, 1), np.uint8)
    spot[:, 4, 4] = 255
    places = np.argwhere(image.shifted(spot, np.random.default_rng(0))[..., 0])[:, 1:] - 4
    assert {tuple(place) for place in places.tolist()} == {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)}


def test_edges_of_a_moved_image_are_repeated() -> None:
    ramp = np.arange(8, dtype=np.uint8)[None, :, None, None].repeat(50, 0).repeat(8, 2)
    rows = {tuple(one[:, 0, 0].tolist()) for one in image.shifted(ramp, np.random.default_rng(0))}
    assert rows == {(0, 0, 1, 2, 3, 4, 5, 6), tuple(range(8)), (1, 2, 3, 4, 5, 6, 7, 7)}


def test_a_quarter_of_the_images_lose_a_rectangle_of_at_most_a_sixth() -> None:
    images = np.zeros((2000, 20, 20, 1), np.uint8)
    images[..., ::2, :] = 200
    before = images.copy()
    image.erase(images, np.random.default_rng(0))
    share = (images != before).mean(axis=(1, 2, 3))
    assert (share > 0).mean() == pytest.approx(image.ERASED, abs=0.04)
    assert share.max() <= image.LARGEST_SIDE**2 + 1e-9


def test_images_are_mirrored_only_when_asked() -> None:
    left = np.zeros((100, 8, 8, 1), np.uint8)
    left[:, :, :3] = 255
    for flip, expected in ((False, 0), (True, 50)):
        found = augment_for(spec("image"), flip=flip)((left,), np.random.default_rng(0))[0]
        right = (found[:, :, 5:].mean(axis=(1, 2, 3)) > found[:, :, :3].mean(axis=(1, 2, 3))).sum()
        assert right == pytest.approx(expected, abs=15 if flip else 0)


def test_generators_see_mirrored_images_and_nothing_else() -> None:
    with pytest.raises(ConfigError, match="shifted and erased"):
        augment_for(spec("image", "generation"))
    images = batches()["image"][0]
    found = augment_for(spec("image", "generation"), flip=True)((images,), np.random.default_rng(0))[0]
    kept = [np.array_equal(new, old) for new, old in zip(found, images, strict=True)]
    assert all(keep or np.array_equal(new, old[:, ::-1]) for keep, new, old in zip(kept, found, images, strict=True))
    assert 0 < sum(kept) < len(kept)


def test_mirroring_anything_but_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="augment_flip mirrors images, but this loop has text data"):
        augment_for(spec("text"), flip=True)


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(ConfigError, match="smell"):
        augment_for(spec("smell"))


def test_sounds_keep_their_shape_up_to_gain_and_shift() -> None:
    time = np.arange(4000)
    wave = (8000 * np.sin(time / 20)).astype(np.int16)[None].repeat(8, 0)
    found = audio.changed((wave,), np.random.default_rng(0))[0].astype(float)
    loud = np.abs(found).max(axis=1) / 8000
    assert ((loud > 0.48) & (loud < 2.1)).all()
    assert loud.std() > 0.1
    for one in found:
        likeness = np.correlate(one, wave[0].astype(float), mode="full")
        assert abs(int(likeness.argmax()) - 3999) <= 400 + 63
    silent = audio.changed((np.zeros((2, 50), np.int16),), np.random.default_rng(0))[0]
    assert not silent.any()


def test_loud_sounds_do_not_wrap_around() -> None:
    wave = np.full((50, 100), 32000, np.int16)
    assert (audio.changed((wave,), np.random.default_rng(0))[0] > -2000).all()  # a wrapped one would be near -30000


def test_a_tenth_of_the_words_is_hidden_with_their_parts() -> None:
    tokens = np.full((300, 12), 7)
    tokens[:, 10:] = PADDING
    tokens[0, 1:] = PADDING  # a text of one word keeps it
    parts = np.full((300, 12, 2), 5)
    found, found_parts = text.without_words((tokens, parts), np.random.default_rng(0))
    hidden = found == UNKNOWN
    assert hidden[:, :10].mean() == pytest.approx(text.HIDDEN, abs=0.02)
    assert np.array_equal(found == PADDING, tokens == PADDING)
    assert ((found_parts == 0).all(-1) == hidden).all()
    assert found[0, 0] == 7


def test_forecasts_get_noise_but_no_other_scale() -> None:
    windows = np.full((64, 20, 2), 10.0, np.float32)
    windows[..., 1] = 100.0
    still = series.Series([1.0, 10.0], scaled=False)((windows,), np.random.default_rng(0))[0]
    assert (still - windows).std(axis=(0, 1)) == pytest.approx([series.JITTER, 10 * series.JITTER], rel=0.1)
    scaled = series.Series([1.0, 10.0], scaled=True)((windows,), np.random.default_rng(0))[0]
    assert scaled.mean(axis=1).std(axis=0) == pytest.approx([10 * series.SCALE, 100 * series.SCALE], rel=0.35)
    forecasting = augment_for(spec("series", "forecasting"))
    assert isinstance(forecasting, series.Series)
    assert not forecasting.scaled


def test_swapped_cells_come_from_the_same_column() -> None:
    values = np.arange(500.0)[:, None] + 1000.0 * np.arange(6)
    found = table.swapped((values,), np.random.default_rng(0))[0]
    assert (found // 1000 == np.arange(6)).all()
    assert (found != values).mean() == pytest.approx(table.SWAPPED, abs=0.02)
    one = (values[:1],)
    assert np.array_equal(table.swapped(one, np.random.default_rng(0))[0], one[0])


def test_both_directions_of_an_edge_go_together() -> None:
    source, target = np.random.default_rng(5).integers(0, 400, size=(2, 3000))
    ends = np.stack([np.concatenate([source, target]), np.concatenate([target, source])])
    nodes = np.zeros((400, 4), np.float32)
    found = edges.EdgesDropped(1)((nodes, ends), np.random.default_rng(0))[1]
    kept = {tuple(pair) for pair in found.T.tolist()}
    assert all((target, source) in kept for source, target in kept)
    assert 1 - found.shape[1] / ends.shape[1] == pytest.approx(edges.DROPPED, abs=0.02)
    none = edges.EdgesDropped(1)((nodes, ends[:, :0]), np.random.default_rng(0))[1]
    assert none.shape == (2, 0)
