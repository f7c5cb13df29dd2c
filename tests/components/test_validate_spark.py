"""Great Expectations on Spark: the same words as the engines of one machine, and errors that say what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from kfloop.components.ingest.ingestion import run as ingest
from kfloop.components.validate_data.engines import spark as engine
from kfloop.components.validate_data.engines.choosing import evaluate
from kfloop.components.validate_data.validation import run as validate
from kfloop.core.expectations import polars
from kfloop.core.expectations.checks import prepare
from kfloop.core.expectations.rules import RULES
from kfloop.core.sections import DataConfig, SparkConfig, ValidationConfig
from kfloop.core.spark import session
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError
from tests.components.test_validate_engines import Chance, expect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

HERE = SparkConfig(master="local[2]", settings={"spark.sql.shuffle.partitions": "2", "spark.driver.memory": "1g"})


@pytest.fixture(scope="module")
def started() -> Iterator[SparkSession]:
    """One session for the module: a start takes seconds."""
    with session(HERE) as spark:
        yield spark


def words(table: pa.Table, *suite: dict[str, Any], folder: Path) -> list[str]:
    """The words of Spark, which must be those of the other engines."""
    told = {
        name: [line["word"] for line in evaluate(table, list(suite), name, cluster=HERE, folder=folder)]
        for name in ("spark", "polars", "great_expectations")
    }
    assert told["spark"] == told["polars"] == told["great_expectations"]
    return told["spark"]


def disagreements(seeds: range, folder: Path) -> tuple[list[str], dict[str, set[str]]]:
    """What Spark judges otherwise than polars, and which words each expectation was given."""
    found, seen = [], {kind: set() for kind in RULES}
    for seed in seeds:
        chance = Chance(seed)
        suite = [chance.expectation(kind) for kind in RULES]
        checks = prepare(suite, chance.table.schema)
        results = zip(
            engine.evaluate(chance.table, checks, HERE, folder), polars.evaluate(chance.table, checks), strict=True
        )
        for item, (left, right) in zip(suite, results, strict=True):
            seen[item["type"]].add(right["word"])
            if (left["word"], left["column"]) != (right["word"], right["column"]):
                found.append(f"seed {seed}: {item} spark {left['word']} {left['detail']}, polars {right['word']}")
    assert not list(folder.iterdir())
    return found, seen


@pytest.mark.slow
@pytest.mark.timeout(900)  # about 150 expectations, each of them several jobs
@pytest.mark.usefixtures("started")
def test_spark_agrees_on_random_tables(tmp_path: Path) -> None:
    found, seen = disagreements(range(1006, 1011), tmp_path)
    assert not found
    assert sum({"pass", "fail"} <= words for words in seen.values()) > 0.6 * len(RULES)


@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_corners(tmp_path: Path) -> None:
    table = pa.table(
        {
            "a.b": pa.array([3, 1, None, 2], pa.int64()),  # a dot is a path to Spark, a backtick its quotes
            "A.b": ["x", "y", "y", None],
            "it's `odd`": [1.0, float("nan"), None, 2.5],
            "nothing": pa.array([None] * 4, pa.string()),
            "items": pa.array([[1], [2], [], None], pa.list_(pa.int64())),
            "row_number": [4, 3, 2, 1],
        }
    )
    told = [
        ("values_to_be_unique", {"column": "A.b"}, "fail"),
        ("values_to_not_be_null", {"column": "it's `odd`", "mostly": 0.5}, "pass"),
        ("mean_to_be_between", {"column": "it's `odd`", "min_value": 1.75, "max_value": 1.75}, "pass"),
        ("values_to_not_be_null", {"column": "items", "mostly": 0.75}, "pass"),
        ("values_to_be_decreasing", {"column": "row_number", "strictly": True}, "pass"),
        ("values_to_be_increasing", {"column": "a.b"}, "fail"),
        ("pair_values_a_to_be_greater_than_b", {"column_A": "row_number", "column_B": "a.b"}, "fail"),
        (
            "quantile_values_to_be_between",
            {"column": "a.b", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[2, 2]]}},
            "pass",
        ),
        # a column of nothing, a column that is not there
        ("values_to_match_regex", {"column": "nothing", "regex": "x"}, "pass"),
        ("values_to_be_in_set", {"column": "nothing", "value_set": ["x"]}, "pass"),
        ("distinct_values_to_contain_set", {"column": "nothing", "value_set": ["x"]}, "fail"),
        ("values_to_not_be_null", {"column": "nowhere"}, "error"),
        ("mean_to_be_between", {"column": "A.b", "min_value": 1}, "error"),
        ("to_exist", {"column": "a.b"}, "pass"),
    ]
    suite = [expect(f"expect_column_{kind}", **kwargs) for kind, kwargs, _ in told]
    assert words(table, *suite, folder=tmp_path) == [word for *_, word in told]
    assert words(table, expect("expect_table_column_count_to_equal", value=6), folder=tmp_path) == ["pass"]
    first, second = evaluate(table, [suite[0], suite[5]], "spark", cluster=HERE, folder=tmp_path)
    assert (first["column"], first["detail"]) == ("A.b", "unexpected: ['y', 'y']")
    assert (second["observed"], second["detail"]) == (1, "unexpected: [1]")


@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_patterns_are_pythons_own(tmp_path: Path) -> None:
    table = pa.table({"s": ["ab", "a\n", "\u0663", "a\x1cb", "\xe9", ""]})
    for pattern, unexpected in ((r"^\w+$", 2), (r"(?=a)a", 3), (r"^\d", 5), (r"(?P<x>a)(?P=x)?", 3), (r"\s\Z", 5)):
        item = expect("expect_column_values_to_match_regex", column="s", regex=pattern)
        assert evaluate(table, [item], "spark", cluster=HERE, folder=tmp_path)[0]["observed"] == unexpected, pattern
    with pytest.raises(ConfigError, match=r"'regex' is '\('"):
        evaluate(
            table, [expect("expect_column_values_to_match_regex", column="s", regex="(")], "spark", folder=tmp_path
        )


@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_an_empty_table_and_one_of_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = [
        expect("expect_table_row_count_to_equal", value=0),
        expect("expect_column_values_to_be_unique", column="x"),
        expect("expect_column_mean_to_be_between", column="x", min_value=0),
        expect("expect_column_values_to_be_increasing", column="x", strictly=True),
    ]
    assert words(pa.table({"x": pa.array([], pa.int64())}), *suite, folder=tmp_path) == ["pass", "pass", "fail", "pass"]
    monkeypatch.setattr(engine, "ROWS_PER_BATCH", 7)
    table = pa.concat_tables([pa.table({"x": np.arange(start, start + 20)}) for start in (0, 20, 40)])
    assert words(table, *suite, folder=tmp_path) == ["fail", "pass", "pass", "pass"]


@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_an_expectation_that_only_great_expectations_knows(tmp_path: Path) -> None:
    item = expect("expect_column_values_to_match_regex_list", column="a.b", regex_list=["a", "b"])
    assert evaluate(pa.table({"a.b": ["a", "b"]}), [item], "spark", cluster=HERE, folder=tmp_path)[0]["word"] == "pass"
    with pytest.raises(ConfigError, match="unusable expectation 'expect_nothing'"):
        evaluate(pa.table({"x": [1]}), [expect("expect_nothing")], "spark", cluster=HERE, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_the_whole_step_says_what_it_says_on_the_other_engines(tmp_path: Path) -> None:
    workspace = Workspace(loop="demo", root=tmp_path, state="", store=str(tmp_path / "store"), mlflow="")
    (tmp_path / "dataset").mkdir()
    ingest(DataConfig(limit=400), out=tmp_path / "dataset", workspace=workspace)
    told = {}
    for name in ("spark", "polars"):
        (tmp_path / name).mkdir()
        config = ValidationConfig(engine=name, spark=HERE)
        report = validate(config, dataset=tmp_path / "dataset", out=tmp_path / name, workspace=workspace)
        assert report.engine == name
        told[name] = [(line["expectation"], line["column"], line["word"]) for line in report.results]
        assert report.outcome_word == "pass"
    assert told["spark"] == told["polars"]
    assert not list((workspace.kfloop_dir / "spark").iterdir())
