"""Weak segments: found where there are some, seldom where there are none, named so that the words and the rows agree."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import versions
from kfloop.components.evaluate.held_out import HeldOut, row_errors
from kfloop.components.evaluate.slices.columns import Column
from kfloop.components.evaluate.slices.conditions import Condition, questions, shortened
from kfloop.components.evaluate.slices.segments import find_segments, weak_leaves, window_columns
from kfloop.core.encoding import Examples
from kfloop.core.versions import DatasetVersion, read_version

STD = np.empty(0)


def number(values: Any, name: str = "x") -> Column:
    return Column(name=name, kind="number", values=np.asarray(values, dtype=float))


def words(values: Any, name: str = "job") -> Column:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return Column(name=name, kind="category", values=found)


def examples(ids: list[str], target: np.ndarray) -> Examples:
    texts = np.array(ids, dtype=str)
    return Examples(
        inputs=(np.zeros((len(ids), 1), np.float32),),
        target=target,
        weights=np.ones(len(ids), np.float32),
        ids=texts,
        content=texts,
        origin=texts,
    )


def version_of(folder: Path, columns: dict[str, Any], label: np.ndarray) -> DatasetVersion:
    return read_version(versions.write_table(folder / "dataset", columns, label, labels=["no", "yes"]))


def found_in(version: DatasetVersion, answer: np.ndarray, most: int = 3) -> Any:
    """The search, with the first classes' probability for each row of the version."""
    both = {}
    for split in ("validation", "test"):
        table = version.table(split, ["id", "label"])
        both[split] = examples(table["id"].to_pylist(), table["label"].to_numpy())
    rows = [int(name.partition("/")[2]) for name in both["validation"].ids]
    held = HeldOut(rows=both["validation"], answer=np.column_stack([answer[rows], 1 - answer[rows]]))
    return find_segments(version, most, held, both["test"], "classification", STD, 0)


def test_the_weak_segment_is_found_and_named(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    n = 3000
    age, job = dice.integers(17, 90, n), dice.choice(["none", "clerk", "farmer"], n)
    label = dice.integers(0, 2, n)
    weak = (age < 35) & (job == "none")
    right = dice.random(n) < np.where(weak, 0.55, 0.95)
    version = version_of(tmp_path, {"age": age, "job": job, "noise": dice.normal(size=n)}, label)
    found = found_in(version, np.where(right == (label == 0), 0.9, 0.1))
    worst = found.found[0]
    assert worst.kind == "segment"
    assert "job = none" in worst.text
    assert "age below 3" in worst.text
    assert worst.name == f"segment:{worst.text}"
    test = slice(2100, None)
    inside = weak[test]
    assert (worst.rows & inside).sum() / (worst.rows | inside).sum() > 0.8
    assert found.facts["n_fitted"] == 600
    assert found.facts["note"] == ""
    told = found.facts["found"][0]
    assert told["error"] > 2 * found.facts["error"]
    assert (told["name"], told["n"]) == (worst.name, worst.n)
    limited = found_in(version, np.where(right == (label == 0), 0.9, 0.1), most=1)
    assert len(limited.found) == 1


def test_where_nothing_is_weak_something_is_named_in_few_rounds() -> None:
    dice = np.random.default_rng(1)
    named = 0
    rounds = 30
    for seed in range(rounds):
        columns = [number(dice.normal(size=250), f"x{place}") for place in range(4)]
        columns.append(words(dice.choice(["a", "b", "c"], 250)))
        errors = (dice.random(250) < 0.2).astype(float)
        named += bool(weak_leaves(columns, list(questions(columns)), errors, seed))
    assert named <= 5  # 5 % are meant: more than 5 of 30 has a chance of .3 %


@pytest.mark.parametrize(
    ("rows", "answers", "note"),
    [
        (900, "mixed", "there are 180 validation rows, and a search needs 200"),
        (1100, "right", "no segment is clearly worse than the others"),
        (1100, "wrong", "no segment is clearly worse than the others"),
    ],
)
def test_the_report_says_why_there_are_none(tmp_path: Path, rows: int, answers: str, note: str) -> None:
    label = np.arange(rows) % 2
    version = version_of(tmp_path, {"age": np.arange(rows) % 7}, label)
    right = {"mixed": np.arange(rows) % 3 == 0, "right": np.ones(rows, bool), "wrong": np.zeros(rows, bool)}[answers]
    found = found_in(version, np.where(right == (label == 0), 0.9, 0.1))
    assert found.found == ()
    assert found.facts["note"] == note
    assert found.facts["found"] == []


def test_none_are_looked_for_when_told_so_or_without_columns(tmp_path: Path) -> None:
    label = np.arange(1100) % 2
    answer = np.where(np.arange(1100) % 3 == 0, 0.9, 0.1)
    version = version_of(tmp_path / "a", {"age": np.arange(1100) % 7}, label)
    assert found_in(version, answer, most=0).facts["note"] == "evaluate.segments is 0"
    version = version_of(tmp_path / "b", {"age": np.ones(1100)}, label)
    assert "no column or fact" in found_in(version, answer).facts["note"]
    assert (
        "0 validation rows"
        in find_segments(version, 3, None, examples(["a"], np.zeros(1)), "classification", STD, 0).facts["note"]
    )


def test_words_and_rows_agree_whatever_the_columns_hold() -> None:
    dice = np.random.default_rng(2)
    n = 800
    odd = dice.choice(["a=b", "x/y", "*", "two\nlines", "missing"], n)
    gaps = dice.random(n) < 0.3
    size = np.where(gaps, np.nan, dice.lognormal(sigma=4, size=n))
    size[:5] = np.inf
    job = [None if gap else str(word) for gap, word in zip(dice.random(n) < 0.3, odd, strict=True)]
    columns = [number(size, "size*"), words(job, "job\n"), number(np.ones(n), "constant")]
    for weak in (gaps, size > 1, np.array([word is None for word in job]), odd == "*", ~gaps & (size < 0.5)):
        errors = (dice.random(n) < np.where(weak, 0.7, 0.05)).astype(float)
        leaves = weak_leaves(columns, list(questions(columns)), errors, 0)
        assert leaves
        for leaf in leaves:
            rows = np.logical_and.reduce([condition.meets(columns) for condition in leaf.conditions])
            assert int(rows.sum()) == leaf.n
            assert errors[rows].mean() == pytest.approx(leaf.error)
            text = " and ".join(condition.text(columns) for condition in leaf.conditions)
            assert "\n" not in text
            assert not text.endswith("*")
        covered = np.logical_and.reduce([condition.meets(columns) for condition in leaves[0].conditions])
        assert weak[covered].mean() > 0.7


def test_conditions_in_words() -> None:
    age = number([20.0, 30.0, np.nan], "age")
    job = words(["none", None, "clerk"])
    day = Column(name="day", kind="time", values=np.array([0.0, 86_400.0, np.nan]))
    columns = [age, job, day]
    told = {
        "age below 28": Condition(column=0, value=28.0, above=False),
        "age at least 28 or missing": Condition(column=0, value=28.0, above=True, missing=True),
        "age is missing": Condition(column=0, value=None, above=True),
        "job = none": Condition(column=1, value="none", above=True),
        "job other than none": Condition(column=1, value="none", above=False),
        "job is not missing": Condition(column=1, value=None, above=False),
        "day at least 1970-01-02": Condition(column=2, value=86_400.0, above=True),
    }
    assert {condition.text(columns): condition for condition in told.values()} == told
    rows = {text: condition.meets(columns).tolist() for text, condition in told.items()}
    assert rows["age below 28"] == [True, False, False]
    assert rows["age at least 28 or missing"] == [False, True, True]
    assert rows["age is missing"] == [False, False, True]
    assert rows["job other than none"] == [False, True, True]
    assert rows["job is not missing"] == [True, False, True]
    assert rows["day at least 1970-01-02"] == [False, True, False]


def test_needless_conditions_are_left_out() -> None:
    wide = Condition(column=0, value=60.0, above=False, missing=True)
    narrow = Condition(column=0, value=28.0, above=False, missing=True)
    above = Condition(column=0, value=17.0, above=True)
    none, other = Condition(column=1, value="none", above=True), Condition(column=1, value="clerk", above=False)
    assert shortened([wide, none, narrow]) == (none, narrow)
    closed = Condition(column=0, value=28.0, above=False)
    assert shortened([wide, above, narrow]) == (above, closed)  # a missing value is not at least 17
    assert shortened([other, none]) == (none,)
    assert shortened([other, above]) == (other, above)


def test_errors_of_each_objective() -> None:
    sure = np.array([[0.9, 0.1], [0.2, 0.8], [np.nan, 1.0]])
    assert row_errors("classification", np.array([0, 0, 1]), sure, STD).tolist() == [0, 1, 1]
    sets = np.array([[1, 0], [1, 1]], dtype=np.float32)
    assert row_errors("multilabel", sets, np.array([[0.9, 0.6], [0.7, 0.8]]), STD).tolist() == [0.5, 0]
    assert row_errors("regression", np.array([1.0, 2.0]), np.array([3.0, 2.0]), STD).tolist() == [2, 0]
    assert np.isnan(row_errors("regression", np.array([1.0]), np.array([np.nan]), STD)).all()
    ahead = np.zeros((1, 2, 2))
    assert row_errors("forecasting", ahead, ahead + np.array([1.0, 4.0]), np.array([1.0, 2.0])).tolist() == [1.5]
    odd = row_errors("anomaly", np.array([0, 1, 0]), np.array([0.1, 0.2, 0.9]), STD)
    assert odd.tolist() == [0, 0.5, 1]


def test_windows_are_told_apart_by_level_spread_and_change() -> None:
    past = np.zeros((3, 4, 2), dtype=np.float32)
    past[:, :, 0] = [[1, 1, 1, 1], [0, 1, 2, 3], [np.nan] * 4]
    windows = examples(["a", "b", "c"], np.zeros(3))
    windows = Examples(**{**vars(windows), "inputs": (past,)})
    found = {column.name: column.values.tolist() for column in window_columns(windows, ["load", "heat"])}
    assert found["level of load"][:2] == [1, 1.5]
    assert found["spread of load"][:2] == pytest.approx([0, np.std([0, 1, 2, 3])])
    assert found["change of load"][:2] == [0, 3]
    assert np.isnan(found["level of load"][2])
    assert found["level of heat"] == [0, 0, 0]
