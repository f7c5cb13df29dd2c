"""Encoders of rows: tables, vectors, sounds, images; what they give, what survives a restore, what they refuse."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from kfloop.core.encoding import Encoder, restore_encoder
from kfloop.core.encoding.audio import Encoder as AudioEncoder
from kfloop.core.encoding.bare.columns import MISSING, UNKNOWN
from kfloop.core.encoding.image import Encoder as ImageEncoder
from kfloop.core.encoding.numbers import BINS, MOST_BINNED, number_facts
from kfloop.core.encoding.table import Encoder as TableEncoder
from kfloop.core.encoding.vector import Encoder as VectorEncoder
from kfloop.core.versions import DatasetVersion
from kfloop.core.versions.writing import CARD
from kfloop.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2024, 3, 1, 12)  # noqa: DTZ001 - versions hold times without a zone
NEXT = datetime(2024, 3, 2, 18)  # noqa: DTZ001


def version_of(folder: Path, modality: str, train: pa.Table, **schema: Any) -> DatasetVersion:
    """A version on disk that has a train split, enough to fit an encoder on."""
    folder.mkdir(exist_ok=True)
    card = {"digest": "d", "labels": [], "modality": modality, "task": "regression", "schema": schema}
    card |= {"inputs": train.column_names, "facts": [], "splits": {"train": train.num_rows}}
    (folder / CARD).write_text(json.dumps(card))
    with pa.OSFile(str(folder / "train.arrow"), "wb") as sink, pa.ipc.new_stream(sink, train.schema) as writer:
        writer.write_table(train)
    return DatasetVersion(folder)


def same(encoder: Encoder, table: pa.Table) -> bool:
    """Whether the encoder restored from JSON gives the same tensors, facts and ports."""
    again = restore_encoder(json.loads(json.dumps(encoder.plain())))
    pairs = zip(encoder.encode(table), again.encode(table), strict=True)
    equal = all(np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f") for ours, theirs in pairs)
    return equal and again.ports == encoder.ports and again.facts == encoder.facts


def people() -> pa.Table:
    return pa.table(
        {
            "age": pa.array([20, 30, None, 50] * 5, pa.int64()),
            "pay": pa.array([1.5, float("nan"), 1e6, 2.5] * 5, pa.float64()),
            "city": pa.array(["ulm", "bonn", None, "ulm"] * 4 + ["ulm", "bonn", "kiel", "ulm"], pa.string()),
            "member": pa.array([True, False, None, True] * 5, pa.bool_()),
            "seen": pa.array([NOON, NEXT, None, NOON] * 5, pa.timestamp("us")),
        }
    )


@pytest.fixture
def table_encoder(tmp_path: Path) -> TableEncoder:
    return TableEncoder.fit(version_of(tmp_path / "v", "table", people()))


def test_a_table_becomes_numbers_and_codes(table_encoder: TableEncoder) -> None:
    numbers, codes = table_encoder.encode(people())
    assert [(port.name, port.dtype) for port in table_encoder.ports] == [("number", "float32"), ("category", "int64")]
    assert numbers.shape == (20, *table_encoder.ports[0].shape)
    assert numbers.dtype == np.float32
    assert codes.dtype == np.int64
    np.testing.assert_array_equal(numbers[:4, 0], np.float32([20, 30, np.nan, 50]))
    np.testing.assert_array_equal(numbers[:4, 2], np.float32([1, 0, np.nan, 1]))
    np.testing.assert_allclose(numbers[:2, 3], [0, 1.25])  # days since the first moment
    assert codes[:4, 0].tolist() == [2, 3, MISSING, 2]
    assert codes[18, 0] == UNKNOWN  # kiel is there once: rare
    assert table_encoder.facts["cardinalities"] == [4]
    assert table_encoder.facts["missing"][:3] == [0, 1, 2]
    assert same(table_encoder, people())


def test_rows_that_training_had_not_seen(table_encoder: TableEncoder) -> None:
    row = people().slice(0, 1).to_pydict() | {"city": ["paris"], "age": [float("inf")], "pay": [7]}
    table = pa.table(row).set_column(3, "member", pa.array([None], pa.null()))
    numbers, codes = table_encoder.encode(table.set_column(4, "seen", people().slice(0, 1)["seen"]))
    assert codes.tolist() == [[UNKNOWN]]
    assert np.isnan(numbers[0, [0, 2]]).all()
    assert numbers[0, 1] == 7


def test_the_order_of_columns_does_not_matter_and_no_rows_are_no_problem(table_encoder: TableEncoder) -> None:
    turned = people().select(["seen", "city", "member", "pay", "age"])
    for ours, theirs in zip(table_encoder.encode(people()), table_encoder.encode(turned), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [len(array) for array in table_encoder.encode(people().slice(0, 0))] == [0, 0]


def test_a_missing_column_is_named(table_encoder: TableEncoder) -> None:
    with pytest.raises(InputError, match="column 'age' is missing") as caught:
        table_encoder.encode(people().rename_columns(["agee", "pay", "city", "member", "seen"]))
    assert "agee" in caught.value.hint


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("age", ["x"], "numbers"),
        ("city", [3], "text"),
        ("member", [1.0], "true or false"),
        ("seen", ["a"], "timestamps"),
    ],
)
def test_a_column_of_another_type_is_named(
    table_encoder: TableEncoder, column: str, values: list[Any], expected: str
) -> None:
    table = people().slice(0, 1)
    table = table.set_column(table.column_names.index(column), column, pa.array(values))
    with pytest.raises(InputError, match=f"column '{column}' is of type .* trained on {expected}"):
        table_encoder.encode(table)


@pytest.mark.parametrize(("kept", "port"), [(["age", "pay"], "number"), (["city"], "category")])
def test_a_table_of_one_kind_has_one_port(tmp_path: Path, kept: list[str], port: str) -> None:
    table = people().select(kept)
    encoder = TableEncoder.fit(version_of(tmp_path / "v", "table", table))
    assert [item.name for item in encoder.ports] == [port]
    assert len(encoder.encode(table)) == 1
    assert same(encoder, table)


def test_large_numbers_that_differ_little_stay_apart(tmp_path: Path) -> None:
    table = pa.table({"stamp": pa.array(1_700_000_000 + np.arange(50), pa.int64())})
    encoder = TableEncoder.fit(version_of(tmp_path / "v", "table", table))
    assert len(np.unique(encoder.encode(table)[0])) == 50


def test_a_table_of_nothing_but_gaps(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([None, None], pa.float64()), "c": pa.array([None, None], pa.string())})
    encoder = TableEncoder.fit(version_of(tmp_path / "v", "table", table))
    numbers, codes = encoder.encode(table)
    assert np.isnan(numbers).all()
    assert (codes == MISSING).all()
    assert encoder.facts["std"] == [1.0]


def test_no_rows_cannot_be_fitted(tmp_path: Path) -> None:
    empty = people().slice(0, 0)
    with pytest.raises(InputError, match="train split has no rows"):
        TableEncoder.fit(version_of(tmp_path / "v", "table", empty))


def test_facts_of_numbers() -> None:
    random = np.random.default_rng(0)
    values = np.stack(
        [random.normal(5, 2, 4000), np.full(4000, 3.0), np.arange(4000) % 3, np.exp(3 * random.normal(size=4000))], 1
    ).astype(np.float32)
    values[0, 0] = np.nan
    facts = number_facts(values)
    assert facts["missing"] == [0]
    np.testing.assert_allclose(facts["mean"][:3], [5, 3, 1], atol=0.1)
    assert facts["std"][1] == 1.0
    assert facts["edges"][1] == []
    assert facts["edges"][2] == [0.0, 1.0, 2.0]
    assert max(len(edges) for edges in facts["edges"]) <= BINS + 2
    for edges in facts["edges"]:
        assert edges == sorted(set(edges))
    assert facts["edges"][3][-1] == pytest.approx(float(values[:, 3].max()))  # the tail is covered
    assert number_facts(np.zeros((5, MOST_BINNED + 1), np.float32))["edges"] == []


def vectors(rows: np.ndarray) -> pa.Table:
    flat = pa.array(np.asarray(rows, dtype=np.float32).reshape(-1))
    return pa.table({"vector": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])})


def test_vectors_stay_as_they_are(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    rows[3, 2], rows[4, 1] = np.nan, np.inf
    encoder = VectorEncoder.fit(version_of(tmp_path / "v", "vector", vectors(rows), vector_shape=[2, 3]))
    (found,) = encoder.encode(vectors(rows))
    rows[4, 1] = np.nan  # what is not finite is missing
    np.testing.assert_array_equal(found, rows)
    assert encoder.ports[0].shape == (6,)
    assert encoder.facts["missing"] == [1, 2]
    assert same(encoder, vectors(rows))
    np.testing.assert_array_equal(encoder.encode(vectors(rows).slice(5, 4))[0], rows[5:9])
    with pytest.raises(InputError, match="5 numbers each, but the model takes 6"):
        encoder.encode(vectors(rows[:, :5]))
    with pytest.raises(InputError, match="column 'vector' is missing"):
        encoder.encode(people())
    with pytest.raises(InputError, match="'vector' is of type int64"):
        encoder.encode(pa.table({"vector": [1]}))


def sounds(*lengths: int) -> pa.Table:
    return pa.table({"audio": pa.array([np.arange(1, length + 1, dtype=np.int16) for length in lengths])})


def test_sounds_are_cut_or_filled_with_silence(tmp_path: Path) -> None:
    train = sounds(*[1000] * 99, 30_000)
    encoder = AudioEncoder.fit(version_of(tmp_path / "v", "audio", train, sample_rate=8000))
    assert encoder.length == 1000  # one long sound does not make all of them long
    assert encoder.facts == {"sample_rate": 8000}
    (found,) = encoder.encode(sounds(3, 2000, 0))
    assert found.dtype == np.int16
    assert found.shape == (3, 1000)
    assert found[0, :4].tolist() == [1, 2, 3, 0]
    assert found[1, -1] == 1000
    assert not found[2].any()
    assert same(encoder, sounds(3, 2000))
    np.testing.assert_array_equal(encoder.encode(sounds(5, 7, 9).slice(1, 1))[0], encoder.encode(sounds(7))[0])
    with pytest.raises(InputError, match="column 'audio' is missing"):
        encoder.encode(people())
    with pytest.raises(InputError, match="expected a list of int16"):
        encoder.encode(pa.table({"audio": [[0.5]]}))
    with pytest.raises(InputError, match="no sounds"):
        AudioEncoder.fit(version_of(tmp_path / "w", "audio", train.slice(0, 0), sample_rate=8000))


def images(count: int, side: int = 4) -> pa.Table:
    flat = pa.array((np.arange(count * side * side * 3) % 256).astype(np.uint8))
    return pa.table({"image": pa.FixedSizeListArray.from_arrays(flat, side * side * 3)})


def test_images_stay_as_they_are(tmp_path: Path) -> None:
    encoder = ImageEncoder.fit(version_of(tmp_path / "v", "image", images(20), image_shape=[4, 4, 3]))
    (found,) = encoder.encode(images(20))
    assert found.shape == (20, 4, 4, 3)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(encoder.facts["mean"], found.reshape(-1, 3).mean(0), atol=1e-6)
    assert same(encoder, images(20))
    np.testing.assert_array_equal(encoder.encode(images(20).slice(3, 2))[0], found[3:5])
    with pytest.raises(InputError, match="75 values each"):
        encoder.encode(images(2, side=5))
