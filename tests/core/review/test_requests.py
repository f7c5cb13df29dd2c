"""Flagged requests become questions, and their answers become feedback."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from kfloop.cli import review as cli
from kfloop.core.config import LoopConfig
from kfloop.core.encoding import restore_encoder
from kfloop.core.review.answer import UNSURE, Answer
from kfloop.core.review.items import read_queue, write_queue
from kfloop.core.review.requests import about_requests, answered_requests, flagged_requests, write_feedback
from kfloop.core.signature import Port, Signature, write_signature
from kfloop.errors import InputError

TABLE = {
    "modality": "table",
    "columns": [
        {"name": "age", "kind": "number", "offset": 100.0},
        {"name": "since", "kind": "time", "offset": 0.0, "periods": [86400.0]},
        {"name": "member", "kind": "flag", "offset": 0.0},
        {"name": "town", "kind": "category", "names": ["ulm", "köln"]},
    ],
    "facts": {},
}
TEXT = {"modality": "text", "words": ["rain", "wind"], "length": 4, "buckets": 64, "parts": 2}
IMAGE = {"modality": "image", "shape": [4, 4, 1], "mean": [0.0], "std": [1.0]}
LABELS = ["north", "south"]


def served(folder: Path, plain: dict[str, Any], version: int = 1) -> Any:
    encoder, place = restore_encoder(plain), folder / str(version)
    place.mkdir(parents=True)
    (place / "encoder.json").write_text(json.dumps(plain))
    outputs = tuple(Port(name=name, dtype="float32", shape=(2,)) for name in ("probabilities", "embedding"))
    told = Signature(
        objective="classification",
        modality=str(plain["modality"]),
        family="t",
        inputs=encoder.ports,
        outputs=outputs,
        labels=tuple(LABELS),
        max_batch_size=8,
    )
    write_signature(place, told)
    return encoder


def log(
    folder: Path,
    tensors: dict[str, Any],
    best: list[float],
    flags: list[bool] | None,
    version: int = 1,
    name: str = "a",
) -> None:
    n = len(best)
    columns: dict[str, Any] = {
        "request_id": [f"{name}{row}" for row in range(n)],
        "ts_ns": [1_700_000_000_000_000_000] * n,
        "version": [version] * n,
        **{key: [np.ravel(row).tolist() for row in values] for key, values in tensors.items()},
        ("probabilities" if "image" in tensors else "output.probabilities"): [[p, 1 - p] for p in best],
    }
    (folder / "20260101T00").mkdir(parents=True, exist_ok=True)
    flagged = {} if flags is None else {"review": flags}
    pq.write_table(pa.table(columns | flagged), folder / "20260101T00" / f"{name}.parquet")


def dataset(modality: str = "table", task: str = "multiclass") -> Any:
    return SimpleNamespace(modality=modality, task=task, labels=LABELS, digest="d" * 32)


def test_flagged_rows_of_a_table_are_asked_about_closest_first(tmp_path: Path) -> None:
    encoder = served(tmp_path / "versions", TABLE)
    rows = pa.table(
        {
            "age": [40.0, None, 7.5],
            "since": pa.array([0, 86400 * 10**6, None], pa.timestamp("us")),
            "member": [True, None, False],
            "town": ["köln", None, "bonn"],
        }
    )
    number, category = encoder.encode(rows)
    log(tmp_path / "log", {"input.number": number, "input.category": category}, [0.9, 0.45, 0.55], [True, True, False])
    log(tmp_path / "log", {"input.number": number, "input.category": category}, [0.5] * 3, None, name="old")
    items = flagged_requests(tmp_path / "log", tmp_path / "versions", dataset(), limit=10)
    assert [item.id for item in items] == ["a1", "a0"]
    assert items[0].suggested == "south"
    assert items[0].confidence == pytest.approx(0.55)
    assert items[1].value["row"] == {"age": 40.0, "since": "1970-01-01T00:00:00", "member": True, "town": "köln"}
    assert items[0].value["row"] == {"age": None, "since": "1970-01-02T00:00:00", "member": None, "town": None}
    assert items[0].reasons == ("flagged_request",)
    write_queue(tmp_path / "queue.jsonl", items)
    assert read_queue(tmp_path / "queue.jsonl") == items
    assert [item.id for item in flagged_requests(tmp_path / "log", tmp_path / "versions", dataset(), limit=1)] == ["a1"]
    left = flagged_requests(tmp_path / "log", tmp_path / "versions", dataset(), limit=9, answered={"a1"})
    assert [item.id for item in left] == ["a0"]
    assert flagged_requests(tmp_path / "log", tmp_path / "versions", dataset(task="regression"), limit=9) == []


def test_texts_and_pictures_are_shown_as_the_model_saw_them(tmp_path: Path) -> None:
    encoder = served(tmp_path / "text", TEXT)
    tokens, pieces = encoder.encode(pa.table({"text": ["rain zebra wind"]}))
    log(tmp_path / "log", {"input.tokens": tokens, "input.pieces": pieces}, [0.6], [True])
    (item,) = flagged_requests(tmp_path / "log", tmp_path / "text", dataset("text"), limit=5)
    assert item.value["text"] == "rain ? wind"
    served(tmp_path / "image", IMAGE)
    log(tmp_path / "pictures", {"image": np.zeros((2, 16), np.uint8)}, [0.6, 0.7], [False, True])
    (item,) = flagged_requests(tmp_path / "pictures", tmp_path / "image", dataset("image"), limit=5)
    assert item.value["uri"].startswith("data:image/png")


def test_a_version_that_is_gone_and_a_broken_file_are_passed_over(tmp_path: Path) -> None:
    served(tmp_path / "image", IMAGE)
    log(tmp_path / "log", {"image": np.zeros((1, 16), np.uint8)}, [0.6], [True], version=7)
    log(tmp_path / "log", {"image": np.zeros((1, 16), np.uint8)}, [0.6], [True], name="b")
    (tmp_path / "log" / "20260101T00" / "c.parquet").write_bytes(b"half")
    assert [item.id for item in flagged_requests(tmp_path / "log", tmp_path / "image", dataset("image"), limit=5)] == [
        "b0"
    ]
    assert flagged_requests(tmp_path / "nowhere", tmp_path / "image", dataset("image"), limit=5) == []


def answer(identity: str, label: Any = "north", content: str = "") -> Answer:
    return Answer(
        content=content or f"request:{identity}",
        id=identity,
        answer=label,
        by="ann",
        at="2026-01-01T00:00:00Z",
        given=None,
    )


def test_answers_about_requests_are_feedback_and_repeating_them_adds_nothing(tmp_path: Path) -> None:
    found = [answer("a"), answer("b", UNSURE), answer("row", content="ab" * 16)]
    mine, others = about_requests(found)
    assert ([one.id for one in mine], [one.id for one in others]) == (["a", "b"], ["row"])
    path = tmp_path / "sub" / "feedback.jsonl"
    assert write_feedback(path, mine) == 1
    assert write_feedback(path, mine) == 0
    assert json.loads(path.read_text()) == {
        "request_id": "a",
        "label": "north",
        "by": "ann",
        "at": "2026-01-01T00:00:00Z",
    }
    assert write_feedback(path, [replace(answer("a"), answer="south")]) == 1
    assert answered_requests(path) == {"a"}
    assert answered_requests(None) == answered_requests(tmp_path / "none") == set()
    path.write_text("no json\n")
    with pytest.raises(InputError):
        answered_requests(path)


def test_the_command_exports_flagged_requests_first_and_takes_their_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(tmp_path / ".kfloop" / "triton" / "repository" / "t", IMAGE)
    log(tmp_path / ".kfloop" / "requests" / "t", {"image": np.zeros((2, 16), np.uint8)}, [0.6, 0.8], [True, True])
    loop = tmp_path / "loop.yaml"
    loop.write_text("name: t\ndata: {source: digits, feedback: feedback.jsonl}\n")
    config = LoopConfig.model_validate(
        {"name": "t", "data": {"source": "digits", "feedback": str(tmp_path / "feedback.jsonl")}}
    )
    places = cli.Places(config=config, folders={"dataset": tmp_path, "labels": tmp_path})
    monkeypatch.setattr(cli, "open_places", lambda *_: places)
    monkeypatch.setattr("kfloop.core.versions.read_version", lambda _: dataset("image"))
    monkeypatch.setattr("kfloop.core.review.build_queue", lambda *_, **__: [])
    done = CliRunner().invoke(
        cli.export_command, ["-c", str(loop), "-o", str(tmp_path / "out"), "--json"], standalone_mode=False
    )
    assert done.exception is None, done.output
    items = read_queue(tmp_path / "out" / "queue.jsonl")
    assert [item.id for item in items] == ["a0", "a1"]
    assert cli._feedback(config, loop, [answer("a0")]) == 1
    again = CliRunner().invoke(
        cli.export_command, ["-c", str(loop), "-o", str(tmp_path / "out"), "--json"], standalone_mode=False
    )
    assert again.exception is None
    assert [item.id for item in read_queue(tmp_path / "out" / "queue.jsonl")] == ["a1"]
