"""Arrays: npz and IDX files, as images or vectors, and every way in which they can be wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kfloop.components.ingest.readers.arrays import blocks as arrays_blocks
from kfloop.components.ingest.readers.arrays import reader as arrays
from kfloop.components.ingest.readers.arrays.blocks import npz_blocks
from kfloop.components.ingest.readers.arrays.values import vector_facts
from kfloop.components.ingest.source import FILES_PER_BATCH, Source
from kfloop.core.perceptual import perceptual_hash
from kfloop.core.sections import DataConfig
from kfloop.errors import ConfigError, InputError

N = 30
Y = np.arange(N) % 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 5))


def saved(folder: Path, name: str = "rows.npz", **columns: Any) -> Path:
    path = folder / name
    np.savez(path, **columns)
    return path


def opened(path: Path, like: Source | None = None, **config: Any) -> Source:
    return arrays.open_source(path, DataConfig(source=str(path), **config), like)


def read(source: Source) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    batches = list(source.batches())
    return [row for batch in batches for row in batch.table.to_pylist()], [
        row for batch in batches for row in batch.quarantined
    ]


def refused(path: Path, *words: str, **config: Any) -> None:
    with pytest.raises(InputError) as caught:
        read(opened(path, **config))
    for word in words:
        assert word in f"{caught.value.message} | {caught.value.hint}"


def test_rows_of_numbers_are_vectors(tmp_path: Path) -> None:
    source = opened(saved(tmp_path, X=X, y=Y))
    rows, quarantined = read(source)
    assert (source.kind, source.modality, source.task, source.labels, source.n) == (
        "npz",
        "vector",
        "multiclass",
        ("0", "1", "2"),
        N,
    )
    assert (source.schema, source.inputs) == ({"vector_shape": [5]}, ("vector",))
    assert source.facts == ("missing", "minimum", "maximum", "mean", "std")
    assert source.suggestions == {"label": "y"}
    assert not quarantined
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows], dtype=np.float32), X.astype(np.float32))
    assert rows[7]["std"] == pytest.approx(X[7].std(), rel=1e-6)
    assert [row["label"] for row in rows] == Y.tolist()


def test_facts_of_vectors_leave_out_what_is_missing() -> None:
    facts = vector_facts(np.array([[1, np.nan, 3], [np.nan] * 3, [np.inf, 0, 0]], dtype=np.float32))
    assert facts["missing"].tolist() == pytest.approx([1 / 3, 1, 0])
    assert facts["mean"].tolist() == pytest.approx([2, np.nan, np.nan], nan_ok=True)
    assert facts["std"].tolist() == pytest.approx([1, np.nan, np.nan], nan_ok=True)
    assert facts["maximum"].tolist() == pytest.approx([3, np.nan, np.inf], nan_ok=True)


def test_digits_are_images(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    source = opened(saved(tmp_path, data=digits.images, target=digits.target))
    rows, _ = read(source)
    assert (source.modality, source.schema, source.n) == ("image", {"image_shape": [8, 8, 1]}, len(digits.target))
    pixels = digits.images[3].astype(np.uint8)
    assert rows[3]["image"] == pixels.reshape(-1).tolist()
    assert rows[3]["phash"] == perceptual_hash(pixels)
    assert {key: rows[3][key] for key in ("bytes", "format", "width", "height", "mode", "constant")} == {
        "bytes": 64, "format": "array", "width": 8, "height": 8, "mode": "L", "constant": False
    }  # fmt: skip
    assert max(batch.table.num_rows for batch in source.batches()) <= FILES_PER_BATCH


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        (RNG.random((N, 8, 8)), [8, 8, 1]),
        (RNG.random((N, 8, 9, 3)).astype(np.float32), [8, 9, 3]),
        (RNG.integers(0, 256, (N, 8, 9, 1)), [8, 9, 1]),
        (RNG.integers(0, 256, (N, 3, 8, 9), dtype=np.uint8), [8, 9, 3]),
        (RNG.random((N, 8, 8)) < 0.5, [8, 8, 1]),
        (RNG.integers(0, 256, (N, 40, 60), dtype=np.uint8), [32, 32, 1]),
    ],
)
def test_arrays_of_pixels_are_images(tmp_path: Path, values: np.ndarray, shape: list[int]) -> None:
    source = opened(saved(tmp_path, X=values, y=Y))
    rows, _ = read(source)
    assert source.schema == {"image_shape": shape}
    assert len(rows[0]["image"]) == np.prod(shape)
    assert max(max(row["image"]) for row in rows) > 200
    assert rows[0]["mode"] == ("RGB" if shape[2] == 3 else "L")


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=(N, 8, 8)),
        RNG.integers(0, 300, (N, 8, 8)),
        RNG.random((N, 3, 3)),
        RNG.random((N, 8, 8, 5)),
        np.full((N, 8, 8), np.nan),
    ],
)
def test_arrays_of_anything_else_are_vectors(tmp_path: Path, values: np.ndarray) -> None:
    source = opened(saved(tmp_path, X=values, y=Y))
    assert (source.modality, source.schema) == ("vector", {"vector_shape": list(values.shape[1:])})
    refused(tmp_path / "rows.npz", "data.modality is 'image'", str(list(values.shape)), modality="image")


def test_size_and_channels_of_images_can_be_told(tmp_path: Path) -> None:
    path = saved(tmp_path, X=RNG.integers(0, 256, (N, 40, 40, 3), dtype=np.uint8), y=Y)
    assert opened(path, image_size=16, channels=1).schema == {"image_shape": [16, 16, 1]}
    assert len(read(opened(path, image_size=16, channels=1))[0][0]["image"]) == 256
    assert opened(path, image_size=64).schema == {"image_shape": [40, 40, 3]}
    assert opened(path, modality="vector").modality == "vector"
    first = read(opened(path, image_size=16))[0][0]
    assert (first["width"], first["bytes"]) == (40, 4800)


@pytest.mark.parametrize(
    ("labels", "task", "names", "first"),
    [
        (Y.astype(np.float64), "multiclass", ("0", "1", "2"), 0),
        (np.array(["b", "a", "b"] * 10), "multiclass", ("a", "b"), 1),
        (np.array([b"b", b"a", b"b"] * 10), "multiclass", ("a", "b"), 1),
        (Y == 0, "multiclass", ("false", "true"), 1),
        (Y.reshape(-1, 1), "multiclass", ("0", "1", "2"), 0),
        (Y.astype(">i4"), "multiclass", ("0", "1", "2"), 0),
        (np.eye(3)[Y], "multiclass", ("0", "1", "2"), 0),
        (np.tile([[1, 0, 1], [0, 0, 0]], (15, 1)), "multilabel", ("0", "1", "2"), [0, 2]),
        (Y + 0.5, "regression", (), 0.5),
    ],
)
def test_labels(tmp_path: Path, labels: np.ndarray, task: str, names: tuple[str, ...], first: Any) -> None:
    source = opened(saved(tmp_path, X=X, y=labels))
    assert (source.task, source.labels) == (task, names)
    assert read(source)[0][0]["label"] == first


def test_labels_that_are_no_numbers_are_set_aside(tmp_path: Path) -> None:
    rows, quarantined = read(opened(saved(tmp_path, X=X, y=np.where(Y == 1, np.nan, Y))))
    assert len(rows) == 20
    assert quarantined[0] == {"id": "1", "reason": "row 2, array 'y': no label"}
    several = np.tile([[1.0, 0.0], [1.0, 1.0]], (15, 1))
    several[4, 0] = np.nan
    _, quarantined = read(opened(saved(tmp_path, X=X, y=several)))
    assert [row["id"] for row in quarantined] == ["4"]
    several[4, 0] = 2
    refused(saved(tmp_path, X=X, y=several), "row 5, array 'y' column 1", "2.0 is neither 0 nor 1")


def test_ids_groups_times_and_splits(tmp_path: Path) -> None:
    days = np.arange(N).astype("datetime64[D]")
    split = np.array(["train", "val", "test"] * 10)
    path = saved(tmp_path, X=X, y=Y, ids=np.arange(N) + 100, groups=Y, time=days, split=split, who=Y + 7)
    row = read(opened(path))[0][1]
    assert (row["id"], row["group"], row["time"].isoformat(), row["split"]) == (
        "101",
        "1",
        "1970-01-02T00:00:00",
        "validation",
    )
    assert read(opened(path, group="who"))[0][0]["group"] == "7"
    refused(path, "no array 'whom' (data.group)", "did you mean 'who'", group="whom")
    refused(saved(tmp_path, X=X, y=Y, ids=Y), "id '0' in array 'ids'", "row 1", "row 4")
    refused(saved(tmp_path, X=X, y=Y, split=Y), "row 1, array 'split': '0' is no split")
    refused(saved(tmp_path, X=X, y=Y, time=X[:, 0]), "array 'time'", "no times")


def test_limit_and_order(tmp_path: Path) -> None:
    source = opened(saved(tmp_path, X=X, y=Y), limit=7)
    rows, _ = read(source)
    assert (source.n, len(rows)) == (7, 7)
    assert all(row["label"] == int(row["id"]) % 3 for row in rows)
    fortran = read(opened(saved(tmp_path, "f.npz", X=np.asfortranarray(X), y=Y)))[0]
    assert fortran == read(opened(saved(tmp_path, X=X, y=Y)))[0]


def test_rows_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays_blocks, "_BLOCK_BYTES", 7 * 5 * 8)
    path = tmp_path / "packed.npz"
    np.savez_compressed(path, X=X, y=Y)
    blocks = list(npz_blocks(path)["X"].rows(1000))
    assert [len(block) for block in blocks] == [7, 7, 7, 7, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), X)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"X": X, "y": Y[:-1]}, ["'X' [30, 5]", "'y' [29]", "differ in length"]),
        ({"X": X, "y": Y, "groups": Y[:3]}, ["'groups' [3]"]),
        ({"X": np.array([1, "a"], dtype=object), "y": Y[:2]}, ["'X' [2]", "Python objects", "never unpickles"]),
        ({"X": X, "y": np.array(["a", None] * 15, dtype=object)}, ["'y' [30]", "Python objects"]),
        ({"X": np.zeros((0, 5)), "y": np.zeros(0)}, ["'X' [0, 5] is empty"]),
        ({"X": np.zeros((N, 0)), "y": Y}, ["'X' [30, 0] is empty"]),
        ({"points": X, "y": Y}, ["no arrays of inputs", "points [30, 5], y [30]"]),
        ({"X": X, "data": X, "y": Y}, ["2 arrays of inputs"]),
        ({"X": X}, ["no arrays of labels", "data.label"]),
        ({"X": np.array(["a"] * N), "y": Y}, ["'X' [30] is of type <U1"]),
        ({"X": X, "y": np.zeros(N)}, ["one class only"]),
        ({"X": X, "y": np.arange(N)}, ["every one of the 30 labels"]),
        ({"X": X, "y": np.zeros((N, 2, 2))}, ["'y' [30, 2, 2] cannot be labels"]),
        ({"X": X, "y": np.zeros(N, dtype=complex)}, ["array 'y' is of type complex128"]),
    ],
)
def test_bad_arrays_are_refused(tmp_path: Path, columns: dict[str, Any], words: list[str]) -> None:
    refused(saved(tmp_path, **columns), *words)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(b"")
    refused(path, "it is empty")
    whole = saved(tmp_path, X=X, y=Y).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "is no npz file")
    damaged = bytearray(whole)
    damaged[300:340] = b"\0" * 40
    path.write_bytes(bytes(damaged))
    refused(path, "X.npy", "CRC")
    refused(tmp_path / "missing.npz", "does not exist")
    with pytest.raises(ConfigError, match="'series'"):
        opened(saved(tmp_path, X=X, y=Y), modality="series")


# IDX


def idx(path: Path, values: np.ndarray) -> None:
    head = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    data = head + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def idx_folder(folder: Path, end: str = ".gz") -> tuple[Path, np.ndarray]:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (N, 6, 7), dtype=np.uint8)
    for name, part in (("train", slice(0, 20)), ("t10k", slice(20, N))):
        idx(folder / f"{name}-images-idx3-ubyte{end}", pixels[part])
        idx(folder / f"{name}-labels-idx1-ubyte{end}", Y[part])
    return folder, pixels


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files_are_images_with_official_splits(tmp_path: Path, end: str) -> None:
    folder, pixels = idx_folder(tmp_path / "idx", end)
    source = opened(folder)
    rows, _ = read(source)
    assert (source.kind, source.labels, source.n, source.schema) == (
        "idx",
        ("0", "1", "2"),
        N,
        {"image_shape": [6, 7, 1]},
    )
    assert [row["split"] for row in rows] == ["train"] * 20 + ["test"] * 10
    assert (rows[0]["id"], rows[-1]["id"]) == ("train/0", "test/9")
    assert rows[25]["image"] == pixels[25].reshape(-1).tolist()
    assert [row["label"] for row in rows] == Y.tolist()


def test_one_pair_of_idx_files_has_no_split(tmp_path: Path) -> None:
    folder, _ = idx_folder(tmp_path / "idx")
    for path in folder.glob("t10k*"):
        path.unlink()
    rows, _ = read(opened(folder))
    assert "split" not in rows[0]
    assert len(rows) == 20


def test_bad_idx_files_are_refused(tmp_path: Path) -> None:
    folder, _ = idx_folder(tmp_path / "idx", "")
    labels = folder / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-3])
    refused(folder, "train-labels-idx1-ubyte", "3 of 20 bytes are missing")
    labels.write_bytes(b"PNG" + whole)
    refused(folder, "is no IDX file")
    idx(labels, Y[:7])
    refused(folder, "[20, 6, 7]", "[7]", "differ in length")
    labels.unlink()
    refused(folder, "train-images-idx3-ubyte", "no labels file")


def test_fresh_rows_have_the_shape_and_classes_of_the_source(tmp_path: Path) -> None:
    base = opened(saved(tmp_path, X=RNG.random((N, 8, 8)), y=Y))
    fresh = opened(saved(tmp_path, "g.npz", X=np.zeros((2, 8, 8)), y=np.array([2, 2])), base)
    assert [row["label"] for row in read(fresh)[0]] == [2, 2]
    for columns, words in (
        ({"X": np.zeros((2, 9, 8)), "y": np.array([1, 2])}, "[9, 8, 1]"),
        (
            {"X": np.zeros((2, 8, 8)), "y": np.array([1, 7])},
            "row 2, column 'y': '7' is a class that data.source does not have",
        ),
    ):
        with pytest.raises(InputError) as caught:
            opened(saved(tmp_path, "h.npz", **columns), base)
        assert words in caught.value.message


def test_recognise(tmp_path: Path) -> None:
    config = DataConfig()
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    assert arrays.recognise(tmp_path / "bad.npz", config)
    assert arrays.recognise(idx_folder(tmp_path / "idx")[0], config)
    assert not arrays.recognise(tmp_path, config)
    assert not arrays.recognise(tmp_path / "missing.npz", config)
