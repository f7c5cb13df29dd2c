"""Duplicates: planted ones of every modality are found, different rows are left alone, counts are of pairs and never explode."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from kfloop.components.check_labels.duplicates.arrays import near_rows
from kfloop.components.check_labels.duplicates.audio import near_audio
from kfloop.components.check_labels.duplicates.images import Pictures, near_pictures
from kfloop.components.check_labels.duplicates.search import DuplicateReport, find_duplicates
from kfloop.components.check_labels.duplicates.texts import near_texts
from kfloop.core.perceptual import perceptual_hash
from kfloop.core.versions import VersionWriter, read_version
from kfloop.core.versions.assigning import Splitter
from kfloop.core.versions.keys import Hasher
from kfloop.core.versions.splitting import Cutoffs

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["cat", "dog"]


def report(
    folder: Path,
    columns: dict[str, Any],
    *,
    split: list[str],
    label: Any = None,
    modality: str = "table",
    task: str = "multiclass",
    schema: dict[str, Any] | None = None,
    near_distance: int | None = None,
    **extra: Any,
) -> DuplicateReport:
    """Write rows with official splits as a version and look for duplicates."""
    n = len(split)
    facts = [name for name in ("phash", "width", "height") if name in columns]
    if label is None and task == "multiclass":
        label = [0] * n
    plain = {"id": [str(row) for row in range(n)], "origin": ["base"] * n, "split": split} | extra
    if label is not None:
        plain["label"] = label
    table = pa.table({**plain, **columns})
    names = NAMES if task == "multilabel" else NAMES[: max(label) + 1] if task == "multiclass" else []
    inputs = [name for name in columns if name not in facts]
    hasher = Hasher(modality=modality, task=task, labels=names, schema=schema or {}, inputs=inputs, facts=facts)
    splitter = Splitter(Cutoffs(method="official", validation=0.1, test=0.1), names, "series")
    splitter.learn([(table, np.zeros(n))])
    folder.mkdir(exist_ok=True)
    writer = VersionWriter(folder, name="t", hasher=hasher, splitter=splitter)
    writer.add(table)
    writer.finish()
    return find_duplicates(read_version(folder), near_distance)


def image_columns(pictures: list[np.ndarray]) -> dict[str, Any]:
    stacked = np.stack([np.atleast_3d(picture) for picture in pictures])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(stacked.ravel()), stacked[0].size)
    grey = [np.asarray(Image.fromarray(picture).convert("L")) for picture in pictures]
    return {
        "image": flat,
        "phash": [perceptual_hash(picture) for picture in grey],
        "width": [picture.shape[1] for picture in grey],
        "height": [picture.shape[0] for picture in grey],
    }


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def crops(size: int, most: int = 200) -> list[tuple[np.ndarray, int, int]]:
    found = [
        (photo, y, x)
        for photo in load_sample_images().images
        for y in range(1, photo.shape[0] - size - 1, size)
        for x in range(1, photo.shape[1] - size - 1, size)
        if photo[y : y + size, x : x + size].mean(axis=2).std() > 5
    ]
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))[:most]]


def pair_ids(found: DuplicateReport) -> set[tuple[int, int]]:
    pairs = [(int(pair["a"]), int(pair["b"])) for pair in found.pairs]
    return {(min(pair), max(pair)) for pair in pairs}


@pytest.mark.parametrize(("size", "stored"), [(128, None), (128, 32), (64, None), (32, None)])
def test_copies_of_photos_are_found_and_other_photos_are_not(tmp_path: Path, size: int, stored: int | None) -> None:
    places = crops(size)
    originals = [photo[y : y + size, x : x + size] for photo, y, x in places]
    copies = []
    for place, (photo, y, x) in enumerate(places):
        kind = place % 3
        down, across = ((1, 0), (0, -1), (-1, 1))[place % 9 // 3] if kind else (0, 0)
        copy = photo[y + down : y + down + size, x + across : x + across + size]
        copies.append(jpeg(copy, 50 + place % 41) if kind != 1 else copy)
    columns = image_columns(originals + copies)
    shape = [size, size, 3]
    if stored:
        small = [np.asarray(Image.fromarray(picture).resize((stored, stored), 2)) for picture in originals + copies]
        columns["image"] = image_columns(small)["image"]
        shape = [stored, stored, 3]
    n = len(places)
    split = ["train"] * n + ["test"] * (n - 1) + ["validation"]
    found = report(tmp_path / "v", columns, split=split, modality="image", schema={"image_shape": shape})
    expected = {(place, place + n) for place in range(n)}
    assert len(pair_ids(found) & expected) >= 0.95 * n
    assert len(pair_ids(found) - expected) <= 0.01 * n
    assert found.leaking >= 0.95 * n
    assert found.leakage.value >= 0.95
    assert found.leakage.n == n


def test_copies_of_digits_are_found_and_other_digits_are_not(tmp_path: Path) -> None:
    digits = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    copies = []
    for place in range(300):
        copy = digits[place]
        if place % 3:
            copy = np.zeros_like(copy)
            copy[1:] = digits[place][:-1]
        copies.append(jpeg(copy, 50 + place % 41) if place % 3 != 1 else copy)
    split = ["train"] * len(digits) + ["test"] * 299 + ["validation"]
    columns = image_columns([*digits, *copies])
    found = report(tmp_path / "v", columns, split=split, modality="image", schema={"image_shape": [8, 8, 1]})
    expected = {(place, place + len(digits)) for place in range(300)}
    assert len(pair_ids(found) & expected) >= 285
    assert len(pair_ids(found) - expected) <= 5


def test_pictures_of_one_brightness_are_told_apart_by_it() -> None:
    pictures = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), 32 * 32).reshape(-1, 32, 32, 1)
    column = pa.chunked_array([pa.FixedSizeListArray.from_arrays(pa.array(pictures.ravel()), 1024)])
    facts = pa.table({"phash": ["0" * 64] * 25, "width": [200] * 25, "height": [200] * 25})
    left, _, _ = near_pictures(Pictures(column, (32, 32, 1)), np.arange(25), facts, None)
    assert len(left) == 0


def test_pieces_of_one_straight_edge_are_not_copies_of_each_other() -> None:
    # Each piece is a shade lighter than the one before: all are within what JPEG may change.
    edge = np.where(np.arange(64) < 30, 60.0, 180.0)[None, None, :, None] + np.arange(12)[:, None, None, None]
    pieces = np.broadcast_to(edge, (12, 64, 64, 1)).astype(np.uint8)
    pieces = np.concatenate([pieces, np.roll(pieces[:1], 1, axis=2)])  # one of them again, a pixel to the right
    pieces[12, :, 0] = 0
    column = pa.chunked_array([pa.FixedSizeListArray.from_arrays(pa.array(pieces.ravel()), 64 * 64)])
    facts = pa.table({"phash": pa.nulls(13, pa.string()), "width": [64] * 13, "height": [64] * 13})
    left, right, _ = near_pictures(Pictures(column, (64, 64, 1)), np.arange(13), facts, None)
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 12)]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 3), (1, 9, 1), (3, 3, 1), (300, 5, 3)])
def test_pictures_of_odd_shapes_do_no_harm(shape: tuple[int, int, int]) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (6, *shape), dtype=np.uint8)
    pictures[5] = pictures[0]
    column = pa.chunked_array([pa.FixedSizeListArray.from_arrays(pa.array(pictures.ravel()), int(np.prod(shape)))])
    facts = pa.table({"phash": pa.array([None] * 6, pa.string()), "width": [1] * 6, "height": [1] * 6})
    left, right, distance = near_pictures(Pictures(column, shape), np.arange(6), facts, None)
    assert (0, 5) in set(zip(left.tolist(), right.tolist(), strict=True))
    assert np.isfinite(distance).all()


def test_pictures_are_taken_across_chunks() -> None:
    pictures = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2, 1)
    whole = pa.FixedSizeListArray.from_arrays(pa.array(pictures.ravel()), 4)
    chunked = pa.chunked_array([whole[:2], whole[2:2], whole[2:]])
    assert np.array_equal(Pictures(chunked, (2, 2, 1)).take(np.array([4, 0, 2])), pictures[[4, 0, 2]])


def test_a_near_distance_of_zero_leaves_only_equal_hashes(tmp_path: Path) -> None:
    photo, y, x = crops(128, 1)[0]
    pictures = [photo[y : y + 128, x : x + 128], jpeg(photo[y : y + 128, x + 1 : x + 129], 50), photo[:128, :128]]
    columns = image_columns(pictures)
    small = [np.asarray(Image.fromarray(picture).rotate(180)) for picture in pictures]
    columns["image"] = image_columns([pictures[0], small[1], pictures[2]])["image"]
    found = report(
        tmp_path / "v",
        columns,
        split=["train", "test", "validation"],
        modality="image",
        schema={"image_shape": [128, 128, 3]},
        near_distance=0,
    )
    assert found.near == 0


def test_equal_rows_are_pairs_with_the_first_only(tmp_path: Path) -> None:
    n = 3000
    split = ["train"] * (n - 2) + ["test", "validation"]
    found = report(tmp_path / "v", {"x": [1.5] * n}, split=split, label=[1] + [0] * (n - 1))
    assert (found.exact, found.near) == (n - 1, 0)
    assert len(found.pairs) == 500
    assert found.coincidences == n - 1  # one value in one column: rows cannot but be equal
    assert not found.conflict.any()
    assert not found.leakage.known


def test_conflicts_come_first_then_leaks(tmp_path: Path) -> None:
    x = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 5.0]
    split = ["train", "train", "train", "test", "train", "train", "validation", "test"]
    found = report(tmp_path / "v", {"x": x}, split=split, label=[0, 0, 0, 0, 0, 1, 0, 0])
    assert [(pair["conflict"], pair["leak"]) for pair in found.pairs] == [(True, False), (False, True), (False, False)]
    assert (found.exact, found.conflicting, found.leaking) == (3, 1, 1)
    first = found.pairs[0]
    assert {first["label_a"], first["label_b"]} == {"cat", "dog"}
    assert {first["kind"], first["split_a"], first["split_b"]} == {"exact", "train"}
    assert found.leakage.n == 3
    assert found.leakage.value == pytest.approx(1 / 3)
    assert found.conflict.sum() == 2
    assert set(found.as_dict()) == {"exact", "near", "conflicting", "leaking", "coincidences", "compared", "pairs"}


def test_a_group_in_train_leaks(tmp_path: Path) -> None:
    split = ["train", "train", "test", "validation"]
    found = report(tmp_path / "v", {"x": [1.0, 2.0, 3.0, 4.0]}, split=split, group=["a", "b", "a", "c"])
    assert found.leakage.value == 0.5
    assert found.pairs == []


def test_rows_that_differ_by_rounding_case_or_spaces_are_near(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(400, 3)) * [1, 1e6, 1e-6]
    names = [f"name {row}" for row in range(400)]
    values[:50] = values[100:150] * (1 + 1e-10)
    names[:50] = [f" NAME   {row} " for row in range(100, 150)]
    columns = {"a": values[:, 0], "b": values[:, 1], "c": values[:, 2], "name": names}
    found = report(tmp_path / "v", columns, split=["test"] * 49 + ["validation"] + ["train"] * 350)
    assert pair_ids(found) == {(row, row + 100) for row in range(50)}
    assert (found.near, found.exact, found.leaking) == (50, 0, 50)


def test_rows_of_a_coarse_table_agree_by_coincidence() -> None:
    generator = np.random.default_rng(0)
    colour = generator.choice(["red", "Red", "blue"], 500)
    assert len(near_rows(pa.table({"colour": colour, "size": generator.integers(0, 3, 500)}))[0]) == 0
    dense = pa.table({"x": generator.normal(size=100_000)})
    assert len(near_rows(dense)[0]) == 0


def test_a_table_of_garbage_does_no_harm() -> None:
    table = pa.table(
        {
            "nan": [float("nan")] * 6,
            "inf": [float("inf"), 1.0, 2.0, float("-inf"), None, 3.0],
            "none": pa.array([None] * 6, pa.string()),
            "flag": [True, None, False, True, True, None],
            "equal": [7] * 6,
            "huge": [1e308, -1e308, 1e308, 0.0, 5e-324, 1.0],
        }
    )
    left, right, gaps = near_rows(table)
    assert len(left) == len(right) == len(gaps) == 0


def test_vectors_that_differ_by_rounding_are_near(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    vectors[:10] = vectors[50:60] * np.float32(1 + 1e-7) + np.float32(1e-7)
    vectors[99] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 16)
    split = ["test"] * 10 + ["validation"] * 5 + ["train"] * 185
    found = report(tmp_path / "v", {"vector": column}, split=split, modality="vector", schema={"vector_shape": [16]})
    assert pair_ids(found) == {(row, row + 50) for row in range(10)}


TEXTS = [
    "The quick brown fox jumps over the lazy dog near the river bank",
    "What is the capital of Yugoslavia and how many people live there today",
    "What is the capital of Switzerland and how many people live there today",
    "A completely different sentence about the price of copper in winter",
    "",
    "...",
]


def test_texts_that_differ_by_case_punctuation_or_a_letter_are_near(tmp_path: Path) -> None:
    near = ["the quick  brown fox; jumps over the LAZY dog, near the river bank!", TEXTS[3].replace("price", "prize")]
    split = ["train", "train", "train", "train", "validation", "train", "test", "test"]
    found = report(tmp_path / "v", {"text": TEXTS + near}, split=split, modality="text")
    assert pair_ids(found) == {(0, 6), (3, 7)}
    assert found.leakage.value == pytest.approx(2 / 3)


@pytest.mark.parametrize("texts", [["", ""], [None, "..."], ["a", "b"], ["\ufffd" * 50, "\u4e2d\u6587"]])
def test_texts_without_anything_in_common_are_not_near(texts: list[str | None]) -> None:
    assert len(near_texts(texts)[0]) == 0


def test_texts_of_one_meaning_are_linked_to_the_first() -> None:
    left, right, _ = near_texts([f"Hello there,{' ' * row}dear reader" for row in range(1, 2001)])
    assert left.tolist() == [0] * 1999
    assert sorted(right.tolist()) == list(range(1, 2000))


def clip(seed: int) -> np.ndarray:
    """Two seconds of a random melody."""
    generator = np.random.default_rng(seed)
    time = np.arange(2000) / 8000
    notes = [
        np.sin(2 * np.pi * generator.uniform(100, 2000) * time) * np.hanning(2000) * generator.uniform(0.2, 1)
        for _ in range(8)
    ]
    return np.concatenate(notes) * 9000 + generator.normal(0, 30, 16_000)


def test_the_same_recording_is_near_at_another_loudness_start_or_noise(tmp_path: Path) -> None:
    clips = [clip(seed) for seed in range(40)]
    copies = [
        clips[0] * 0.4,
        np.concatenate([np.zeros(700), clips[1]]),
        clips[2] + np.random.default_rng(0).normal(0, 150, 16_000),
        clips[3][200:],
    ]
    rounded = [np.clip(samples, -32768, 32767).astype(np.int16) for samples in clips + copies]
    column = pa.array(rounded, pa.list_(pa.int16()))
    split = ["train"] * 40 + ["test"] * 3 + ["validation"]
    found = report(tmp_path / "v", {"audio": column}, split=split, modality="audio", schema={"sample_rate": 8000})
    assert pair_ids(found) == {(row, row + 40) for row in range(4)}


def test_silent_short_and_empty_clips_do_no_harm() -> None:
    samples = [np.zeros(8000), np.zeros(9000), np.zeros(0), np.ones(3), clip(0)[:200], clip(0)]
    column = pa.chunked_array([pa.array([part.astype(np.int16) for part in samples], pa.list_(pa.int16()))])
    assert len(near_audio(column, np.arange(6), 8000)[0]) == 0


def test_regression_targets_conflict_beyond_a_tolerance(tmp_path: Path) -> None:
    x = [1.0, 1.0, 2.0, 2.0, *np.arange(3.0, 23.0)]
    y = [5.0, 5.1, 5.0, 15.0, *np.arange(20.0)]
    split = ["train"] * 22 + ["test", "validation"]
    found = report(tmp_path / "v", {"x": x}, split=split, label=y, task="regression")
    assert (found.exact, found.conflicting) == (2, 1)
    assert found.conflict.sum() == 2
    assert {found.pairs[0]["label_a"], found.pairs[0]["label_b"]} == {5.0, 15.0}


def test_label_sets_conflict_when_they_differ(tmp_path: Path) -> None:
    label = pa.array([[0, 1], [0, 1], [0], [], [1]], pa.list_(pa.int64()))
    split = ["train", "train", "train", "test", "validation"]
    found = report(tmp_path / "v", {"x": [1.0, 1.0, 1.0, 2.0, 3.0]}, split=split, label=label, task="multilabel")
    assert (found.exact, found.conflicting) == (2, 1) or (found.exact, found.conflicting) == (2, 2)
    assert found.conflict.sum() == 3
    assert ["cat"] in (found.pairs[0]["label_a"], found.pairs[0]["label_b"])


def test_a_series_repeats_without_being_a_duplicate(tmp_path: Path) -> None:
    split = ["train"] * 6 + ["validation", "test"]
    time = list(range(8))
    found = report(
        tmp_path / "v", {"x": [1.0] * 8}, split=split, modality="series", task="forecasting", time=time, group=["s"] * 8
    )
    assert (found.exact, found.near, found.pairs) == (0, 0, [])
    assert found.leakage.value == 0
    assert not found.conflict.any()


def test_nodes_are_duplicates_only_when_equal(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    vectors[1], vectors[2] = vectors[0], vectors[3] * np.float32(1 + 1e-7)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 4)
    split = ["train", "train", "train", "train", "validation", "test"]
    found = report(tmp_path / "v", {"vector": column}, split=split, modality="nodes", schema={"graph": {}})
    assert (found.exact, found.near) == (1, 0)


def test_too_many_rows_are_compared_for_equality_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"x": [1.0, 1.0, 2.0, 3.0], "name": ["a name", "A NAME", "b", "c"]}
    split = ["train", "train", "validation", "test"]
    assert report(tmp_path / "v", columns, split=split).compared == 4
    monkeypatch.setattr("kfloop.components.check_labels.duplicates.search.MOST_COMPARED", 3)
    found = report(tmp_path / "w", columns, split=split)
    assert (found.compared, found.near) == (0, 0)


def test_a_version_of_three_rows(tmp_path: Path) -> None:
    found = report(tmp_path / "v", {"x": [1.0, 2.0, 3.0]}, split=["train", "validation", "test"])
    assert (found.exact, found.near, found.conflicting, found.leaking) == (0, 0, 0, 0)
    assert found.leakage.value == 0
    assert found.conflict.tolist() == [False] * 3
