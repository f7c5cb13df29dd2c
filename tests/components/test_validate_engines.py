"""The two engines: the same suite, the same word for every expectation, on random tables and in the corners."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kfloop.components.validate_data.engines import great_expectations
from kfloop.components.validate_data.engines.choosing import choose, evaluate
from kfloop.core.expectations import polars
from kfloop.core.expectations.checks import prepare
from kfloop.core.expectations.patterns import translate
from kfloop.core.expectations.rules import RULES
from kfloop.errors import ConfigError

KINDS = ("int", "int", "float", "float", "bool", "str", "str", "time", "time")
START = datetime(2020, 1, 1)  # noqa: DTZ001 - columns have no zone
SAFE = ("a", "b", "ab", "A1", "x_9", "a b")
ODD = (*SAFE, "", "x\n", "\u0663", "\xe9t\xe9", "nan", "None", "a\x1cb", "A\u0301")
PATTERNS = (
    *("^a", r"\d", "b$", "[ab]+", r"^\w+$", r"\s", "a|1", r"x\Z", "^$", r"[^\W\d]", "(?i)AB", r"\bb\b"),
    *("[[]", "[^]a]", r"\<", "[&&a]", r"\S\s\S"),
)


def expect(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs, "severity": "critical"}


def both(table: pa.Table, *suite: dict[str, Any]) -> list[str]:
    """The words of both engines, which must agree."""
    words = [[line["word"] for line in evaluate(table, list(suite), name)] for name in ("great_expectations", "polars")]
    assert words[0] == words[1]
    return words[0]


class Chance:
    """Random tables and random arguments of expectations about them."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        n = int(self.rng.choice([0, 1, 2, 3, 7, 20, 40], p=[0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2]))
        self.table = pa.table({f"c{place}_{kind}": self.column(n, kind) for place, kind in enumerate(KINDS)})
        self.names: list[str] = self.table.schema.names

    def often(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def column(self, n: int, kind: str) -> pa.Array:
        rng = self.rng
        gone = rng.random(n) < self.pick([0.0, 0.0, 0.3, 0.3, 1.0])
        if kind == "int":
            return pa.array(rng.integers(-3, 4, n) if self.often(0.6) else rng.permutation(n), pa.int64(), mask=gone)
        if kind == "float":
            values = np.round(rng.normal(0, 2, n), int(rng.integers(0, 3))) if self.often(0.9) else np.full(n, 0.25)
            values = np.where(rng.random(n) < self.pick([0, 0.1]), np.nan, values)
            return pa.array(np.where(rng.random(n) < self.pick([0, 0, 0, 0.1]), np.inf, values), mask=gone)
        if kind == "bool":
            return pa.array(rng.random(n) < self.pick([0, 0.5, 1]), mask=gone)
        if kind == "str":
            words = self.pick([SAFE, ODD, [f"k{place}" for place in range(n)] or SAFE])
            return pa.array([self.pick(words) for _ in range(n)], pa.string(), mask=gone)
        days = rng.integers(0, 9, n)
        days = np.sort(days) if self.often(0.5) else days
        return pa.array(np.datetime64(START, "us") + days.astype("timedelta64[D]"), pa.timestamp("us"), mask=gone)

    def held(self, name: str) -> list[Any]:
        """Finite values of a column, as a suite would hold them."""
        values = self.table[name].unique().to_pylist() if name in self.names else []
        values = [value for value in values if value is not None and value == value and value != float("inf")]  # noqa: PLR0124 - NaN
        return [value.isoformat() if isinstance(value, datetime) else value for value in values]

    def value(self, name: str) -> Any:
        held = self.held(name)
        if held and self.often(0.6):
            return self.pick(held)
        kind = name.rsplit("_", maxsplit=1)[-1]
        made = {
            "int": int(self.rng.integers(-4, 5)),
            "float": float(np.round(self.rng.normal(0, 2), 1)),
            "bool": self.often(0.5),
            "time": (START + timedelta(days=int(self.rng.integers(0, 9)))).isoformat(),
        }
        return made.get(kind, self.pick(["a", "b", "zz", "A1", "ab"]))

    def values(self, name: str) -> list[Any]:
        held = self.held(name)
        return held if held and self.often(0.25) else [self.value(name) for _ in range(int(self.rng.integers(1, 6)))]

    def quantiles(self) -> dict[str, Any]:
        shares = np.sort(
            self.rng.choice([0, 0.1, 0.25, 0.5, 0.75, 0.9, 1], int(self.rng.integers(1, 3)), replace=False)
        )
        ranges = [sorted(np.round(self.rng.normal(0, 2, 2), 1).tolist()) for _ in shares]
        return {
            "quantiles": shares.tolist(),
            "value_ranges": [[self.pick([low, low, None]), self.pick([high, high, None])] for low, high in ranges],
        }

    def argument(self, word: str, name: str) -> Any:
        simple = {
            "number": (0, 1, -1, 0.5, 2.0, 3, 10),
            "count": (0, 1, 2, 3, 5, self.table.num_rows, len(KINDS)),
            "share": (0, 0.3, 0.5, 0.7, 0.9, 1, 1.0),
            "flag": (True, False),
            "regex": PATTERNS,
            "type": ("int64", "str", "bool", "float64", "datetime64[us]"),
            "interpolation": ("linear", "lower", "higher", "midpoint", "nearest", False),
            "missing_of_two": ("both_values_are_missing", "either_value_is_missing", "neither"),
            "missing_of_many": ("all_values_are_missing", "any_value_is_missing", "never"),
        }
        if word in simple:
            return self.pick(simple[word])
        if word == "names":
            return self.names[: int(self.rng.integers(1, 11))]
        if word == "quantiles":
            return self.quantiles()
        return self.values(name) if word == "set" else (self.value(name) or 1)

    def expectation(self, kind: str) -> dict[str, Any]:
        rule = RULES[kind]
        name = self.pick([name for name in self.names if name.split("_")[1] in rule.kinds] or self.names)
        if self.often(0.03):  # a broken check
            name = self.pick([*self.names, "nowhere"])
        alike = [other for other in self.names if other.split("_")[1] == name.split("_")[-1]] or self.names
        columns = {
            "column": name,
            "column_A": name,
            "column_B": self.pick(alike if self.often(0.95) else self.names),
            "column_list": self.rng.choice(self.names, 2 + int(self.rng.integers(2)), replace=False).tolist(),
        }
        kwargs: dict[str, Any] = {}
        for argument, word in rule.arguments.items():
            if argument in columns:
                kwargs[argument] = columns[argument]
            elif argument in rule.required or self.often(0.6):
                kwargs[argument] = self.argument(word, name)
        if "min_value" in rule.arguments and not {"min_value", "max_value"} & set(kwargs):
            kwargs["min_value"] = self.argument(rule.arguments["min_value"], name)
        if {"min_value", "max_value"} <= set(kwargs):
            try:
                low, high = sorted([kwargs["min_value"], kwargs["max_value"]])
            except TypeError:  # a text and a number: only of a column that is not fit anyway
                low = high = kwargs["min_value"]
            kwargs |= {"min_value": low, "max_value": high}
        return expect(kind, **kwargs)


def disagreements(seeds: range, per_kind: int) -> tuple[list[str], dict[str, set[str]]]:
    """What the engines judge differently, and which words each expectation was given."""
    found, words = [], {kind: set() for kind in RULES}
    for seed in seeds:
        chance = Chance(seed)
        suite = [chance.expectation(kind) for kind in RULES for _ in range(per_kind)]
        checks = prepare(suite, chance.table.schema)
        results = zip(
            great_expectations.evaluate(chance.table, checks), polars.evaluate(chance.table, checks), strict=True
        )
        for item, (left, right) in zip(suite, results, strict=True):
            words[item["type"]].add(right["word"])
            if left["word"] != right["word"]:
                found.append(f"seed {seed}: {item} GX {left['word']} {left['detail']}, polars {right['word']}")
    return found, words


def test_the_engines_agree_on_random_tables() -> None:
    found, words = disagreements(range(1000, 1014), 1)
    assert not found
    assert sum({"pass", "fail"} <= seen for seen in words.values()) > 0.9 * len(RULES)


@pytest.mark.slow
def test_the_engines_agree_on_many_random_tables() -> None:
    found, words = disagreements(range(100, 180), 2)
    assert not found
    assert all({"pass", "fail"} <= seen for seen in words.values()), words
    assert sum("error" in seen for seen in words.values()) > 20


def test_the_engines_agree_when_polars_reads_batches_and_saves_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polars, "ROWS_PER_BATCH", 7)
    monkeypatch.setattr(polars, "BIG", 5)
    found, _ = disagreements(range(2000, 2005), 1)
    assert not found


def test_at_least_thirty_expectations_are_supported() -> None:
    assert len(RULES) >= 30


@pytest.fixture
def table() -> pa.Table:
    return pa.table(
        {
            "name": ["a", "b", "c", "c", None],
            "whole": pa.array([1, 2, 3, 4, None], pa.int64()),
            "real": [1.0, float("nan"), None, 2.5, 9.0],
            "flag": [True, None, False, True, True],
            "when": pa.array([datetime(2020, 1, day, 12) for day in range(1, 6)], pa.timestamp("us")),  # noqa: DTZ001
            "nothing": pa.array([None] * 5, pa.string()),
            "items": pa.array([[1], [2], [], None, [1]], pa.list_(pa.int64())),
        }
    )


@pytest.mark.parametrize(
    ("kind", "kwargs", "word"),
    [
        # NaN is missing, as null is
        ("values_to_not_be_null", {"column": "real"}, "fail"),
        ("values_to_not_be_null", {"column": "real", "mostly": 0.6}, "pass"),
        ("values_to_be_unique", {"column": "real"}, "pass"),
        ("mean_to_be_between", {"column": "real", "min_value": 4.16, "max_value": 4.17}, "pass"),
        # a column of nothing: values that are not there break no rule, but there is no mean of them
        ("values_to_be_in_set", {"column": "nothing", "value_set": ["x"]}, "pass"),
        ("values_to_be_null", {"column": "nothing"}, "pass"),
        ("distinct_values_to_contain_set", {"column": "nothing", "value_set": ["x"]}, "fail"),
        ("unique_value_count_to_be_between", {"column": "nothing", "max_value": 0}, "pass"),
        # repeated values count each time
        ("values_to_be_unique", {"column": "name", "mostly": 0.5}, "pass"),
        ("values_to_be_unique", {"column": "name", "mostly": 0.51}, "fail"),
        # times keep their hours
        ("values_to_be_between", {"column": "when", "min_value": "2020-01-01T12:00:00"}, "pass"),
        ("values_to_be_between", {"column": "when", "min_value": "2020-01-01T12:00:00", "strict_min": True}, "fail"),
        ("max_to_be_between", {"column": "when", "max_value": "2020-01-05T12:00:00+00:00"}, "pass"),
        ("max_to_be_between", {"column": "when", "max_value": "2020-01-05"}, "fail"),
        ("values_to_be_increasing", {"column": "when", "strictly": True}, "pass"),
        # whole numbers stay whole whatever is missing
        ("values_to_be_of_type", {"column": "whole", "type_": "int64"}, "pass"),
        ("values_to_be_of_type", {"column": "whole", "type_": "float64"}, "fail"),
        ("values_to_be_of_type", {"column": "when", "type_": "datetime64[ns]"}, "pass"),
        ("values_to_be_of_type", {"column": "items", "type_": "list"}, "pass"),
        ("values_to_be_in_set", {"column": "whole", "value_set": [1.0, 2, 3, 4, 5.5]}, "pass"),
        ("values_to_not_be_null", {"column": "items", "mostly": 0.8}, "pass"),
        # broken checks, not bad data
        ("values_to_not_be_null", {"column": "nowhere"}, "error"),
        ("values_to_be_unique", {"column": "items"}, "error"),
        ("unique_value_count_to_be_between", {"column": "items", "min_value": 1}, "error"),
        ("mean_to_be_between", {"column": "name", "min_value": 1}, "error"),
        ("values_to_be_in_set", {"column": "whole", "value_set": ["1"]}, "error"),
        ("values_to_be_between", {"column": "when", "min_value": 5}, "error"),
        ("values_to_be_between", {"column": "when", "min_value": "soon"}, "error"),
        ("values_to_match_regex", {"column": "whole", "regex": "1"}, "error"),
        ("values_to_be_in_set", {"column": "flag", "value_set": [1, 0]}, "error"),
        ("pair_values_to_be_equal", {"column_A": "name", "column_B": "whole"}, "error"),
    ],
)
def test_corners(table: pa.Table, kind: str, kwargs: dict[str, Any], word: str) -> None:
    assert both(table, expect(f"expect_column_{kind}", **kwargs)) == [word]


def test_big_integers_stay_apart_when_some_are_missing() -> None:
    table = pa.table({"key": pa.array([2**60, 2**60 + 1, None], pa.int64())})
    assert both(table, expect("expect_column_values_to_be_unique", column="key")) == ["pass"]
    assert both(table, expect("expect_column_values_to_be_in_set", column="key", value_set=[2**60])) == ["fail"]


def test_columns_that_differ_by_their_case_are_not_mistaken_for_each_other() -> None:
    table = pa.table({"a": [1, 1, 2], "A": ["x", "y", "z"], "plain": [1, 2, 3]})
    suite = [expect("expect_column_values_to_be_unique", column=name) for name in ("a", "A", "plain")]
    assert both(table, *suite) == ["fail", "pass", "pass"]
    pair = expect("expect_column_pair_values_to_be_equal", column_A="a", column_B="plain")
    several = expect("expect_compound_columns_to_be_unique", column_list=["a", "A"])
    exists = [expect("expect_column_to_exist", column=name) for name in ("A", "PLAIN")]
    assert both(table, pair, several, *exists) == ["fail", "pass", "pass", "fail"]
    lone = table.select(["A", "plain"])
    suite = [expect("expect_column_to_exist", column="a"), expect("expect_column_values_to_be_unique", column="a")]
    assert both(lone, *suite) == ["fail", "error"]
    listed = expect("expect_column_values_to_match_regex_list", column="A", regex_list=["[xyz]"])
    result = evaluate(table, [listed], "great_expectations")[0]
    assert (result["column"], result["word"]) == ("A", "pass")


def test_great_expectations_sees_only_the_columns_that_the_suite_names(table: pa.Table) -> None:
    checks = prepare(
        [
            expect("expect_column_mean_to_be_between", column="real", min_value=0),
            expect("expect_column_to_exist", column="x"),
        ],
        table.schema,
    )
    assert list(great_expectations.frame_of(table, checks).columns) == ["real"]
    assert both(
        table, expect("expect_table_row_count_to_equal", value=5), expect("expect_column_to_exist", column="flag")
    ) == [
        "pass",
        "pass",
    ]


def test_results_show_what_was_observed_and_examples(table: pa.Table) -> None:
    suite = [
        expect("expect_column_values_to_be_in_set", column="name", value_set=["a", "b"]),
        expect("expect_column_max_to_be_between", column="when", max_value="2019-01-01"),
    ]
    for engine in ("great_expectations", "polars"):
        first, second = evaluate(table, suite, engine)
        assert first["observed"] == 2
        assert first["detail"] == "unexpected: ['c', 'c']"
        assert second["observed"] == "2020-01-05T12:00:00"
        assert (first["column"], first["severity"], first["passed"]) == ("name", "critical", False)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (expect("expect_column_mean_to_be_between", column="real"), "min_value and max_value are both missing"),
        (expect("expect_column_mean_to_be_between", column="real", min_value=2, max_value=1), "is above max_value"),
        (expect("expect_column_mean_to_be_between", column="real", minvalue=2), "no argument 'minvalue'"),
        (expect("expect_column_values_to_be_in_set", column="name"), "'value_set' is missing"),
        (expect("expect_column_values_to_be_in_set", column="name", value_set=[]), "'value_set' is"),
        (expect("expect_column_values_to_be_in_set", column="name", value_set=[None]), "'value_set' is"),
        (expect("expect_column_values_to_be_unique", column="name", mostly=1.5), "'mostly' is 1.5"),
        (expect("expect_column_values_to_match_regex", column="name", regex="("), r"'regex' is '\('"),
        (expect("expect_column_values_to_be_of_type", column="name", type_="text"), "'type_' is 'text'"),
        (expect("expect_compound_columns_to_be_unique", column_list=["name"]), "'column_list' is"),
        (
            expect("expect_column_values_to_be_unique", column="name", row_condition="x>1"),
            "row_condition is not supported",
        ),
        (
            expect(
                "expect_column_quantile_values_to_be_between",
                column="real",
                quantile_ranges={"quantiles": [0.5], "value_ranges": [[2, 1]]},
            ),
            "'quantile_ranges' is",
        ),
    ],
)
@pytest.mark.parametrize("engine", ["great_expectations", "polars"])
def test_unusable_expectations_are_refused_by_both(
    table: pa.Table, item: dict[str, Any], message: str, engine: str
) -> None:
    with pytest.raises(ConfigError, match=f"unusable expectation .*{message}"):
        evaluate(table, [item], engine)


def test_what_polars_does_not_know_is_refused_and_never_left_out(table: pa.Table) -> None:
    item = expect("expect_column_values_to_match_regex_list", column="name", regex_list=["a", "b", "c"])
    assert evaluate(table, [item], "great_expectations")[0]["word"] == "pass"
    with pytest.raises(ConfigError, match="does not know 'expect_column_values_to_match_regex_list'") as error:
        evaluate(table, [item], "polars")
    assert "expect_column_values_to_match_regex'" in error.value.hint
    assert "engine: great_expectations" in error.value.hint
    missing = expect("expect_column_values_to_match_regex_list", column="nowhere", regex_list=["a"])
    assert evaluate(table, [missing], "great_expectations")[0]["word"] == "error"
    with pytest.raises(ConfigError, match="unusable expectation 'expect_column_to_be_nice'"):
        evaluate(table, [expect("expect_column_to_be_nice", column="name")], "great_expectations")


def test_which_engine() -> None:
    assert choose("auto", 2_000_000, 2_000_000) == "great_expectations"
    assert choose("auto", 2_000_001, 2_000_000) == "polars"
    assert choose("polars", 1, 2_000_000) == "polars"
    with pytest.raises(ConfigError, match="engine 'duckdb'"):
        evaluate(pa.table({"x": [1]}), [], "duckdb")


@pytest.mark.parametrize("pattern", [r"(?=a)b", r"(a)\1", r"a(?<!b)"])
def test_patterns_that_polars_has_not_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="polars engine cannot use the regular expression"):
        translate(pattern)


def test_every_rule_has_the_arguments_of_great_expectations() -> None:
    from great_expectations.expectations.registry import get_expectation_impl

    for kind, rule in RULES.items():
        fields = get_expectation_impl(kind).__fields__
        assert set(rule.arguments) <= set(fields), kind
        assert {name for name, field in fields.items() if field.required} <= set(rule.required), kind


def test_great_expectations_is_quiet(table: pa.Table, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        evaluate(table, [expect("expect_column_values_to_be_unique", column="name")], "great_expectations")
    assert not [record for record in caplog.records if record.name.startswith("great_expectations")]


def test_a_program_without_a_file_is_not_ended() -> None:
    """pyspark 4.3, which Great Expectations imports where there is one, takes it for its own doctests and exits with 0."""
    program = "from kfloop.components.validate_data.engines.great_expectations import quiet; quiet(); print('alive')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "alive\n"


@pytest.mark.parametrize("engine", ["great_expectations", "polars"])
def test_columns_that_are_missing_or_new_are_named(table: pa.Table, engine: str) -> None:
    names = table.schema.names
    told = [*names[1:], "gone"]
    kind = "expect_table_columns_to_match_set"
    suite = [expect(kind, column_set=told, exact_match=exact) for exact in (False, True)]
    detail = f"missing: gone; not in the set: {names[0]}"
    assert [line["detail"] for line in evaluate(table, suite, engine)] == ["missing: gone", detail]


def test_an_expectation_that_is_misspelt_names_the_nearest(table: pa.Table) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluate(table, [expect("expect_column_values_to_be_betwen", column="n", min_value=0)], "great_expectations")
    assert "did you mean 'expect_column_values_to_be_between'?" in caught.value.hint
