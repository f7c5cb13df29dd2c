"""Facts about image files: kfloop's decoding against cleanvision on crops of two photos, some of them blurred, dark or doubled."""

from __future__ import annotations

import io
import shutil
import tempfile
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from data_measure import Case, Work, alternate, in_child, summary, table, times, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

SIZE = 256
STEP = 8  # crops of a photo are at least this many pixels apart
PLANTED = ("blurred", "dark", "exact", "near")
DISTANCE = 40  # bits in which hashes of near pictures may differ, the default of check_labels
SHARE = 0.01  # of each of these
BLUR = 6  # pixels
DARKENED = 0.15
GOOD, BAD = "good", "bad"
OURS, THEIRS = "kfloop decode", "cleanvision, n_jobs=1"
TARGET = 1.0  # kfloop's images a CPU second, in those of cleanvision


def prepare(folder: Path, work: Work) -> dict[str, Any]:
    """Write the files: half PNG, half JPEG; the name says what was planted. The folder ``bad`` has two corrupt files more."""
    from PIL import Image, ImageFilter

    random = np.random.default_rng(0)
    total = work.options["images"]
    each = max(1, round(SHARE * total))
    crops = _crops(random, total - 2 * each)
    files: dict[str, bytes] = {}
    for place, pixels in enumerate(crops):
        image = Image.fromarray(pixels)
        word = "plain"
        if place < each:
            word, image = "blurred", image.filter(ImageFilter.GaussianBlur(BLUR))
        elif place < 2 * each:
            word, image = "dark", Image.fromarray((pixels * DARKENED).astype(np.uint8))
        kind = "png" if place % 2 else "jpg"
        data = _encoded(image, "PNG" if kind == "png" else "JPEG", 92)
        files[f"{word}-{place:04d}.{kind}"] = data
        if 2 * each <= place < 3 * each:
            files[f"exact-{place:04d}.{kind}"] = data
        elif 3 * each <= place < 4 * each:
            files[f"near-{place:04d}.jpg"] = _encoded(image, "JPEG", 60)
    for name in (GOOD, BAD):
        for label in ("a", "b"):
            (folder / name / label).mkdir(parents=True)
    for place, (name, data) in enumerate(files.items()):
        for kind in (GOOD, BAD):
            (folder / kind / "ab"[place // 2 % 2] / name).write_bytes(data)
    truncated = next(data for name, data in files.items() if name.startswith("plain") and name.endswith("jpg"))
    (folder / BAD / "a" / "truncated.jpg").write_bytes(truncated[: len(truncated) // 2])
    (folder / BAD / "b" / "text.jpg").write_text("not an image", encoding="ascii")
    return {"files": len(files), "each": each}


def _crops(random: np.random.Generator, count: int) -> list[Pixels]:
    """Different crops of scikit-learn's two photos."""
    from sklearn.datasets import load_sample_images

    places = []
    for photo in load_sample_images().images:
        steps = [range(0, photo.shape[axis] - SIZE + 1, STEP) for axis in (0, 1)]
        places += [(photo, y, x) for y in steps[0] for x in steps[1]]
    if len(places) < count:
        raise SystemExit(f"--images {count} is too many: the photos have {len(places)} different crops")
    picked = [places[place] for place in random.permutation(len(places))[:count]]
    return [photo[y : y + SIZE, x : x + SIZE] for photo, y, x in picked]


def _encoded(image: Any, kind: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": quality} if kind == "JPEG" else {}))
    return buffer.getvalue()


def kfloop(folder: Path, work: Work) -> dict[str, Any]:
    """What ingest does with each file, and the search for pairs of near hashes."""
    from kfloop.components.ingest.readers.images.decoding import UnreadableImageError, decode
    from kfloop.core.perceptual import near_pairs

    paths = sorted((folder / work.options["folder"]).rglob("*.*"))
    facts, aside = {}, {}
    decode(next(path for path in paths if path.name.startswith("plain")), 32, 3)  # the first one imports
    with work:
        for path in paths:
            try:
                facts[path.name] = decode(path, 32, 3).facts
            except UnreadableImageError as error:
                aside[path.name] = error.message
        work.part("decode")
        names = list(facts)
        pairs, _ = near_pairs([facts[name]["phash"] for name in names], DISTANCE)
        work.part("near hashes")
    count = sum(name.startswith("blurred") for name in names)
    lowest = {
        fact: sorted(names, key=lambda name, fact=fact: float(facts[name][fact]))[:count]
        for fact in ("sharpness", "mean")
    }
    found = {"blurred": lowest["sharpness"], "dark": lowest["mean"]}
    return {"n": len(names), "aside": aside} | _hits(names, found, [(names[a], names[b]) for a, b in pairs])


def kfloop_ingest(folder: Path, work: Work) -> dict[str, Any]:
    """The whole step on the folder: digest of the source, facts, small pictures, hashes, splits, files written."""
    from kfloop.components.ingest.ingestion import run
    from kfloop.core.sections import DataConfig, SplitConfig
    from kfloop.core.workspace import Workspace

    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        (place / "out").mkdir()
        workspace = Workspace(
            loop="bench", root=place, state=f"sqlite:///{place}/s.db", store=str(place / "s"), mlflow=""
        )
        config = DataConfig(source=str(folder / work.options["folder"]), split=SplitConfig(method="stratified"))
        with work:
            report = run(config, out=place / "out", workspace=workspace)
        return {"n": report.n_rows, "aside": {row["id"]: row["reason"] for row in report.quarantined}}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def cleanvision(folder: Path, work: Work) -> dict[str, Any]:
    """The default checks of cleanvision in one process."""
    from cleanvision import Imagelab

    with work:
        lab = Imagelab(data_path=str(folder / work.options["folder"]), verbose=False)
        lab.find_issues(n_jobs=1, verbose=False)
    issues = lab.issues
    found = {
        word: [Path(path).name for path in issues.index[issues[f"is_{theirs}_issue"]]]
        for word, theirs in (("blurred", "blurry"), ("dark", "dark"))
    }
    sets = [*lab.info["exact_duplicates"]["sets"], *lab.info["near_duplicates"]["sets"]]
    pairs = [(Path(a).name, Path(b).name) for group in sets for a, b in combinations(sorted(group), 2)]
    return {"n": len(issues)} | _hits([Path(path).name for path in issues.index], found, pairs)


def _hits(names: list[str], found: Mapping[str, list[str]], pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """How many of the planted files and pairs were found, and how many others were named."""

    def number(name: str) -> str:
        return name.partition("-")[2].partition(".")[0]

    hits = {}
    for word, named in found.items():
        planted = {name for name in names if name.startswith(word)}
        hits[word] = {"planted": len(planted), "found": len(planted & set(named)), "others": len(set(named) - planted)}
    other = sum(number(a) != number(b) for a, b in pairs)
    for word in ("exact", "near"):
        planted = {number(name) for name in names if name.startswith(word)}
        same = {number(a) for a, b in pairs if number(a) == number(b)}
        hits[word] = {"planted": len(planted), "found": len(planted & same)}
    return {"hits": hits, "other_pairs": other}


CASES = (
    Case(name=OURS, run=kfloop),
    Case(name="kfloop ingest, the whole step", run=kfloop_ingest),
    Case(name=THEIRS, run=cleanvision, needs="cleanvision", quiet={"TQDM_DISABLE": "1"}),
)
PREPARE = Case(name="prepare", run=prepare)


def measure(folder: Path, options: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """The sound files with repeats, and once with two corrupt ones."""
    done = in_child("images", PREPARE, folder, {"images": options["images"]})
    if "failed" in done:
        raise SystemExit(f"the images cannot be made: {done.get('stderr') or done['failed']}")
    files = list((folder / GOOD).rglob("*.*"))
    good = summary(alternate("images", CASES, folder, {"folder": GOOD}, repeats, files))
    bad = summary(alternate("images", CASES, folder, {"folder": BAD}, 1))
    speed = {row["case"]: row["found"]["n"] / row["cpu"]["median"] for row in good if "failed" not in row}
    name = "images a CPU second, kfloop decode against cleanvision"
    value = times(speed.get(OURS), speed.get(THEIRS))
    return {
        "images": len(files),
        "good": good,
        "bad": bad,
        "images_per_cpu_second": speed,
        "targets": [verdict(name, value, TARGET, at_most=False, unit="times as many")],
    }


def text(result: Mapping[str, Any]) -> str:
    """The tables for people."""
    speed = result["images_per_cpu_second"]
    extra: dict[str, Any] = {"images per CPU s": lambda row: f"{speed[row['case']]:.0f}"}
    for word in PLANTED:
        extra[word] = lambda row, word=word: _hit(row["found"].get("hits", {}).get(word))
    extra["other pairs"] = lambda row: str(row["found"].get("other_pairs", "-"))
    lines = ["With a truncated JPEG and a text file among them:"]
    for row in result["bad"]:
        if "failed" in row:
            lines.append(f"- {row['case']}: {row['failed']}")
        else:
            aside = ", ".join(f"{name}: {reason}" for name, reason in row["found"].get("aside", {}).items())
            lines.append(f"- {row['case']}: {row['found']['n']} images; set aside: {aside or 'nothing'}")
    notes = (
        "Found of the planted ones. kfloop decode: the lowest sharpness and mean, as many as were planted; pairs whose hashes differ in at most "
        f"{DISTANCE} bits, which check_labels then compares by pixels. cleanvision: what it flags."
    )
    title = f"### Images: {result['images']:,} files of {SIZE} x {SIZE}"
    return f"{title}\n\n{table(result['good'], extra)}\n\n{notes}\n\n" + "\n".join(lines)


def _hit(hit: Mapping[str, int] | None) -> str:
    if hit is None:
        return "-"
    others = f" (+{hit['others']} others)" if hit.get("others") else ""
    return f"{hit['found']}/{hit['planted']}{others}"
