"""Tables: what each kind of file gives, and what every kind of damage is answered with."""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.ingest.readers.table import delimited as table_csv
from kfloop.components.ingest.readers.table import json_lines as table_json
from kfloop.components.ingest.readers.table import parquet as table_parquet
from kfloop.components.ingest.readers.table import reader as table
from kfloop.components.ingest.readers.table.ids import text_hashes
from kfloop.components.ingest.readers.table.kinds import Votes, parsed
from kfloop.components.ingest.readers.table.limit import Limit, spread
from kfloop.components.ingest.source import ROWS_PER_BATCH, Source
from kfloop.core.sections import DataConfig
from kfloop.errors import ConfigError, InputError

ROWS = 100
GOOD = "a,b,label\n" + "".join(f"{i},{i * 0.5},{'xy'[i % 2]}\n" for i in range(ROWS))


def opened(path: Path, like: Source | None = None, **config: Any) -> Source:
    return table.open_source(path, DataConfig(source=str(path), **config), like)


def csv(folder: Path, text: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def parquet(folder: Path, name: str = "rows.parquet", **columns: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def read(source: Source) -> tuple[pa.Table, list[dict[str, str]]]:
    batches = list(source.batches())
    assert all(batch.table.num_rows <= ROWS_PER_BATCH for batch in batches)
    return pa.concat_tables(batch.table for batch in batches), [row for batch in batches for row in batch.quarantined]


def refused(path: Path, *words: str, **config: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read(opened(path, **config))
    for word in words:
        assert word in f"{caught.value.message} | {caught.value.hint}"
    return caught.value


# CSV


def test_csv_gives_typed_columns_and_class_indices(tmp_path: Path) -> None:
    source = opened(csv(tmp_path, GOOD))
    rows, quarantined = read(source)
    assert (source.kind, source.modality, source.task, source.labels, source.n) == (
        "csv",
        "table",
        "multiclass",
        ("x", "y"),
        ROWS,
    )
    assert source.schema == {"columns": {"a": "int64", "b": "float64"}}
    assert source.inputs == ("a", "b")
    assert source.suggestions == {"label": "label"}
    assert rows.column_names == ["id", "a", "b", "label"]
    assert rows["id"].to_pylist() == [str(i) for i in range(ROWS)]
    assert rows["label"].to_pylist() == [i % 2 for i in range(ROWS)]
    assert rows.schema.field("label").type == pa.int64()
    assert not quarantined


def test_batches_may_be_asked_for_again(tmp_path: Path) -> None:
    source = opened(csv(tmp_path, GOOD))
    assert read(source)[0].equals(read(source)[0])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    plain = read(opened(csv(tmp_path, GOOD)))[0]
    assert read(opened(csv(tmp_path, GOOD.replace(",", delimiter), "other.csv")))[0].equals(plain)


def test_byte_order_mark_windows_ends_and_packing_change_nothing(tmp_path: Path) -> None:
    plain = read(opened(csv(tmp_path, GOOD)))[0]
    marked = csv(tmp_path, "\ufeff" + GOOD.replace("\n", "\r\n"), "marked.csv")
    packed = csv(tmp_path, gzip.compress(GOOD.encode()), "packed.csv.gz")
    assert read(opened(marked))[0].equals(plain)
    assert read(opened(packed))[0].equals(plain)


def test_digest_is_of_the_bytes_not_of_the_name(tmp_path: Path) -> None:
    first, second = csv(tmp_path, GOOD), csv(tmp_path, GOOD, "again.csv")
    assert opened(first).digest == opened(second).digest
    assert opened(csv(tmp_path, GOOD + "1,2,x\n")).digest != opened(second).digest


@pytest.mark.parametrize("block", [64, 300, 4 << 20])
def test_bad_rows_are_named_by_row_and_line_whatever_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(table_csv, "BLOCK_SIZE", block)
    text = "a,b,label\n1,2\n" + GOOD.partition("\n")[2] + '3,4,5,6\n\n7,"q\nr",x\nbad,1.5,x\n5,1,\n6,1,NaN\n1,2\n'
    rows, quarantined = read(opened(csv(tmp_path, text)))
    assert rows["id"].to_pylist() == [str(i) for i in range(1, ROWS + 1)]
    assert [(row["id"], row["reason"].partition(":")[0]) for row in quarantined] == [
        ("0", "row 1 (line 2)"),
        ("101", "row 102 (line 103)"),
        ("102", "row 103 (line 105), column 'b'"),
        ("103", "row 104 (line 107), column 'a'"),
        ("104", "row 105 (line 108), column 'label'"),
        ("105", "row 106 (line 109), column 'label'"),
        ("106", "row 107 (line 110)"),
    ]
    assert "2 fields instead of 3" in quarantined[0]["reason"]
    assert "'bad': expected a number" in quarantined[3]["reason"]


def test_lines_without_blank_or_broken_ones_are_counted_not_searched(tmp_path: Path) -> None:
    _, quarantined = read(opened(csv(tmp_path, GOOD + "bad,1,x\n")))
    assert quarantined == [{"id": "100", "reason": "row 101 (line 102), column 'a': 'bad': expected a number"}]


def test_a_column_with_many_words_is_text(tmp_path: Path) -> None:
    text = "a,label\n" + "".join(f"{'word' if i % 10 == 0 else i},{i % 2}\n" for i in range(ROWS))
    source = opened(csv(tmp_path, text))
    assert source.schema == {"columns": {"a": "string"}}
    assert not read(source)[1]


@pytest.mark.parametrize("marker", ["", "NA", "NaN", "null", "None"])
def test_missing_markers_are_null(tmp_path: Path, marker: str) -> None:
    rows, quarantined = read(opened(csv(tmp_path, GOOD + f"{marker},1,x\n1,2,{marker}\n")))
    assert rows["a"].to_pylist()[-1] is None
    assert [row["reason"] for row in quarantined] == ["row 102 (line 103), column 'label': no label"]


def test_types_of_csv_columns(tmp_path: Path) -> None:
    text = "w,f,t,z,b,e,s,label\n" + "".join(
        f"+{i},{i}e-1,2024-01-{i % 28 + 1:02d},2024-01-01T00:00:00+01:00,{'True' if i % 3 else 'false'},,{'pq'[i % 2]},{i % 2}\n"
        for i in range(ROWS)
    )
    source = opened(csv(tmp_path, text))
    times = "timestamp[us]"
    assert source.schema["columns"] == {
        "w": "int64", "f": "float64", "t": times, "z": times, "b": "bool", "e": "float64", "s": "string"
    }  # fmt: skip
    rows = read(source)[0].to_pylist()
    assert rows[1] | {"id": "1", "label": 1} == rows[1]
    assert rows[1]["w"] == 1
    assert rows[1]["f"] == pytest.approx(0.1)
    assert rows[1]["z"] == dt.datetime(2023, 12, 31, 23)  # noqa: DTZ001 - the column is UTC without a zone
    assert "column 'e' is empty" in source.notes


def test_a_line_that_is_no_json_is_named_once(tmp_path: Path) -> None:
    good = [json.dumps({"a": n, "label": n % 2}) for n in range(20)]
    aside = read(opened(lines(tmp_path, [*good, '{"a": 3, "label": ']), max_quarantined_share=1.0))[1]
    assert [item["reason"] for item in aside] == ["line 21: no JSON: Expecting value: column 19"]


def test_a_table_without_a_label_may_be_a_series(tmp_path: Path) -> None:
    path = csv(tmp_path, "Zeit,Last\n2026-01-01,3.5\n")
    refused(path, "has no column called label", "kfloop init: --label NAME", "kfloop init: --time NAME")
    assert "--time" not in refused(path, "has no column called label", modality="table").hint


def test_decimal_commas_are_told(tmp_path: Path) -> None:
    source = opened(csv(tmp_path, "a;label\n" + "".join(f"{i},5;{i % 2}\n" for i in range(20))))
    assert source.schema == {"columns": {"a": "string"}}
    assert "decimal point" in source.notes[0]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("customer", "C{n:05d}", "column 'customer': another value in nearly every row"),
        ("review_id", "{n}", "kfloop init: --id 'review_id'"),
        ("joined", "{d}.03.2024", "column 'joined': text, though its values look like dates"),
        ("joined", "{d}/3/24 10:30", "look like dates"),
        ("review", "a quite good thing {n}", "kfloop init: --text 'review'"),
        ("price", "{n},5", "decimal point"),
        ("Objekt Nr.", "{n}", "kfloop init: --id 'Objekt Nr.'"),  # counts the rows, whatever it is called
        ("amount", "{r}", ""),
        ("joined", "2024-03-{d:02d}", ""),
        ("plan", "pro {p}", ""),
        ("bid", "{r}", ""),
    ],
)
def test_inputs_that_teach_little_as_they_are_are_told(tmp_path: Path, name: str, value: str, told: str) -> None:
    rows = (f"{value.format(n=n, d=n % 28 + 1, p=n % 7, r=n * 37 % 1009)};{n % 3};{n % 2}\n" for n in range(200))
    source = opened(csv(tmp_path, f"{name};b;label\n" + "".join(rows)))
    assert source.inputs == (name, "b")
    assert [told in note for note in source.notes] == ([True] if told else [])


def test_a_few_rows_that_differ_are_no_reason_to_warn(tmp_path: Path) -> None:
    assert opened(csv(tmp_path, "a,b,label\n" + "".join(f"x{i},{i},{i % 2}\n" for i in range(20)))).notes == ()


def test_an_index_without_a_name_is_left_out(tmp_path: Path) -> None:
    source = opened(csv(tmp_path, ",a,label\n" + "".join(f"{i},{i},{i % 2}\n" for i in range(ROWS))))
    assert source.inputs == ("a",)
    assert "left out" in source.notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("a,b,label\n", ["no rows", "a, b, label"]),
        ("a,a,label\n1,2,x\n", ["columns 1 and 2", "'a'"]),
        ("a,,label\n1,2,x\n", ["column 2 has no name"]),
        ("a,b\n1,2\n", ["no column called label, target, class, y", "a, b", "data.label"]),
        ("label,y\n1,2\n", ["2 columns that could be the label", "label, y"]),
        ("5,3.1,x\n4,2.2,y\n", ["looks like data"]),
        ("a,label\n1,x\n2,x\n", ["one class only", "'x'"]),
        ("a,label\n1,\n2,\n", ["no row has a label", "'label'"]),
        ("a,label\n1,x\n2,y\n3,z\n", ["every one of the 3 labels", "no classes"]),
        ("label\nx\ny\nx\n", ["no column to learn from"]),
        (GOOD.replace(",", "^"), ["line 1 is one column", "'^' gives 3 columns", "data.delimiter"]),
        ("a,b,label\n1,2,x,\n3,4,y,\n", ["no rows that fit its header"]),
        (GOOD + '5,"lost,x\n' + "6,7,y\n" * 50, ["row 101", "goes on for", "quotation mark is not closed"]),
        ("# made by hand\n" + GOOD, ["line 1 is one column", "'# made by hand'", "3 by ','"]),
        ("\n" + GOOD, ["line 1 is blank", "names of the columns"]),
        (GOOD.replace("\n", "\r"), ["CR alone"]),
        (GOOD.encode("utf-16"), ["not UTF-8", "UTF-16"]),
        (GOOD.encode() + "5,caf\u00e9,x\n".encode("latin-1"), ["line 102, column 'b'", "0xe9", "latin1"]),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    assert str(refused(csv(tmp_path, text), *words).message).startswith(f"'{tmp_path}")


def test_bad_bytes_are_placed_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfloop.components.ingest.readers.table import dialect as table_dialect

    monkeypatch.setattr(table_dialect, "BLOCK", 7)
    refused(csv(tmp_path, GOOD.encode() + b"\xff,1,x\n"), "line 102, column 'a'", "0xff")
    assert opened(csv(tmp_path, GOOD.replace("x", "\u20ac"))).labels == ("y", "\u20ac")


def test_a_delimiter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, GOOD.replace(",", ";"))
    refused(path, "data.delimiter ','", "';' gives 3 columns", delimiter=",")
    assert opened(path, delimiter=";").n == ROWS
    with pytest.raises(ConfigError, match="one character"):
        opened(path, delimiter=";;")


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    refused(csv(tmp_path, gzip.compress(GOOD.encode())[:-20], "cut.csv.gz"), "cannot be read")


# Labels


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["1.0", "0.0", "10.0"], ("0", "1", "10")),
        (["True", "FALSE"], ("false", "true")),
        ([" b ", "a"], ("a", "b")),
        (["0.5", "1.5"], ("0.5", "1.5")),
        (["1", "x"], ("1", "x")),
    ],
)
def test_classes_and_their_order(tmp_path: Path, values: list[str], labels: tuple[str, ...]) -> None:
    text = "a,y\n" + "".join(f"{i},{values[i % len(values)]}\n" for i in range(30))
    source = opened(csv(tmp_path, text))
    assert (source.task, source.labels) == ("multiclass", labels)
    assert set(read(source)[0]["label"].to_pylist()) == set(range(len(labels)))


def test_numbers_with_many_values_are_a_quantity(tmp_path: Path) -> None:
    text = "a,y\n" + "".join(f"{i},{i * 0.3}\n" for i in range(30)) + "1,odd\n1,inf\n"
    source = opened(csv(tmp_path, text))
    rows, quarantined = read(source)
    assert (source.task, source.labels) == ("regression", ())
    assert rows["label"].to_pylist()[1] == pytest.approx(0.3)
    assert ["'odd': expected a number" in quarantined[0]["reason"], "finite" in quarantined[1]["reason"]] == [
        True,
        True,
    ]


def test_many_whole_numbers_are_a_quantity_with_a_note(tmp_path: Path) -> None:
    text = "a,y\n" + "".join(f"{i},{i % 60}\n" for i in range(120))
    source = opened(csv(tmp_path, text))
    assert source.task == "regression"
    assert "data.task: multiclass" in source.notes[0]
    assert len(opened(csv(tmp_path, text), task="multiclass").labels) == 60


def test_labels_without_end_are_not_all_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfloop.components.ingest.labels import plan as labels

    monkeypatch.setattr(labels, "LARGEST_CLASS_SET", 40)
    monkeypatch.setattr(table_csv, "BLOCK_SIZE", 200)
    numbers = csv(tmp_path, "a,y\n" + "".join(f"{i},{i * 0.3}\n" for i in range(200)))
    assert opened(numbers).task == "regression"
    refused(numbers, "more than 40 different labels", task="multiclass")
    words = csv(tmp_path, "a,y\n" + "".join(f"{i},w{i}\n" for i in range(200)))
    refused(words, "more than 40 different labels")


def test_a_header_longer_than_the_first_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfloop.components.ingest.readers.table import dialect as table_dialect

    monkeypatch.setattr(table_dialect, "LOOK", 16)
    names = [f"column_{i}" for i in range(50)]
    text = (
        ",".join([*names, "label"]) + "\n" + "".join(",".join([str(i)] * 50 + ["xy"[i % 2]]) + "\n" for i in range(20))
    )
    assert opened(csv(tmp_path, text)).inputs == tuple(names)


def test_regression_of_words_is_refused_naming_the_row(tmp_path: Path) -> None:
    refused(csv(tmp_path, GOOD), "row 1 (line 2), column 'label'", "'x' is not a number", task="regression")
    with pytest.raises(ConfigError, match="forecasting"):
        opened(csv(tmp_path, GOOD), task="forecasting")


def test_a_class_seen_once_is_kept_and_named(tmp_path: Path) -> None:
    source = opened(csv(tmp_path, GOOD + "3,4,zed\n"))
    assert source.labels == ("x", "y", "zed")
    assert "'zed' (row 101 (line 102))" in source.notes[0]


def test_several_labels_in_one_text(tmp_path: Path) -> None:
    text = "a,y\n" + "".join(f"{i},{['q|p', 'q', '', 'r;q|q'][i % 4]}\n" for i in range(20))
    source = opened(csv(tmp_path, text), task="multilabel")
    rows, quarantined = read(source)
    assert (source.task, source.labels) == ("multilabel", ("p", "q", "r"))
    assert rows["label"].to_pylist()[:3] == [[0, 1], [1], [1, 2]]
    assert len(quarantined) == 5


# Roles of columns


def test_ids_groups_times_and_splits(tmp_path: Path) -> None:
    text = "id,patient,when,part,a,label\n" + "".join(
        f"r{i},p{i // 4},2024-01-{i % 28 + 1:02d},{['train', 'Val', 'TESTING'][i % 3]},{i},{i % 2}\n" for i in range(40)
    )
    source = opened(
        csv(tmp_path, text + "r40,,2024-01-01,train,1,0\n"), group="patient", time="when", split={"column": "part"}
    )
    rows, quarantined = read(source)
    assert source.inputs == ("a",)
    assert rows.column_names == ["id", "a", "label", "group", "time", "split"]
    first = rows.to_pylist()[1]
    assert (first["id"], first["group"], first["split"]) == ("r1", "p0", "validation")
    assert rows.schema.field("time").type == pa.timestamp("us")
    assert quarantined == [{"id": "r40", "reason": "row 41 (line 42), column 'patient': no group"}]


def test_group_and_time_are_suggested_not_taken(tmp_path: Path) -> None:
    text = "patient_id,date,label\n" + "".join(f"p{i // 4},2024-01-{i % 28 + 1:02d},{i % 2}\n" for i in range(40))
    source = opened(csv(tmp_path, text))
    assert source.suggestions == {"label": "label", "group": "patient_id", "time": "date"}
    assert source.inputs == ("patient_id", "date")


def test_a_repeated_id_is_refused_when_told_and_left_alone_when_guessed(tmp_path: Path) -> None:
    text = "id,a,label\n" + "".join(f"r{i},{i},{i % 2}\n" for i in range(20)) + "r3,1,0\n"
    refused(csv(tmp_path, text), "id 'r3'", "row 4 (line 5)", "row 21 (line 22)", id="id")
    source = opened(csv(tmp_path, text))
    assert source.inputs == ("id_", "a")
    assert read(source)[0]["id"].to_pylist()[:2] == ["0", "1"]
    assert "repeats" in source.notes[0]


def test_reserved_names_get_an_underscore(tmp_path: Path) -> None:
    text = "origin,origin_,time,label\n" + "".join(f"{i},{i},{i},{i % 2}\n" for i in range(20))
    source = opened(csv(tmp_path, text))
    assert source.inputs == ("origin__", "origin_", "time_")
    assert "'origin' is called 'origin__'" in source.notes[0]


def test_unknown_columns_and_splits_are_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, GOOD)
    refused(path, "no column 'lable' (data.label)", "did you mean 'label'", label="lable")
    refused(path, "no column 'speaker' (data.group)", group="speaker")
    refused(path, "row 1 (line 2), column 'a'", "'0' is no split", split={"column": "a"})
    refused(path, "column 'b' (data.time)", "double", time="b")
    with pytest.raises(ConfigError, match=r"data\.label and data\.group"):
        opened(path, label="b", group="b")
    with pytest.raises(ConfigError, match="'image'"):
        opened(path, modality="image")


# Limit


def test_limit_keeps_as_many_rows_spread_over_the_file(tmp_path: Path) -> None:
    source = opened(csv(tmp_path, GOOD), limit=10)
    ids = [int(name) for name in read(source)[0]["id"].to_pylist()]
    assert (source.n, len(ids)) == (10, 10)
    assert ids == sorted(ids)
    assert ids != list(range(10))
    assert opened(csv(tmp_path, GOOD), limit=1000).n == ROWS


def test_limit_is_nested_and_independent_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from kfloop.components.ingest.readers.table import limit as table_limit

    numbers = np.arange(10_000)
    few, many = Limit(10_000, 100).kept(numbers), Limit(10_000, 1000).kept(numbers)
    assert (few.sum(), many.sum()) == (100, 1000)
    assert not (few & ~many).any()
    assert len(np.unique(spread(numbers))) == len(numbers)
    monkeypatch.setattr(table_limit, "_STEP", 7)
    assert (Limit(10_000, 100).kept(numbers) == few).all()


# Text in a table


def test_one_column_of_sentences_is_text(tmp_path: Path) -> None:
    text = "review,label\n" + "".join(f'"this is, number {i} \ufffd",{i % 2}\n' for i in range(20)) + ",1\n"
    source = opened(csv(tmp_path, text))
    rows, quarantined = read(source)
    assert (source.modality, source.inputs, source.facts) == ("text", ("text",), ("characters", "words", "replacement"))
    assert source.suggestions == {"label": "label", "text": "review"}
    assert rows.to_pylist()[0] == {
        "id": "0", "text": "this is, number 0 \ufffd", "characters": 19, "words": 5, "replacement": pytest.approx(1 / 19), "label": 0
    }  # fmt: skip
    assert quarantined == [{"id": "20", "reason": "row 21 (line 22), column 'review': no text"}]


def test_the_configuration_decides_about_text(tmp_path: Path) -> None:
    path = csv(tmp_path, "kind,text,label\n" + "".join(f"k{i % 3},t{i},{i % 2}\n" for i in range(20)))
    assert opened(path).modality == "table"
    told = opened(path, text="text")
    assert (told.modality, told.notes) == ("text", ("only the text is learned from: kind left out",))
    assert opened(path, modality="text").suggestions["text"] == "text"
    other = csv(tmp_path, "p,q,label\n" + "".join(f"k{i % 3},t{i},{i % 2}\n" for i in range(20)), "two.csv")
    refused(other, "2 columns of text", "data.text", modality="text")
    sentences = csv(tmp_path, "s,label\n" + "".join(f"this is number {i},{i % 2}\n" for i in range(20)), "s.csv")
    assert (opened(sentences).modality, opened(sentences, modality="table").modality) == ("text", "table")


# Parquet


def test_parquet_types_become_the_few_of_a_table(tmp_path: Path) -> None:
    n = 40
    path = parquet(
        tmp_path,
        small=pa.array(range(n), pa.int8()),
        money=pa.array([decimal.Decimal("1.50")] * n),
        day=pa.array([dt.date(2024, 1, 1)] * n),
        zoned=pa.array([dt.datetime(2024, 1, 1, tzinfo=dt.UTC)] * n),
        kind=pa.array(list("ab") * 20).dictionary_encode(),
        big=pa.array(["t"] * n, pa.large_string()),
        flag=pa.array([True, None] * 20),
        nothing=pa.nulls(n),
        label=pa.array(["a", "b", None, "a"] * 10),
    )
    source = opened(path)
    rows, quarantined = read(source)
    times = "timestamp[us]"
    assert source.schema["columns"] == {
        "small": "int64", "money": "float64", "day": times, "zoned": times, "kind": "string", "big": "string", "flag": "bool",
        "nothing": "float64",
    }  # fmt: skip
    assert rows.num_rows == 30
    assert quarantined[0] == {"id": "2", "reason": "row 3, column 'label': no label"}


@pytest.mark.parametrize(
    ("labels", "task", "names"),
    [
        ([0.5, float("nan"), 1.5, 0.5], "multiclass", ("0.5", "1.5")),
        ([1.0, 0.0, None, 1.0], "multiclass", ("0", "1")),
        ([True, False, None, True], "multiclass", ("false", "true")),
        ([10, 9, None, 10], "multiclass", ("9", "10")),
        ([["b", "a"], [], None, ["a", "c", "c"]], "multilabel", ("a", "b", "c")),
    ],
)
def test_parquet_labels(tmp_path: Path, labels: list[Any], task: str, names: tuple[str, ...]) -> None:
    source = opened(parquet(tmp_path, v=pa.array(range(40)), label=pa.array(labels * 10)))
    rows, quarantined = read(source)
    assert (source.task, source.labels) == (task, names)
    assert (rows.num_rows, len(quarantined)) == (30, 10)
    if task == "multilabel":
        assert rows["label"].to_pylist()[:3] == [[0, 1], [], [0, 2]]


def test_an_empty_name_in_a_list_of_labels_is_set_aside(tmp_path: Path) -> None:
    labels = [["a", "b"], ["a", None], ["b"]] * 5
    _, quarantined = read(opened(parquet(tmp_path, v=pa.array(range(15)), label=pa.array(labels))))
    assert quarantined[0] == {"id": "1", "reason": "row 2, column 'label': an empty label in the list"}


def test_parts_are_one_table_and_their_order_is_that_of_their_names(tmp_path: Path) -> None:
    label = pa.array(["a", "b"] * 20)
    parquet(tmp_path, "parts/1.parquet", v=pa.array(range(40)), label=label)
    parquet(tmp_path, "parts/0.parquet", v=pa.array([0.5] * 40), label=label)
    parquet(tmp_path, "parts/2.parquet", v=pa.nulls(40), label=label)
    (tmp_path / "parts/_SUCCESS").touch()
    rows, _ = read(opened(tmp_path / "parts"))
    assert rows.num_rows == 120
    assert rows["v"].to_pylist()[39:42] == [0.5, 0.0, 1.0]
    assert rows["id"].to_pylist() == [str(i) for i in range(120)]


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    label = pa.array(["a", "b"] * 20)
    parquet(tmp_path, "types/0.parquet", v=pa.array(["q"] * 40), label=label)
    parquet(tmp_path, "types/1.parquet", v=pa.array(range(40)), label=label)
    refused(tmp_path / "types", "1.parquet", "column 'v' is of type int64, but string")
    parquet(tmp_path, "names/0.parquet", v=pa.array(range(40)), label=label)
    parquet(tmp_path, "names/1.parquet", w=pa.array(range(40)), label=label)
    refused(tmp_path / "names", "1.parquet", "lacks the column 'v'")
    parquet(tmp_path, "hive/day=1/0.parquet", v=pa.array(range(40)), label=label)
    refused(tmp_path / "hive", "stands for a column")


def test_bad_parquet_is_refused(tmp_path: Path) -> None:
    refused(csv(tmp_path, "nope", "a.parquet"), "cannot be read as Parquet")
    refused(csv(tmp_path, "", "b.parquet"), "it is empty")
    label = pa.array([0, 1] * 5)
    refused(parquet(tmp_path, v=pa.array([[1]] * 10), label=label), "column 'v'", "list<")
    refused(parquet(tmp_path, v=pa.array([2**63] * 10, pa.uint64()), label=label), "column 'v'", "uint64")
    refused(parquet(tmp_path, v=pa.array([1] * 10), label=pa.array([dt.date(2024, 1, 1)] * 10)), "holds times")
    refused(parquet(tmp_path, v=pa.array([], pa.int64()), label=pa.array([], pa.int64())), "no rows")
    whole = parquet(tmp_path, "c.parquet", v=pa.array(range(1000)), label=pa.array([0, 1] * 500)).read_bytes()
    refused(csv(tmp_path, whole[:100] + b"\0" * 50 + whole[150:], "c.parquet"), "c.parquet")


def test_parquet_ids_of_numbers_are_checked(tmp_path: Path) -> None:
    n = ROWS_PER_BATCH + 10
    ids = np.arange(n)
    label = pa.array(np.arange(n) % 3)
    rows, _ = read(opened(parquet(tmp_path, id=pa.array(ids + 5), v=pa.array(ids), label=label)))
    assert rows["id"][0].as_py() == "5"
    ids[-1] = 7
    refused(parquet(tmp_path, id=pa.array(ids), v=pa.array(ids), label=label), "id '7'", "row 8 ", f"row {n}", id="id")


def test_hashes_of_texts() -> None:
    texts = ["", "a", "b", "ab", "ba", "a\0", "\0", "\0\0", *map(str, range(100_000))]
    array = pa.array(["skipped", *texts]).slice(1)
    hashes = text_hashes(array)
    assert len(np.unique(hashes)) == len(texts)
    assert (hashes[100:110] == text_hashes(array.slice(100, 10))).all()
    assert (text_hashes(pa.array(["", ""])) == text_hashes(pa.array([""]))[0]).all()


def test_only_the_columns_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = table_parquet._tables
    monkeypatch.setattr(
        table_parquet,
        "_tables",
        lambda part, columns, types: asked.append(list(columns)) or plain(part, columns, types),
    )
    opened(
        parquet(
            tmp_path, id=pa.array(range(10)), v=pa.array(range(10)), w=pa.array(range(10)), label=pa.array([0, 1] * 5)
        )
    )
    assert asked[0] == ["label", "id"]


# JSON lines


def lines(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    return csv(folder, "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), name)


@pytest.mark.parametrize("block", [50, 4 << 20])
def test_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(table_json, "BLOCK", block)
    rows: list[Any] = [
        {
            "v": i,
            "w": i + 0.5 * (i % 2),
            "b": i % 2 == 0,
            "t": f"2024-01-01T00:00:{i:02d}",
            "tags": ["a"],
            "label": ["a", "b"][: i % 3],
        }
        for i in range(40)
    ]
    rows[7] |= {"v": "seven"}
    rows[9] = ""
    rows[11] = "{broken"
    rows[13] = "[1]"
    source = opened(
        lines(
            tmp_path,
            [
                {key: value for key, value in row.items() if key != "tags"} if row and isinstance(row, dict) else row
                for row in rows
            ],
        )
    )
    found, quarantined = read(source)
    assert source.schema["columns"] == {"v": "int64", "w": "float64", "b": "bool", "t": "timestamp[us]"}
    assert (source.task, source.labels, source.n) == ("multilabel", ("a", "b"), 39)
    assert [row["reason"].partition(":")[0] for row in quarantined] == ["line 8, column 'v'", "line 12", "line 14"]
    assert [row["id"] for row in quarantined] == ["7", "10", "12"]
    assert found["label"].to_pylist()[:3] == [[], [0], [0, 1]]


def test_numbers_among_texts_become_texts(tmp_path: Path) -> None:
    source = opened(lines(tmp_path, [{"v": i if i % 2 else f"w{i}", "label": i % 2} for i in range(20)]))
    assert read(source)[0]["v"].to_pylist()[:2] == ["w0", "1"]


def test_bad_json_lines_are_refused(tmp_path: Path) -> None:
    refused(lines(tmp_path, ["[1, 2]"]), "line 1 is no JSON object")
    refused(csv(tmp_path, "", "e.jsonl"), "is empty")
    refused(lines(tmp_path, [{"v": {"a": 1}, "label": i % 2} for i in range(10)]), "column 'v'", "struct")
    refused(csv(tmp_path, b'{"v": 1, "label": "\xff"}\n', "l.jsonl"), "line 1", "0xff")


# Freshly labelled rows


def test_fresh_rows_take_the_shape_of_the_source(tmp_path: Path) -> None:
    base = opened(csv(tmp_path, "a,c,label\n" + "".join(f"{i},{'uv'[i % 2]},{'xy'[i % 2]}\n" for i in range(30))))
    fresh = opened(csv(tmp_path, "c,more,a,label\n007,1,3.5,y\n2,1,4.0,y\n", "fresh.csv"), base, limit=1)
    rows, quarantined = read(fresh)
    assert (fresh.labels, fresh.schema, fresh.n) == (base.labels, base.schema, 2)
    assert rows.to_pylist() == [{"id": "1", "a": 4, "c": "2", "label": 1}]
    assert "row 1 (line 2), column 'a': '3.5': expected a whole number" in quarantined[0]["reason"]


def test_a_fresh_file_may_wait_for_its_first_row(tmp_path: Path) -> None:
    base = opened(csv(tmp_path, GOOD))
    fresh = opened(csv(tmp_path, "a,b,label\n", "fresh.csv"), base)
    assert (fresh.n, list(fresh.batches()), fresh.labels) == (0, [], base.labels)
    assert opened(csv(tmp_path, "a,b,label\n1,2,x", "fresh.csv"), base).n == 1


def test_fresh_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    base = opened(csv(tmp_path, GOOD))
    for text, words in (
        ("a,b,label\n1,2,zz\n", "row 1 (line 2), column 'label': 'zz'"),
        ("a,label\n1,x\n", "no column 'b'"),
    ):
        with pytest.raises(InputError) as caught:
            opened(csv(tmp_path, text, "fresh.csv"), base)
        assert words in caught.value.message


# Recognition and small parts


def test_recognise(tmp_path: Path) -> None:
    config = DataConfig()
    assert table.recognise(csv(tmp_path, GOOD), config)
    assert table.recognise(csv(tmp_path, b"\xff\0garbage", "g.csv.gz"), config)
    assert table.recognise(csv(tmp_path, "text\tlabel\na b\tx\n", "h.tsv"), config)
    assert not table.recognise(csv(tmp_path, "good\tsome text\n", "n.tsv"), config)
    assert not table.recognise(csv(tmp_path, "x", "x.bin"), config)
    assert not table.recognise(tmp_path / "missing.csv", config)
    assert not table.recognise(tmp_path, config)
    parquet(tmp_path, "parts/0.parquet", v=pa.array([1]))
    assert table.recognise(tmp_path / "parts", config)
    with pytest.raises(InputError, match="does not exist"):
        opened(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", " 2 ", "+3"], "int64"),
        (["1", "2.5", "1e3", "-inf"], "float64"),
        (["9" * 25, "1"], "float64"),
        (["true", "FALSE"], "bool"),
        (["2024-01-01", "2024-01-01 10:00"], "time"),
        (["2024-01-01", "2024-13-01"], "string"),
        (["2024-01-01"] * 99 + ["2024-02-30"], "time"),
        (["1"] * 95 + ["x"] * 5, "int64"),
        (["1"] * 94 + ["x"] * 6, "string"),
        ([], "empty"),
    ],
)
def test_votes(texts: list[str], kind: str) -> None:
    votes = Votes()
    votes.add(pa.array([*texts, None], pa.string()))
    assert votes.kind() == kind
    values, unfit = parsed(kind, pa.array([*texts, None], pa.string()))
    assert len(values) == len(texts) + 1
    assert int(unfit.sum()) == (values.null_count - 1 if kind != "empty" else 0)


def test_large_parquet_streams(tmp_path: Path) -> None:
    n = 3 * ROWS_PER_BATCH
    rng = np.random.default_rng(0)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"v": rng.normal(size=n), "label": rng.integers(0, 5, n)}), path, row_group_size=n // 2)
    source = opened(path)
    sizes = [batch.table.num_rows for batch in source.batches()]
    assert sum(sizes) == n
    assert max(sizes) <= ROWS_PER_BATCH
