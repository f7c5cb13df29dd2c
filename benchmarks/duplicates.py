"""Leaked near duplicates: how many planted ones are found, how many reported pairs are false, and how fast.

Photos are cut into crops that do not overlap. Half of the crops get a copy in the test split, saved again as JPEG (quality 50 to 90), shifted by one
pixel, or both. Every reported near pair that is not a crop and its copy is false. Digits, and Fashion-MNIST where its
folder is given, get copies in the same way; they hold real near duplicates, so what is found without any copy is printed beside.

Without ``--photos``, the photos are those that come with scikit-learn and matplotlib; thresholds were tuned with these.

    python benchmarks/duplicates.py [--photos FOLDER] [--fashion-mnist FOLDER] [--seeds 3]
"""

from __future__ import annotations

import argparse
import gzip
import io
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kfloop.components.check_labels.duplicates.search import duplicate_pairs
from kfloop.core.perceptual import perceptual_hash
from kfloop.core.statistics.estimate import wilson
from kfloop.core.versions import VersionWriter, read_version
from kfloop.core.versions.assigning import Splitter
from kfloop.core.versions.keys import Hasher
from kfloop.core.versions.splitting import Cutoffs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

KINDS = ("jpeg", "shift", "both")
MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
SCALES = (1.0, 0.7, 1.5)
SIZES = (
    (224, None),
    (128, None),
    (224, 64),
    (128, 32),
    (64, None),
    (32, None),
)  # of the crop, and of what the version keeps
LARGEST_SIDE = 1000
FLAT = (
    5.0  # standard deviation of brightness, of 255: a crop of less is bare sky or wall, and like any other of its kind
)
FACTS = ("phash", "width", "height")


@dataclass(frozen=True)
class Case:
    """Pictures with copies: a copy at place i has the source ``source[i]`` and the kind ``kind[i]``; originals have the kind ''."""

    originals: list[Pixels]
    source: list[int]
    kind: list[str]


def encoded(picture: Pixels, quality: int) -> Pixels:
    """Return the picture after it was saved as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def moved(picture: Pixels, move: tuple[int, int]) -> Pixels:
    """Return the picture shifted by a pixel, the edge repeated as a viewer would not see it: black."""
    y, x = move
    height, width = picture.shape[:2]
    out = np.zeros_like(picture)
    out[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)] = picture[
        max(-y, 0) : height + min(-y, 0), max(-x, 0) : width + min(-x, 0)
    ]
    return out


def packaged_photos() -> list[Pixels]:
    """Return scikit-learn's two photos and matplotlib's portrait: thresholds were tuned with crops of them."""
    import matplotlib as mpl
    from sklearn.datasets import load_sample_images

    portrait = Path(mpl.__file__).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    return [*load_sample_images().images, np.asarray(Image.open(portrait).convert("RGB"))]


def photos_in(folder: Path) -> list[Pixels]:
    """Return the pictures of a folder, none larger than 1000 pixels a side."""
    pictures = [
        Image.open(path).convert("RGB") for path in sorted(folder.iterdir()) if path.suffix in {".png", ".jpg", ".webp"}
    ]
    for picture in pictures:
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return [np.asarray(picture) for picture in pictures]


def crops(pictures: Sequence[Pixels], size: int) -> list[tuple[Pixels, int, int]]:
    """Return (photo, y, x) of crops that do not overlap, with a pixel around each, at several scales of each photo."""
    found = []
    for picture in pictures:
        for scale in SCALES:
            shape = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
            scaled = np.asarray(Image.fromarray(picture).resize(shape, Image.Resampling.LANCZOS))
            for y in range(1, scaled.shape[0] - size - 1, size):
                found.extend(
                    (scaled, y, x)
                    for x in range(1, scaled.shape[1] - size - 1, size)
                    if scaled[y : y + size, x : x + size].mean(axis=2).std() > FLAT
                )
    return found


def photo_case(pictures: Sequence[Pixels], size: int, most: int, seed: int) -> Case:
    """Plant copies of half of the crops."""
    generator = np.random.default_rng(seed)
    places = crops(pictures, size)
    chosen = generator.permutation(len(places))[:most]
    originals = [places[place][0][y : y + size, x : x + size] for place in chosen for _, y, x in [places[place]]]
    source, kind = list(range(len(originals))), [""] * len(originals)
    for place in range(0, len(chosen), 2):
        scaled, y, x = places[chosen[place]]
        what = KINDS[generator.integers(3)]
        down, across = MOVES[generator.integers(len(MOVES))] if what != "jpeg" else (0, 0)
        copy = scaled[y + down : y + down + size, x + across : x + across + size]
        originals.append(encoded(copy, int(generator.integers(50, 91))) if what != "shift" else copy)
        source.append(place)
        kind.append(what)
    return Case(originals, source, kind)


def small_case(pictures: Pixels, seed: int, share: float = 0.5) -> Case:
    """Plant copies of a share of small grey pictures [N, H, W]; the edge that moves in is black."""
    generator = np.random.default_rng(seed)
    originals, source, kind = list(pictures), list(range(len(pictures))), [""] * len(pictures)
    for place in generator.permutation(len(pictures))[: round(share * len(pictures))]:
        what = KINDS[generator.integers(3)]
        copy = moved(pictures[place], MOVES[generator.integers(len(MOVES))]) if what != "jpeg" else pictures[place]
        originals.append(encoded(copy, int(generator.integers(50, 91))) if what != "shift" else copy)
        source.append(int(place))
        kind.append(what)
    return Case(originals, source, kind)


def write(folder: Path, case: Case, stored: int | None) -> None:
    """Write the case as a version as ingest would: facts from the originals, pixels scaled to ``stored``."""
    import pyarrow as pa

    pixels = [np.atleast_3d(picture) for picture in case.originals]
    grey = [np.asarray(Image.fromarray(picture).convert("L")) for picture in case.originals]
    heights, widths = zip(*(picture.shape[:2] for picture in pixels), strict=True)
    if stored is not None:
        resized = [
            Image.fromarray(picture).resize((stored, stored), Image.Resampling.BILINEAR) for picture in case.originals
        ]
        pixels = [np.asarray(picture).reshape(stored, stored, -1) for picture in resized]
    shape = list(pixels[0].shape)
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.stack(pixels).ravel()), int(np.prod(shape)))
    n = len(pixels)
    # A third of the pictures without a copy is tested too, so that false pairs may leak.
    split = ["test" if kind or place % 3 == 1 else "train" for place, kind in enumerate(case.kind)]
    split[-1] = "validation"
    table = pa.table(
        {
            "id": [str(place) for place in range(n)],
            "image": column,
            "label": np.zeros(n, dtype=np.int64),
            "origin": ["base"] * n,
            "split": split,
            "phash": [perceptual_hash(np.ascontiguousarray(picture)) for picture in grey],
            "width": pa.array(widths, pa.int64()),
            "height": pa.array(heights, pa.int64()),
        }
    )
    hasher = Hasher(
        modality="image", task="multiclass", labels=["x"], schema={"image_shape": shape}, inputs=["image"], facts=FACTS
    )
    writer = VersionWriter(
        folder,
        name="x",
        hasher=hasher,
        splitter=Splitter(Cutoffs(method="official", validation=0.1, test=0.1), ["x"], "image"),
    )
    writer.splitter.learn([(table, np.zeros(n))])
    writer.add(table)
    writer.finish()


def pairs_of(case: Case, stored: int | None) -> tuple[set[tuple[int, int]], set[tuple[int, int]], float]:
    """Return near and exact pairs as places in the case, and the CPU seconds of the search."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), case, stored)
        version = read_version(Path(folder))
        start = time.process_time()
        found = duplicate_pairs(version, None)
        seconds = time.process_time() - start
        ids = [int(text) for split in version.splits for text in version.table(split, ["id"])["id"].to_pylist()]
    pairs = [(min(ids[a], ids[b]), max(ids[a], ids[b])) for a, b in found.rows]
    return (
        {pair for pair, near in zip(pairs, found.near, strict=True) if near},
        {pair for pair, near in zip(pairs, found.near, strict=True) if not near},
        seconds,
    )


def clean(case: Case) -> Case:
    """Return the case without its copies."""
    kept = [place for place, kind in enumerate(case.kind) if not kind]
    return Case([case.originals[place] for place in kept], [case.source[place] for place in kept], [""] * len(kept))


def row(name: str, cases: Sequence[Case], stored: int | None, *, real: bool) -> None:
    """Print one line: shares over all cases."""
    hits = dict.fromkeys(KINDS, 0)
    planted = dict.fromkeys(KINDS, 0)
    wrong = reported = other = pictures = 0
    seconds = 0.0
    for case in cases:
        natural = pairs_of(clean(case), stored)[0] if real else set()
        near, exact, spent = pairs_of(case, stored)
        seconds += spent
        pictures += len(case.originals)
        other += len(natural)
        for place, kind in enumerate(case.kind):
            if kind:
                planted[kind] += 1
                hits[kind] += (case.source[place], place) in near | exact
        # Where two originals are near by nature, so are their copies.
        known = {(case.source[a], case.source[b]) for a, b in natural}
        for a, b in near:
            sources = (min(case.source[a], case.source[b]), max(case.source[a], case.source[b]))
            if sources not in known:
                reported += 1
                wrong += sources[0] != sources[1]
    found = wilson(sum(hits.values()), sum(planted.values()))
    false = wilson(wrong, reported)
    kinds = "  ".join(f"{kind} {hits[kind] / max(planted[kind], 1):.3f}" for kind in KINDS)
    print(
        f"{name:24} {pictures:7,d} pictures  found {found.value:.4f} [{found.low:.4f}, {found.high:.4f}]  ({kinds})  "
        f"false {wrong}/{reported} = {false.value:.4f} [{false.low:.4f}, {false.high:.4f}]  "
        f"{'without copies ' + str(other) + ' pairs  ' if real else ''}{pictures / seconds:,.0f} pictures/CPU s",
        flush=True,
    )


def main(arguments: Sequence[str]) -> None:
    """Print one line for each kind of picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photos", type=Path, help="folder of photos to use instead of those of scikit-learn and matplotlib"
    )
    parser.add_argument("--fashion-mnist", type=Path, help="folder with train-images-idx3-ubyte.gz")
    parser.add_argument("--fashion-rows", type=int, default=20_000)
    parser.add_argument("--crops", type=int, default=2000, help="most crops of a seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=("photos", "small"), help="leave out the others")
    options = parser.parse_args(arguments)
    if options.only != "small":
        of_photos(options.photos, options.crops, options.seeds)
    if options.only != "photos":
        of_small_pictures(options.fashion_mnist, options.fashion_rows, options.seeds)


def of_photos(folder: Path | None, most: int, seeds: int) -> None:
    """Print one line for each size of crops, and the speed of the hash."""
    pictures = photos_in(folder) if folder else packaged_photos()
    print(f"photos: {len(pictures)} of {folder or 'scikit-learn and matplotlib, which thresholds were tuned with'}")
    grey = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    start = time.process_time()
    for _ in range(1000):
        perceptual_hash(grey)
    print(f"perceptual hash: {1000 / (time.process_time() - start):,.0f} pictures of 256 x 256 a CPU second")
    for size, stored in SIZES:
        cases = [photo_case(pictures, size, most, seed) for seed in range(seeds)]
        row(f"photos {size} px" + (f" kept at {stored}" if stored else ""), cases, stored, real=False)


def of_small_pictures(fashion_mnist: Path | None, rows: int, seeds: int) -> None:
    """Print one line for noise, for digits, and for Fashion-MNIST where it is."""
    from sklearn.datasets import load_digits

    noise = np.random.default_rng(0).integers(0, 256, (6000, 28, 28), dtype=np.uint8)
    row("noise 28 px", [small_case(noise, 0, share=0.1)], None, real=False)
    digits = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    row("digits 8 px", [small_case(digits, seed) for seed in range(seeds)], None, real=True)
    if fashion_mnist:
        files = [fashion_mnist / f"{part}-images-idx3-ubyte.gz" for part in ("train", "t10k")]
        raw = [np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=16) for file in files]
        fashion = np.concatenate(raw).reshape(-1, 28, 28)[:rows]
        row("fashion-mnist 28 px", [small_case(fashion, 0, share=0.1)], None, real=True)


if __name__ == "__main__":
    main(sys.argv[1:])
