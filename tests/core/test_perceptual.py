"""The perceptual hash survives what leaves a picture the same, and all near pairs are found without comparing everything."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from kfloop.core.perceptual import BITS, DIGITS, hamming, near_pairs, perceptual_hash
from kfloop.errors import InputError


def crops(size: int) -> list[tuple[np.ndarray, int, int]]:
    photos = [np.asarray(Image.fromarray(image).convert("L")) for image in load_sample_images().images]
    return [
        (photo, y, x)
        for photo in photos
        for y in range(1, photo.shape[0] - size - 1, size)
        for x in range(1, photo.shape[1] - size - 1, size)
        if photo[y : y + size, x : x + size].std() > 5
    ]


def jpeg(grey: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def random_hashes(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, BITS // 8), dtype=np.uint8)


def texts(codes: np.ndarray) -> list[str]:
    return [code.tobytes().hex() for code in codes]


def brute(hashes: list[str], distance: int) -> set[tuple[int, int]]:
    return {(i, j) for j in range(len(hashes)) for i in range(j) if hamming(hashes[i], hashes[j]) <= distance}


@pytest.mark.parametrize("quality", [50, 70, 90])
def test_a_photo_keeps_its_hash_and_others_are_far(quality: int) -> None:
    originals, copies = [], []
    for photo, y, x in crops(128):
        originals.append(perceptual_hash(photo[y : y + 128, x : x + 128]))
        copies.append(perceptual_hash(jpeg(photo[y + 1 : y + 129, x - 1 : x + 127], quality)))
    same = [hamming(first, second) for first, second in zip(originals, copies, strict=True)]
    other = [hamming(first, second) for i, first in enumerate(originals) for second in originals[:i]]
    assert np.mean(np.array(same) <= 50) == 1
    assert np.median(same) <= 30
    assert min(other) > 60


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (31, 33), (640, 480), (2, 3000)])
def test_any_size_gives_a_hash_of_one_length(shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    text = perceptual_hash(grey)
    assert len(text) == DIGITS
    assert text == perceptual_hash(np.asfortranarray(grey))


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_a_picture_of_one_brightness_has_the_hash_of_zeros(value: int) -> None:
    assert perceptual_hash(np.full((50, 70), value, dtype=np.uint8)) == "0" * DIGITS


@pytest.mark.parametrize(
    "grey", [np.zeros((0, 5), np.uint8), np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5)), np.zeros(5, np.uint8)]
)
def test_what_is_no_grey_picture_is_refused(grey: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"uint8 pixels \[H, W\]"):
        perceptual_hash(grey)


def test_hamming_counts_bits() -> None:
    assert hamming("00", "ff") == 8
    assert hamming("a1", "a1") == 0
    assert hamming("", "") == 0
    with pytest.raises(InputError, match="cannot be compared"):
        hamming("0", "00")
    with pytest.raises(InputError, match="expected hex digits"):
        hamming("0g", "00")


@pytest.mark.parametrize("distance", [0, 7, 15, 16, 31, 40, 47, 60, 100])
def test_all_pairs_are_found(distance: int) -> None:
    codes = random_hashes(300, 1)
    bits = np.unpackbits(codes[:100], axis=1)
    generator = np.random.default_rng(2)
    for row in bits:
        row[generator.choice(BITS, generator.integers(0, 64), replace=False)] ^= 1
    hashes = texts(np.concatenate([codes, np.packbits(bits, axis=1)]))
    pairs, gaps = near_pairs(hashes, distance)
    assert {(int(a), int(b)) for a, b in pairs} == brute(hashes, distance)
    assert [hamming(hashes[a], hashes[b]) for a, b in pairs] == gaps.tolist()


def test_equal_hashes_are_linked_to_the_first_only() -> None:
    hashes = texts(random_hashes(2, 3))
    pairs, gaps = near_pairs([hashes[0], hashes[1], *[hashes[0]] * 5000], 40)
    assert pairs[:, 0].tolist() == [0] * 5000
    assert pairs[:, 1].tolist() == list(range(2, 5002))
    assert not gaps.any()


def test_a_crowd_of_near_hashes_does_not_explode() -> None:
    bits = np.zeros((2000, BITS), dtype=np.uint8)
    bits[np.arange(2000), np.arange(2000) % BITS] = 1
    bits[np.arange(2000), np.arange(2000) // BITS + 100] ^= 1
    pairs, gaps = near_pairs(texts(np.packbits(bits, axis=1)), 31, most=5)
    assert len(pairs) <= 5 * 2000 + 2000
    assert gaps.max() <= 31
    assert len(np.unique(pairs, axis=0)) == len(pairs)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_hashes_have_no_pair(n: int) -> None:
    pairs, gaps = near_pairs(["0" * DIGITS] * n, 40)
    assert pairs.shape == (0, 2)
    assert gaps.shape == (0,)


@pytest.mark.parametrize("wrong", ["", "abc", "g" * DIGITS])
def test_a_wrong_hash_is_named(wrong: str) -> None:
    with pytest.raises(InputError, match="row 1, column 'phash'"):
        near_pairs(["0" * DIGITS, wrong], 40)


def test_many_hashes_are_searched_in_little_time() -> None:
    codes = random_hashes(20_000, 4)
    codes[10_000:10_100] = codes[:100]
    codes[10_000:10_100, 0] ^= 0b101
    start = time.process_time()
    pairs, gaps = near_pairs(texts(codes), 31)
    assert time.process_time() - start < 10
    assert pairs.tolist() == [[row, row + 10_000] for row in range(100)]
    assert set(gaps.tolist()) == {2}
