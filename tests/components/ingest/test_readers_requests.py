"""The request log as the collector writes it, joined with feedback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.ingest.readers.requests.reader import open_source, recognise
from kfloop.components.ingest.source import Batch, Source
from kfloop.core.perceptual import perceptual_hash
from kfloop.core.sections import DataConfig
from kfloop.errors import InputError
from kfloop.serving.packets import as_table

START = 1_795_000_000_000_000_000  # nanoseconds


def _images(n: int, shape: tuple[int, int, int] = (8, 8, 1)) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, *shape), dtype=np.uint8)


def _write(file: Path, images: np.ndarray, ids: list[str]) -> None:
    """One file of the log, made by the collector's own code."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[dict[str, Any], list[np.ndarray]]] = []
    for place, identity in enumerate(ids):
        head = {"ids": [identity], "ts_ns": START + place * 1_000_000, "model": "m", "version": 1, "latency_us": 900}
        head["names"] = ["image", "probabilities", "embedding"]
        rows.append((head, [images[place : place + 1], np.ones((1, 3), np.float32), np.ones((1, 4), np.float32)]))
    pq.write_table(as_table(rows), file)


Log = Callable[..., tuple[Path, DataConfig]]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Write 12 requests ``r0`` to ``r11`` in three files and the given feedback; gives the folder and the config."""

    def write(lines: list[Any], *, shape: tuple[int, int, int] = (8, 8, 1), **config: Any) -> tuple[Path, DataConfig]:
        images = _images(12, shape)
        for file in range(3):
            part = slice(4 * file, 4 * file + 4)
            _write(
                tmp_path / "requests" / "m" / f"2026112{file}T10" / "a.parquet",
                images[part],
                [f"r{row}" for row in range(12)][part],
            )
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        (tmp_path / "feedback.jsonl").write_text(text)
        feedback = str(tmp_path / "feedback.jsonl")
        return tmp_path / "requests" / "m", DataConfig(feedback=feedback, **config)

    return write


def _said(labels: dict[str, Any]) -> list[Any]:
    return [{"request_id": key, "label": label} for key, label in labels.items()]


def _whole(source: Source) -> tuple[pa.Table, list[dict[str, str]]]:
    batches: list[Batch] = list(source.batches())
    return pa.concat_tables([batch.table for batch in batches]), [row for batch in batches for row in batch.quarantined]


def test_requests_with_feedback_become_examples(log: Log) -> None:
    folder, config = log(_said({"r1": "cat", "r5": "dog", "r11": "cat"}))

    assert recognise(folder, config)
    source = open_source(folder, config)
    table, aside = _whole(source)

    assert (source.kind, source.modality, source.task) == ("requests", "image", "multiclass")
    assert (source.labels, source.n, source.schema) == (("cat", "dog"), 3, {"image_shape": [8, 8, 1]})
    assert aside == []
    assert table["id"].to_pylist() == ["r1", "r5", "r11"]
    assert table["label"].to_pylist() == [0, 1, 0]
    assert table["time"].cast(pa.int64()).to_pylist() == [START // 1000 + 1000 * place for place in (1, 1, 3)]
    assert table["image"].type == pa.list_(pa.uint8(), 64)
    assert table["image"].to_pylist() == [_images(12)[row].ravel().tolist() for row in (1, 5, 11)]
    assert "9 of 12 logged requests have no feedback and are left out" in source.notes
    assert any("shape [8, 8, 1] guessed from 64 values" in note for note in source.notes)
    assert {"id", *source.inputs, *source.facts, "label", "time"} == set(table.column_names)


def test_facts_of_an_image(log: Log) -> None:
    folder, config = log(_said({"r0": "a", "r1": "b"}), shape=(6, 6, 3))
    table, _ = _whole(open_source(folder, config))
    image = _images(12, (6, 6, 3))[0].astype(float)
    grey = (image @ [77, 150, 29]) // 256
    laplacian = [
        grey[y - 1, x] + grey[y + 1, x] + grey[y, x - 1] + grey[y, x + 1] - 4 * grey[y, x]
        for y in range(1, 5)
        for x in range(1, 5)
    ]
    facts = table.slice(0, 1).to_pylist()[0]

    assert {key: facts[key] for key in ("bytes", "format", "width", "height", "mode", "constant")} == {
        "bytes": 108,
        "format": "request",
        "width": 6,
        "height": 6,
        "mode": "RGB",
        "constant": False,
    }
    assert facts["mean"] == pytest.approx(grey.mean())
    assert facts["std"] == pytest.approx(grey.std())
    assert facts["sharpness"] == pytest.approx(np.var(laplacian))
    assert facts["phash"] == perceptual_hash(grey.astype(np.uint8))


def test_the_later_of_two_labels_wins_and_is_counted(log: Log) -> None:
    lines = [*_said({"r0": "a", "r1": "b"}), *_said({"r0": "b", "r1": "b"}), *_said({"r2": "a"})]
    folder, config = log(lines)
    source = open_source(folder, config)
    table, _ = _whole(source)

    assert dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)) == {"r0": 1, "r1": 1, "r2": 0}
    assert "1 requests got two different labels in 'feedback.jsonl': the later line counts (line 3)" in source.notes


def test_answers_that_fit_nothing_are_set_aside(log: Log) -> None:
    lines = [
        *_said({"r0": "a", "nobody": "b"}),
        "",
        *_said({"r2": None, "r3": "b", "r4": " "}),
        '{"request_id":"r5","label":NaN}',
    ]
    folder, config = log(lines)
    source = open_source(folder, config)
    table, aside = _whole(source)

    assert table["id"].to_pylist() == ["r0", "r3"]
    assert {row["id"]: row["reason"] for row in aside} == {
        "nobody": "feedback line 2: request_id 'nobody' is not in the request log",
        "r2": "feedback line 4: request_id 'r2' has no label",
        "r4": "feedback line 6: request_id 'r4' has no label",
        "r5": "feedback line 7: request_id 'r5' has no label",
    }
    assert source.n == table.num_rows + len(aside)


@pytest.mark.parametrize(
    ("labels", "task", "names", "coded"),
    [
        ([3, "10", 2], "multiclass", ("2", "3", "10"), [1, 2, 0]),
        ([True, False, True], "multiclass", ("False", "True"), [1, 0, 1]),
        ([["b", "a"], [], ["c"]], "multilabel", ("a", "b", "c"), [[0, 1], [], [2]]),
        ([0.5, 2, -1.25], "regression", (), [0.5, 2.0, -1.25]),
    ],
)
def test_tasks_by_the_labels(log: Log, labels: list[Any], task: str, names: tuple[str, ...], coded: list[Any]) -> None:
    source = open_source(*log(_said({f"r{row}": label for row, label in enumerate(labels)})))

    assert (source.task, source.labels) == (task, names)
    assert _whole(source)[0]["label"].to_pylist() == coded


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2 is not JSON"),
        ("\\xff", r"line 2 is not JSON"),
        ('["r1", "a"]', r"line 2 holds list"),
        ('{"request": "r1", "label": "a"}', r"line 2 has no 'request_id'"),
        ('{"request_id": "r1", "labels": "a"}', r"line 2 has no 'label'"),
        ('{"request_id": null, "label": "a"}', r"line 2: 'request_id' is None"),
        ('{"request_id": "r1", "label": {"x": 1}}', r"line 2: 'label' is \{'x': 1\}"),
        ('{"request_id": "r1", "label": [1.5]}', r"line 2: 'label' is \[1.5\]"),
        ('{"request_id": "r1", "label": "a", "by": 7}', r"line 2: 'by' is 7"),
        ('{"request_id": "r1", "label": ["a"]}', r"the label in line 2 is a list and the one in line 1 is not"),
    ],
)
def test_a_bad_line_is_named(log: Log, line: str, message: str) -> None:
    folder, config = log([*_said({"r0": "a"}), line])
    with pytest.raises(InputError, match=message):
        open_source(folder, config)


def test_feedback_that_is_not_utf8(log: Log) -> None:
    folder, config = log(_said({"r0": "a"}))
    Path(str(config.feedback)).write_bytes(b'{"request_id": "r0", "label": "\xff"}\n')
    with pytest.raises(InputError, match="line 1 is not JSON in UTF-8"):
        open_source(folder, config)


def test_feedback_that_is_missing_or_empty_or_about_others(log: Log) -> None:
    folder, config = log([""])
    with pytest.raises(InputError, match="holds no answer"):
        open_source(folder, config)
    with pytest.raises(InputError, match=r"data\.feedback is not set"):
        open_source(folder, DataConfig())
    with pytest.raises(InputError, match="does not exist") as caught:
        open_source(folder, DataConfig(feedback=str(config.feedback) + "x"))
    assert "did you mean 'feedback.jsonl'?" in caught.value.hint
    folder, config = log(_said({"other": "a"}))
    with pytest.raises(InputError, match=r"none of the 1 answers .* is about one of the 12 requests") as caught:
        open_source(folder, config)
    assert "r0" in caught.value.hint


def test_a_task_that_does_not_fit_the_labels(log: Log) -> None:
    with pytest.raises(InputError, match=r"line 2: label 'x' is not a number"):
        open_source(*log(_said({"r0": 1.5, "r1": "x"}), task="regression"))
    with pytest.raises(InputError, match=r"data\.task is 'multilabel', but the label in .* line 1 is 'a'"):
        open_source(*log(_said({"r0": "a", "r1": "b"}), task="multilabel"))
    with pytest.raises(InputError, match="one class only"):
        open_source(*log(_said({"r0": "a", "r1": "a"})))


def test_shape_from_the_signature_near_the_log(log: Log) -> None:
    folder, config = log(_said({"r0": "b", "r1": "c"}), shape=(4, 6, 1))
    with pytest.raises(InputError, match="24 values, which is no square"):
        open_source(folder, config)
    signature = {"inputs": [{"name": "image", "dtype": "uint8", "shape": [4, 6, 1]}], "labels": ["c", "b", "a"]}
    (folder.parent / "signature.json").write_text(json.dumps(signature))
    source = open_source(folder, config)

    assert source.schema == {"image_shape": [4, 6, 1]}
    assert source.labels == ("c", "b", "a")  # the order of the served model
    assert _whole(source)[0]["label"].to_pylist() == [1, 0]
    signature["inputs"] = [{"shape": [5, 5, 1]}]
    (folder.parent / "signature.json").write_text(json.dumps(signature))
    with pytest.raises(InputError, match=r"has 24 values, but the signature .* is \[5, 5, 1\]"):
        open_source(folder, config)


def test_labels_and_shape_of_a_base_source(log: Log) -> None:
    folder, config = log(_said({"r0": "b"}))
    base = open_source(*log(_said({"r0": "a", "r1": "b"})))
    Path(str(config.feedback)).write_text('{"request_id": "r0", "label": "b"}\n')

    assert _whole(open_source(folder, config, base))[0]["label"].to_pylist() == [1]
    Path(str(config.feedback)).write_text('{"request_id": "r0", "label": "bb"}\n')
    with pytest.raises(InputError, match=r"line 1: label 'bb' is a class that data\.source does not have"):
        open_source(folder, config, base)


def test_rows_of_another_width_twice_or_without_image(log: Log) -> None:
    folder, config = log(_said({"r0": "a", "r1": "b", "r2": "a", "wide": "a", "none": "b"}))
    _write(folder / "20261129T10" / "b.parquet", _images(2, (9, 9, 1)), ["wide", "r1"])
    no_image = pa.table({"request_id": ["none"], "ts_ns": [1], "image": pa.array([None], pa.list_(pa.uint8()))})
    pq.write_table(no_image, folder / "20261129T10" / "c.parquet")
    source = open_source(folder, config)
    table, aside = _whole(source)

    assert table["id"].to_pylist() == ["r0", "r1", "r2"]
    assert [row["reason"] for row in aside] == [
        "20261129T10/b.parquet row 0, request_id 'wide': column 'image' holds 81 values, expected 64",
        "20261129T10/b.parquet row 1, request_id 'r1': logged twice, the first one is kept",
        "20261129T10/c.parquet row 0, request_id 'none': column 'image' holds nothing, expected 64",
    ]
    assert source.n == table.num_rows + len(aside)


def test_a_broken_file_of_the_log_is_set_aside_and_said(log: Log) -> None:
    folder, config = log(_said({"r0": "a", "r8": "b"}))
    (folder / "20261119T10").mkdir()
    (folder / "20261119T10" / "x.parquet").write_bytes(b"PAR1")
    (folder / "20261119T10" / ".y.parquet.tmp").write_bytes(b"unfinished")
    pq.write_table(pa.table({"request_id": ["r9"]}), folder / "20261119T10" / "z.parquet")

    assert recognise(folder, config)
    source = open_source(folder, config)
    table, aside = _whole(source)

    assert table["id"].to_pylist() == ["r0", "r8"]
    assert [row["id"] for row in aside] == ["20261119T10/x.parquet", "20261119T10/z.parquet"]
    assert aside[1]["reason"].endswith("it has no column 'ts_ns'")
    assert any(note.startswith("2 files of the request log are left out") for note in source.notes)


def test_the_folder_above(log: Log) -> None:
    folder, config = log(_said({"r0": "a", "r8": "b"}))

    assert recognise(folder.parent, config)
    assert open_source(folder.parent, config).n == 2
    _write(folder.parent / "other" / "20261129T10" / "b.parquet", _images(1), ["o1"])
    assert recognise(folder.parent, config)
    assert not recognise(folder.parent, DataConfig(modality="table"))
    with pytest.raises(InputError, match="holds the request logs of 2 models: m, other"):
        open_source(folder.parent, config)


def test_the_digest_is_of_the_content(log: Log, tmp_path: Path) -> None:
    folder, config = log(_said({"r0": "a", "r8": "b"}))
    first = open_source(folder, config).digest
    assert open_source(folder.rename(tmp_path / "elsewhere"), config).digest == first
    Path(str(config.feedback)).write_text(
        json.dumps({"request_id": "r0", "label": "a"}) + "\n" + json.dumps({"request_id": "r8", "label": "c"})
    )
    assert open_source(tmp_path / "elsewhere", config).digest != first


def test_batches_are_bounded_and_may_be_asked_for_again(tmp_path: Path) -> None:
    images = _images(2500, (4, 4, 1))
    ids = [f"r{row}" for row in range(2500)]
    for file in range(5):
        _write(tmp_path / "log" / "h" / f"{file}.parquet", images[500 * file :][:500], ids[500 * file :][:500])
    lines = "".join(json.dumps({"request_id": key, "label": row % 2}) + "\n" for row, key in enumerate(ids))
    (tmp_path / "f.jsonl").write_text(lines)
    source = open_source(tmp_path / "log", DataConfig(feedback=str(tmp_path / "f.jsonl")))

    assert [batch.table.num_rows for batch in source.batches()] == [1000, 1000, 500]
    assert _whole(source)[0].equals(_whole(source)[0])


@pytest.mark.parametrize("content", [None, b"", b"x,y\n1,2\n"])
def test_what_is_no_request_log(content: bytes | None, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if content is not None:
        (folder / "a.parquet").write_bytes(content)

    assert not recognise(folder, DataConfig())
    assert not recognise(folder / "a.parquet", DataConfig())
    assert not recognise(tmp_path / "nowhere", DataConfig())
    with pytest.raises(InputError, match=r"request log|data\.feedback is not set"):
        open_source(folder, DataConfig())


def test_requests_that_a_shadow_looked_at_are_requests_like_any_other(log: Log) -> None:
    """The champion answered them; what the challenger said is no row of the log."""
    folder, config = log(_said({"r1": "cat", "r5": "dog", "s1": "cat"}))
    file = folder / "20261119T10" / "shadow.parquet"
    _write(file, _images(1), ["s1"])
    table = pq.read_table(file)
    pq.write_table(table.set_column(4, "route", pa.array(["shadow"])), file)
    rows, aside = _whole(open_source(folder, config))
    assert (rows.num_rows, aside) == (3, [])


def test_a_log_without_inputs_says_what_to_set(log: Log) -> None:
    folder, config = log(_said({"r1": "cat", "r5": "dog"}))
    for file in folder.rglob("*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns(["image"]), file)
    assert recognise(folder, config)
    with pytest.raises(InputError, match="answers but no inputs") as caught:
        open_source(folder, config)
    assert "serve.log.inputs" in caught.value.hint


def test_a_file_that_is_deleted_while_the_log_is_read_is_set_aside(log: Log) -> None:
    folder, config = log(_said({"r1": "cat", "r5": "dog"}))
    source = open_source(folder, config)
    min(folder.rglob("*.parquet")).unlink()
    rows, aside = _whole(source)
    assert rows["id"].to_pylist() == ["r5"]
    assert "deleted while it was read" in aside[0]["reason"]
