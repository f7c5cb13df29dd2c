"""Section ``serve.log``: what of a request is written, how long it is kept, and that whatever is lost is counted."""

from __future__ import annotations

import importlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from kfloop.core.config import LoopConfig
from kfloop.core.sections import LogConfig, ServeConfig
from kfloop.core.signature import write_signature
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError
from kfloop.serving.collector import Collector
from kfloop.serving.options import EdgePlace, ServeOptions, check_columns
from kfloop.serving.receiving import SETTINGS, log_secret
from kfloop.serving.retention import Counts, read_counts, tidy
from logged_requests import read_requests

# In Triton a log lives as long as its process.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
MODEL_FILES = Path(__file__).parents[2] / "serving" / "model"
COLUMNS = [
    {"name": "age", "kind": "number"},
    {"name": "born", "kind": "time", "periods": [86_400.0]},
    {"name": "town", "kind": "category"},
    {"name": "income", "kind": "number"},
    {"name": "job", "kind": "category"},
]
INPUTS, OUTPUTS = ["number", "category"], ["probabilities", "embedding"]
Log = tuple[Any, Collector, Path]


def arrays(rows: int = 3) -> list[np.ndarray]:
    numbers = np.arange(rows * 5, dtype=np.float32).reshape(rows, 5)
    codes = np.array([[2, 3], [2, 4], [5, 3]], dtype=np.int64)[:rows]
    return [numbers, codes, np.full((rows, 3), 1 / 3, np.float32), np.full((rows, 2), 0.5, np.float32)]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The served model's own log, loaded as Triton's Python loads it, and a collector behind it."""
    monkeypatch.syspath_prepend(str(MODEL_FILES))
    collectors = []

    def get(encoder: dict[str, Any], **config: Any) -> Log:
        folder = tmp_path / "repository" / "m" / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "encoder.json").write_text(json.dumps(encoder))
        collector = Collector(tmp_path / "log", LogConfig(**config))
        collector.start()
        collectors.append(collector)
        monkeypatch.setenv("KFLOOP_LOG_SOCKET", collector.address)
        module = importlib.import_module("request_log")
        monkeypatch.setattr(module, "REPOSITORY", str(folder.parent))
        return module, collector, tmp_path / "log"

    yield get
    for collector in collectors:
        collector.stop()
    for name in ("request_log", "masking"):
        sys.modules.pop(name, None)


def rows_of(collector: Collector, folder: Path, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 10
    while collector.written < count and time.monotonic() < deadline:
        collector.write()
    files = sorted(folder.glob("*/*/*.parquet"))
    return [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]


def table(**config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"modality": "table", "columns": COLUMNS}, config


def test_everything_is_written_when_nothing_is_said(opened: Any) -> None:
    module, collector, folder = opened(*table()[:1])
    log = module.RequestLog("m", "1", INPUTS, OUTPUTS)
    log.add("r", arrays(), 7, version=2, route="canary", review=np.array([True, False, True]))
    rows = rows_of(collector, folder, 3)
    assert [row["request_id"] for row in rows] == ["r#0", "r#1", "r#2"]
    assert {(row["version"], row["route"], row["latency_us"]) for row in rows} == {(2, "canary", 7)}
    assert [row["review"] for row in rows] == [True, False, True]
    assert rows[1]["input.number"] == [5, 6, 7, 8, 9]
    assert rows[2]["input.category"] == [5, 3]
    log.add("s", arrays(1), 7)
    assert rows_of(collector, folder, 4)[3]["route"] == "stable"


@pytest.mark.parametrize(
    ("inputs", "left"),
    [("embedding", {"output.probabilities", "output.embedding"}), ("none", {"output.probabilities"})],
)
def test_inputs_are_left_out(opened: Any, inputs: str, left: set[str]) -> None:
    module, collector, folder = opened({"modality": "table", "columns": COLUMNS}, inputs=inputs)
    module.RequestLog("m", "1", INPUTS, OUTPUTS).add("r", arrays(), 7)
    (row, *_) = rows_of(collector, folder, 3)
    assert {name for name in row if "." in name} == left


def test_a_private_column_is_missing_in_all_its_slots_and_its_hash_tells_equal_from_different(opened: Any) -> None:
    encoder = {"modality": "table", "columns": COLUMNS}
    module, collector, folder = opened(encoder, drop=["born", "income"], hash=["town"])
    module.RequestLog("m", "1", INPUTS, OUTPUTS).add("r", arrays(), 7)
    rows = rows_of(collector, folder, 3)
    numbers = np.array([row["input.number"] for row in rows])
    assert numbers[:, 0].tolist() == [0, 5, 10]
    assert np.isnan(numbers[:, 1:]).all()  # a time and its place on a circle are three numbers, income the fifth
    assert [row["input.category"] for row in rows] == [[0, 3], [0, 4], [0, 3]]
    digests = [row["hash.town"] for row in rows]
    assert digests[0] == digests[1] != digests[2]
    assert all(len(digest) == 32 for digest in digests)
    module, other, folder = opened(encoder, hash=["town"])  # another key gives other digests
    module.RequestLog("m", "1", INPUTS, OUTPUTS).add("s", arrays(1), 7)
    assert rows_of(other, folder, 1)[-1]["hash.town"] != digests[0]


def test_a_text_and_the_row_of_an_external_model_are_private_as_a_whole_or_by_member(opened: Any) -> None:
    module, collector, folder = opened({"modality": "text"}, hash=["text"])
    log = module.RequestLog("m", "1", ["tokens", "pieces"], OUTPUTS)
    log.add("r", [np.ones((3, 4), np.int64), np.ones((3, 4, 2), np.int64), *arrays()[2:]], 7)
    (row, *_) = rows_of(collector, folder, 3)
    assert {name for name in row if name.startswith(("input", "hash"))} == {"hash.text"}
    text = b'{"age": 40, "town": "Ulm"}'
    packed = np.frombuffer(text + b"  ", np.uint8).reshape(1, -1)
    columns = [{"name": name, "kind": "category"} for name in ("age", "town")]
    module, other, folder = opened({"modality": "rows", "of": "table", "columns": columns}, drop=["town"])
    module.RequestLog("m", "1", ["row"], OUTPUTS).add("s", [packed, *arrays(1)[2:]], 7)
    kept = rows_of(other, folder, 1)[-1]["input.row"]
    assert json.loads(bytes(kept)) == {"age": 40, "town": None}
    whole = np.frombuffer(b'"my secret"', np.uint8).reshape(1, -1)
    module, third, folder = opened({"modality": "rows", "of": "text", "columns": []}, drop=["text"])
    module.RequestLog("m", "1", ["row"], OUTPUTS).add("t", [whole, *arrays(1)[2:]], 7)
    assert bytes(rows_of(third, folder, 1)[-1]["input.row"]).strip() == b"null"


def test_a_column_that_nobody_knows_keeps_every_input_out(opened: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A retrained model may call a column otherwise: what should be private is not written by mistake."""
    module, collector, folder = opened({"modality": "table", "columns": COLUMNS}, drop=["wage"])
    module.RequestLog("m", "1", INPUTS, OUTPUTS).add("r", arrays(), 7)
    (row, *_) = rows_of(collector, folder, 3)
    assert not [name for name in row if name.startswith("input")]
    assert "version 1 has no wage" in capsys.readouterr().err


def test_a_sample_is_the_same_whoever_draws_it(opened: Any) -> None:
    module, _, _ = opened({"modality": "table", "columns": COLUMNS}, sample=0.25)
    first, second = (module.RequestLog("m", version, INPUTS, OUTPUTS) for version in ("1", "2"))
    names = [f"user-{number}" for number in range(4000)]
    chosen = [name for name in names if first._chosen(name)]
    assert chosen == [name for name in names if second._chosen(name)]
    assert 850 < len(chosen) < 1150
    module, _, _ = opened({"modality": "table", "columns": COLUMNS}, sample=0.0)
    assert not any(map(module.RequestLog("m", "1", INPUTS, OUTPUTS)._chosen, names))


def test_requests_that_were_answered_together_are_logged_as_if_alone(opened: Any) -> None:
    module, collector, folder = opened({"modality": "table", "columns": COLUMNS}, sample=0.5)
    names = [f"user-{number}" for number in range(60)]
    log = module.RequestLog("m", "1", INPUTS, OUTPUTS)
    chosen = [name for name in names if log._chosen(name)]
    assert 0 < len(chosen) < len(names)
    counts = [1 + number % 3 for number in range(60)]
    total = sum(counts)
    marks = np.repeat(np.arange(60), counts)
    parts = [
        np.repeat(marks[:, None], 5, axis=1).astype(np.float32),
        np.zeros((total, 2), np.int64),
        np.zeros((total, 3), np.float32),
        np.zeros((total, 2), np.float32),
    ]
    log.add_batch(names, counts, parts, 9, review=marks % 2 == 0)
    right = {
        name if count == 1 else f"{name}#{row}": mark
        for mark, (name, count) in enumerate(zip(names, counts, strict=True))
        for row in range(count)
        if name in chosen
    }
    rows = rows_of(collector, folder, len(right))
    assert {row["request_id"]: row["input.number"][0] for row in rows} == right
    assert all(row["review"] == (row["input.number"][0] % 2 == 0) and row["latency_us"] == 9 for row in rows)
    log.add_batch(["", ""], [1, 1], arrays(2), 9)  # without ids: each gets one, and is chosen or not by it
    nobody = next(name for name in names if name not in chosen)
    log.add_batch([nobody], [1], arrays(1), 9)
    log.flush()
    assert nobody not in {row["request_id"] for row in rows_of(collector, folder, len(right))}


def test_rows_that_nobody_takes_are_counted_and_the_count_arrives(opened: Any, tmp_path: Path) -> None:
    module, collector, folder = opened({"modality": "table", "columns": COLUMNS})
    log = module.RequestLog("m", "1", INPUTS, OUTPUTS)
    right, log._link.address = log._link.address, str(tmp_path / "nobody.sock")
    log.add("lost", arrays(), 7)
    log.flush()
    log._link.address = right
    log.add("a", arrays(), 7)
    log.add("b", arrays(), 7)
    rows_of(collector, folder, 6)
    assert (collector.written, collector.dropped) == (6, 3)
    assert json.loads((folder / "counts.json").read_text())["dropped"] == 3
    assert len(read_requests(folder, "m")) == 6
    assert read_requests(
        folder, "m", answer="forecast"
    ).problems  # rows of a model that answers something else: said, not raised


def test_the_key_is_private_and_stays(tmp_path: Path) -> None:
    first = log_secret(tmp_path / ".kfloop" / "log.key")
    assert stat.S_IMODE((tmp_path / ".kfloop" / "log.key").stat().st_mode) == 0o600
    assert log_secret(tmp_path / ".kfloop" / "log.key") == first
    collector = Collector(tmp_path / "log", LogConfig(hash=("a",)), secret=first)
    settings = Path(collector.address).with_name(SETTINGS)
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert json.loads(settings.read_text())["secret"] == first
    collector.start()
    collector.stop()


def files_of(folder: Path, ages_days: list[float], rows: int = 10) -> list[Path]:
    """Files of the log as if written some days ago."""
    import pyarrow as pa

    made = []
    for age in ages_days:
        at = time.time_ns() - int(age * 86_400e9)
        hour = time.strftime("%Y%m%dT%H", time.gmtime(at / 1e9))
        (folder / "m" / hour).mkdir(parents=True, exist_ok=True)
        made.append(folder / "m" / hour / f"{at:020d}-1-000001.parquet")
        pq.write_table(pa.table({"request_id": [str(number) for number in range(rows)]}), made[-1])
    return made


def test_old_files_are_deleted_and_counted(tmp_path: Path) -> None:
    files, counts = files_of(tmp_path, [40, 31, 2, 1]), Counts()
    left = tidy(tmp_path, LogConfig(), counts, None)
    assert [path.exists() for path in files] == [False, False, True, True]
    assert (counts.deleted_files, counts.deleted_rows) == (2, 20)
    assert left == sum(path.stat().st_size for path in files[2:])
    assert not files[0].parent.exists()


def test_a_log_that_is_too_large_loses_its_oldest_files(tmp_path: Path) -> None:
    files, counts = files_of(tmp_path, [3, 2, 1]), Counts()
    size = files[0].stat().st_size
    tidy(tmp_path, LogConfig(max_bytes=int(1.5 * size)), counts, None)
    assert [path.exists() for path in files] == [False, False, True]


def test_what_the_monitor_has_yet_to_read_stays_and_new_rows_are_dropped_instead(opened: Any, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    files = files_of(folder, [50, 40, 3])
    read = int(files[0].name.partition("-")[0])
    collector = Collector(folder, LogConfig(max_bytes=1), read_until=lambda: read)
    collector.tidy()
    assert [path.exists() for path in files] == [False, True, True]
    module, _, _ = opened({"modality": "table", "columns": COLUMNS})
    log = module.RequestLog("m", "1", INPUTS, OUTPUTS)
    log._link.address = collector.address
    collector.start()
    log.add("r", arrays(), 7)
    deadline = time.monotonic() + 10
    while not collector.dropped and time.monotonic() < deadline:
        collector.write()
    collector.stop()
    counts = read_counts(folder)
    assert (counts.full, counts.dropped, counts.written) == (3, 3, 0)


def test_files_without_images_or_embeddings_are_read_beside_full_ones(tmp_path: Path) -> None:
    import pyarrow as pa

    folder = tmp_path / "m" / "20260101T00"
    folder.mkdir(parents=True)
    rows = {"request_id": ["a"], "ts_ns": [1], "version": [1], "probabilities": [[0.5, 0.5]], "latency_us": [5]}
    pq.write_table(pa.table(rows | {"embedding": [[1.0, 2.0]]}), folder / "1.parquet")
    log = read_requests(tmp_path, "m")
    assert log.images.shape == (1, 0)
    assert log.embeddings.shape == (1, 2)
    assert log.problems == ()


def test_columns_are_held_against_the_served_version(tmp_path: Path) -> None:
    from kfloop.core.signature import Port, Signature

    workspace = Workspace(loop="m", root=tmp_path, state="", store="", mlflow="")
    check_columns(workspace, ServeConfig(log=LogConfig(drop=("wage",))))  # nothing is served yet
    folder = workspace.repository / "m" / "1"
    folder.mkdir(parents=True)
    (folder.parent / "served.json").write_text('{"default": 1, "versions": [1]}')
    (folder / "encoder.json").write_text(json.dumps({"modality": "table", "columns": COLUMNS}))
    outputs = tuple(Port(name=name, dtype="float32", shape=(3,)) for name in OUTPUTS)
    inputs = (Port(name="number", dtype="float32", shape=(5,)), Port(name="category", dtype="int64", shape=(2,)))
    kind = {"objective": "classification", "modality": "table", "family": "mlp", "labels": ("a", "b", "c")}
    write_signature(folder, Signature(inputs=inputs, outputs=outputs, max_batch_size=4, **kind))
    check_columns(workspace, ServeConfig(log=LogConfig(drop=("income",), hash=("town",))))
    with pytest.raises(ConfigError, match="'incom'") as caught:
        check_columns(workspace, ServeConfig(log=LogConfig(drop=("incom",))))
    assert "income" in caught.value.hint


def test_options_survive_the_command_line_and_one_column_is_hashed_or_dropped() -> None:
    options = ServeOptions(serve=ServeConfig(log=LogConfig(sample=0.5, hash=("a",))), edge=EdgePlace(port=9))
    assert ServeOptions.from_json(options.to_json()) == options
    with pytest.raises(ValueError, match="'a' is in hash and in drop"):
        LoopConfig.model_validate({"name": "m", "serve": {"log": {"hash": ["a"], "drop": ["a"]}}})
    assert os.environ.get("KFLOOP_LOG_SOCKET") is None
