"""What a new user is told: nothing is guessed, dropped or changed without a word, and every refusal shows a way out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from kfloop.cli.init import init_command
from kfloop.cli.loop_text import loop_text
from kfloop.components.ingest.files.columns import choose_labels, label_value
from kfloop.components.ingest.files.items import FileItem
from kfloop.components.ingest.ingestion import IngestReport, run
from kfloop.components.ingest.sources import SourceInfo, inspect
from kfloop.core.config import load_config
from kfloop.core.sections import DataConfig
from kfloop.core.workspace import Workspace
from kfloop.errors import InputError

ROWS = 60
COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def table(folder: Path, *cells: Any, head: str = "a,b,label", name: str = "rows.csv", rows: int = ROWS) -> Path:
    """A CSV file; each of ``cells`` is the text of a column, or a list of texts that are repeated."""
    path = folder / name
    columns = [cell if isinstance(cell, list) else [cell] for cell in cells]
    lines = [",".join(str(column[row % len(column)]) for column in columns) for row in range(rows)]
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


NUMBERS = [str(row * 7 % ROWS) for row in range(ROWS)]  # each once, and counting no rows


def told(path: Path, **config: Any) -> str:
    return "\n".join(inspect(DataConfig(source=str(path), **config)).notes)


def ingested(folder: Path, path: Path, **config: Any) -> IngestReport:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    workspace = Workspace(loop="t", root=folder, state="", store=str(folder / "store"), mlflow="")
    return run(DataConfig(source=str(path), corrections=None, **config), out=out, workspace=workspace)


def refused(path: Path, **config: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        inspect(DataConfig(source=str(path), **config))
    return caught.value


def test_two_spellings_of_one_accented_letter_are_one_class(tmp_path: Path) -> None:
    info = inspect(DataConfig(source=str(table(tmp_path, NUMBERS, NUMBERS, [COMPOSED, DECOMPOSED, "y"]))))
    assert info.labels == (COMPOSED, "y")


def test_two_spellings_of_one_accented_folder_are_one_class() -> None:
    items = [
        FileItem(id=str(row), path=Path("x"), label=label) for row, label in enumerate([COMPOSED, DECOMPOSED, "tea"])
    ]
    names = choose_labels(items, "multiclass", "photos", None)
    assert names == (COMPOSED, "tea")
    assert label_value(DECOMPOSED, "multiclass", {name: at for at, name in enumerate(names)}) == 0
    assert label_value(f"{DECOMPOSED};tea", "multilabel", {name: at for at, name in enumerate(names)}) == [0, 1]


def test_classes_that_look_alike_are_kept_apart_and_named(tmp_path: Path) -> None:
    path = table(tmp_path, NUMBERS, NUMBERS, ["01", "1", "Yes", "yes"])
    assert inspect(DataConfig(source=str(path))).labels == ("01", "1", "Yes", "yes")
    assert "'01' and '1' are the same number, but are kept apart" in told(path)
    assert "'Yes' and 'yes' differ in upper and lower case only" in told(path)


def test_one_class_beside_missing_labels_says_so(tmp_path: Path) -> None:
    error = refused(table(tmp_path, NUMBERS, NUMBERS, ["None", "some"]))
    assert "one class only ('some', 30 rows, and 30 rows without a label)" in error.message
    assert "None" in error.hint


def test_leading_zeros_are_not_lost_without_a_word(tmp_path: Path) -> None:
    path = table(tmp_path, [f"0{row:04d}" for row in range(ROWS)], ["0.5", "0"], ["01", "02"])
    notes = told(path)
    assert "column 'a': values such as '00000' are read as whole numbers" in notes
    assert "'b'" not in notes
    assert inspect(DataConfig(source=str(path))).labels == ("01", "02")


def test_the_index_of_a_data_frame_is_no_input(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    columns = {"a": list(range(ROWS)), "label": ["x", "y"] * (ROWS // 2)}
    pq.write_table(pa.table(columns | {"__index_level_0__": [f"r{row}" for row in range(ROWS)]}), path)
    with_index = ingested(tmp_path, path)
    pq.write_table(pa.table(columns), path)
    without = ingested(tmp_path, path)
    assert "column '__index_level_0__' is left out (the index of a data frame)" in with_index.warnings
    assert with_index.digest == without.digest
    assert list(with_index.schema["columns"]) == ["a"]


@pytest.mark.parametrize("nested", [{"u": 1}, [[1.0], [2.0]]])
def test_a_nested_column_is_named_with_its_file_and_may_stand_beside_a_text(tmp_path: Path, nested: Any) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [{"words": f"this is text {row}", "extra": nested, "label": "xy"[row % 2]} for row in range(ROWS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert f"'{path}': column 'extra' is of type" in refused(path).message
    assert "extra left out" in told(path, text="words")


def test_bytes_that_are_not_utf8_are_told_for_lines_and_files(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    lines = [f"{'good' if row % 2 else 'bad'}\tcaf{chr(0xE9) if row > 9 else 'e'} {row}" for row in range(ROWS)]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    assert "lines with bytes that are not UTF-8, which became U+FFFD: 50, the first is line 11" in told(path)
    for row, line in enumerate(lines):
        place = tmp_path / "texts" / line.partition("\t")[0] / f"{row:02d}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(line.encode("latin-1"))
    assert "files with bytes that are not UTF-8, which became U+FFFD: 50, the first is 'bad/10.txt'" in told(
        tmp_path / "texts"
    )


def test_lines_of_three_fields_are_told_and_a_pattern_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"{row}\t{'good' if row % 2 else 'bad'}\tthis is text {row}\n" for row in range(ROWS)))
    assert "have more than one TAB" in told(path)
    info = inspect(DataConfig(source=str(path), pattern="{id}\\t{label}\\t{text}"))
    assert (info.labels, info.n) == (("bad", "good"), ROWS)


def test_most_lines_without_a_label_are_told_before_the_run(tmp_path: Path) -> None:
    path = tmp_path / "lines.all"
    path.write_text("".join(f"{row % 2}{':' if row < 3 else ''} text {row}\n" for row in range(ROWS)))
    notes = told(path, pattern="{label}:{text}", max_quarantined_share=0.1)
    assert "57 of 60 rows cannot be used, and a run refuses more than 10%: line 4: no '{label}:{text}'" in notes
    assert "cannot be used" not in told(path, pattern="{label} {text}")


def test_numbers_that_float32_does_not_hold_are_set_aside(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(ROWS, 3))
    x[7, 1] = 1e300
    np.savez(tmp_path / "rows.npz", X=x, y=np.arange(ROWS) % 2)
    report = ingested(tmp_path, tmp_path / "rows.npz")
    assert [line["id"] for line in report.quarantined] == ["7"]
    assert "row 8, array 'X': 1e+300 does not fit into float32" in report.quarantined[0]["reason"]
    assert report.n_rows + report.n_quarantined == ROWS


def test_infinity_stays_a_number_of_a_vector(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(ROWS, 3))
    x[7, 1] = np.inf
    np.savez(tmp_path / "rows.npz", X=x, y=np.arange(ROWS) % 2)
    assert ingested(tmp_path, tmp_path / "rows.npz").n_quarantined == 0


def test_a_series_with_odd_times_is_told_about_its_times(tmp_path: Path) -> None:
    path = table(tmp_path, [f"{day:02d}/01/2024 00:00" for day in range(1, 29)], NUMBERS, head="time,load", rows=28)
    error = refused(path)
    assert "row 1, column 'time': '01/01/2024 00:00' is no time" in error.message
    assert "ISO 8601" in error.hint


def test_splits_that_nobody_asked_for_are_told(tmp_path: Path) -> None:
    path = table(tmp_path, NUMBERS, ["train", "train", "train", "test"], ["x", "x", "y", "y", "x"], head="a,part,label")
    report = ingested(tmp_path, path, split={"column": "part"})
    taken = report.splits["validation"]
    said = f"the source has no validation split: {taken} rows of its train split were taken for it"
    assert said in report.warnings


def test_a_random_split_of_rows_with_times_is_told(tmp_path: Path) -> None:
    days = [f"2024-01-{day:02d}" for day in range(1, 29)]
    path = table(tmp_path, NUMBERS, days, ["x", "y"], head="a,day,label")
    assert any("data.split.method: time" in line for line in ingested(tmp_path, path, time="day").warnings)
    by_time = ingested(tmp_path, path, time="day", split={"method": "time"})
    assert not any("data.split.method: time" in line for line in by_time.warnings)


def test_a_column_of_splits_is_told_and_suggested(tmp_path: Path) -> None:
    path = table(tmp_path, NUMBERS, ["train", "dev", "Test"], ["x", "x", "y", "y"], head="a,Split,label")
    info = inspect(DataConfig(source=str(path)))
    assert info.suggestions["split"] == {"column": "Split"}
    assert "column 'Split' holds names of splits" in told(path)
    assert "split" not in inspect(DataConfig(source=str(path), split={"column": "Split"})).suggestions
    other = table(tmp_path, NUMBERS, ["train", "dev", "wood"], ["x", "x", "y"], head="a,split,label")
    assert "split" not in inspect(DataConfig(source=str(other))).suggestions


def test_splits_are_only_told_where_a_group_is_guessed(tmp_path: Path) -> None:
    people = [f"P{row % 20}" for row in range(ROWS)]
    path = table(tmp_path, people, ["train", "dev", "test"], NUMBERS, ["x", "y"], head="patient,split,a,label")
    info = inspect(DataConfig(source=str(path)))
    assert info.suggestions == {"label": "label", "group": "patient"}
    assert any("column 'split' holds names of splits" in note for note in info.notes)


def small(modality: str, task: str, n: int) -> SourceInfo:
    labels = ("x", "y") if task == "multiclass" else ()
    return SourceInfo(
        kind="csv", modality=modality, task=task, uri="rows", labels=labels, n=n, n_fresh=0, digest="0", suggestions={}
    )


@pytest.mark.parametrize(
    ("modality", "task", "n", "floor"),
    [
        ("table", "multiclass", 150, "accuracy"),
        ("image", "multiclass", 150, "accuracy"),
        ("audio", "multiclass", 150, "accuracy"),
        ("table", "multilabel", 150, "micro_f1"),
        ("table", "regression", 150, "r2"),
        ("series", "forecasting", 700, "mse"),
        ("series", "multiclass", 2400, "accuracy"),
    ],
)
def test_small_data_get_rules_that_can_be_judged_and_protect(
    tmp_path: Path, modality: str, task: str, n: int, floor: str
) -> None:
    (tmp_path / "loop.yaml").write_text(loop_text("t", str(tmp_path / "rows"), small(modality, task, n), {}, tmp_path))
    rules = load_config(tmp_path / "loop.yaml").gate.rules
    assert rules is not None
    fresh = [rule for rule in rules if rule.slice in ("origin:fresh", "drifted:*")]
    assert {rule.use for rule in fresh} == {"unless_refuted"}  # fails only where few fresh rows prove the opposite
    assert all(rule.use == "point" and rule.min_n == 1 for rule in rules if rule not in fresh)
    assert all(rule.mode == "enforce" for rule in rules)
    told = {(rule.metric, rule.slice, rule.versus) for rule in rules}
    assert (floor, "overall", "absolute") in told
    assert {"baseline", "champion"} <= {versus for _, _, versus in told}
    assert (floor != "accuracy") or ("accuracy", "class:*", "absolute") in told
    assert (("leakage", "overall", "absolute") in told) == (modality in {"image", "audio"})


@pytest.mark.parametrize(
    ("modality", "task", "n"),
    [("table", "multiclass", 400), ("series", "forecasting", 2400), ("series", "multiclass", 9000)],
)
def test_data_that_are_not_small_get_the_default_rules(tmp_path: Path, modality: str, task: str, n: int) -> None:
    (tmp_path / "loop.yaml").write_text(loop_text("t", str(tmp_path / "rows"), small(modality, task, n), {}, tmp_path))
    assert load_config(tmp_path / "loop.yaml").gate.rules is None


def test_families_that_the_written_rules_cannot_judge_are_not_suggested(tmp_path: Path) -> None:
    few, many = (loop_text("t", "rows.csv", small("table", "multiclass", n), {}, tmp_path) for n in (150, 600))
    assert "autoencoder" not in few
    assert "autoencoder (finds odd rows)" in many
    assert "docs/loop-file.md" in few


def test_what_small_data_are_given_rejects_a_constant_answer_with_a_leak(tmp_path: Path) -> None:
    """80 of 100 images are of one class, the model always says so, and half of the test rows have a duplicate in train."""
    (tmp_path / "loop.yaml").write_text(
        loop_text("t", str(tmp_path / "rows"), small("image", "multiclass", 150), {}, tmp_path)
    )
    rules = {(r.metric, r.slice, r.versus): r for r in load_config(tmp_path / "loop.yaml").gate.rules or ()}
    never = rules["accuracy", "class:*", "absolute"]
    assert never.at_least is not None
    assert never.at_least > 0  # the rare class is never right
    leak = rules["leakage", "overall", "absolute"]
    assert leak.at_most is not None
    assert leak.at_most < 0.5


def test_a_suggested_column_of_splits_stands_in_the_loop_file_once(tmp_path: Path) -> None:
    info = SourceInfo(
        kind="csv",
        modality="table",
        task="multiclass",
        uri="rows.csv",
        labels=("x", "y"),
        n=60,
        n_fresh=0,
        digest="0",
        suggestions={"label": "label", "split": {"column": "Split"}},
    )
    (tmp_path / "loop.yaml").write_text(loop_text("t", str(tmp_path / "rows.csv"), info, {}, tmp_path))
    config = load_config(tmp_path / "loop.yaml")
    assert config.data.split.column == "Split"
    assert config.data.label == "label"


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("reviews.all", b"0 fine film", "data.pattern (kfloop init: --pattern '{label} {text}')"),
        ("rows.json", b"[]", "one object a line into a .jsonl file"),
        ("rows.npy", b"\x93NUMPY\x00", "numpy.savez"),
        ("rows.bin", b"\x00\x01", "data.source takes"),
    ],
)
def test_a_file_that_nobody_reads_has_a_way_out(tmp_path: Path, name: str, content: bytes, hint: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert hint in refused(tmp_path / name).hint


def test_a_folder_of_tables_says_that_one_is_to_be_named(tmp_path: Path) -> None:
    table(tmp_path, NUMBERS, NUMBERS, ["x", "y"], name="one.csv")
    table(tmp_path, NUMBERS, NUMBERS, ["x", "y"], name="two.csv")
    assert f"name one file of the folder, such as '{tmp_path / 'one.csv'}'" in refused(tmp_path).hint


def test_a_path_that_is_not_there_names_what_is_near_and_nothing_else(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"picture-{number}.png").touch()
    (tmp_path / "adult.csv").touch()
    assert "did you mean 'adult.csv'? " in refused(tmp_path / "adlut.csv").hint
    assert "picture" not in refused(tmp_path / "zzz").hint
    assert f"there is no folder '{tmp_path / 'gone'}'" in refused(tmp_path / "gone" / "rows.csv").hint


def test_init_takes_delimiter_task_and_id(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [f"k{row}:{row}:{row % 3}" for row in range(ROWS)]
    path.write_text("\n".join(["key:size:label", *lines]) + "\n")
    out = tmp_path / "loop.yaml"
    arguments = [str(path), "--delimiter", ":", "--task", "regression", "--id", "key", "-o", str(out), "--json"]
    done = CliRunner().invoke(init_command, arguments, standalone_mode=False)
    assert done.exception is None, done.output
    assert json.loads(done.output)["task"] == "regression"
    data = load_config(out).data
    assert (data.delimiter, data.task, data.id) == (":", "regression", "key")


def test_labels_joined_by_a_bar_are_told(tmp_path: Path) -> None:
    path = table(tmp_path, NUMBERS, NUMBERS, ["x", "x|y", "y"])
    assert "'x|y' is one class; if it is several labels, set data.task: multilabel" in told(path)
    assert inspect(DataConfig(source=str(path), task="multilabel")).labels == ("x", "y")
    assert told(path, task="multilabel") == ""


def test_rare_classes_are_told_before_a_training_is_spent_on_them(tmp_path: Path) -> None:
    labels = ["a"] * 150 + ["b"] * 150 + ["spam"] * 3
    path = tmp_path / "rare.csv"
    path.write_text("x,label\n" + "".join(f"{n * 7 % 311},{label}\n" for n, label in enumerate(labels)))
    assert "rare: class 'spam' (3 rows); too few of them fall into the test split" in told(path)
    path.write_text("x,label\n" + "".join(f"{n * 7 % 311},{label}\n" for n, label in enumerate(labels[140:])))
    assert "rare" not in told(path)  # 10 a, 150 b, 3 spam: small data


def test_rows_that_all_end_in_a_delimiter_are_shown(tmp_path: Path) -> None:
    error = refused(table(tmp_path, NUMBERS, NUMBERS, ["x,", "y,"]))
    assert "line 2 has 4 fields instead of 3 '0,0,x,'" in error.message
    assert "as many fields as there are names" in error.hint


def test_a_zero_byte_is_named_by_its_line(tmp_path: Path) -> None:
    assert "line 3: a zero byte" in refused(table(tmp_path, NUMBERS, ["1", "\0"], ["x", "y"])).message


@pytest.mark.parametrize("group", [None, "meter"])
def test_fresh_rows_of_a_series_repeat_no_moment(tmp_path: Path, group: str | None) -> None:
    days = [f"2024-{month:02d}-{day:02d}" for month in range(1, 13) for day in range(1, 29)]
    told = {"series": {"context": 8, "horizon": 2}, "group": group}
    path = table(tmp_path, days, NUMBERS, ["m1"], head="date,load,meter", rows=len(days))
    after = [day.replace("2024", "2025") for day in days]
    columns: dict[str, Any] = {"head": "date,load,meter", "name": "fresh.csv", "rows": 30}
    if group is None:
        path.write_text(path.read_text().replace(",m1", "").replace(",meter", ""))
    for dates, fits in ((after, True), (days, False)):
        fresh = table(tmp_path, dates, NUMBERS, ["m1"], **columns)
        if group is None:
            fresh.write_text(fresh.read_text().replace(",m1", "").replace(",meter", ""))
        if fits:
            assert ingested(tmp_path, path, fresh=str(fresh), **told).fresh_rows == 30
        else:
            assert "30 moments" in refused(path, fresh=str(fresh), **told).message
