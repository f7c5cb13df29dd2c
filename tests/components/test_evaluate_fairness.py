"""Rates by group and their gaps beside plain counting, on the rows and on resamples."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, root_mean_squared_error

import versions
from kfloop.components.evaluate.slices.fairness import gap, group_statistics, groupings
from kfloop.core.sections import EvaluateConfig
from kfloop.core.statistics import classification, multilabel, regression
from kfloop.core.statistics.bootstrap import AnyStatistic, replicate
from kfloop.core.statistics.intervals import percentile
from kfloop.core.versions import DatasetVersion, read_version
from kfloop.errors import ConfigError

N = 1000
TEST = slice(700, None)
DICE = np.random.default_rng(1)
SEX = DICE.choice(["f", "m", "x"], N, p=[0.5, 0.45, 0.05])
LABEL = (DICE.random(N) < np.where(SEX == "f", 0.3, 0.6)).astype(np.int64)
SURE = np.clip(0.25 + 0.5 * LABEL + DICE.normal(scale=0.25, size=N), 0.01, 0.99)
ANSWER = np.column_stack([1 - SURE, SURE])


def version_of(folder: Path, columns: dict[str, Any]) -> DatasetVersion:
    return read_version(versions.write_table(folder / "dataset", columns, LABEL, labels=["no", "yes"]))


def ids(version: DatasetVersion) -> np.ndarray:
    return np.array(version.table("test")["id"].to_pylist(), dtype=str)


def values(statistics: dict[str, AnyStatistic], n: int = 300) -> dict[str, float]:
    return {name: item.point for name, item in replicate(statistics, n, resamples=1, seed=0).items()}


def by_hand(target: np.ndarray, answer: np.ndarray) -> dict[str, float]:
    """As fairlearn's MetricFrame has them, from the confusion matrix."""
    predicted = (answer[:, 1] > answer[:, 0]).astype(int)
    (tn, fp), (fn, tp) = confusion_matrix(target, predicted, labels=[0, 1])
    confidence = answer.max(axis=1)
    bins = np.minimum((confidence * 15).astype(int), 14)
    ece = sum(abs(((predicted == target) - confidence)[bins == one].sum()) for one in range(15)) / len(target)
    return {
        "selection_rate": (tp + fp) / len(target),
        "tpr": tp / (tp + fn),
        "fpr": fp / (fp + tn),
        "accuracy": accuracy_score(target, predicted),
        "ece": ece,
    }


def test_rates_and_gaps_are_what_counting_gives(tmp_path: Path) -> None:
    version = version_of(tmp_path, {"sex": SEX})
    (grouping,) = groupings(version, ("sex",), ids(version), 30)
    target, answer, sex = LABEL[TEST], ANSWER[TEST], SEX[TEST]
    found = group_statistics("classification", target, answer, classification.overall(target, answer), grouping)
    assert set(found) == {"group:sex", "group:sex=f", "group:sex=m", "group:sex=x"}
    expected = {name: by_hand(target[sex == name], answer[sex == name]) for name in ("f", "m", "x")}
    for name, figures in expected.items():
        assert values(found[f"group:sex={name}"]) == pytest.approx(figures)
    # The third group has too few rows for a gap.
    assert [part.name for part in grouping.compared] == ["group:sex=f", "group:sex=m"]
    assert values(found["group:sex"]) == pytest.approx(
        {f"{figure}_gap": abs(expected["f"][figure] - expected["m"][figure]) for figure in expected["f"]}
    )
    assert found["group:sex=f"]["tpr"].n == int(((sex == "f") & (target == 1)).sum())
    assert found["group:sex"]["tpr_gap"].n == min(int(((sex == one) & (target == 1)).sum()) for one in "fm")
    small = int((sex == "x").sum())
    told = "the largest minus the smallest of the 2 of 3 groups of sex that have 30 rows"
    assert grouping.text == f"{told}; {small} rows of smaller groups are left out"


def test_a_group_that_nobody_trained_on_is_a_group(tmp_path: Path) -> None:
    """A model that is always wrong on it has the widest gap there can be."""
    sex = np.where(np.arange(N) < N - 100, np.array(["f", "m"])[np.arange(N) % 2], "z")
    version = version_of(tmp_path, {"sex": sex, "rooms": np.where(sex == "z", 7, 1)})
    assert "z" not in version.table("train")["sex"].to_pylist()
    target, where = LABEL[TEST], sex[TEST] == "z"
    said = np.where(where, 1 - target, target)
    answer = np.column_stack([1 - said, said]).astype(np.float64)
    for grouping in groupings(version, ("sex", "rooms"), ids(version), 30):
        assert sum(part.n for part in grouping.parts) == 300
        found = group_statistics("classification", target, answer, classification.overall(target, answer), grouping)
        assert values(found[grouping.name])["accuracy_gap"] == 1.0
    assert values(found["group:rooms=7"])["accuracy"] == 0.0
    assert grouping.text == "the largest minus the smallest of the 2 groups of rooms"


def test_of_more_than_twenty_groups_the_rest_is_one(tmp_path: Path) -> None:
    town = np.array([f"t{row % 20}" for row in range(N)], dtype=object)
    town[-40:] = [f"village {row}" for row in range(40)]
    version = version_of(tmp_path, {"town": town.tolist()})
    (grouping,) = groupings(version, ("town",), ids(version), 30)
    assert len(grouping.parts) == 21
    rest = grouping.parts[-1]
    assert (rest.name, rest.n) == ("group:town=other values", 40)
    assert rest.text == "town with none of the 20 values or ranges that are a group"
    assert sum(part.n for part in grouping.parts) == 300
    assert (
        grouping.text
        == "no gap: fewer than two of the 21 groups of town have 30 rows; 260 rows of smaller groups are left out"
    )


def test_every_resample_of_a_gap_is_the_gap_of_the_resampled_rows(tmp_path: Path) -> None:
    version = version_of(tmp_path, {"sex": SEX})
    (grouping,) = groupings(version, ("sex",), ids(version), 5)
    target, answer, sex = LABEL[TEST], ANSWER[TEST], SEX[TEST]
    found = group_statistics("classification", target, answer, classification.overall(target, answer), grouping)
    replicates = replicate(found["group:sex"], 300, resamples=20, seed=3)
    drawn = np.random.default_rng(3).integers(0, 300, size=(20, 300))
    for place, rows in enumerate(drawn):
        each = [by_hand(target[rows][sex[rows] == one], answer[rows][sex[rows] == one]) for one in "fmx"]
        for figure in ("selection_rate", "tpr", "fpr", "accuracy", "ece"):
            both = [one[figure] for one in each]
            assert replicates[f"{figure}_gap"].values[place] == pytest.approx(max(both) - min(both))


def test_several_classes_and_labels_have_fewer_figures(tmp_path: Path) -> None:
    version = version_of(tmp_path, {"sex": SEX})
    (grouping,) = groupings(version, ("sex",), ids(version), 30)
    three = np.column_stack([ANSWER[TEST] * 0.8, np.full(300, 0.2)])
    target = LABEL[TEST]
    found = group_statistics("classification", target, three, classification.overall(target, three), grouping)
    assert set(found["group:sex"]) == {"accuracy_gap", "ece_gap"}
    sets = np.column_stack([target, 1 - target]).astype(np.float32)
    found = group_statistics("multilabel", sets, ANSWER[TEST], dict(multilabel.overall(sets, ANSWER[TEST])), grouping)
    assert set(found["group:sex"]) == {"accuracy_gap"}


def test_numbers_have_a_gap_and_a_ratio(tmp_path: Path) -> None:
    version = version_of(tmp_path, {"sex": SEX})
    (grouping,) = groupings(version, ("sex",), ids(version), 30)
    target = DICE.normal(size=300)
    answer = target + DICE.normal(size=300) * np.where(SEX[TEST] == "f", 1.0, 2.0)
    found = group_statistics("regression", target, answer, dict(regression.overall(target, answer)), grouping)
    errors = [root_mean_squared_error(target[SEX[TEST] == one], answer[SEX[TEST] == one]) for one in "fm"]
    assert values(found["group:sex"]) == pytest.approx(
        {"rmse_gap": errors[1] - errors[0], "rmse_ratio": errors[1] / errors[0]}
    )


def test_ages_are_grouped_by_range_and_missing_ones_are_a_group(tmp_path: Path) -> None:
    age = pa.array([None if row % 4 == 0 else float(row % 60) for row in range(N)], pa.float64())
    version = version_of(tmp_path, {"age": age})
    (grouping,) = groupings(version, ("age",), ids(version), 30)
    names = [part.name.partition("=")[2] for part in grouping.parts]
    assert (len(names), names[0][:6], names[-1]) == (5, "below ", "missing")
    assert sum(part.n for part in grouping.parts) == 300


@pytest.mark.parametrize("column", ["constant", "rare"])
def test_one_large_group_has_no_gap_and_that_is_unknown(tmp_path: Path, column: str) -> None:
    rare = ["a"] * N
    rare[::50] = ["b"] * len(rare[::50])
    version = version_of(tmp_path, {"constant": ["a"] * N, "rare": rare})
    (grouping,) = groupings(version, (column,), ids(version), 30)
    target, answer = LABEL[TEST], ANSWER[TEST]
    found = group_statistics("classification", target, answer, classification.overall(target, answer), grouping)
    assert all(math.isnan(value) for value in values(found[f"group:{column}"]).values())
    assert "no gap: fewer than two" in grouping.text


def test_a_group_of_one_class_leaves_the_gaps_it_has_no_rows_for_unknown(tmp_path: Path) -> None:
    side = np.where(LABEL == 1, DICE.choice(["a", "b"], N), "a")
    version = version_of(tmp_path, {"side": side})
    (grouping,) = groupings(version, ("side",), ids(version), 30)
    target, answer = LABEL[TEST], ANSWER[TEST]
    found = group_statistics("classification", target, answer, classification.overall(target, answer), grouping)
    gaps = values(found["group:side"])
    assert math.isnan(gaps["fpr_gap"])
    assert math.isfinite(gaps["tpr_gap"])
    assert math.isnan(values(found["group:side=b"])["fpr"])


def test_an_unusable_answer_leaves_its_group_and_the_gap_unknown(tmp_path: Path) -> None:
    version = version_of(tmp_path, {"sex": SEX})
    (grouping,) = groupings(version, ("sex",), ids(version), 30)
    target, answer = LABEL[TEST], ANSWER[TEST].copy()
    answer[np.flatnonzero(SEX[TEST] == "f")[0]] = np.nan
    found = group_statistics("classification", target, answer, classification.overall(target, answer), grouping)
    assert math.isnan(values(found["group:sex=f"])["selection_rate"])
    assert math.isnan(values(found["group:sex"])["selection_rate_gap"])
    assert math.isfinite(values(found["group:sex=m"])["selection_rate"])


def test_a_column_that_is_not_there_is_told(tmp_path: Path) -> None:
    version = version_of(tmp_path, {"sex": SEX})
    with pytest.raises(
        ConfigError, match=r"evaluate\.groups names the column 'sexx', which the dataset does not have"
    ) as caught:
        groupings(version, ("sexx",), ids(version), 30)
    assert caught.value.hint == "did you mean 'sex'?"
    assert EvaluateConfig().groups == ()


def test_chance_opens_a_gap_and_its_upper_end_is_honest() -> None:
    """What the module says of gaps: too wide a gap on few rows, an upper end that is seldom below the truth."""
    dice = np.random.default_rng(0)
    found = {}
    for rows in (30, 100):
        points, below = [], 0
        for _ in range(60):
            answer = dice.random(2 * rows)
            answer = np.column_stack([1 - answer, answer])
            selected = classification.selection_rate(answer)
            first = np.arange(2 * rows) < rows
            one = gap([selected.among(first), selected.among(~first)], 2 * rows)
            replicates = replicate({"gap": one}, 2 * rows, resamples=200, seed=0)["gap"]
            points.append(replicates.point)
            below += percentile(replicates, 0.95).high < 0
        found[rows] = float(np.mean(points))
        assert below == 0
    assert found[30] == pytest.approx(0.10, abs=0.025)
    assert found[100] == pytest.approx(0.06, abs=0.015)
