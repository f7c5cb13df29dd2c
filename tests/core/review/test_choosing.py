"""Which requests people are asked to label: doubtful ones that differ, the same for the same log, and from the monitor to the sheet."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner

from kfloop.cli import review as cli
from kfloop.core.config import LoopConfig
from kfloop.core.encoding import restore_encoder
from kfloop.core.review.choosing import (
    QUESTIONS,
    Question,
    most_telling,
    open_questions,
    worth_labelling,
    write_questions,
)
from kfloop.core.review.items import read_queue
from kfloop.core.signature import Port, Signature, write_signature
from kfloop.core.state import open_state
from kfloop.core.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SECOND = 1_000_000_000
IMAGE = {"modality": "image", "shape": [4, 4, 1], "mean": [0.0], "std": [1.0]}


def log(folder: Path, best: list[float], embedding: Any, *, name: str = "a", version: int = 1, **more: Any) -> None:
    n = len(best)
    columns = {
        "request_id": [f"{name}{row:04d}" for row in range(n)],
        "ts_ns": [row * SECOND for row in range(n)],
        "version": [version] * n,
        "image": [[0] * 16] * n,
        "probabilities": pa.array([[p, 1 - p] for p in best], pa.list_(pa.float64())),
        "embedding": pa.array(np.asarray(embedding, np.float32).tolist(), pa.list_(pa.float32())),
    }
    hour = folder / "20260101T00"
    hour.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns | more), hour / f"{name}.parquet")


def test_files_of_other_types_are_passed_over(tmp_path: Path) -> None:
    log(tmp_path, [0.55, 0.6], np.eye(2), name="good")
    log(tmp_path, [0.5], np.eye(1, 2), name="times", ts_ns=["now"])
    log(tmp_path, [0.5], np.eye(1, 2), name="answers", probabilities=[["yes", "no"]])
    log(tmp_path, [0.5], np.eye(1, 2), name="version", version="one")  # type: ignore[arg-type]
    (tmp_path / "20260101T00" / "torn.parquet").write_bytes(b"PAR1")
    found = worth_labelling(tmp_path, version=1, count=5, since_ns=0)
    assert [item.request_id for item in found] == ["good0000", "good0001"]


def test_doubtful_requests_that_differ_are_chosen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.eye(4) * 20, 25, axis=0) + rng.normal(0, 0.1, (100, 4))
    sure = [0.99] * 300
    log(tmp_path, [0.55] * 100 + sure, np.concatenate([groups, rng.normal(0, 2, (300, 4))]))
    found = worth_labelling(tmp_path, version=1, count=20)
    assert len(found) == 20
    rows = [int(item.request_id[1:]) for item in found]
    assert {row // 25 for row in rows if row < 100} == {0, 1, 2, 3}  # every kind of doubt is asked about
    assert found == worth_labelling(tmp_path, version=1, count=20)
    alike = rng.normal(size=(400, 4))  # half of them in doubt, and all of one kind: doubt gets more than its share
    doubt = np.repeat([1.0, 0.05], 200)
    assert (most_telling(alike, doubt, 50) < 200).mean() > 0.6
    four = most_telling(groups, np.ones(100), 4)
    assert sorted(place // 25 for place in four.tolist()) == [0, 1, 2, 3]


def test_the_same_log_in_other_files_gives_the_same_questions(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    best, embedding = rng.uniform(0.5, 1, 500).round(3), rng.normal(size=(500, 6))
    log(tmp_path / "one", best.tolist(), embedding)
    for part in range(5):
        rows = slice(100 * part, 100 * part + 100)
        ids = [f"a{row:04d}" for row in range(500)[rows]]
        log(tmp_path / "many", best[rows].tolist(), embedding[rows], name=f"p{part}", request_id=ids)
    whole = worth_labelling(tmp_path / "one", version=1, count=30)
    assert len(whole) == 30
    assert worth_labelling(tmp_path / "many", version=1, count=30) == whole
    assert np.mean([item.margin for item in whole]) < np.mean(2 * best - 1)


def test_a_long_log_is_looked_at_in_part_and_the_same_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfloop.core.review.choosing.CANDIDATES", 50)
    rng = np.random.default_rng(2)
    for part in range(8):
        log(tmp_path, rng.uniform(0.5, 1, 100).tolist(), rng.normal(size=(100, 3)), name=f"p{part}")
    first = worth_labelling(tmp_path, version=1, count=60)
    assert len(first) == 50  # all that were looked at
    assert len({item.request_id[:2] for item in first}) > 4
    log(tmp_path, [0.51] * 5, np.eye(5, 3), name="p9")
    assert len({*first} - {*worth_labelling(tmp_path, version=1, count=60)}) <= 5


def test_what_is_known_older_or_of_another_version_is_not_asked(tmp_path: Path) -> None:
    log(tmp_path, [0.6, 0.7, 0.8, 0.9], np.eye(4))
    log(tmp_path, [0.5, 0.5], np.eye(2), name="b", version=2)
    ids = [item.request_id for item in worth_labelling(tmp_path, version=1, count=10)]
    assert ids == ["a0000", "a0001", "a0002", "a0003"]
    some = worth_labelling(tmp_path, version=1, count=10, since_ns=2 * SECOND, answered={"a0003"})
    assert [item.request_id for item in some] == ["a0002"]
    assert worth_labelling(tmp_path, version=3, count=10) == []
    assert worth_labelling(tmp_path / "nowhere", version=1, count=10) == []


def test_nonsense_in_the_log_is_passed_over(tmp_path: Path) -> None:
    log(tmp_path, [0.6, float("nan"), 0.7], [[0.0, 1], [1, 0], [float("inf"), 0]])
    log(tmp_path, [0.6], [[0.0, 1, 2]], name="wide")  # an embedding of another length
    (tmp_path / "20260101T00" / "broken.parquet").write_bytes(b"half")
    pq.write_table(
        pa.table({"request_id": ["z"], "ts_ns": [1], "version": [1]}), tmp_path / "20260101T00" / "c.parquet"
    )
    log(tmp_path, [], np.empty((0, 2)), name="empty")
    assert [item.request_id for item in worth_labelling(tmp_path, version=1, count=10)] == ["a0000"]
    log(tmp_path / "same", [0.6] * 40, np.ones((40, 3)))
    assert len(worth_labelling(tmp_path / "same", version=1, count=5)) == 5  # all alike: the closest calls


def test_the_monitor_asks_and_the_command_exports_these_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LoopConfig.model_validate({"name": "t", "data": {"source": "digits"}})
    workspace = config.workspace(tmp_path)
    place = workspace.repository / "t" / "1"
    place.mkdir(parents=True)
    (place / "encoder.json").write_text(json.dumps(IMAGE))
    outputs = tuple(Port(name=name, dtype="float32", shape=(2,)) for name in ("probabilities", "embedding"))
    signature = Signature(
        objective="classification",
        modality="image",
        family="t",
        inputs=restore_encoder(IMAGE).ports,
        outputs=outputs,
        labels=("north", "south"),
        max_batch_size=8,
    )
    write_signature(place, signature)
    log(workspace.request_log / "t", [0.6, 0.8, 0.7], np.eye(3), review=[True, True, True])
    asked = tmp_path / "asked"
    asked.mkdir()
    write_questions(asked, [Question(request_id="a0002", margin=0.4), Question(request_id="gone", margin=0.5)])
    evidence = Store(workspace.store).publish(asked, "evidence").name
    state = open_state(workspace.state)
    intent = state.ledger.intend(
        "t", action="promote", version=1, model_digest="m", expected_champion=None, actor="a", reason="r"
    )
    state.ledger.close(intent, done=True)

    def conclude(trigger: str, digest: str = evidence) -> None:
        state.triggers.add(
            "t", run_id="", trigger=trigger, reason="r", champion_digest="m", fingerprint="", evidence_digest=digest
        )

    assert open_questions(workspace) == []
    conclude("needs_labels")
    conclude("cooldown", "")  # a later round that concludes something else does not take the questions back
    assert [item.request_id for item in open_questions(workspace)] == ["a0002", "gone"]

    version = SimpleNamespace(task="multiclass", modality="image", labels=["north", "south"], digest="d")
    places = cli.Places(config=config, folders={"dataset": tmp_path, "labels": tmp_path})
    monkeypatch.setattr(cli, "open_places", lambda *_: places)
    monkeypatch.setattr("kfloop.core.versions.read_version", lambda _: version)
    monkeypatch.setattr("kfloop.core.review.build_queue", lambda *_, **__: [])
    (tmp_path / "loop.yaml").write_text("name: t\n")

    def export(*more: str) -> list[tuple[str, tuple[str, ...]]]:
        arguments = ["-c", str(tmp_path / "loop.yaml"), "-o", str(tmp_path / "out"), "--json", *more]
        done = CliRunner().invoke(cli.export_command, arguments, standalone_mode=False)
        assert done.exception is None, done.output
        return [(item.id, item.reasons) for item in read_queue(tmp_path / "out" / "queue.jsonl")]

    flagged = ("flagged_request",)
    assert export() == [("a0002", ("worth_labelling",)), ("a0000", flagged), ("a0001", flagged)]
    assert export("--reason", "worth_labelling") == [("a0002", ("worth_labelling",))]
    assert export("--limit", "1") == [("a0002", ("worth_labelling",))]
    (tmp_path / "feedback.jsonl").write_text(json.dumps({"request_id": "a0002", "label": "north"}) + "\n")
    assert export() == [("a0000", flagged), ("a0001", flagged)]
    conclude("retrain")
    assert open_questions(workspace) == []
    assert not (Store(workspace.store).path("evidence", "none") / QUESTIONS).exists()
