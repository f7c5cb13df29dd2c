from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.core.artifacts import write_report
from kfloop.core.review import build_queue, read_queue, write_queue
from kfloop.core.review.items import QueueItem, queue_digest
from kfloop.core.review.queue import named
from kfloop.errors import ConfigError, InputError, StateError

MODALITIES = ("image", "audio", "text", "table", "vector", "nodes", "series", "graphs")
Check = Callable[..., Path]


@pytest.fixture
def items(make_version: Any, check: Check) -> list[QueueItem]:
    version = make_version("text")
    rows = {
        "text/10": {"flagged": True, "suggested": 0, "margin": -0.9, "confidence": 0.99},
        "text/11": {"flagged": True, "low_confidence": True, "suggested": 1, "margin": -0.95, "confidence": 0.3},
        "text/12": {"conflict": True, "margin": 0.4},
        "text/85": {"low_confidence": True, "margin": 0.1, "confidence": 0.4},
        "text/110": {"outlier": True},
    }
    return build_queue(version, check(version, rows))


def test_conflicts_come_first_then_the_smallest_margin(items: list[QueueItem]) -> None:
    assert [item.id for item in items] == ["text/12", "text/11", "text/10", "text/85"]
    assert [item.reasons for item in items] == [
        ("conflict",),
        ("label_issue", "low_confidence"),
        ("label_issue",),
        ("low_confidence",),
    ]
    second = items[1]
    assert (second.given, second.suggested, second.confidence, second.margin) == ("0", "<bird>", 0.3, -0.95)
    assert second.choices == ("cat & dog", "<bird>", 'fish "x"', "0")
    assert [item.split for item in items] == ["train", "train", "train", "validation"]
    assert second.value["text"] == "<b>message</b> 11 & more </script>"


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(("task", "suggested"), [("multiclass", 1), ("multilabel", [0, 2]), ("regression", 3.25)])
def test_the_file_gives_the_queue_back(
    make_version: Any, check: Check, tmp_path: Path, modality: str, task: str, suggested: Any
) -> None:
    version = make_version(modality, task)
    flagged = {"flagged": True, "suggested": suggested, "margin": -0.5, "confidence": 0.8}
    items = build_queue(version, check(version, {f"{modality}/{row}": flagged for row in (2, 84, 119)}))
    assert [item.id for item in items] == [f"{modality}/{row}" for row in (119, 2, 84)]
    write_queue(tmp_path / "out" / "queue.jsonl", items)
    assert read_queue(tmp_path / "out" / "queue.jsonl") == items
    assert queue_digest(read_queue(tmp_path / "out" / "queue.jsonl")) == queue_digest(items)
    expected = {"multiclass": "<bird>", "multilabel": ("cat & dog", 'fish "x"'), "regression": 3.25}
    assert {item.suggested for item in items} == {expected[task]}
    assert all(item.given is not None for item in items)


def test_limit_reasons_threshold_and_what_was_answered(make_version: Any, check: Check) -> None:
    version = make_version("table")
    rows = {f"table/{row}": {"flagged": True, "margin": -row / 100, "confidence": row / 100} for row in range(50)}
    rows["table/60"] = {"outlier": True, "margin": 0.5, "confidence": 0.6}
    folder = check(version, rows)
    assert [item.id for item in build_queue(version, folder, limit=2)] == ["table/49", "table/48"]
    assert [item.id for item in build_queue(version, folder, reasons=("outlier",))] == ["table/60"]
    below = build_queue(version, folder, reasons=("low_confidence",), below=0.1)
    assert [item.id for item in below] == [f"table/{row}" for row in range(9, -1, -1)]
    first = build_queue(version, folder, limit=1)[0]
    rest = build_queue(version, folder, limit=1, answered={first.content})
    assert rest[0].id == "table/48"
    with pytest.raises(ConfigError, match="'label_isue'") as error:
        build_queue(version, folder, reasons=("label_isue",))
    assert "label_issue" in error.value.hint
    with pytest.raises(ConfigError, match="limit 0"):
        build_queue(version, folder, limit=0)


def test_equal_content_is_asked_once_with_all_its_labels(make_version: Any, tmp_path: Path, check: Check) -> None:
    version = make_version("text")
    path = version.path("train")
    table = version.table("train")
    content = table["content"].to_pylist()
    content[6] = content[5]  # rows 5 and 6 are one example with two labels
    table = table.set_column(table.column_names.index("content"), "content", pa.array(content))
    with pa.OSFile(str(path.with_suffix(".new")), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    path.with_suffix(".new").replace(path)
    rows = {
        "text/5": {"conflict": True, "margin": 0.3, "low_confidence": True},
        "text/6": {"conflict": True, "flagged": True, "margin": -0.3},
    }
    (item,) = build_queue(version, check(version, rows))
    assert (item.id, item.given, item.also_given) == ("text/6", 'fish "x"', ("<bird>",))
    assert item.reasons == ("conflict", "label_issue", "low_confidence")
    assert item.value["text"].startswith("<b>message</b> 6")


def test_the_report_adds_labels_of_alike_examples_and_what_annotators_dispute(make_version: Any, check: Check) -> None:
    version = make_version("image")
    folder = check(version, {"image/3": {"conflict": True, "margin": -0.1}})
    pairs = [{"a": "image/3", "b": "image/9", "label_a": "0", "label_b": "<bird>", "conflict": True}]
    disputed = [{"id": "image/7", "given": "0", "consensus": "<bird>", "confidence": 0.5}]
    write_report(folder, {"duplicates": {"pairs": pairs}, "annotators": {"disputed": disputed}})
    items = build_queue(version, folder)
    assert [(item.id, item.reasons, item.also_given) for item in items] == [
        ("image/3", ("conflict",), ("<bird>",)),
        ("image/7", ("annotators",), ()),
    ]


def test_an_unchecked_row_has_no_suggestion(make_version: Any, check: Check) -> None:
    version = make_version("text")
    rows = {"text/1": {"conflict": True, "margin": None, "confidence": None, "suggested": 0}}
    (item,) = build_queue(version, check(version, rows))
    assert (item.suggested, item.confidence, item.margin) == (None, None, None)


def test_nothing_doubtful_and_nothing_answerable_give_an_empty_queue(
    make_version: Any, check: Check, tmp_path: Path
) -> None:
    version = make_version("text")
    assert build_queue(version, check(version, {})) == []
    assert build_queue(make_version("series", "forecasting"), tmp_path / "nowhere") == []


def test_issues_that_are_missing_or_of_another_version(make_version: Any, check: Check, tmp_path: Path) -> None:
    version = make_version("text")
    with pytest.raises(StateError, match=r"issues\.parquet"):
        build_queue(version, tmp_path)
    (tmp_path / "issues.parquet").write_bytes(b"not parquet")
    with pytest.raises(StateError, match="cannot be read"):
        build_queue(version, tmp_path)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "issues.parquet")
    with pytest.raises(StateError, match="has no column 'content'"):
        build_queue(version, tmp_path)
    other = {"id": "text/999", "content": "f" * 64, "split": "train", "given": 0, "suggested": 1, "margin": -0.9}
    folder = check(version, {}, add=[other | {"confidence": 0.9, "flagged": True, "conflict": False}])
    with pytest.raises(StateError, match="'text/999'"):
        build_queue(version, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content": None}, "'content' is None"),
        ({"margin": "low"}, "'margin' is 'low'"),
        ({"confidence": True}, "'confidence' is True"),
        ({"reasons": ["boredom"]}, "'reasons' holds 'boredom'"),
        ({"reasons": "conflict"}, "'reasons' is 'conflict'"),
        ({"task": "guessing"}, "'task' is 'guessing'"),
        ({"modality": "smell"}, "'modality' is 'smell'"),
        ({"choices": [1, 2]}, "'choices' is"),
        ({"choices": []}, "'choices' is"),
        ({"given": {"a": 1}}, "'given' is"),
        ({"suggested": True}, "'suggested' is True"),
        ({"value": {}}, "'value' of kind None"),
        ({"value": {"kind": "image"}}, "'value' of kind 'image'"),
        ({"value": {"kind": "image", "uri": "https://example.com/a.png"}}, "'value' points to"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_a_bad_line_is_refused_by_its_number_and_key(
    items: list[QueueItem], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "queue.jsonl"
    write_queue(path, items)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | change)
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match="line 3") as error:
        read_queue(path)
    assert message in error.value.message


@pytest.mark.parametrize("key", ["content", "id", "given", "suggested", "reasons", "value", "also_given"])
def test_a_missing_key_is_named(items: list[QueueItem], tmp_path: Path, key: str) -> None:
    path = tmp_path / "queue.jsonl"
    write_queue(path, items)
    lines = path.read_text(encoding="utf-8").splitlines()
    line = json.loads(lines[1])
    del line[key]
    path.write_text("\n".join([lines[0], json.dumps(line)]), encoding="utf-8")
    with pytest.raises(InputError, match=f"line 2 has no '{key}'"):
        read_queue(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "line 2 is not JSON"), ("[1]", "expected one JSON object"), ('{"a": NaN}', "NaN is no JSON number")],
)
def test_a_line_that_is_no_object(items: list[QueueItem], tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "queue.jsonl"
    write_queue(path, items[:1])
    path.write_bytes(path.read_bytes() + text.encode())
    with pytest.raises(InputError, match=message):
        read_queue(path)


def test_a_file_that_asks_twice_or_is_not_there(items: list[QueueItem], tmp_path: Path) -> None:
    path = tmp_path / "queue.jsonl"
    write_queue(path, [items[0], items[0]])
    with pytest.raises(InputError, match="asks twice"):
        read_queue(path)
    with pytest.raises(InputError, match="cannot read"):
        read_queue(tmp_path / "nothing.jsonl")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="line 1 is not JSON"):
        read_queue(path)


def test_the_digest_is_of_the_questions(items: list[QueueItem]) -> None:
    assert queue_digest(items) != queue_digest(items[:-1])
    assert queue_digest(items) != queue_digest([replace(items[0], given="0"), *items[1:]])


def test_pictures_and_sounds_hold_the_data_itself(make_version: Any, check: Check) -> None:
    from PIL import Image

    def data(uri: str) -> io.BytesIO:
        return io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))

    images = make_version("image")
    (item,) = build_queue(images, check(images, {"image/90": {"flagged": True}}))
    picture = Image.open(data(item.value["uri"]))
    row = images.table("validation")["id"].to_pylist().index("image/90")
    pixels = np.array(images.table("validation")["image"][row].as_py(), np.uint8).reshape(8, 8, 3)
    assert picture.size == (96, 96)
    assert np.array_equal(np.asarray(picture)[::12, ::12], pixels)

    sounds = make_version("audio")
    (item,) = build_queue(sounds, check(sounds, {"audio/40": {"flagged": True}}))
    with wave.open(data(item.value["uri"])) as stream:
        assert (stream.getframerate(), stream.getnchannels(), stream.getnframes()) == (8000, 1, 840)
        samples = np.frombuffer(stream.readframes(840), "<i2")
    assert np.array_equal(samples, (3000 * np.sin(np.arange(840) * 0.3)).astype(np.int16))


def test_a_graph_too_big_to_draw_is_told_in_numbers(make_version: Any, check: Check) -> None:
    graphs = make_version("graphs")
    (item,) = build_queue(graphs, check(graphs, {"graphs/119": {"flagged": True}}))
    assert item.value["kind"] == "row"
    assert item.value["row"] == {
        "nodes": 100,
        "edges": 100,
        "mean degree": 2.0,
        "largest degree": 2,
        "isolated nodes": 0,
    }


@pytest.mark.parametrize(
    ("value", "task", "expected"),
    [
        (1, "multiclass", "b"),
        ("b", "multiclass", "b"),
        ("zebra", "multiclass", None),
        (7, "multiclass", None),
        (None, "multiclass", None),
        (float("nan"), "multiclass", None),
        ([2, 0], "multilabel", ("a", "c")),
        (["b"], "multilabel", ("b",)),
        ('["a", "c"]', "multilabel", ("a", "c")),
        ([], "multilabel", ()),
        (None, "multilabel", None),
        (2.5, "regression", 2.5),
        (float("nan"), "regression", None),
    ],
)
def test_labels_in_words(value: Any, task: str, expected: Any) -> None:
    assert named(value, task, ["a", "b", "c"]) == expected
