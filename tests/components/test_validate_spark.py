"""Great Expectations on Spark: the same words as the engines of one machine, and errors that say what to do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from kfloop.components.validate_data.engines import spark as engine
from kfloop.components.validate_data.engines.choosing import choose, evaluate
from kfloop.core.config import load_config, parse_section, section_json
from kfloop.core.expectations import polars
from kfloop.core.expectations.checks import prepare
from kfloop.core.expectations.rules import RULES
from kfloop.core.sections import SparkConfig, ValidationConfig
from kfloop.core.spark import MASTER_ENV, master_of, session
from kfloop.errors import ConfigError, TransientError
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
        results = zip(engine.evaluate(chance.table, checks, HERE, folder), polars.evaluate(chance.table, checks), strict=True)
        for item, (left, right) in zip(suite, results, strict=True):
            seen[item["type"]].add(right["word"])
            if (left["word"], left["column"]) != (right["word"], right["column"]):
                found.append(f"seed {seed}: {item} spark {left['word']} {left['detail']}, polars {right['word']}")
    assert not list(folder.iterdir())
    return found, seen


@pytest.mark.slow
def test_spark_agrees_on_random_tables(started: SparkSession, tmp_path: Path) -> None:
    found, seen = disagreements(range(1000, 1012), tmp_path)
    assert not found
    assert sum({"pass", "fail"} <= words for words in seen.values()) > 0.9 * len(RULES)
    assert not started.catalog.listTables()
