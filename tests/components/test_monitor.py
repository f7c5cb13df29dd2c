"""The monitor on a real request log, a real ledger and real digits: every trigger, and nothing counted twice or lost."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kfp import dsl
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from kfloop.components.monitor.drift.evidence import HISTORY_POINTS
from kfloop.components.monitor.drift.fitting import fit_watched
from kfloop.components.monitor.drift.reference import Reference
from kfloop.components.monitor.log.layout import layout_of
from kfloop.components.monitor.memory import Memory
from kfloop.components.monitor.monitoring import run
from kfloop.components.monitor.policy.concluding import TRIGGERS
from kfloop.core.artifacts import read_report, write_report
from kfloop.core.execution import perform
from kfloop.core.sections import MonitorConfig
from kfloop.core.signature import OUTPUTS, Port, Signature, write_signature
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace
from kfloop.errors import StateError, TransientError
from kfloop.serving.log_publisher import Publisher
from kfloop.serving.retention import Counts
from kfloop.serving.shared_log import SharedLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kfloop.components.monitor.drift.table import Table

LOOP = "digits"
VERSION = 3
N_REFERENCE = 400
DIGITS = load_digits()
IMAGES = (DIGITS.images * 15).astype(np.uint8)[..., None]


@dataclass(frozen=True, kw_only=True)
class Model:
    """Logistic regression on digits, with principal components of the pixels as its embedding."""

    classifier: LogisticRegression
    components: PCA

    def answer(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return embedding and probabilities."""
        pixels = images.reshape(len(images), -1) / 255.0
        embedding = self.components.transform(pixels).astype(np.float32)
        return embedding, self.classifier.predict_proba(pixels).astype(np.float32)


@pytest.fixture(scope="session")
def model() -> Model:
    pixels = IMAGES[:600].reshape(600, -1) / 255.0
    return Model(
        classifier=LogisticRegression(C=0.1).fit(pixels, DIGITS.target[:600]),
        components=PCA(24, random_state=0).fit(pixels),
    )


def held_out(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a reference and the rest of the rows the model was not trained on, drawn by `seed`."""
    rows = 600 + np.random.default_rng(seed).permutation(len(IMAGES) - 600)
    return IMAGES[rows[:N_REFERENCE]], IMAGES[rows[N_REFERENCE:]]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A workspace with a champion, and a log to write to."""

    workspace: Workspace
    model: Model
    clean: NDArray[np.uint8]

    def log(
        self, images: NDArray[np.uint8], *, name: str = "a", start: int = 0, version: int = VERSION, **columns: Any
    ) -> None:
        """Write one file of the request log."""
        embedding, probabilities = self.model.answer(images)
        rows = {
            "request_id": [f"{version}-{start + i:06d}" for i in range(len(images))],
            "ts_ns": [1_700_000_000_000_000_000 + (start + i) * 1_000_000 for i in range(len(images))],
            "model": [LOOP] * len(images),
            "version": [version] * len(images),
            "image": pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 64),
            "probabilities": list(probabilities),
            "embedding": list(embedding),
            "latency_us": [900] * len(images),
        }
        folder = self.workspace.request_log / LOOP / "20231114T22"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows | columns), folder / f"{name}.parquet")

    def monitor(self, **settings: Any) -> dict[str, Any]:
        """Run one round as the engine does and return its report."""
        config = MonitorConfig(**settings)
        result = perform("monitor", run, self.workspace, config, {})
        assert result.value in TRIGGERS
        report = read_report(result.path)
        assert report["outcome"] == result.value
        assert report["reason"]
        return report


SIGNATURE = Signature(
    objective="classification",
    modality="image",
    family="cnn",
    inputs=(Port(name="image", dtype="uint8", shape=(8, 8, 1)),),
    outputs=tuple(Port(name=name, dtype="float32", shape=(10,)) for name in ("probabilities", "embedding")),
    labels=tuple(str(digit) for digit in range(10)),
    max_batch_size=16,
)


@pytest.fixture
def bench(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.delenv("KFLOOP_RUN_ID", raising=False)
    return make_bench(tmp_path, model, 0)


def make_bench(root: Path, model: Model, seed: int) -> Bench:
    kfloop = root / ".kfloop"
    workspace = Workspace(
        loop=LOOP, root=root, state=f"sqlite:///{kfloop}/state.db", store=str(kfloop / "store"), mlflow="unused"
    )
    reference, clean = held_out(seed)
    package = root / "package"
    package.mkdir(parents=True)
    embedding, probabilities = model.answer(reference)
    np.savez(
        package / "reference.npz",
        embedding=embedding,
        probabilities=probabilities,
        ids=np.arange(len(reference)).astype(str),
    )
    write_signature(package, SIGNATURE)
    write_report(package, {"dataset_digest": publish_dataset(root, workspace)})
    Store(workspace.store).publish(package, "models", f"champion-{seed}")
    promote(workspace, f"champion-{seed}", VERSION, None)
    return Bench(workspace=workspace, model=model, clean=clean)


def publish_dataset(root: Path, workspace: Workspace, fresh: int = 20) -> str:
    """Publish a dataset version of which `fresh` rows came from the folder of fresh labels."""
    folder = root / f"dataset-{fresh}"
    folder.mkdir()
    for split, taken in (("train", fresh), ("validation", 0), ("test", 0)):
        table = pa.table({"id": [str(i) for i in range(100)], "origin": ["fresh"] * taken + ["base"] * (100 - taken)})
        with pa.ipc.new_stream(str(folder / f"{split}.arrow"), table.schema) as writer:
            writer.write_table(table)
    return Store(workspace.store).publish(folder, "datasets").name


def promote(workspace: Workspace, digest: str, version: int, expected: str | None) -> None:
    ledger = open_state(workspace.state).ledger
    intent = ledger.intend(
        LOOP,
        action="promote",
        version=version,
        model_digest=digest,
        expected_champion=expected,
        actor="test",
        reason="test",
    )
    ledger.close(intent, done=True)


def invert(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return 255 - images


def noise(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.clip(images + np.random.default_rng(0).normal(0, 110, images.shape), 0, 255).astype(np.uint8)


def blur(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    padded = np.pad(images.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return (sum(padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 9).astype(np.uint8)


def label(folder: Path, count: int) -> str:
    """Write labelled images as they come in."""
    for number in range(count):
        place = folder / str(number % 10) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[number, ..., 0]).save(place)
    return str(folder)


def drifted(bench: Bench, **settings: Any) -> dict[str, Any]:
    bench.log(invert(bench.clean[:200]))
    return bench.monitor(**settings)


# --- data that cannot be judged -------------------------------------------------------------------------------------


def test_no_champion_is_not_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFLOOP_RUN_ID", raising=False)
    workspace = Workspace(
        loop=LOOP, root=tmp_path, state=f"sqlite:///{tmp_path}/state.db", store=str(tmp_path / "s"), mlflow=""
    )
    report = run(MonitorConfig(), out=tmp_path, workspace=workspace)
    assert report.outcome == "not_evaluated"
    assert "no champion" in report.reason


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"objective": "generation"}, "noise that callers chose"),
        ({"objective": "forecasting"}, "windows of one series"),
        ({"objective": "anomaly"}, "more odd ones"),
        ({"modality": "nodes", "max_batch_size": 0}, "requests without rows"),
    ],
)
def test_a_champion_whose_requests_tell_nothing_is_not_evaluated(
    bench: Bench, changed: dict[str, Any], reason: str
) -> None:
    package = next((Path(bench.workspace.store) / "models").iterdir())
    bench.log(bench.clean[:60])
    told = replace(SIGNATURE, **changed)
    ports = (replace(SIGNATURE.outputs[0], name=name) for name in OUTPUTS[told.objective])
    told = replace(told, outputs=tuple(ports))
    write_signature(package, told)
    report = bench.monitor()
    assert report["outcome"] == "not_evaluated"
    assert reason in report["reason"]


ANSWERS = {
    "classification": ("probabilities", lambda found, _: found),
    "multilabel": ("probabilities", lambda found, _: np.sqrt(found)),
    "regression": ("prediction", lambda _, embedding: 1e-4 * embedding[:, :1]),
}


@pytest.mark.parametrize("objective", ANSWERS)
def test_whatever_a_model_answers_its_traffic_is_watched(bench: Bench, objective: str) -> None:
    """Tables, texts, sounds and series are logged as ``input.NAME`` and ``output.NAME``; only classes have a confidence."""
    name, answer = ANSWERS[objective]
    package = next((Path(bench.workspace.store) / "models").iterdir())
    write_signature(
        package,
        replace(
            SIGNATURE,
            modality="table",
            objective=objective,
            outputs=tuple(
                replace(port, name=told) for port, told in zip(SIGNATURE.outputs, (name, "embedding"), strict=True)
            ),
        ),
    )
    reference, _ = held_out(0)
    embedding, probabilities = bench.model.answer(reference)
    np.savez(package / "reference.npz", embedding=embedding, **{name: answer(probabilities, embedding)})
    folder = bench.workspace.request_log / LOOP / "20231114T22"
    folder.mkdir(parents=True)

    def log(images: NDArray[np.uint8], start: int) -> None:
        embedding, probabilities = bench.model.answer(images)
        found = answer(probabilities, embedding).reshape(len(images), -1)
        rows = {
            "request_id": [f"{start + i:06d}" for i in range(len(images))],
            "ts_ns": [1_700_000_000_000_000_000 + (start + i) * 1_000_000 for i in range(len(images))],
            "version": [VERSION] * len(images),
            "input.number": list(images.reshape(len(images), -1).astype(np.float32)),
            f"output.{name}": list(found),
            "output.embedding": list(embedding),
            "latency_us": [900] * len(images),
        }
        pq.write_table(pa.table(rows), folder / f"{start:06d}.parquet")

    log(bench.clean[:150], 0)
    report = bench.monitor()
    assert (report["outcome"], report["rows_seen"], report["alarm_row"]) == ("none", 150, None)
    log(invert(bench.clean[150:350]), 150)
    report = bench.monitor()
    assert report["outcome"] == "needs_labels"
    assert 150 < report["alarm_row"] <= 350
    assert report["c2st_auc"]["value"] > 0.9
    told = report["quality"]["estimated"]
    assert (told is not None) == (objective in {"classification", "multilabel"}), told


def test_an_empty_log_is_not_evaluated(bench: Bench) -> None:
    report = bench.monitor()
    assert report["outcome"] == "not_evaluated"
    assert "request log has no rows" in report["reason"]
    assert report["data_quality"]
    assert report["c2st_auc"]["value"] is None


@pytest.mark.parametrize("count", [1, 49])
def test_too_few_rows_are_not_evaluated(bench: Bench, count: int) -> None:
    bench.log(bench.clean[:count])
    report = bench.monitor()
    assert report["outcome"] == "not_evaluated"
    assert f"{count} usable rows were logged, at least 50" in report["reason"]


def test_an_embedding_of_nan_is_not_evaluated_and_never_bets(bench: Bench) -> None:
    bench.log(bench.clean[:120], embedding=[np.full(24, np.nan)] * 120)
    report = bench.monitor()
    assert report["outcome"] == "not_evaluated"
    assert "120 of 120 new rows are unusable" in report["reason"]
    assert (report["rows_seen"], report["rows_unusable"], report["alarm_row"]) == (120, 120, None)
    assert report["e_value"] < 1.0
    told = next(cause for cause in report["causes"] if cause["kind"] == "data_quality")
    assert told["declared"]
    assert any(name.endswith(": missing") for name in told["moved"])


@pytest.mark.parametrize(
    "column",
    [
        {"embedding": [np.zeros(3)] * 120},
        {"probabilities": [np.full(10, 7.0)] * 120},
        {"probabilities": [np.full(10, np.nan, np.float32)] * 120},
    ],
)
def test_rows_of_another_shape_or_range_are_unusable(bench: Bench, column: dict[str, Any]) -> None:
    bench.log(bench.clean[:120], **column)
    assert bench.monitor()["outcome"] == "not_evaluated"


def test_some_bad_rows_are_counted_and_left_out(bench: Bench) -> None:
    embedding, _ = bench.model.answer(bench.clean[:120])
    embedding[:10] = np.inf
    bench.log(bench.clean[:120], embedding=list(embedding))
    report = bench.monitor()
    assert report["outcome"] == "none"
    assert (report["rows_seen"], report["rows_unusable"]) == (120, 10)
    assert any("10 of 120 new rows are unusable" in line for line in report["data_quality"])


def test_only_another_version_is_not_evaluated(bench: Bench) -> None:
    bench.log(bench.clean[:120], version=2)
    report = bench.monitor()
    assert report["outcome"] == "not_evaluated"
    assert report["other_versions"] == {"2": 120}
    assert "120 of version 2" in report["reason"]


def test_a_version_with_a_longer_embedding_does_not_hide_the_champion(bench: Bench) -> None:
    bench.log(bench.clean[:30], version=2, name="0", embedding=[np.zeros(99, np.float32)] * 30)
    bench.log(bench.clean[:120], name="1")
    bench.log(bench.clean[:30], version=1, name="2", embedding=[np.zeros(7, np.float32)] * 30)
    report = bench.monitor()
    assert (report["outcome"], report["rows_seen"]) == ("none", 120)
    assert report["other_versions"] == {"1": 30, "2": 30}


def test_corrupt_files_only_are_not_evaluated_and_named(bench: Bench) -> None:
    bench.log(bench.clean[:120])
    path = next(bench.workspace.request_log.rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:200])
    report = bench.monitor()
    assert report["outcome"] == "not_evaluated"
    assert "a.parquet" in report["reason"]


def test_a_corrupt_file_among_good_ones_is_named_and_left_out(bench: Bench) -> None:
    bench.log(bench.clean[:120])
    folder = bench.workspace.request_log / LOOP / "20231114T22"
    (folder / "broken.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"x": [1]}), folder / "other.parquet")
    report = bench.monitor()
    assert (report["outcome"], report["rows_seen"]) == ("none", 120)
    assert any("broken.parquet" in line for line in report["data_quality"])
    assert any("other.parquet" in line for line in report["data_quality"])


def test_a_missing_package_is_an_error(bench: Bench) -> None:
    promote(bench.workspace, "elsewhere", 4, "champion-0")
    with pytest.raises(StateError, match="elsewhere"):
        bench.monitor()


def test_a_champion_with_a_small_reference_is_not_evaluated(bench: Bench) -> None:
    path = next((Path(bench.workspace.store) / "models").iterdir()) / "reference.npz"
    with np.load(path) as arrays:
        few = {name: arrays[name][:49] for name in arrays.files}
    np.savez(path, **few)
    bench.log(bench.clean[:60])
    report = bench.monitor()
    assert report["outcome"] == "not_evaluated"
    assert "the reference has 49 rows" in report["reason"]


# --- evidence -------------------------------------------------------------------------------------------------------


def test_clean_traffic_gives_none(bench: Bench) -> None:
    bench.log(bench.clean[:500])
    report = bench.monitor()
    assert report["outcome"] == "none"
    assert (report["rows_seen"], report["rows_new"], report["alarm_row"]) == (500, 500, None)
    assert report["e_value"] < report["threshold"] == 1.0
    assert "at most 1 false alarms a year" in report["guarantee"]
    assert "paid from 280 of 400 reference units, tolerance 0 sd" in report["guarantee"]
    assert "simulated schedules" in report["rehearsal"]
    assert report["c2st_auc"]["low"] < 0.6
    told = report["quality"]["estimated"]
    assert abs(told["quality"]["value"] - told["reference"]) < 0.1
    assert [point["rows"] for point in report["history"]] == list(range(50, 501, 50))
    again = bench.monitor()
    assert (again["outcome"], again["rows_new"], again["rows_seen"]) == ("none", 0, 500)
    assert "no new rows" in again["reason"]
    assert again["history"] == report["history"]


def test_rounds_between_batches_equal_one_go(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFLOOP_RUN_ID", raising=False)
    whole, pieces = (make_bench(tmp_path / name, model, 0) for name in ("whole", "pieces"))
    images = np.concatenate([whole.clean[:230], invert(whole.clean[230:313])])
    whole.log(images)
    expected = whole.monitor()
    for start, stop in ((0, 70), (70, 71), (71, 200), (200, 313)):
        pieces.log(images[start:stop], name=str(start), start=start)
        found = pieces.monitor()
    for key in ("e_value", "alarm_row", "rows_seen", "history", "effects", "c2st_auc", "outcome"):
        assert found[key] == expected[key], key


def test_rows_that_reach_the_log_late_are_counted_once(bench: Bench) -> None:
    bench.log(bench.clean[100:200], name="b", start=100)
    assert bench.monitor()["rows_seen"] == 100
    bench.log(bench.clean[:100], name="a", start=0)
    bench.log(bench.clean[190:200], name="c", start=190)
    report = bench.monitor()
    assert (report["rows_seen"], report["rows_new"]) == (200, 100)
    assert any("10 rows repeat a request id" in line for line in report["data_quality"])


def test_a_kill_before_the_save_loses_nothing_and_after_it_counts_nothing_twice(bench: Bench, tmp_path: Path) -> None:
    bench.log(bench.clean[:200])
    state = open_state(bench.workspace.state)
    before = state.monitors.load(LOOP, "champion-0")
    assert before == (None, 0)
    out = tmp_path / "out"
    out.mkdir()
    first = run(MonitorConfig(), out=out, workspace=bench.workspace)
    assert state.triggers.last(LOOP) is None  # killed after the save, before its evidence was published
    again = bench.monitor()
    assert again["rows_seen"] == first.rows_seen == 200
    assert again["e_value"] == first.e_value
    trigger = state.triggers.last(LOOP)
    assert trigger is not None
    assert Store(bench.workspace.store).has("evidence", trigger.evidence_digest)


def test_two_rounds_at_once_do_not_both_save(bench: Bench) -> None:
    monitors = open_state(bench.workspace.state).monitors
    monitors.save(LOOP, "champion-0", Memory().to_dict(), 0)
    with pytest.raises(StateError, match="same moment"):
        monitors.save(LOOP, "champion-0", Memory().to_dict(), 0)
    bench.log(bench.clean[:100])
    assert bench.monitor()["rows_seen"] == 100


def test_the_history_is_bounded(bench: Bench) -> None:
    bench.log(np.tile(bench.clean[:500], (13, 1, 1, 1))[:6300])
    history = bench.monitor(batch=10)["history"]
    assert len(history) <= HISTORY_POINTS
    assert history[0]["rows"] == 10
    assert history[-1]["rows"] == 6300


def test_a_memory_of_another_format_is_an_error() -> None:
    with pytest.raises(StateError, match="format 9"):
        Memory.from_dict({"format": 9})
    assert Memory.from_dict(json.loads(json.dumps(Memory().to_dict()))) == Memory()


@pytest.mark.parametrize("corrupt", [invert, noise, blur])
def test_corrupted_digits_alarm_and_clean_ones_do_not(
    model: Model, corrupt: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    """20 draws of reference and traffic: the clean stream never alarms, the corrupted one does within 150 rows."""
    layout = layout_of(SIGNATURE, None, 10, 24)
    for seed in range(20):
        reference, clean = held_out(seed)
        embedding, answers = (part.astype(float) for part in model.answer(reference))
        held = Reference(embedding=embedding, answers=answers, tensors={}, times=None)
        watched = fit_watched(MonitorConfig(), held, layout, SIGNATURE, inputs=False, embedding=True)

        def columns(images: NDArray[np.uint8], table: Table = watched.table) -> dict[str, Any]:
            return table.columns({}, *(part.astype(float) for part in model.answer(images)))

        watch = watched.watch
        state = watch.advance(watch.start(), columns(clean[:400]), times=np.arange(400) * 18.0)
        assert state.drift_row is None, seed
        alarmed = watch.advance(state, columns(corrupt(clean[400:550])), times=7200 + np.arange(150) * 18.0)
        assert alarmed.drift_row is not None, seed


# --- policy ---------------------------------------------------------------------------------------------------------


def test_drift_without_a_folder_of_labels_needs_labels(bench: Bench) -> None:
    report = drifted(bench)
    assert report["outcome"] == "needs_labels"
    assert "data.fresh" in report["reason"]
    assert report["e_value"] >= report["threshold"]
    assert report["alarm_row"] <= 150
    assert report["c2st_auc"]["value"] > 0.9
    assert report["fresh_labels"] is None
    trigger = open_state(bench.workspace.state).triggers.last(LOOP)
    assert trigger is not None
    assert trigger.cause == "drift"  # both were declared: what was seen comes before what is estimated
    assert [cause["kind"] for cause in report["causes"] if cause["declared"]] == ["drift", "estimated"]
    evidence = Store(bench.workspace.store).path("evidence", trigger.evidence_digest)
    asked = [json.loads(line) for line in (evidence / "questions.jsonl").read_text().splitlines()]
    assert len(asked) == report["questions"] == 100
    assert len({item["request_id"] for item in asked}) == 100


def test_labels_the_champion_was_trained_on_are_not_fresh(bench: Bench, tmp_path: Path) -> None:
    report = drifted(bench, fresh=label(tmp_path / "fresh", 79))
    assert (report["outcome"], report["fresh_labels"]) == ("needs_labels", 59)


def test_a_folder_of_labels_that_does_not_exist_yet_needs_labels(bench: Bench, tmp_path: Path) -> None:
    assert drifted(bench, fresh=str(tmp_path / "nowhere"))["outcome"] == "needs_labels"


def test_drift_with_labels_retrains_then_cools_down_then_respects_the_budget(bench: Bench, tmp_path: Path) -> None:
    fresh = label(tmp_path / "fresh", 80)
    report = drifted(bench, fresh=fresh)
    assert (report["outcome"], report["fresh_labels"]) == ("retrain", 60)
    assert bench.monitor(fresh=fresh)["outcome"] == "cooldown"
    assert bench.monitor(fresh=fresh, cooldown_minutes=0, max_retrains_per_month=1)["outcome"] == "over_budget"
    assert (
        bench.monitor(fresh=fresh, cooldown_minutes=0)["outcome"] == "retrain"
    )  # the first one never came to a decision
    with np.load(next((Store(bench.workspace.store).root / "evidence").rglob("samples.npz"))) as samples:
        assert samples["images"].shape == (12, 8, 8, 1)
        assert samples["images"].dtype == np.uint8


def test_the_alarm_stays_without_new_rows_and_ends_with_the_champion(bench: Bench, tmp_path: Path) -> None:
    assert drifted(bench)["outcome"] == "needs_labels"
    again = bench.monitor(fresh=label(tmp_path / "fresh", 80))
    assert (again["outcome"], again["rows_new"]) == ("retrain", 0)
    package = Store(bench.workspace.store).path("models", "champion-0")
    Store(bench.workspace.store).publish(package, "models", "champion-1")
    promote(bench.workspace, "champion-1", 4, "champion-0")
    report = bench.monitor()
    assert (report["outcome"], report["alarm_row"], report["rows_seen"]) == ("not_evaluated", None, 0)


def test_a_run_under_way_is_in_flight_but_not_the_monitors_own(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = open_state(bench.workspace.state)
    runs = state.runs
    fresh = label(tmp_path / "fresh", 80)
    runs.start("own", LOOP, "monitoring", "", {})
    runs.start("other", LOOP, "training", "", {})
    monkeypatch.setenv("KFLOOP_RUN_ID", "own")
    monkeypatch.setenv("KFLOOP_RUN_PID", str(os.getpid()))
    with state.leases.acquire(LOOP, "other"):
        report = drifted(bench, fresh=fresh)
    assert report["outcome"] == "in_flight"
    assert "run other" in report["reason"]
    assert bench.monitor(fresh=fresh)["outcome"] == "retrain"
    assert [event.event for event in runs.events("own")] == ["started", "succeeded"] * 2


def test_the_same_labels_are_not_tried_twice_once_decided(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = open_state(bench.workspace.state).runs
    fresh = label(tmp_path / "fresh", 80)
    runs.start("first", LOOP, "monitoring", "", {})
    monkeypatch.setenv("KFLOOP_RUN_ID", "first")
    assert drifted(bench, fresh=fresh)["outcome"] == "retrain"
    runs.finish("first", "rejected", {"status": "rejected"})
    monkeypatch.setenv("KFLOOP_RUN_ID", "second")
    report = bench.monitor(fresh=fresh, cooldown_minutes=0)
    assert report["outcome"] == "needs_labels"
    assert "the champion stayed" in report["reason"]
    assert bench.monitor(fresh=label(tmp_path / "fresh", 100), cooldown_minutes=0)["outcome"] == "retrain"


def test_drift_that_is_small_is_not_worth_a_retraining(bench: Bench, tmp_path: Path) -> None:
    report = drifted(bench, fresh=label(tmp_path / "fresh", 80), materiality=1.0)
    assert report["alarm_row"] is not None
    if report["c2st_auc"]["value"] < 1.0:
        assert report["outcome"] == "none"
        assert "too small" in report["reason"]


# --- shells ---------------------------------------------------------------------------------------------------------


def test_the_shells_return_the_trigger(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfloop.components.monitor.component import monitor, stand_by

    evidence = dsl.Artifact(uri=str(tmp_path / "evidence"))
    trigger = monitor.python_func(bench.workspace.to_json(), MonitorConfig().model_dump_json(), evidence)
    assert trigger == "not_evaluated"
    assert read_report(Path(evidence.uri))["outcome"] == trigger
    assert evidence.metadata["digest"] == Path(evidence.uri).name
    runs = open_state(bench.workspace.state).runs
    monkeypatch.setenv("KFLOOP_RUN_ID", "r")
    assert stand_by.python_func(bench.workspace.to_json(), trigger) == trigger
    assert [(event.step, event.event) for event in runs.events("r")] == [
        ("stand_by", "started"),
        ("stand_by", "succeeded"),
    ]


def publish_log(place: Workspace, folder: Path, url: str) -> None:
    """Publish a folder as a server does that comes to its end."""
    publisher = Publisher(folder, SharedLog(url, place.loop), days=30.0)
    publisher.publish(publisher.parts(), time.time_ns(), Counts(), ended=True)


@pytest.mark.parametrize("engine", ["pyarrow", pytest.param("spark", marks=pytest.mark.slow)])
def test_the_monitor_counts_the_rows_of_every_server_once(bench: Bench, tmp_path: Path, engine: str) -> None:
    url = str(tmp_path / "shared")
    watching = replace(bench, workspace=replace(bench.workspace, requests=url))
    for number in range(2):  # two servers, with files of the same name
        bench.log(bench.clean[200 * number : 200 * (number + 1)], start=200 * number)
        publish_log(bench.workspace, bench.workspace.collected, url)
        shutil.move(bench.workspace.collected / ".writer.json", tmp_path / f"writer-{number}")
    report = watching.monitor(engine=engine)
    assert (report["rows_new"], report["rows_seen"]) == (400, 400)
    assert watching.monitor(engine=engine)["rows_new"] == 0
    bench.log(bench.clean[400:450], start=400)
    shutil.move(tmp_path / "writer-1", bench.workspace.collected / ".writer.json")
    publish_log(bench.workspace, bench.workspace.collected, url)
    shutil.move(url, tmp_path / "away")
    Path(url).write_text("no folder")
    champion = open_state(bench.workspace.state).ledger.champion(bench.workspace.loop)
    assert champion is not None
    before = open_state(bench.workspace.state).monitors.load(bench.workspace.loop, champion.model_digest)
    with pytest.raises(TransientError, match="request log"):
        watching.monitor(engine=engine)
    assert open_state(bench.workspace.state).monitors.load(bench.workspace.loop, champion.model_digest) == before
    Path(url).unlink()
    shutil.move(tmp_path / "away", url)
    report = watching.monitor(engine=engine)
    assert (report["rows_new"], report["rows_seen"]) == (50, 450)
    assert report["data_quality"] == []
