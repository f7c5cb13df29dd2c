"""Time series: what is recognised as one, its order and steps, and every refusal by row and column."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.ingest.readers.series import reader as series
from kfloop.components.ingest.readers.series import reading as series_reading
from kfloop.core.sections import DataConfig, SeriesConfig, SplitConfig
from kfloop.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.components.ingest.source import Source

START = dt.datetime.fromisoformat("2026-01-01")
SMALL = SeriesConfig(context=4, horizon=2)


def _config(path: Path, **config: Any) -> DataConfig:
    return DataConfig(source=str(path), **({"series": SMALL} | config))


def _open(path: Path, like: Source | None = None, **config: Any) -> Source:
    return series.open_source(path, _config(path, **config), like)


def _lines(n: int = 60, hours: int = 1) -> list[str]:
    return [f"{START + dt.timedelta(hours=hours * row)},{row}.5,{row * 10}" for row in range(n)]


def _write(path: Path, lines: list[str], header: str = "date,load,temp") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def _rows(source: Source) -> tuple[pa.Table, dict[str, str]]:
    batches = list(source.batches())
    aside = {row["id"]: row["reason"] for batch in batches for row in batch.quarantined}
    return pa.concat_tables([batch.table for batch in batches]), aside


def test_a_csv_with_a_time_column_is_a_series(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", _lines())
    assert series.recognise(path, _config(path))
    source = _open(path)
    assert (source.modality, source.task, source.labels, source.n, source.facts) == (
        "series",
        "forecasting",
        (),
        60,
        (),
    )
    assert source.inputs == ("time", "load", "temp")
    assert source.schema == {
        "series": {"context": 4, "horizon": 2, "stride": 1, "channels": ["load", "temp"], "step_seconds": 3600.0}
    }
    assert source.suggestions == {"time": "date"}
    assert source.notes == ()
    table, aside = _rows(source)
    assert aside == {}
    assert table.schema == pa.schema(
        {"id": pa.string(), "time": pa.timestamp("us"), "load": pa.float64(), "temp": pa.float64()}
    )
    assert table.slice(2, 1).to_pylist() == [
        {"id": "3", "time": START + dt.timedelta(hours=2), "load": 2.5, "temp": 20.0}
    ]


@pytest.mark.parametrize(
    ("header", "cells", "config", "fits"),
    [
        ("date,load", "2026-01-01,1", {}, True),
        ("Timestamp;load", "2026-01-01 00:00;1", {}, True),
        ("time,load", "17,1", {}, True),
        ("ds,y", "2026-01-01,1.5", {}, True),
        ("ds,y", "2026-01-01,yes", {}, False),
        ("date,load,label", "2026-01-01,1,a", {}, False),
        ("date,load,label", "2026-01-01,1,a", {"modality": "series"}, True),
        ("date,load", "2026-01-01,1", {"label": "load"}, False),
        ("date,load", "2026-01-01,1", {"modality": "table"}, False),
        ("date,load", "2026-01-01,1", {"task": "multiclass"}, False),
        ("date,load", "soon,1", {}, False),
        ("day,load", "2026-01-01,1", {}, False),
        ("day,load", "2026-01-01,1", {"time": "day"}, True),
        ("date", "2026-01-01", {}, False),
        ("height,weight", "1,2", {}, False),
    ],
)
def test_recognise(tmp_path: Path, header: str, cells: str, config: dict[str, Any], fits: bool) -> None:
    path = _write(tmp_path / "a.csv", [cells], header)
    assert series.recognise(path, DataConfig(source=str(path), **config)) is fits


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe\x00", b"\n\n", b"time\n", b'"a\n', bytes(range(256))])
@pytest.mark.parametrize("suffix", ["csv", "parquet", "png"])
def test_recognise_never_raises(tmp_path: Path, raw: bytes, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(raw)
    assert not series.recognise(path, DataConfig(source=str(path)))
    assert not series.recognise(tmp_path, DataConfig(source=str(tmp_path)))
    assert not series.recognise(tmp_path / "none.csv", DataConfig(source="none"))


@pytest.mark.parametrize(
    ("times", "step", "first"),
    [
        ([f"2026-01-{day:02d}" for day in range(1, 31)], 86_400.0, START),
        ([f"202601{day:02d}" for day in range(1, 31)], 86_400.0, START),
        ([f"{day:02d}.01.2026 06:30" for day in range(1, 31)], 86_400.0, START + dt.timedelta(hours=6.5)),
        ([f"2026-01-{day:02d}T01:00:00+01:00" for day in range(1, 31)], 86_400.0, START),
        ([f"2026-01-01T00:00:{second:02d}.5Z" for second in range(30)], 1.0, START + dt.timedelta(seconds=0.5)),
        ([str(5 * step) for step in range(30)], None, 0),
    ],
)
def test_ways_to_write_times(tmp_path: Path, times: list[str], step: float | None, first: Any) -> None:
    path = _write(tmp_path / "a.csv", [f"{time},1" for time in times], "time,load")
    source = _open(path, series=SeriesConfig(context=1, horizon=1))
    assert source.schema["series"]["step_seconds"] == step
    assert _rows(source)[0]["time"][0].as_py() == first
    assert source.notes == ()


def test_months_are_no_irregular_steps(tmp_path: Path) -> None:
    lines = [f"{2000 + month // 12}-{month % 12 + 1:02d}-01,{month}" for month in range(48)]
    assert _open(_write(tmp_path / "a.csv", lines, "date,load")).notes == ()


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    csv = _open(_write(tmp_path / "a.csv", _lines()))
    times = [START + dt.timedelta(hours=row) for row in range(60)]
    table = pa.table(
        {
            "date": pa.array(times, pa.timestamp("ns")),
            "load": [row + 0.5 for row in range(60)],
            "temp": pa.array([row * 10 for row in range(60)], pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    assert series.recognise(tmp_path / "a.parquet", _config(tmp_path))
    parquet = _open(tmp_path / "a.parquet")
    assert parquet.schema == csv.schema
    assert _rows(parquet)[0].combine_chunks().equals(_rows(csv)[0].combine_chunks())


def test_a_zone_in_parquet_becomes_utc(tmp_path: Path) -> None:
    times = pa.array([START + dt.timedelta(hours=row) for row in range(40)], pa.timestamp("us", tz="Europe/Paris"))
    pq.write_table(pa.table({"time": times, "load": np.arange(40.0)}), tmp_path / "a.parquet")
    assert _rows(_open(tmp_path / "a.parquet"))[0]["time"][0].as_py() == START


@pytest.mark.parametrize("block", [64, 4 * 2**20])
def test_time_that_goes_back_names_the_row_and_both_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(series_reading, "BLOCK_BYTES", block)  # the check holds across blocks
    lines = _lines()
    lines[30], lines[31] = lines[31], lines[30]
    path = _write(tmp_path / "a.csv", lines)
    with pytest.raises(InputError) as caught:
        _open(path)
    said = "row 32, column 'date': time goes back from 2026-01-02 07:00:00 (row 31) to 2026-01-02 06:00:00"
    assert said in caught.value.message
    assert caught.value.hint.startswith("sort the rows by 'date'; if the file holds several series")
    assert (caught.value.data["row"], caught.value.data["column"]) == (32, "date")


def test_a_time_that_is_there_twice_is_named(tmp_path: Path) -> None:
    lines = _lines()
    lines[31] = lines[30]
    with pytest.raises(
        InputError, match=r"row 32, column 'date': time 2026-01-02 06:00:00 is there twice \(also in row 31\)"
    ):
        _open(_write(tmp_path / "a.csv", lines))


def _grouped(*, interleaved: bool) -> list[str]:
    rows = [f"{START + dt.timedelta(hours=row)},{row},{shop}" for row in range(30) for shop in ("ann", "bob")]
    return rows if interleaved else sorted(rows, key=lambda line: line.rsplit(",", 1)[1])


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("block", [64, 4 * 2**20])
def test_several_series_need_order_only_within_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interleaved: bool, block: int
) -> None:
    monkeypatch.setattr(series_reading, "BLOCK_BYTES", block)
    path = _write(tmp_path / "a.csv", _grouped(interleaved=interleaved), "date,load,shop")
    source = _open(path, group="shop", series=SeriesConfig(context=2, horizon=2))
    assert source.schema["series"]["channels"] == ["load"]
    table, _ = _rows(source)
    assert table["group"].to_pylist()[:2] == (["ann", "bob"] if interleaved else ["ann", "ann"])
    assert ("lie apart" in " ".join(source.notes)) is interleaved


def test_time_that_goes_back_within_a_series_is_refused_not_sorted(tmp_path: Path) -> None:
    lines = _grouped(interleaved=True)
    lines[10], lines[12] = lines[12], lines[10]  # both of ann
    with pytest.raises(
        InputError, match=r"row 13, .* goes back from 2026-01-01 06:00:00 \(row 11\) to .* of series 'ann'"
    ) as caught:
        _open(_write(tmp_path / "a.csv", lines, "date,load,shop"), group="shop")
    assert caught.value.hint == "sort the rows by 'date' within each series"


def test_gaps_are_counted_with_the_most_common_step(tmp_path: Path) -> None:
    lines = _lines()
    del lines[20:23], lines[40]
    notes = _open(_write(tmp_path / "a.csv", lines)).notes
    assert notes == (
        (
            "steps are irregular: the most common is 1:00:00 (53 of 55); 2 gaps longer than that, the longest 4:00:00; "
            "windows count rows, whatever time lies between them"
        ),
    )


def test_missing_cells_are_kept_as_nan_and_told(tmp_path: Path) -> None:
    lines = _lines()
    for row, cell in ((3, ""), (5, "NaN"), (7, "n/a")):
        lines[row] = lines[row].replace(f",{row}.5,", f",{cell},")
    source = _open(_write(tmp_path / "a.csv", lines))
    assert source.notes == ("channel 'load' has no value in 3 of 60 rows (5.0%): kept as NaN",)
    table, aside = _rows(source)
    assert aside == {}
    assert [row for row, value in enumerate(table["load"].to_pylist()) if math.isnan(value)] == [3, 5, 7]
    few = _open(tmp_path / "a.csv", max_quarantined_share=0.01).notes[0]
    assert "more than data.max_quarantined_share (1%)" in few


def test_cells_that_cannot_be_read_set_their_row_aside(tmp_path: Path) -> None:
    lines = _lines()
    lines[3] = lines[3].replace("3.5", "three")
    lines[4] = "soon,4.5,40"
    lines[5] = lines[5] + ",extra"
    lines[6] = lines[6].replace("6.5", "inf")
    lines[7] = ",7.5,70"
    source = _open(_write(tmp_path / "a.csv", lines))
    table, aside = _rows(source)
    assert aside == {
        "4": "row 4 column 'load': 'three' is not a number",
        "5": "row 5 column 'date': 'soon' is no time like the others",
        "6": "row 6 has 4 cells, the header 3",
        "7": "row 7 column 'load': 'inf' is not finite",
        "8": "row 8 column 'date': no time",
    }
    assert source.n == 60
    assert table["id"].to_pylist() == [str(row) for row in range(1, 61) if row not in range(4, 9)]
    assert table["temp"].to_pylist()[3] == 80.0


def test_a_column_of_text_is_refused_by_name_with_the_channels_to_choose(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", [line + ",north" for line in _lines()], "date,load,temp,region")
    with pytest.raises(InputError, match="column 'region' is no numeric channel: it holds 'north'") as caught:
        _open(path)
    assert caught.value.hint.startswith("set data.series.channels to load, temp; or, if 'region' names the series")
    chosen = _open(path, series=SeriesConfig(context=4, horizon=2, channels=("temp",)))
    assert chosen.inputs == ("time", "temp")


def test_the_row_number_that_a_table_was_saved_with_is_no_channel(tmp_path: Path) -> None:
    lines = [f"{row},{line}" for row, line in enumerate(_lines())]
    source = _open(_write(tmp_path / "a.csv", lines, ",date,load,temp"))
    assert source.schema["series"]["channels"] == ["load", "temp"]
    assert "without a name are left out" in source.notes[0]


@pytest.mark.parametrize(
    ("header", "config", "said"),
    [
        ("date,load,temp", {"time": "day"}, r"has no column 'day' \(data.time\): it has date, load, temp"),
        ("date,load,temp", {"group": "shop"}, r"has no column 'shop' \(data.group\)"),
        ("date,load,temp", {"series": SeriesConfig(channels=("laod",))}, r"no column 'laod' \(data.series.channels\)"),
        ("date,load,load", {}, "has column 'load' twice"),
        ("day,load,temp", {"modality": "series"}, "has no time column: it has day, load, temp"),
        ("date,load,id", {}, "a channel is called 'id'"),
        ("date,load,temp", {"task": "multilabel"}, "'multilabel', which a series cannot be"),
        ("date,load,temp", {"task": "multiclass"}, "has no column called like a label"),
        ("date,load,temp", {"task": "forecasting", "label": "temp"}, "'forecasting' and data.label is 'temp'"),
        ("date,load,temp", {"time": "load"}, "column 'load': '0.5' is no time"),
    ],
)
def test_roles_that_do_not_fit_are_refused(tmp_path: Path, header: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        _open(_write(tmp_path / "a.csv", _lines(), header), **config)


def test_too_short_a_series_is_refused_with_the_numbers(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", _lines(60))
    assert _open(path, series=SeriesConfig(context=6, horizon=3)).n == 60
    with pytest.raises(InputError) as caught:
        _open(path, series=SeriesConfig(context=7, horizon=3))
    assert "it has 60 rows, of which the validation split (15%) gets 9, but one window needs 10" in caught.value.message
    assert caught.value.hint.startswith("bring 67 rows or more")
    cut = SplitConfig(validation_from="2026-01-02", test_from="2026-01-03")
    assert _open(path, series=SeriesConfig(context=7, horizon=3), split=cut).n == 60
    with pytest.raises(InputError, match="it has 60 rows, but one window needs 61"):
        _open(path, series=SeriesConfig(context=60, horizon=1), split=cut)


def test_no_usable_row_names_the_first(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", ["2026-01-01,one", "2026-01-02,two", "2026-01-03,3"], "date,load")
    with pytest.raises(InputError, match="column 'load' is no numeric channel: it holds 'one'"):
        _open(path)
    path = _write(tmp_path / "b.csv", ["2026-01-01,inf"], "date,load")
    with pytest.raises(InputError, match="has no usable row: row 1 column 'load': 'inf' is not finite"):
        _open(path)


def test_bytes_that_are_no_utf8_are_refused_by_line_or_place(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("date,gr\xf6sse\n2026-01-01,1\n".encode("latin-1"))
    with pytest.raises(InputError, match="line 1: byte 0xf6 is not UTF-8"):
        _open(path)
    head = "\n".join(["date,load", *(f"{START + dt.timedelta(hours=row)},1" for row in range(4000))])
    path.write_bytes(head.encode() + b"\n2027-01-01,\xff\n")
    with pytest.raises(InputError, match="cannot be read to its end"):
        _open(path)


def test_a_label_for_each_row_when_told_to_be_a_series(tmp_path: Path) -> None:
    lines = [f"{line},{'on' if row % 3 else 'off'}" for row, line in enumerate(_lines())]
    lines[5] = lines[5].rsplit(",", 1)[0] + ","
    source = _open(_write(tmp_path / "a.csv", lines, "date,load,temp,label"), modality="series")
    assert (source.task, source.labels) == ("multiclass", ("off", "on"))
    assert source.suggestions == {"time": "date", "label": "label"}
    assert source.schema["series"]["horizon"] == 0
    table, aside = _rows(source)
    assert aside == {"6": "row 6 column 'label': no label"}
    assert table["label"].to_pylist()[:4] == [0, 1, 1, 0]
    assert table.schema.field("label").type == pa.int64()


def test_a_label_with_one_class_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", [f"{line},on" for line in _lines()], "date,load,temp,label")
    with pytest.raises(InputError, match=r"column 'label' has one class only \('on'\)"):
        _open(path, modality="series")


def test_a_number_for_each_row_is_a_regression_when_told(tmp_path: Path) -> None:
    source = _open(_write(tmp_path / "a.csv", _lines()), modality="series", task="regression", label="temp")
    assert (source.task, source.labels, source.schema["series"]["channels"]) == ("regression", (), ["load"])
    assert _rows(source)[0]["label"].to_pylist()[:2] == [0.0, 10.0]


def test_a_row_whose_quantity_is_no_number_is_set_aside(tmp_path: Path) -> None:
    lines = _lines()
    lines[20] = lines[20].replace(",200", ",many")
    lines[21] = lines[21].replace(",210", ",")
    path = _write(tmp_path / "a.csv", lines)
    table, aside = _rows(_open(path, modality="series", task="regression", label="temp"))
    assert table.num_rows == 58
    assert aside == {
        "21": "row 21 column 'temp': 'many' is not a number",
        "22": "row 22 column 'temp': no label",
    }


@pytest.mark.parametrize("block", [64, 4 * 2**20])
def test_a_limit_keeps_the_first_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(series_reading, "BLOCK_BYTES", block)
    lines = _lines()
    lines[10] += ",more"
    source = _open(_write(tmp_path / "a.csv", lines), limit=50)
    table, aside = _rows(source)
    assert table["id"].to_pylist() == [str(row) for row in range(1, 51) if row != 11]
    assert list(aside) == ["11"]
    assert source.n == 50
    assert source.notes[-1] == "data.limit keeps the first 50 rows, because a series has no holes"


def test_a_decimal_comma_and_a_header_alone_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", ["2026-01-01;1,5", "2026-01-02;1,6"], "date;load")
    with pytest.raises(InputError, match="column 'load' is no numeric channel: it holds '1,5'") as caught:
        _open(path)
    assert caught.value.hint.startswith("write numbers with a decimal point")
    with pytest.raises(InputError, match="has a header but no rows"):
        _open(_write(tmp_path / "b.csv", []))


def test_official_splits_from_a_column(tmp_path: Path) -> None:
    lines = [f"{line},{'train' if row < 40 else 'val' if row < 50 else 'test'}" for row, line in enumerate(_lines())]
    lines[59] = lines[59].replace(",test", ",tset")
    source = _open(_write(tmp_path / "a.csv", lines, "date,load,temp,part"), split=SplitConfig(column="part"))
    table, aside = _rows(source)
    assert set(table["split"].to_pylist()) == {"train", "validation", "test"}
    assert aside == {"60": "row 60 column 'part': 'tset' is no split (train, validation, test)"}


def test_fresh_rows_need_the_channels_and_labels_of_the_base(tmp_path: Path) -> None:
    base = _open(_write(tmp_path / "a.csv", _lines()))
    fresh = _write(tmp_path / "b.csv", _lines(63)[60:])  # shorter than a window is no error for fresh rows
    assert _open(fresh, like=base).schema["series"]["channels"] == ["load", "temp"]
    with pytest.raises(InputError, match=r"has the channels load, wind: data.source has load, temp"):
        _open(_write(tmp_path / "c.csv", _lines(3), "date,load,wind"), like=base)
    labelled = [f"{line},{row % 2}" for row, line in enumerate(_lines())]
    config: dict[str, Any] = {"modality": "series", "label": "label"}
    base = _open(_write(tmp_path / "d.csv", labelled, "date,load,temp,label"), **config)
    other = _write(
        tmp_path / "e.csv", [*(f"{line},1" for line in _lines(2)), "2027-01-01,1,2,7"], "date,load,temp,label"
    )
    with pytest.raises(InputError, match=r"row 3, column 'label': '7' is a class that data.source does not have"):
        _open(other, like=base, **config)


def test_ids_and_delimiter_are_taken_as_told(tmp_path: Path) -> None:
    lines = [f"r{row};{line.replace(',', ';')}" for row, line in enumerate(_lines())]
    source = _open(_write(tmp_path / "a.csv", lines, "key;date;load;temp"), id="key", delimiter=";")
    assert _rows(source)[0]["id"].to_pylist()[:2] == ["r0", "r1"]


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    one, two = _write(tmp_path / "a.csv", _lines()), _write(tmp_path / "b.csv", _lines())
    assert _open(one).digest == _open(two).digest
    assert _open(one).digest != _open(_write(tmp_path / "c.csv", _lines(61))).digest
