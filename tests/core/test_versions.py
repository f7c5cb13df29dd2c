"""Dataset versions: digests, splits, reading back, damage."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kfloop.core.versions import SPLITS, Rows, content_hash, read_version, split_of, verify_version, write_version
from kfloop.errors import InputError, StateError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def make_rows(n: int = 240, seed: int = 0) -> Rows:
    images = np.random.default_rng(seed).integers(0, 256, (n, 6, 5, 1), dtype=np.uint8)
    return Rows(ids=[f"r{i}" for i in range(n)], images=images, labels=np.arange(n) % 3, origin=["base"] * n)


def write(folder: Path, rows: Rows) -> dict[str, Any]:
    folder.mkdir(parents=True)
    return write_version(folder, name="t", rows=rows, labels=["a", "b", "c"], validation=0.15, test=0.25)


def reordered(rows: Rows, order: np.ndarray) -> Rows:
    return Rows(
        ids=[rows.ids[i] for i in order],
        images=rows.images[order],
        labels=rows.labels[order],
        origin=[rows.origin[i] for i in order],
    )


def test_a_version_reads_back_what_was_written(tmp_path: Path) -> None:
    rows = make_rows()
    card = write(tmp_path / "v", rows)
    version = verify_version(tmp_path / "v")
    assert version.digest == card["digest"]
    assert version.image_shape == (6, 5, 1)
    assert version.labels == ["a", "b", "c"]
    where = {name: row for row, name in enumerate(rows.ids)}
    seen = 0
    for name in SPLITS:
        part = version.split(name)
        seen += len(part)
        for row, identity in enumerate(part.ids):
            source = where[str(identity)]
            np.testing.assert_array_equal(part.images[row], rows.images[source])
            assert part.labels[row] == rows.labels[source]
            assert part.content[row] == content_hash(rows.images[source])
            assert split_of(str(part.content[row]), 0.15, 0.25) == name
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int64
    assert seen == len(rows.ids) == card["n_rows"]


def test_datasets_opens_a_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    card = write(tmp_path / "v", make_rows())
    opened = datasets.Dataset.from_file(str(tmp_path / "v" / "train.arrow"))
    assert opened.column_names == ["id", "image", "label", "origin", "content"]
    assert len(opened) == card["splits"]["train"]


def test_reading_does_not_import_datasets(tmp_path: Path) -> None:
    write(tmp_path / "v", make_rows())
    code = (
        "import sys; from pathlib import Path; from kfloop.core.versions import read_version; "
        "read_version(Path(sys.argv[1])).split('test'); "
        "assert not {'datasets', 'torch'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "v")], check=True, timeout=60)


def test_the_digest_ignores_order_ids_and_place(tmp_path: Path) -> None:
    rows = make_rows()
    mixed = reordered(rows, np.random.default_rng(1).permutation(len(rows.ids)))
    renamed = replace(mixed, ids=[f"other/{name}" for name in mixed.ids])
    assert write(tmp_path / "a", rows)["digest"] == write(tmp_path / "elsewhere" / "b", renamed)["digest"]


@pytest.mark.parametrize("change", ["pixel", "label", "origin", "row"])
def test_the_digest_sees_every_change(tmp_path: Path, change: str) -> None:
    rows = make_rows()
    images, labels, origin = rows.images.copy(), rows.labels.copy(), list(rows.origin)
    images[3, 0, 0, 0] ^= change == "pixel"
    labels[3] = (labels[3] + (change == "label")) % 3
    origin[3] = "fresh" if change == "origin" else origin[3]
    other = Rows(ids=rows.ids, images=images, labels=labels, origin=origin)
    other = reordered(other, np.arange(1, 240)) if change == "row" else other
    assert write(tmp_path / "a", rows)["digest"] != write(tmp_path / "b", other)["digest"]


def test_a_row_keeps_its_split_when_rows_are_added(tmp_path: Path) -> None:
    write(tmp_path / "small", make_rows(240))
    more = make_rows(400)
    images = more.images.copy()
    images[:240] = make_rows(240).images
    write(tmp_path / "large", replace(more, images=images))
    small, large = read_version(tmp_path / "small"), read_version(tmp_path / "large")
    for name in SPLITS:
        assert set(small.split(name).content) <= set(large.split(name).content)


def test_equal_pixels_share_a_split_whatever_their_label(tmp_path: Path) -> None:
    rows = make_rows(120)
    twice = Rows(
        ids=[*rows.ids, *(f"copy-{name}" for name in rows.ids)],
        images=np.concatenate([rows.images, rows.images]),
        labels=np.concatenate([rows.labels, (rows.labels + 1) % 3]),
        origin=["base"] * 120 + ["fresh"] * 120,
    )
    write(tmp_path / "v", twice)
    version = verify_version(tmp_path / "v")
    contents = [set(version.split(name).content) for name in SPLITS]
    assert not contents[0] & contents[1]
    assert not contents[0] & contents[2]
    assert not contents[1] & contents[2]


def test_the_shares_of_the_splits_are_met() -> None:
    found = [split_of(content_hash(np.full((1, 1, 2), i % 256, np.uint8)) + str(i), 0.15, 0.25) for i in range(8000)]
    assert found.count("test") / 8000 == pytest.approx(0.25, abs=0.02)
    assert found.count("validation") / 8000 == pytest.approx(0.15, abs=0.02)


def test_a_class_without_test_rows_is_refused(tmp_path: Path) -> None:
    rows = make_rows(240)
    labels = np.arange(240) % 2
    labels[0] = 2
    with pytest.raises(InputError, match=r"class 'c' has 1 usable row \(the first is 'r0'\)") as error:
        write(tmp_path / "v", replace(rows, labels=labels))
    assert error.value.exit_code == 2
    assert "add rows" in error.value.hint


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"digest": "x", "labels": [], "image_shape": [1]}'])
def test_a_folder_without_a_good_card_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    with pytest.raises(StateError, match="is no dataset version"):
        read_version(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "empty", "shape"])
def test_a_damaged_split_is_named(tmp_path: Path, damage: str) -> None:
    write(tmp_path / "v", make_rows())
    path = tmp_path / "v" / "test.arrow"
    data = path.read_bytes()
    path.unlink()
    if damage == "shape":
        path.write_bytes(data)
        card = json.loads((tmp_path / "v" / "card.json").read_text())
        (tmp_path / "v" / "card.json").write_text(json.dumps(card | {"schema": {"image_shape": [9, 9, 3]}}))
    elif damage != "missing":
        path.write_bytes({"truncated": data[: len(data) // 2], "garbage": b"no arrow at all" * 9, "empty": b""}[damage])
    with pytest.raises(StateError, match=r"test\.arrow"):
        read_version(tmp_path / "v").split("test")


def test_an_unknown_split_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "v", make_rows())
    with pytest.raises(StateError, match="holdout"):
        read_version(tmp_path / "v").split("holdout")


def test_changed_pixels_do_not_verify(tmp_path: Path) -> None:
    write(tmp_path / "v", make_rows())
    path = tmp_path / "v" / "test.arrow"
    version = read_version(tmp_path / "v")
    first = version.split("test").images[0].tobytes()
    data = path.read_bytes()
    changed = bytes([first[0] ^ 255]) + first[1:]
    path.unlink()
    path.write_bytes(data.replace(first, changed, 1))
    with pytest.raises(StateError):
        verify_version(tmp_path / "v")
