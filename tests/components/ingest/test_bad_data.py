"""Thirty-odd ways in which data are bad: each is handled as documented, or refused by a message that names row and column."""

from __future__ import annotations

import json
import wave
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kfloop.components.ingest.ingestion import run
from kfloop.core.sections import DataConfig, SplitConfig
from kfloop.core.versions import SPLITS, verify_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kfloop.components.ingest.ingestion import IngestReport
    from kfloop.core.versions import DatasetVersion

ROWS = 240
Ingest = "Callable[..., tuple[IngestReport, DatasetVersion]]"


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., tuple[IngestReport, DatasetVersion]]:
    root = tmp_path / "loop"
    root.mkdir()
    workspace = Workspace(loop="t", root=root, state="", store=str(root / "store"), mlflow="")

    count = iter(range(9))

    def inner(source: Path, **told: Any) -> tuple[IngestReport, DatasetVersion]:
        out = root / f"out-{next(count)}"
        out.mkdir()
        config = DataConfig(source=str(source), **({"corrections": None, "max_quarantined_share": 0.2} | told))
        report = run(config, out=out, workspace=workspace)
        return report, verify_version(out)

    return inner


def reasons(report: IngestReport) -> str:
    return "\n".join(f"{line['id']}: {line['reason']}" for line in report.quarantined)


def csv_text(n: int = ROWS, *, delimiter: str = ",", changes: dict[int, str] | None = None) -> str:
    """A header, and lines 2 to n + 1; ``changes`` replaces whole lines by their number in the file."""
    random = np.random.default_rng(0)
    lines = [delimiter.join(("id", "age", "town", "label"))]
    for row in range(n):
        cells = (f"p{row}", f"{random.normal(40, 9):.2f}", random.choice(["Ulm", "Bern"]), "ill" if row % 3 else "well")
        lines.append(delimiter.join(cells))
    for number, text in (changes or {}).items():
        lines[number - 1] = text
    return "\n".join(lines) + "\n"


def csv(folder: Path, text: str | bytes) -> Path:
    path = folder / "people.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def sound(path: Path, seed: int = 0, n: int = 1600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(8000)
        stream.writeframes(np.random.default_rng(seed).integers(-9000, 9000, n).astype("<i2").tobytes())


def sounds(folder: Path) -> Path:
    for number in range(80):
        sound(folder / "sounds" / ("low" if number % 2 else "high") / f"{number}.wav", number)
    return folder / "sounds"


def pictures(folder: Path) -> Path:
    for number in range(80):
        place = folder / "photos" / ("cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.jpg")
    return folder / "photos"


def graph(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    n = 60
    split = np.arange(n) % 3
    arrays = {
        "edge_index": random.integers(0, n, (2, 200)),
        "features": random.normal(size=(n, 4)).astype(np.float32),
        "labels": np.arange(n) // 3 % 2,
        "train_mask": split == 0,
        "val_mask": split == 1,
        "test_mask": split == 2,
    }
    return {name: value for name, value in (arrays | changes).items() if value is not None}


# ---- tables


def test_a_delimiter_that_is_not_the_file_s_is_named(tmp_path: Path, ingest: Any) -> None:
    with pytest.raises(InputError, match="';'") as error:
        ingest(csv(tmp_path, csv_text()), delimiter=";")
    assert "','" in error.value.message + error.value.hint


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_found(tmp_path: Path, ingest: Any, delimiter: str) -> None:
    report, version = ingest(csv(tmp_path, csv_text(delimiter=delimiter)))
    assert report.n_rows == ROWS
    assert version.inputs == ["age", "town"]


def test_a_word_among_numbers_is_set_aside_with_its_line_column_and_value(tmp_path: Path, ingest: Any) -> None:
    report, version = ingest(csv(tmp_path, csv_text(changes={40: "p38,abc,Ulm,ill"})))
    assert report.n_rows == ROWS - 1
    assert "40" in reasons(report)
    assert "'age'" in reasons(report)
    assert "'abc'" in reasons(report)
    assert str(version.table("train").schema.field("age").type) == "double"


@pytest.mark.parametrize("label", ["", "NaN", "NA"])
def test_a_missing_label_is_set_aside_with_row_and_column(tmp_path: Path, ingest: Any, label: str) -> None:
    report, _ = ingest(csv(tmp_path, csv_text(changes={7: f"p5,40,Ulm,{label}"})))
    assert report.n_rows == ROWS - 1
    assert "7" in reasons(report)
    assert "'label'" in reasons(report)


def test_mostly_missing_labels_are_refused(tmp_path: Path, ingest: Any) -> None:
    changes = {line: f"p{line - 2},40,Ulm," for line in range(2, 122)}
    with pytest.raises(InputError, match=r"120 of 240 rows cannot be used \(50%, allowed 20%\).*'label'"):
        ingest(csv(tmp_path, csv_text(changes=changes)))


def test_repeated_ids_are_refused_with_both_rows(tmp_path: Path, ingest: Any) -> None:
    with pytest.raises(InputError, match="'p3'") as error:
        ingest(csv(tmp_path, csv_text(changes={50: "p3,40,Ulm,ill"})), id="id")
    assert "5" in error.value.message
    assert "50" in error.value.message or "49" in error.value.message


@pytest.mark.parametrize("line", ["p38,40,Ulm", "p38,40,Ulm,ill,more"])
def test_a_line_with_too_few_or_too_many_cells_is_set_aside(tmp_path: Path, ingest: Any, line: str) -> None:
    report, _ = ingest(csv(tmp_path, csv_text(changes={40: line})))
    assert report.n_rows == ROWS - 1
    assert "40" in reasons(report)


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path, ingest: Any) -> None:
    text = csv_text().encode().splitlines(keepends=True)
    text[9] = "p8,40,Z\u00fcrich,ill\n".encode("latin-1")
    with pytest.raises(InputError, match="UTF-8") as error:
        ingest(csv(tmp_path, b"".join(text)))
    assert "10" in error.value.message
    assert "latin" in error.value.hint.lower()


def test_a_label_seen_once_is_refused_by_its_name(tmp_path: Path, ingest: Any) -> None:
    with pytest.raises(InputError, match=r"class 'dead' has 1 usable row \(the first is 'p38'\)") as error:
        ingest(csv(tmp_path, csv_text(changes={40: "p38,40,Ulm,dead"})))
    assert "remove the class" in error.value.hint


def test_columns_of_one_name_are_refused(tmp_path: Path, ingest: Any) -> None:
    with pytest.raises(InputError, match="'age'"):
        ingest(csv(tmp_path, csv_text().replace("id,age,town,label", "id,age,age,label", 1)))


@pytest.mark.parametrize("text", ["", "id,age,town,label\n", "\n\n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, ingest: Any, text: str) -> None:
    with pytest.raises(InputError, match=r"people\.csv"):
        ingest(csv(tmp_path, text))


def test_a_table_without_a_label_column_lists_its_columns(tmp_path: Path, ingest: Any) -> None:
    text = csv_text().replace("label", "verdict", 1)
    with pytest.raises(InputError, match="verdict") as error:
        ingest(csv(tmp_path, text))
    assert "data.label" in error.value.hint
    with pytest.raises(InputError, match="'lable'") as error:
        ingest(csv(tmp_path, csv_text()), label="lable")
    assert "did you mean 'label'" in error.value.hint


def test_a_bad_line_of_json_is_set_aside_by_its_number(tmp_path: Path, ingest: Any) -> None:
    lines = [json.dumps({"age": row, "label": "ab"[row % 2]}) for row in range(ROWS)]
    lines[12] = '{"age": 3, "label": '
    path = tmp_path / "people.jsonl"
    path.write_text("\n".join(lines))
    report, _ = ingest(path)
    assert report.n_rows == ROWS - 1
    assert "line 13" in reasons(report)


def test_half_a_parquet_file_is_refused(tmp_path: Path, ingest: Any) -> None:
    path = tmp_path / "people.parquet"
    pq.write_table(pa.table({"age": np.arange(500.0), "label": ["a", "b"] * 250}), path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match=r"people\.parquet"):
        ingest(path)


def test_a_group_in_two_official_splits_is_refused_by_name(tmp_path: Path, ingest: Any) -> None:
    rows = {"age": np.arange(300.0), "label": ["a", "b"] * 150, "house": [f"h{row // 2}" for row in range(300)]}
    rows["part"] = [("train", "test", "validation")[row // 2 % 3] for row in range(300)]
    rows["part"][101] = "test" if rows["part"][100] != "test" else "train"
    path = tmp_path / "people.parquet"
    pq.write_table(pa.table(rows), path)
    with pytest.raises(InputError, match="group 'h50'"):
        ingest(path, group="house", split=SplitConfig(column="part"))


def test_an_unknown_name_of_a_split_is_refused_with_its_row(tmp_path: Path, ingest: Any) -> None:
    text = csv_text().replace("id,age,town,label", "id,age,split,label", 1)
    with pytest.raises(InputError, match=r"row 1 \(line 2\), column 'split': '(Ulm|Bern)' is no split"):
        ingest(csv(tmp_path, text), split=SplitConfig(column="split"))


def test_a_group_cannot_be_split_at_random(tmp_path: Path, ingest: Any) -> None:
    with pytest.raises(ConfigError, match="would cross splits"):
        ingest(csv(tmp_path, csv_text()), group="town", split=SplitConfig(method="random"))


# ---- time series


def test_time_that_goes_back_is_refused_with_row_and_both_times(tmp_path: Path, ingest: Any) -> None:
    lines = ["time,load"] + [f"2024-01-{1 + row // 24:02d}T{row % 24:02d}:00:00,{row}" for row in range(700)]
    lines[300], lines[301] = lines[301], lines[300]
    with pytest.raises(InputError, match="'time'") as error:
        ingest(csv(tmp_path, "\n".join(lines)))
    assert "2024-01-13" in error.value.message
    assert "30" in error.value.message
    assert "sort" in error.value.hint


def test_a_series_too_short_for_its_windows_says_how_long_it_must_be(tmp_path: Path, ingest: Any) -> None:
    lines = ["time,load"] + [f"2024-01-01T{row:02d}:00:00,{row}" for row in range(20)]
    with pytest.raises(InputError, match="20") as error:
        ingest(csv(tmp_path, "\n".join(lines)))
    assert "data.series.context" in error.value.message
    assert "context and horizon" in error.value.hint


# ---- media


def broken_sound(place: Path, kind: str) -> None:
    if kind == "empty":
        place.write_bytes(b"")
    elif kind == "text":
        place.write_text("not a sound")
    elif kind == "header":
        sound(place, n=0)
    else:
        sound(place)
        place.write_bytes(place.read_bytes()[:900])


@pytest.mark.parametrize("kind", ["empty", "text", "header", "truncated"])
def test_broken_sounds_are_set_aside_by_name(tmp_path: Path, ingest: Any, kind: str) -> None:
    folder = sounds(tmp_path)
    broken_sound(folder / "low" / "broken.wav", kind)
    report, version = ingest(folder)
    assert (report.n_rows, report.n_quarantined) == (80, 1)
    assert "low/broken.wav" in reasons(report)
    assert str(tmp_path) not in reasons(report)
    assert version.modality == "audio"


@pytest.mark.parametrize("kind", ["empty", "text", "truncated"])
def test_broken_pictures_are_set_aside_by_name(tmp_path: Path, ingest: Any, kind: str) -> None:
    folder = pictures(tmp_path)
    whole = (folder / "cat" / "1.jpg").read_bytes()
    content = {"empty": b"", "text": b"not a picture", "truncated": whole[: len(whole) // 2]}[kind]
    (folder / "cat" / "broken.jpg").write_bytes(content)
    report, _ = ingest(folder)
    assert (report.n_rows, report.n_quarantined) == (80, 1)
    assert "cat/broken.jpg" in reasons(report)


def test_cmyk_and_16_bit_pictures_are_read_and_their_mode_is_kept_as_a_fact(tmp_path: Path, ingest: Any) -> None:
    folder = pictures(tmp_path)
    ramp = np.tile(np.linspace(0, 1, 20), (20, 1))
    Image.fromarray((ramp * 255).astype(np.uint8)).convert("CMYK").save(folder / "cat" / "print.jpg")
    Image.fromarray((ramp * 65535).astype(np.uint16)).save(folder / "cat" / "deep.png")
    report, version = ingest(folder)
    assert (report.n_rows, report.n_quarantined) == (82, 0)
    modes = {row["id"]: row["mode"] for row in version.manifest().select(["id", "mode"]).to_pylist()}
    assert modes["cat/print.jpg"] == "CMYK"
    assert modes["cat/deep.png"].startswith("I;16")


def test_text_that_is_not_utf8_is_kept_and_its_share_is_a_fact(tmp_path: Path, ingest: Any) -> None:
    lines = [f"{'good' if row % 2 else 'bad'}\ta film about number {row}".encode() for row in range(ROWS)]
    lines[5] = b"good\tcaf\xe9"
    path = tmp_path / "reviews.txt"
    path.write_bytes(b"\n".join(lines))
    report, version = ingest(path)
    assert report.n_rows == ROWS
    shares = [share for split in SPLITS for share in version.table(split)["replacement"].to_pylist()]
    assert max(shares) == pytest.approx(0.25)
    assert sum(share > 0 for share in shares) == 1


def test_a_line_without_a_label_is_set_aside_with_its_number(tmp_path: Path, ingest: Any) -> None:
    lines = [f"{'good' if row % 2 else 'bad'}\ta film about number {row}" for row in range(ROWS)]
    lines[5] = "no tab here"
    path = tmp_path / "reviews.txt"
    path.write_text("\n".join(lines))
    report, _ = ingest(path)
    assert report.n_rows == ROWS - 1
    assert "6" in reasons(report)


# ---- arrays and graphs


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((9, 2)), "y": np.zeros(8)}, "9.*8|8.*9"),
        ({"X": np.array([{}, 1], dtype=object), "y": np.zeros(2)}, "X"),
        ({"X": np.zeros((9, 2))}, "y"),
        ({"X": np.zeros((0, 2)), "y": np.zeros(0)}, "X|empty|no rows"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(tmp_path: Path, ingest: Any, arrays: Any, message: str) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError, match=message):
        ingest(tmp_path / "data.npz")


def test_an_edge_to_no_node_is_set_aside_with_its_row_and_node(tmp_path: Path, ingest: Any) -> None:
    edges = np.random.default_rng(0).integers(0, 60, (2, 200))
    edges[1, 17] = 999
    np.savez(tmp_path / "graph.npz", **graph(edge_index=edges))
    report, version = ingest(tmp_path / "graph.npz")
    assert version.schema["graph"]["dangling"] == 1
    assert "999" in reasons(report)
    assert "17" in reasons(report) or "18" in reasons(report)
    assert max(version.table("edges")["target"].to_pylist()) < 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_mask": np.arange(60) % 3 == 0}, "0"),
        ({"features": np.full((60, 4), np.nan)}, "features"),
        ({"labels": np.zeros(59, int)}, "59"),
        ({"edge_index": None, "adjacency": np.zeros((60, 61))}, "60.*61"),
    ],
)
def test_graphs_that_do_not_fit_are_refused_by_array(tmp_path: Path, ingest: Any, changes: Any, message: str) -> None:
    np.savez(tmp_path / "graph.npz", **graph(**changes))
    with pytest.raises(InputError, match=message):
        ingest(tmp_path / "graph.npz")


# ---- what people hand in


def test_votes_with_an_empty_cell_are_refused_with_row_and_column(tmp_path: Path, ingest: Any) -> None:
    votes = tmp_path / "votes.csv"
    votes.write_text("id,annotator,label\np1,ada,ill\np2,,well\n")
    with pytest.raises(InputError, match="row 2: column 'annotator' is empty"):
        ingest(csv(tmp_path, csv_text()), votes=str(votes))
    votes.write_text("id,annotater,label\np1,ada,ill\n")
    with pytest.raises(InputError, match="no column 'annotator'") as error:
        ingest(csv(tmp_path, csv_text()), votes=str(votes))
    assert "annotater" in error.value.hint


def test_answers_that_are_no_class_are_refused_by_row(tmp_path: Path, ingest: Any) -> None:
    _, version = ingest(csv(tmp_path, csv_text()))
    content = version.table("train")["content"][0].as_py()
    answer = {
        "content": content,
        "id": "p1",
        "answer": "dead",
        "by": "Ada",
        "at": "2026-01-02T03:04:05Z",
        "given": "ill",
    }
    (tmp_path / "corrections.jsonl").write_text(json.dumps(answer) + "\n")
    with pytest.raises(InputError, match="'dead', a class that the source does not have"):
        ingest(csv(tmp_path, csv_text()), corrections=str(tmp_path / "corrections.jsonl"))


def test_an_unreadable_kind_of_file_says_what_is_read(tmp_path: Path, ingest: Any) -> None:
    (tmp_path / "data.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=r"its suffix is '\.xlsx'") as error:
        ingest(tmp_path / "data.xlsx")
    assert "Parquet" in error.value.hint
