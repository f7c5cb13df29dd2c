"""The watch over quality on a real request log and a real file of ground truth: late, chosen, broken and contradictory answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.monitor.log.traffic import Traffic
from kfloop.components.monitor.quality.joining import MOST_WAITING, WAIT_SECONDS
from kfloop.components.monitor.quality.lookup import find_rows
from kfloop.components.monitor.quality.watch import QualityWatch, open_quality
from kfloop.core.ground_truth import keep
from kfloop.core.quality.expected import UNIT
from kfloop.core.sections import MonitorConfig
from kfloop.core.signature import OUTPUTS, Port, Signature
from kfloop.errors import StateError

VERSION = 3
MODEL = "loans"
START = 1_700_006_400
HOUR = 3600
CONFIG = MonitorConfig()
WIDTHS = {"classification": 2, "multilabel": 3, "regression": 1}


def signature(objective: str) -> Signature:
    return Signature(
        objective=objective,
        modality="table",
        family="mlp",
        inputs=(Port(name="numeric", dtype="float32", shape=(4,)),),
        outputs=tuple(Port(name=name, dtype="float32", shape=(4,)) for name in OUTPUTS[objective]),
        labels={"classification": ("no", "yes"), "multilabel": ("a", "b", "c")}.get(objective, ()),
        max_batch_size=16,
    )


def draw(
    rng: np.random.Generator, n: int, objective: str, flipped: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers, embeddings and truth; `flipped` is how far what is true has moved from what was learned."""
    embedding = rng.normal(size=(n, 4))
    if objective == "regression":
        answers = embedding[:, :1]
        return answers, embedding, answers[:, 0] + rng.normal(0, 1 + 10 * flipped, n)
    odds = rng.normal(2.0, 1.5, (n, WIDTHS[objective])) * rng.choice([-1.0, 1.0], (n, WIDTHS[objective]))
    if objective == "classification":
        odds[:, 0] = -odds[:, 1]
    chance = 1 / (1 + np.exp(-odds))
    true = chance * (1 - flipped) + (1 - chance) * flipped
    drawn = rng.random(chance.shape) < true
    return chance, embedding, (drawn[:, 1] if objective == "classification" else drawn).astype(float)


def spell(objective: str, truth: Any) -> Any:
    if objective == "classification":
        return "yes" if truth else "no"
    if objective == "multilabel":
        return [name for name, here in zip("abc", truth, strict=True) if here]
    return float(truth) + 1e-9  # never a whole number, which would be a class


@dataclass(frozen=True, kw_only=True)
class Place:
    """A champion's package, a log and a file of ground truth."""

    root: Path
    objective: str

    @property
    def truth_file(self) -> Path:
        return self.root / "feedback.jsonl"

    @property
    def log(self) -> Path:
        return self.root / "requests"

    def open(self, payload: dict[str, Any] | None = None, **settings: Any) -> QualityWatch:
        config = MonitorConfig(**settings)
        made = signature(self.objective)
        return open_quality(self.root / "package", made, config, model=MODEL, version=VERSION, payload=payload)

    def serve(
        self,
        rows: tuple[np.ndarray, np.ndarray, np.ndarray],
        *,
        hour: int = 0,
        version: int = VERSION,
        prefix: str = "r",
    ) -> Traffic:
        """Log some rows within one hour."""
        answers, embedding, _ = rows
        n = len(answers)
        ts_ns = (START + hour * HOUR) * 10**9 + np.arange(n, dtype=np.int64) * (HOUR * 10**9 // max(n, 1))
        ids = [f"{prefix}{hour}#{i}" for i in range(n)]
        table = {
            "request_id": ids,
            "ts_ns": ts_ns,
            "model": [MODEL] * n,
            "version": [version] * n,
            "input.numeric": list(embedding),
            f"output.{OUTPUTS[self.objective][0]}": list(answers.astype(np.float64)),
            "output.embedding": list(embedding),
            "review": (answers.max(axis=1) < 0.6).tolist(),
            "latency_us": [900] * n,
        }
        folder = self.log / MODEL / datetime.fromtimestamp(START + hour * HOUR, tz=UTC).strftime("%Y%m%dT%H")
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), folder / f"{prefix}{version}.parquet")
        return Traffic(
            ids=np.array(ids),
            ts_ns=ts_ns,
            embedding=embedding,
            answers=answers,
            images=np.zeros((n, 0), np.uint8),
            inputs={},
            latency_us=np.full(n, 900),
            review=answers.max(axis=1) < 0.6,
        )

    def tell(self, truth: Any, *, hour: int = 0, rows: Any = None, late: float = 600.0, prefix: str = "r") -> None:
        """Give answers as `kfloop feedback` does."""
        at = datetime.fromtimestamp(START + (hour + 1) * HOUR + late, tz=UTC).isoformat()
        named = range(len(truth)) if rows is None else rows
        answers = [{"request_id": f"{prefix}{hour}#{i}", "label": spell(self.objective, truth[i])} for i in named]
        keep(self.truth_file, answers, set(), at=at)


def now(hour: float) -> float:
    return START + hour * HOUR


def make(root: Path, objective: str = "classification", *, n: int = 3000, truth: bool = True) -> Place:
    package = root / "package"
    package.mkdir(parents=True)
    answers, embedding, target = draw(np.random.default_rng(0), n, objective)
    told = {"target": target} if truth else {}
    np.savez(
        package / "reference.npz",
        ids=np.arange(n).astype(str),
        embedding=embedding,
        **{OUTPUTS[objective][0]: answers},
        **told,
    )
    return Place(root=root, objective=objective)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make(tmp_path)


def played(
    place: Place,
    hours: int,
    *,
    n: int = 100,
    flipped: float = 0.0,
    first: int = 0,
    watch: QualityWatch | None = None,
    seed: int = 1,
) -> QualityWatch:
    """Hourly rounds; every row's truth is known an hour later."""
    watch = watch or place.open()
    for hour in range(first, first + hours):
        rows = draw(np.random.default_rng([seed, hour]), n, place.objective, flipped)
        watch = watch.advance(place.serve(rows, hour=hour))
        place.tell(rows[2], hour=hour)
        watch = watch.realise(place.truth_file, place.log, now(hour + 2))
        watch = place.open(json.loads(json.dumps(watch.to_dict(), allow_nan=False)))
    return watch


@pytest.mark.parametrize("objective", ["classification", "multilabel", "regression"])
def test_a_change_of_concept_is_found_by_labels_alone(tmp_path: Path, objective: str) -> None:
    place = make(tmp_path, objective)
    quiet = played(place, 8)
    estimated, realised = quiet.causes(CONFIG)
    assert (estimated.kind, realised.kind) == ("estimated", "realised")
    assert not estimated.declared
    assert not realised.declared
    assert realised.size.known
    assert realised.matters is False or realised.size.low < 0.02
    watch = played(place, 14, flipped=0.25, first=8, watch=quiet)
    estimated, realised = watch.causes(CONFIG)
    assert not estimated.declared, "blind to a change of what the labels mean"
    assert realised.declared
    assert realised.matters
    assert realised.size.low > 0.0
    assert realised.since > "2023-11-15T08"
    assert realised.key.startswith("label ")
    assert not realised.refutes
    report = watch.report()
    json.dumps(report)
    assert report["realised"]["labels"] == report["realised"]["requests"] == 2200
    assert report["realised"]["known_after"]["1 h"]["n"] > 0
    assert report["realised"]["delay_seconds"]["median"] == pytest.approx(2400, rel=0.5)
    assert "ADWIN sees a change" in report["realised"]["adwin"]["statement"]
    assert report["estimated"]["quality"]["value"] == pytest.approx(report["estimated"]["reference"], abs=0.03)
    again = watch.realise(place.truth_file, place.log, now(30))
    assert again.to_dict() == watch.to_dict() | {"now": now(30)}


def test_what_the_labels_leave_out_is_told_with_the_interval(place: Place) -> None:
    """People answer for doubtful rows only: the interval holds whatever the others are worth, and the reason says why it is wide."""
    rows = draw(np.random.default_rng(9), 2000, "classification")
    watch = place.open().advance(place.serve(rows))
    place.tell(rows[2], rows=np.flatnonzero(rows[0].max(axis=1) < 0.7).tolist())
    few = watch.realise(place.truth_file, place.log, now(2))
    told = few.report()["realised"]
    assert told["unlabelled_share"] > 0.3
    assert told["quality"]["high"] - told["quality"]["low"] > told["unlabelled_share"]
    _, realised = few.causes(CONFIG)
    assert f"{told['unlabelled_share']:.0%} of the requests are of kinds that nobody labelled" in realised.reason
    assert realised.size.high - realised.size.low > told["unlabelled_share"]
    place.tell(rows[2])
    _, realised = few.realise(place.truth_file, place.log, now(3)).causes(CONFIG)
    assert "nobody labelled" not in realised.reason


def test_a_shift_of_the_answers_is_found_without_labels(place: Place) -> None:
    watch = place.open()
    rng = np.random.default_rng(2)
    for hour in range(4):
        watch = watch.advance(place.serve(draw(rng, 500, "classification"), hour=hour))
    assert not watch.causes(CONFIG)[0].declared
    for hour in range(4, 8):
        doubt = 0.5 + rng.uniform(-0.2, 0.2, 500)
        rows = (np.stack([1 - doubt, doubt], axis=1), rng.normal(size=(500, 4)), np.zeros(500))
        watch = watch.advance(place.serve(rows, hour=hour))
    estimated, realised = watch.causes(CONFIG)
    assert estimated.declared
    assert estimated.matters
    assert 2000 < int(estimated.key.removeprefix("row ")) < 2500
    assert estimated.since.startswith("2023-11-15T04")
    assert (realised.declared, realised.matters) == (False, None)
    assert "blind" in watch.report()["estimated"]["blind_spot"]
    assert watch.report()["estimated"]["f1"] is not None


def test_two_halves_equal_the_whole(place: Place) -> None:
    rows = draw(np.random.default_rng(3), 1203, "classification")
    traffic = place.serve(rows)
    place.tell(rows[2], rows=range(0, 1203, 3))
    whole = place.open().advance(traffic).realise(place.truth_file, place.log, now(3))
    lines = place.truth_file.read_bytes().splitlines(keepends=True)
    for cut, lines_cut in ((1, 1), (600, 207), (1199, 399)):
        watch = place.open()
        for part in (slice(0, cut), slice(cut, 1203)):
            watch = watch.advance(traffic.take(part))
            watch = place.open(json.loads(json.dumps(watch.to_dict())))
        for end in (lines_cut, len(lines)):
            place.truth_file.write_bytes(b"".join(lines[:end]))
            watch = watch.realise(place.truth_file, place.log, now(3))
            watch = place.open(json.loads(json.dumps(watch.to_dict())))
        assert watch.to_dict() == whole.to_dict()


def test_a_round_that_is_killed_counts_nothing_twice_and_loses_nothing(place: Place) -> None:
    """A killed round keeps nothing; the next one sees its rows and labels, and those that came since."""
    rng = np.random.default_rng(4)
    steady, crashing, kept = place.open(), place.open(), place.open().to_dict()
    missed: list[Traffic] = []
    truths = []
    for hour in range(12):
        rows = draw(rng, 120, "classification")
        truths.append(rows[2])
        chunk = place.serve(rows, hour=hour)
        if hour:
            place.tell(truths[hour - 1], hour=hour - 1)
        steady = steady.advance(chunk).realise(place.truth_file, place.log, now(hour + 1))
        crashing = place.open(json.loads(json.dumps(kept)))
        missed.append(chunk)
        for part in missed:
            crashing = crashing.advance(part)
        crashing = crashing.realise(place.truth_file, place.log, now(hour + 1))
        if hour % 3 == 2:
            kept, missed = crashing.to_dict(), []
    assert crashing.to_dict() == steady.to_dict()
    assert steady.report()["realised"]["labels"] == 11 * 120


def test_garbage_in_the_file_of_ground_truth_is_told_and_starts_nothing(place: Place) -> None:
    rows = draw(np.random.default_rng(5), 400, "classification")
    answers = rows[0].copy()
    answers[7] = np.nan
    watch = place.open().advance(place.serve((answers, *rows[1:])))
    assert watch.unusable == 1
    lines = [
        "not json",
        json.dumps({"request_id": "r0#1"}),
        json.dumps({"request_id": "r0#2", "label": "maybe"}),
        json.dumps({"request_id": "r0#3", "label": 17}),
        json.dumps({"request_id": "r0#4", "label": ["yes", "no"]}),
        json.dumps({"request_id": "r0#7", "label": "yes"}),
        json.dumps({"request_id": "r0#8", "label": "yes", "at": "2001-01-01T00:00:00"}),
        json.dumps({"request_id": "r0#9", "label": "yes", "at": "2999-01-01T00:00:00"}),
        json.dumps({"request_id": "r0#9", "label": "no"}),
        json.dumps({"request_id": "nobody", "label": "yes"}),
    ]
    place.truth_file.write_text("".join(f"{line}\n" for line in lines) * 2, encoding="utf-8")
    watch = watch.realise(place.truth_file, place.log, now(2))
    told = watch.report()["realised"]
    assert told["labels"] == 2
    assert told["older_than_request"] == 1
    assert told["delay_seconds"]["median"] <= 2 * HOUR * 10**0.1  # nothing is known before it was told
    assert told["waiting"] == 1
    problems = "; ".join(told["problems"])
    for text in (
        "4 lines of the ground truth are no answers",
        "3 answers are no class",
        "'maybe'",
        "2 answers contradict",
        "1 answers are about requests whose own answer (or embedding",
        "1 answers wait",
    ):
        assert text in problems
    assert not any(cause.declared for cause in watch.causes(CONFIG))


def test_answers_wait_for_their_requests_and_give_up(place: Place) -> None:
    rows = draw(np.random.default_rng(6), 100, "classification")
    place.tell(rows[2])
    place.truth_file.write_text(
        place.truth_file.read_text(encoding="utf-8") + json.dumps({"request_id": "typo", "label": "yes"}) + "\n",
        encoding="utf-8",
    )
    early = place.open().realise(place.truth_file, place.log, now(2))
    assert early.report()["realised"]["waiting"] == 101
    traffic = place.serve(rows)
    logged = early.realise(place.truth_file, place.log, now(2))  # in the log, but not yet counted as traffic
    assert logged.report()["realised"]["labels"] == 0
    watch = logged.advance(traffic).realise(place.truth_file, place.log, now(2))
    straight = place.open().advance(traffic).realise(place.truth_file, place.log, now(2))
    assert watch.to_dict()["realised"] == straight.to_dict()["realised"]
    assert watch.report()["realised"]["waiting"] == 1
    later = watch.realise(place.truth_file, place.log, now(3) + WAIT_SECONDS)
    assert later.report()["realised"]["waiting"] == 0
    assert "1 answers are about requests that never reached the log" in later.report()["realised"]["problems"]


def test_too_many_unknown_answers_do_not_grow_the_state(place: Place) -> None:
    keep(place.truth_file, [{"request_id": f"u{i}", "label": "yes"} for i in range(MOST_WAITING + 500)], set())
    watch = place.open().realise(place.truth_file, place.log, now(2))
    assert len(watch.joined.waiting) == MOST_WAITING
    assert watch.joined.gave_up == 500


def test_answers_go_to_the_version_that_gave_the_prediction(place: Place) -> None:
    rng = np.random.default_rng(7)
    mine, theirs = draw(rng, 60, "classification"), draw(rng, 40, "classification")
    watch = place.open().advance(place.serve(mine, hour=1))
    place.serve(theirs, hour=0, version=2, prefix="old")
    place.tell(mine[2], hour=1)
    place.tell(1 - theirs[0].argmax(axis=1), prefix="old")
    watch = watch.realise(place.truth_file, place.log, now(3))
    told = watch.report()["realised"]
    assert told["labels"] == 60
    assert told["others"] == {"2": {"labels": 40, "quality": 0.0}}
    assert not watch.causes(CONFIG)[1].declared


def test_packages_without_truth_work_and_numbers_say_what_is_missing(tmp_path: Path) -> None:
    old = make(tmp_path / "classes", truth=False)
    watch = played(old, 3)
    assert watch.report()["realised"]["measured"] == 0
    assert watch.report()["realised"]["labels"] == 300
    assert watch.causes(CONFIG)[1].size.known
    numbers = played(make(tmp_path / "numbers", "regression", truth=False), 2)
    assert numbers.report() == {"problem": numbers.problem, "estimated": None, "realised": None}
    assert "package the model anew" in numbers.problem
    assert [(cause.declared, cause.matters) for cause in numbers.causes(CONFIG)] == [(False, None)] * 2


def test_nothing_at_all_is_no_finding(place: Place) -> None:
    empty = place.serve(draw(np.random.default_rng(8), 0, "classification"))
    watch = place.open().advance(empty).realise(place.truth_file, place.log, now(1))
    assert [(cause.declared, cause.matters) for cause in watch.causes(CONFIG)] == [(False, None)] * 2
    json.dumps(watch.report())
    rows = draw(np.random.default_rng(8), 50, "classification")
    nothing = place.serve((np.full((50, 2), np.nan), *rows[1:]))
    watch = watch.advance(nothing)
    assert watch.unusable == 50
    assert not watch.causes(CONFIG)[0].declared


def test_a_champion_without_a_usable_reference_is_not_judged(tmp_path: Path) -> None:
    place = make(tmp_path, n=5)
    assert "at least 10 are needed" in place.open().problem
    assert place.open().report()["estimated"] is None
    place.root.joinpath("package", "reference.npz").write_bytes(b"damaged")
    with pytest.raises(StateError, match="reference"):
        place.open()
    series = replace(signature("classification"), objective="forecasting")
    assert "forecasting" in open_quality(tmp_path, series, CONFIG, model=MODEL, version=1).problem


@pytest.mark.parametrize("spoil", [{"format": 7}, {"estimated": {}}, {"hours": None}, {"joined": {"waiting": [{}]}}])
def test_a_damaged_state_is_refused(place: Place, spoil: dict[str, Any]) -> None:
    payload = place.open().to_dict() | spoil
    with pytest.raises(StateError):
        place.open(payload)


def test_null_drops_bet_on_nothing_and_still_tell(place: Place) -> None:
    watch = place.open(estimated_drop=None, realised_drop=None)
    rows = draw(np.random.default_rng(9), 600, "classification", flipped=0.4)
    watch = watch.advance(place.serve(rows))
    place.tell(rows[2])
    watch = watch.realise(place.truth_file, place.log, now(3))
    causes = watch.causes(MonitorConfig(estimated_drop=None, realised_drop=None))
    assert not any(cause.declared or cause.refutes for cause in causes)
    assert causes[1].size.low > 0.1
    assert watch.report()["realised"]["evidence"] == 0.0


def test_damaged_files_and_other_shapes_are_passed_over(place: Place) -> None:
    rows = draw(np.random.default_rng(10), 30, "classification")
    place.serve(rows)
    folder = place.log / MODEL / "20231115T00"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bad.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"request_id": ["r0#1"], "ts_ns": [1]}), folder / "narrow.parquet")
    found, hour = find_rows(place.log / MODEL, {"r0#1", "r0#2", "nobody"}, answer="probabilities", embedding=True)
    assert set(found) == {"r0#1", "r0#2"}
    assert found["r0#1"].version == VERSION
    assert found["r0#2"].embedding.shape == (4,)
    assert hour >= "20231115T00"
    assert find_rows(place.log / MODEL, {"r0#1"}, answer="probabilities", embedding=False, since="20991231T00")[0] == {}
    assert UNIT == 10**6


@pytest.mark.parametrize(
    "columns",
    [
        {"ts_ns": ["now", "then"]},
        {"version": ["three", "3"]},
        {"output.probabilities": ["yes", "no"]},
        {"output.probabilities": [[["yes"]], [["no"]]]},
    ],
)
def test_labelled_rows_of_other_types_are_passed_over(tmp_path: Path, columns: dict[str, Any]) -> None:
    """A foreign file is named by the watch over traffic; a label for one of its rows ended every round."""
    hour = tmp_path / "20260101T00"
    hour.mkdir()
    good = {
        "request_id": ["a", "b"],
        "ts_ns": pa.array([1, 2], pa.int64()),
        "version": [3, 3],
        "output.probabilities": [[0.5, 0.5]] * 2,
    }
    pq.write_table(pa.table(good | columns | {"request_id": ["odd", "odder"]}), hour / "a.parquet")
    pq.write_table(pa.table(good), hour / "b.parquet")
    found, newest = find_rows(tmp_path, {"a", "odd"}, answer="probabilities", embedding=False)
    assert (list(found), newest) == (["a"], hour.name)
