"""Slices by the values of columns: which columns, which names, which rows."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import versions
from kfloop.components.evaluate.slices.columns import Column, column_names, spelled
from kfloop.components.evaluate.slices.ranges import between_times, quartile_edges, worded
from kfloop.components.evaluate.slices.slicing import FEWEST_ROWS, MOST_COLUMNS, MOST_SLICES, column_slices
from kfloop.core.number_words import between
from kfloop.core.versions import DatasetVersion, read_version
from kfloop.errors import ConfigError

N = 1000
DICE = np.random.default_rng(0)
AGE = DICE.integers(17, 90, N)
JOB = DICE.choice(["none", "clerk", "farmer"], N, p=[0.5, 0.3, 0.2])


def version_of(folder: Path, columns: dict[str, Any], **told: Any) -> DatasetVersion:
    labels = None if "label" in told else ["no", "yes"]
    label = told.pop("label", np.arange(N) % 2)
    return read_version(versions.write_table(folder / "dataset", columns, label, labels=labels, **told))


def ids(version: DatasetVersion) -> np.ndarray:
    return np.array(version.table("test")["id"].to_pylist(), dtype=str)


def slices(version: DatasetVersion, wanted: list[str] | None = None) -> dict[str, Any]:
    return {part.name: part for one in column_slices(version, wanted, ids(version)) for part in one.parts}


def test_numbers_are_cut_at_quarters_of_the_training_rows_and_categories_by_value(tmp_path: Path) -> None:
    version = version_of(tmp_path, {"age": AGE, "job": JOB})
    found = slices(version)
    low, middle, high = (round(edge) for edge in np.quantile(AGE[:500], [0.25, 0.5, 0.75]))
    assert list(found) == [
        f"column:age=below {low}",
        f"column:age=[{low}, {middle})",
        f"column:age=[{middle}, {high})",
        f"column:age={high} or more",
        "column:job=none",
        "column:job=clerk",
        "column:job=farmer",
    ]
    test_age, test_job = AGE[700:], JOB[700:]
    part = found[f"column:age=[{low}, {middle})"]
    np.testing.assert_array_equal(part.rows, (test_age >= low) & (test_age < middle))
    assert (part.kind, part.text, part.n) == ("column", f"age from {low} to below {middle}", int(part.rows.sum()))
    np.testing.assert_array_equal(found["column:job=clerk"].rows, test_job == "clerk")
    ages = np.stack([one.rows for name, one in found.items() if ":age" in name])
    assert (ages.sum(axis=0) == 1).all()


def test_new_test_rows_do_not_change_the_names(tmp_path: Path) -> None:
    columns = {"age": AGE, "job": JOB}
    later = {"age": np.concatenate([AGE[:700], AGE[700:] // 2]), "job": JOB}
    first, second = version_of(tmp_path / "a", columns), version_of(tmp_path / "b", later)
    assert {name for name in slices(second) if "age" in name} <= {name for name in slices(first) if "age" in name}


def test_rows_are_matched_by_id_in_whatever_order(tmp_path: Path) -> None:
    version = version_of(tmp_path, {"job": JOB})
    some = ids(version)[::-3]
    (found,) = column_slices(version, ["job"], some)
    np.testing.assert_array_equal(found.parts[0].rows, JOB[700:][::-3] == "none")


def test_missing_values_are_a_value_of_their_own(tmp_path: Path) -> None:
    gaps = DICE.random(N) < 0.3
    age = pa.array([None if gap else float(value) for gap, value in zip(gaps, AGE, strict=True)], pa.float64())
    job = pa.array([None if gap else str(value) for gap, value in zip(gaps, JOB, strict=True)], pa.string())
    real = pa.array(["missing" if gap else "there" for gap in gaps])
    found = slices(version_of(tmp_path, {"age": age, "job": job, "word": real}))
    np.testing.assert_array_equal(found["column:age=missing"].rows, gaps[700:])
    np.testing.assert_array_equal(found["column:job=missing"].rows, gaps[700:])
    assert found["column:age=missing"].text == "age is missing"
    assert 'column:word="missing"' in found
    assert "column:word=missing" not in found


def test_few_numbers_and_truth_values_are_told_apart_by_value(tmp_path: Path) -> None:
    rooms = DICE.integers(1, 4, N)
    found = slices(version_of(tmp_path, {"rooms": rooms, "garden": rooms > 2, "size": rooms / 2}))
    assert set(found) == {
        *(f"column:rooms={n}" for n in (1, 2, 3)),
        "column:garden=true",
        "column:garden=false",
        *(f"column:size={n}" for n in ("0.5", "1", "1.5")),
    }


def test_small_slices_constant_columns_and_names_are_left_out(tmp_path: Path) -> None:
    rare = np.array(["usual"] * N, dtype=object)
    rare[::20] = "rare"
    columns = {
        "constant": np.ones(N),
        "word": ["same"] * N,
        "rare": rare.tolist(),
        "name": [f"person {row}" for row in range(N)],
        "empty": pa.array([None] * N, pa.float64()),
    }
    version = version_of(tmp_path, columns)
    assert slices(version) == {}
    assert set(slices(version, ["rare"])) == {"column:rare=usual"}  # 15 rows are too few
    assert [one.left_out for one in column_slices(version, ["rare", "constant"], ids(version))] == [15, 0]
    assert set(slices(version, ["name"])) == {"column:name=other values"}
    assert set(slices(version, ["constant", "empty"])) == {"column:constant=1", "column:empty=missing"}


def test_values_that_are_rare_or_new_are_a_slice_together(tmp_path: Path) -> None:
    job = JOB.copy().astype(object)
    job[-100:-60], job[-60:-40], job[-40:] = "baker", "smith", [f"{row}" for row in range(40)]
    rooms = np.where(np.arange(N) < N - 50, np.arange(N) % 3, 9)
    plain = np.where(np.arange(N) < N - 50, "a", "z")
    version = version_of(tmp_path, {"job": job.tolist(), "rooms": rooms, "plain": plain, "real": ["other values"] * N})
    found = slices(version)
    np.testing.assert_array_equal(found["column:job=other values"].rows, np.arange(300) >= 200)
    assert found["column:job=other values"].text == "job with none of the 3 values or ranges that are a slice"
    np.testing.assert_array_equal(found["column:rooms=other values"].rows, rooms[700:] == 9)
    np.testing.assert_array_equal(found["column:plain=other values"].rows, plain[700:] == "z")
    for column in column_slices(version, None, ids(version)):
        assert sum(part.n for part in column.parts) == (300 if column.parts else 0)
    assert set(slices(version, ["real"])) == {'column:real="other values"'}


def test_a_number_of_which_most_are_the_same_has_fewer_ranges(tmp_path: Path) -> None:
    debt = np.where(DICE.random(N) < 0.6, 0, DICE.integers(1, 5000, N))
    found = slices(version_of(tmp_path, {"debt": debt}))
    assert 1 < len(found) < 4
    assert sum(part.n for part in found.values()) == 300


def test_infinite_numbers_lie_in_the_outer_ranges(tmp_path: Path) -> None:
    odd = DICE.normal(size=N)
    odd[::10], odd[5::10] = np.inf, -np.inf
    found = slices(version_of(tmp_path, {"odd": odd}))
    rows = {name.partition("=")[2]: part.rows for name, part in found.items()}
    outer = (
        next(rows[name] for name in rows if name.endswith("more")),
        next(rows[name] for name in rows if name.startswith("below")),
    )
    assert outer[0][odd[700:] == np.inf].all()
    assert outer[1][odd[700:] == -np.inf].all()


def test_times_have_dates_as_edges(tmp_path: Path) -> None:
    start = np.datetime64("2024-01-01", "us")
    days = start + (DICE.integers(0, 366, N) * 86_400_000_000).astype("timedelta64[us]")
    seconds = start + (DICE.integers(0, 40, N) * 1_000_000).astype("timedelta64[us]")
    version = version_of(tmp_path, {"day": pa.array(days), "second": pa.array(seconds)})
    found = slices(version)
    edges = [name.partition("below ")[2] for name in found if "=below" in name]
    assert datetime.fromisoformat(edges[0]).month in {3, 4}
    assert len(edges[0]) == len("2024-04-01")
    assert edges[1].startswith("2024-01-01 00:00:")


def test_automatic_slices_are_few(tmp_path: Path) -> None:
    wide = {f"c{place}": DICE.choice([f"v{value}" for value in range(6)], N) for place in range(12)}
    found = slices(version_of(tmp_path / "wide", wide))
    columns = {name.partition("=")[0] for name in found}
    assert len(found) <= MOST_SLICES
    assert len(columns) <= MOST_COLUMNS
    assert min(part.n for part in found.values()) >= FEWEST_ROWS
    numbers = {f"n{place}": DICE.normal(size=N) for place in range(12)}
    found = slices(version_of(tmp_path / "numbers", numbers))
    assert {name.partition("=")[0] for name in found} == {f"column:n{place}" for place in range(MOST_COLUMNS)}
    assert slices(version_of(tmp_path / "none", numbers), []) == {}


def test_facts_stand_in_for_inputs_that_are_no_columns(tmp_path: Path) -> None:
    columns = {
        "image": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(4 * N, np.uint8)), 4),
        "mean": DICE.normal(size=N),
        "phash": DICE.integers(0, 2**60, N),
        "camera": DICE.choice(["left", "right"], N),
    }
    version = version_of(
        tmp_path,
        columns,
        facts=("mean", "phash"),
        modality="image",
        schema={"image_shape": [2, 2, 1]},
        inputs=["image"],
    )
    assert {name.partition("=")[0] for name in slices(version)} == {"column:mean"}
    # A column that is neither can be named.
    assert set(slices(version, ["camera"])) == {"column:camera=left", "column:camera=right"}


def test_a_slice_for_anomalies_has_rows_of_both_kinds(tmp_path: Path) -> None:
    version = version_of(tmp_path, {"job": JOB})
    odd = (JOB[700:] == "none") & (np.arange(300) % 5 == 0)
    (found,) = column_slices(version, ["job"], ids(version), odd)
    assert [part.name for part in found.parts] == ["column:job=none"]
    assert found.left_out == 300 - found.parts[0].n


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("agee", "which the dataset does not have", "did you mean 'age'?"),
        ("label", "the classes are slices already", ""),
        ("content", "no rows belong together", ""),
        ("blob", "holds no single values", ""),
    ],
)
def test_a_column_that_cannot_be_used_is_told(tmp_path: Path, name: str, message: str, hint: str) -> None:
    blob = pa.array([[1.0, 2.0]] * N)
    version = version_of(tmp_path, {"age": AGE, "blob": blob})
    with pytest.raises(ConfigError, match=f"evaluate.slices names the column '{name}'.*{message}") as caught:
        slices(version, [name])
    assert hint in caught.value.hint


def test_windows_of_a_series_have_no_columns(tmp_path: Path) -> None:
    version = version_of(tmp_path, {"load": DICE.normal(size=N)}, modality="series", schema={"series": {}})
    assert column_names(version, None, "evaluate.slices") == []
    with pytest.raises(ConfigError, match="a window of a series has no columns"):
        column_names(version, ["load"], "evaluate.slices")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("none", "none"),
        ("a/b", "a/b"),
        ("a b", "a b"),
        ("a=b", '"a=b"'),
        ("any*", '"any*"'),
        ("two\nlines", '"two\\nlines"'),
        ("", '""'),
        (" x", '" x"'),
        ("missing", '"missing"'),
        ('"quoted"', '"\\"quoted\\""'),
        ("[1, 2)", '"[1, 2)"'),
        ("grün", "grün"),
    ],
)
def test_odd_characters_stand_in_quotes(value: str, expected: str) -> None:
    assert spelled(value) == expected


def test_long_values_stay_different() -> None:
    first, second = spelled("x" * 100 + "a"), spelled("x" * 100 + "b")
    assert first != second
    assert max(map(len, (first, second))) < 80


def test_odd_names_and_values_make_slices_of_their_own(tmp_path: Path) -> None:
    odd = DICE.choice(["a=b", "x/y", "*", "two\nlines", "missing", "="], N)
    version = version_of(tmp_path, {"a=b/c*\n": odd})
    found = slices(version)
    assert len(found) == 6
    for name, part in found.items():
        assert "\n" not in name
        assert not name.endswith("*")
        assert part.n == int(part.rows.sum()) > FEWEST_ROWS


def column(values: Any, kind: Any = "number", *, whole: bool = False) -> Column:
    return Column(name="x", kind=kind, values=np.asarray(values, dtype=float), whole=whole)


@pytest.mark.parametrize(
    ("values", "whole", "expected"),
    [
        (np.arange(101), True, [25, 50, 75]),
        (np.linspace(0, 1, 101), False, [0.25, 0.5, 0.75]),
        (np.linspace(0, 1e6, 1001), False, [250_000, 500_000, 750_000]),
        (np.linspace(1e-6, 2e-6, 101), False, [1.25e-6, 1.5e-6, 1.75e-6]),
        (np.arange(20), True, [5, 10, 14]),
        ([3, 3, 3], True, []),
        ([np.nan, np.nan], False, []),
        ([0] * 90 + [7] * 10, True, [4]),
        ([0] * 10 + [7] * 90, True, [7]),
    ],
)
def test_edges_are_round_numbers(values: Any, whole: bool, expected: list[float]) -> None:
    assert quartile_edges(column(values, whole=whole)) == pytest.approx(expected, rel=1e-9)


def test_the_shortest_number_between_two() -> None:
    assert between(27.4, 31.2) == 30
    assert between(27.4, 29.2) == 28
    assert between(3.14159, 3.1416) == pytest.approx(3.141595, abs=6e-6)
    assert between(0.0, 1e-9) == pytest.approx(5e-10)
    assert 5 < between(5.0, np.inf) < np.inf
    assert -np.inf < between(-np.inf, 5.0) <= 5
    low, high = 1.0, np.nextafter(1.0, 2.0)
    assert between(low, high) == high
    for seed in range(50):
        low, high = np.sort(np.random.default_rng(seed).normal(size=2)).tolist()
        assert low < between(low, high) <= high
    day = 86_400.0
    assert between_times(10.5 * day, 12.2 * day) == 12 * day
    assert between_times(10.5 * day, 10.5 * day + 90) == 10.5 * day + 60
    assert between_times(1.0, 1.5) == 1.5


def test_numbers_and_times_in_words() -> None:
    assert worded(12.0, column([1])) == "12"
    assert worded(0.125, column([1])) == "0.125"
    assert worded(1e6, column([1])) == "1000000"
    assert worded(0.0, column([1], "time")) == "1970-01-01"
    assert worded(61.0, column([1], "time")) == "1970-01-01 00:01:01"
    assert worded(1e18, column([1], "time")) == "1e+18 s"
