"""Large rows as bytes in a cell: what is read is what was written, whatever is done to the rows in between."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.core.request_cells import LEAST_VALUES, PACKED, cell_length, is_large, pack, read_rows, unpack


def packed_table(tensor: np.ndarray) -> pa.Table:
    cells, metadata = pack(tensor)
    return pa.table([cells], schema=pa.schema([pa.field("image", cells.type, metadata=metadata)]))


def as_array(column: pa.ChunkedArray) -> np.ndarray:
    whole = column.combine_chunks()
    return np.asarray(whole.flatten().to_numpy().reshape(len(whole), -1))


@pytest.mark.parametrize("name", sorted(PACKED))
def test_every_value_of_a_type_comes_back_from_a_file(tmp_path: Path, name: str) -> None:
    bounds = np.finfo(name) if name.startswith("float") else np.iinfo(name)
    values = np.linspace(bounds.min, bounds.max, 5 * 6, dtype=name).reshape(5, 2, 3)
    pq.write_table(packed_table(values), tmp_path / "rows.parquet")
    found = read_rows(tmp_path / "rows.parquet")
    assert found["image"].type == pa.list_(pa.from_numpy_dtype(name), 6)
    np.testing.assert_array_equal(as_array(found["image"]), values.reshape(5, 6))
    with pq.ParquetFile(tmp_path / "rows.parquet") as opened:
        assert cell_length(opened.schema_arrow.field("image")) == 6


def test_only_large_rows_of_numbers_become_bytes() -> None:
    assert is_large(np.zeros((3, 16, LEAST_VALUES // 16), np.uint8))
    assert not is_large(np.zeros((3, LEAST_VALUES - 1), np.float32))
    assert not is_large(np.zeros((3, LEAST_VALUES), bool))
    assert not is_large(np.zeros((0, LEAST_VALUES), np.float32))


def test_slices_filters_and_batches_keep_rows_with_their_values() -> None:
    values = np.arange(40, dtype=np.int16).reshape(10, 4)
    table = packed_table(values)
    np.testing.assert_array_equal(as_array(unpack(table.slice(3, 5))["image"]), values[3:8])
    np.testing.assert_array_equal(as_array(unpack(table.take([7, 2]))["image"]), values[[7, 2]])
    joined = pa.concat_tables([table.slice(8), table.slice(0, 2)])
    np.testing.assert_array_equal(as_array(unpack(joined)["image"]), values[[8, 9, 0, 1]])
    batch = table.to_batches()[0].slice(4, 2)
    assert unpack(batch)["image"].to_pylist() == values[4:6].tolist()
    assert unpack(table.slice(0, 0)).num_rows == 0


def test_a_missing_row_stays_missing() -> None:
    table = packed_table(np.arange(6, dtype=np.uint8).reshape(3, 2))
    gone = pa.array([b"\0\1", None, b"\4\5"], pa.binary(2))
    table = table.set_column(0, table.schema.field(0), gone)
    assert unpack(table)["image"].to_pylist() == [[0, 1], None, [4, 5]]


def test_a_log_with_lists_is_read_as_it_is() -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.uint8)), 3)
    table = pa.table({"image": lists, "request_id": ["a", "b"]})
    assert unpack(table).equals(table)
    assert cell_length(table.schema.field("image")) is None


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(3), pa.int64()])
def test_metadata_that_the_cells_do_not_fit_is_an_error(kind: pa.DataType) -> None:
    field = pa.field("image", kind, metadata={b"dtype": b"int16"})
    with pytest.raises(ValueError, match="expected cells of int16"):
        unpack(pa.table([pa.nulls(2, kind)], schema=pa.schema([field])))
