"""How sure an evaluation is: no interval has a width of 0 for want of rows, and rows that belong together are drawn together."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from kfloop.components.evaluate.baselines.features import tree_features
from kfloop.components.evaluate.measuring import groups_of
from kfloop.components.evaluate.opening import _report_of, check_same_task, contestant
from kfloop.components.evaluate.scoreboard import Board
from kfloop.core.artifacts import write_report
from kfloop.core.sections import EvaluateConfig
from kfloop.core.signature import Port
from kfloop.core.statistics import classification, multilabel, ranking, regression
from kfloop.core.statistics.bootstrap import AnyStatistic
from kfloop.core.statistics.estimate import Estimate, wilson
from kfloop.core.versions import DatasetVersion
from kfloop.errors import StateError, TerminalError

CONFIG = EvaluateConfig(bootstrap=400)


def board(objective: str, n: int, **told: Any) -> Board:
    return Board(objective=objective, n=n, n_slices=0, config=CONFIG, **told)


def scores(bench: Board, **statistics: AnyStatistic) -> dict[str, Estimate]:
    return dict(bench.scores(bench.resample(statistics))["overall"])


def differences(bench: Board, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    return bench.differences(bench.resample(ours), bench.resample(theirs))


def right(hits: Any) -> np.ndarray:
    """Probabilities of two classes whose answer is right on ``hits``; the true class is 0 everywhere."""
    share = np.where(hits, 0.9, 0.1)
    return np.stack([share, 1 - share], axis=1)


def test_two_models_that_agree_on_ten_rows_may_differ() -> None:
    labels = np.zeros(10, dtype=np.int64)
    side = {"accuracy": classification.accuracy(labels, right(np.ones(10, dtype=bool)))}
    found = differences(board("classification", 10), side, side)["overall"]["accuracy"]
    unseen = wilson(0, 10).high
    assert (found.value, found.low, found.high) == pytest.approx((0, -unseen, unseen))
    assert found.low < -0.05


@pytest.mark.parametrize(("n", "most"), [(10, 0.09), (60, 0.02)])
def test_a_challenger_ten_points_worse_seldom_passes(n: int, most: float) -> None:
    """Of 97 % and 87 %, both wrong on half of the champion's errors; the bare bootstrap passes 28 % of the rounds with 10 rows."""
    generator = np.random.default_rng(0)
    labels, bench = np.zeros(n, dtype=np.int64), board("classification", n)
    passed = 0
    for _ in range(300):
        kind = generator.choice(
            4, size=n, p=[0.015, 0.115, 0.015, 0.855]
        )  # challenger alone right, champion alone, none, both
        ours, theirs = (
            {"accuracy": classification.accuracy(labels, right((kind == 3) | (kind == alone)))} for alone in (0, 1)
        )
        passed += differences(bench, ours, theirs)["overall"]["accuracy"].low >= -0.05
    assert passed / 300 <= most


def test_perfect_sets_and_rankings_are_not_certain() -> None:
    truth = np.eye(3)[[0, 1, 2]]
    found = scores(board("multilabel", 3), **multilabel.overall(truth, truth))
    assert (found["micro_f1"].value, found["micro_f1"].low) == pytest.approx((1, wilson(3, 3).low))
    odd = np.arange(8) >= 5
    ranked = scores(board("anomaly", 8), **ranking.overall(odd, odd.astype(float)))["auroc"]
    assert (ranked.value, ranked.low, ranked.n) == pytest.approx((1, wilson(3, 3).low, 3))


def test_rankings_count_the_rows_of_the_rarer_kind() -> None:
    odd = np.arange(20) >= 17
    statistic = ranking.auroc(odd, np.arange(20.0))
    assert (statistic.n, statistic.size) == (3, 20)
    assert statistic.among(np.arange(20) >= 16).n == 1  # 3 odd rows and 1 other


def test_errors_of_one_size_are_not_certain_and_the_same_predictions_are_the_same_model() -> None:
    truth = np.arange(12.0)
    ours, theirs = (regression.overall(truth, truth + shift) for shift in (1.0, 2.0))
    bench = board("regression", 12)
    assert not scores(bench, **ours)["rmse"].known
    same = differences(bench, dict(ours), dict(ours))
    for found in (same["overall"]["rmse"], same["relative"]["overall"]["rmse"], same["overall"]["r2"]):
        assert (found.value, found.low, found.high) == (0, 0, 0)
    other = differences(bench, dict(ours), dict(theirs))
    for found in (other["overall"]["rmse"], other["relative"]["overall"]["rmse"]):
        assert found.value < 0
        assert not found.known


def test_rows_of_a_group_are_drawn_together() -> None:
    generator = np.random.default_rng(1)
    groups = np.arange(200) // 20  # ten patients; a model is right about all rows of one or about none
    hits = (generator.random(10) < 0.5)[groups]
    statistic = classification.accuracy(np.zeros(200, dtype=np.int64), right(hits))
    alone = scores(board("classification", 200), accuracy=statistic)["accuracy"]
    together = scores(board("classification", 200, groups=groups), accuracy=statistic)["accuracy"]
    assert together.high - together.low > 3 * (alone.high - alone.low)
    assert board("classification", 200, groups=groups).resampling == {"by": "group", "units": 10, "fewest": 8}


def test_few_groups_give_no_interval_and_equal_ones_only_what_groups_allow() -> None:
    every = classification.accuracy(np.zeros(80, dtype=np.int64), right(np.ones(80, dtype=bool)))
    few = scores(board("classification", 80, groups=np.arange(80) // 16), accuracy=every)["accuracy"]
    assert few.value == 1
    assert not few.known
    ten = scores(board("classification", 80, groups=np.arange(80) // 8), accuracy=every)["accuracy"]
    assert ten.low == pytest.approx(wilson(10, 10).low)


@pytest.mark.parametrize(("groups", "most"), [(8, 0.1), (20, 0.07)])
def test_worse_models_on_few_groups_seldom_pass(groups: int, most: float) -> None:
    """At the margin itself, where 2.5 % are meant; drawn one by one, the rows of 8 groups pass far more often."""
    generator, rows = np.random.default_rng(2), 20
    codes = np.arange(groups * rows) // rows
    passed = 0
    for _ in range(200):
        gain = generator.normal(0, 0.3, groups)[codes] + generator.normal(0, 0.3, len(codes))
        ours, theirs = (
            regression.overall(np.zeros(len(codes)), values) for values in (5 + gain, np.full(len(codes), 5.0))
        )
        bench = board("regression", len(codes), groups=codes)
        passed += differences(bench, {"mae": ours["mae"]}, {"mae": theirs["mae"]})["overall"]["mae"].high <= 0
    assert passed / 200 <= most


def test_groups_are_those_of_the_rows_that_a_model_reads() -> None:
    table = pa.table({"id": ["a", "b", "c"], "group": ["ann", "bob", "ann"]})
    version = cast("DatasetVersion", SimpleNamespace(modality="table", table=lambda *_: table))
    found = groups_of(version, np.array(["c", "b"]))
    assert found is not None
    assert found.tolist() == [0, 1]
    alone = cast("DatasetVersion", SimpleNamespace(modality="table", table=lambda *_: table.drop_columns("group")))
    assert groups_of(alone, np.array(["a"])) is None
    assert groups_of(cast("DatasetVersion", SimpleNamespace(modality="series")), np.array(["a"])) is None


def test_numbers_that_became_words_are_an_error_that_names_the_column() -> None:
    version = cast("DatasetVersion", SimpleNamespace(inputs=["age"]))
    with pytest.raises(StateError, match="column 'age' holds numbers in the train split and words"):
        tree_features(version, pa.table({"age": [1.0, 2.0]}), pa.table({"age": ["old", "young"]}))


def _contestant(**signature: Any) -> Any:
    fields = {
        "objective": "forecasting",
        "outputs": (Port(name="forecast", dtype="float32", shape=(24, 2)),),
    } | signature
    model = SimpleNamespace(signature=SimpleNamespace(**fields), encoder=SimpleNamespace(channels=["a", "b"]))
    test = SimpleNamespace(ids=np.array(["x"]), target=np.zeros((1, 24, 2)))
    return SimpleNamespace(model=model, normal=None, test=test)


def test_a_changed_horizon_is_told_with_a_way_back() -> None:
    shorter = _contestant(outputs=(Port(name="forecast", dtype="float32", shape=(12, 2)),))
    with pytest.raises(TerminalError, match="shape of an answer is 24, 2, the champion's 12, 2") as caught:
        check_same_task(_contestant(), shorter)
    assert "set data.series back to the champion's" in caught.value.hint


def test_an_anomaly_package_must_say_what_is_normal(tmp_path: Path) -> None:
    write_report(tmp_path, {"digest": "abc", "normal": None})
    assert _report_of(tmp_path, "classification")["digest"] == "abc"
    with pytest.raises(StateError, match="does not say its normal"):
        _report_of(tmp_path, "anomaly")


@pytest.mark.parametrize(("role", "hint"), [("champion", "kfloop rollback"), ("challenger", "kfloop run")])
def test_an_old_package_is_refused_with_a_way_out_for_its_role(tmp_path: Path, role: str, hint: str) -> None:
    (tmp_path / "signature.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(StateError, match="has format 1, this kfloop reads 2") as caught:
        contestant(tmp_path, role, cast("DatasetVersion", SimpleNamespace()))
    assert hint in caught.value.hint
    assert ("--force" in caught.value.hint) is False
