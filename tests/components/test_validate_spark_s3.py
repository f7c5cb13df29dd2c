"""Rows that go to Spark through S3, with pyspark alone: the same words, nothing left behind, and errors of both ends."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from kfloop.components.ingest.ingestion import run as ingest
from kfloop.components.validate_data.engines import spark as engine
from kfloop.components.validate_data.engines.choosing import evaluate
from kfloop.components.validate_data.validation import run as validate
from kfloop.core.expectations.rules import RULES
from kfloop.core.sections import DataConfig, SparkConfig, ValidationConfig
from kfloop.core.spark import session
from kfloop.core.workspace import Workspace
from kfloop.errors import KfloopError, StateError, TransientError
from seaweed import KEYS, free_ports
from tests.components.test_validate_engines import Chance, expect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
SETTINGS = {"spark.sql.shuffle.partitions": "2", "spark.driver.memory": "1g"}
SUITE = [expect("expect_column_values_to_be_unique", column="x")]
TABLE = pa.table({"x": [1, 2, 2]})


@pytest.fixture(scope="module")
def places(s3_endpoint: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_MAX_ATTEMPTS": "1"}).items():
            patched.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def started(places: None) -> Iterator[None]:
    """One session for the tests that ask for it: a start takes seconds."""
    with session(SparkConfig(master="local[2]", settings=SETTINGS)):
        yield


@pytest.fixture
def folder(places: None, tmp_path: Path) -> str:
    return f"s3://ready/{tmp_path.name}/spark"


def left(folder: str) -> list[str]:
    import s3fs

    found = s3fs.S3FileSystem(skip_instance_cache=True).find(folder)
    return [path for path in found if path.endswith(".parquet")]  # this server keeps empty folders as objects


def told(table: pa.Table, suite: list[dict[str, Any]], folder: str) -> list[str]:
    """The words of Spark through S3, which must be those of the engines of one machine."""
    spark, polars = (evaluate(table, suite, name, folder=folder) for name in ("spark", "polars"))
    for item, one, other in zip(suite, spark, polars, strict=True):
        assert (one["word"], one["column"]) == (other["word"], other["column"]), (item, one, other)
    assert left(folder) == []
    return [line["word"] for line in spark]


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("started")
def test_random_tables_of_many_row_groups_are_judged_as_on_one_machine(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ROWS_PER_BATCH", 7)
    chance = Chance(0)
    some = list(RULES)[::3]  # what each of them means is compared without S3
    words = set(told(chance.table, [chance.expectation(kind) for kind in some], folder))
    assert words >= {"pass", "fail"}


@pytest.mark.usefixtures("started")
def test_columns_of_every_type_and_no_rows(folder: str) -> None:
    day = dt.datetime(2026, 1, 1)  # noqa: DTZ001 - without a zone on purpose
    table = pa.table(
        {
            "a.b": pa.array([1, None, 250], pa.uint8()),
            "big": pa.array([2**63, 0, 1], pa.uint64()),
            "half": pa.array(np.array([0.5, 1, 2], np.float16)),
            "nan": pa.array([0.5, float("nan"), None]),
            "word": pa.array(["a", "b", None]).dictionary_encode(),
            "long": pa.array(["ä", "", "x" * 100_000], pa.large_string()),
            "at": pa.array([day, None, day], pa.timestamp("ns")),
            "zone": pa.array([day, None, day], pa.timestamp("ms", "UTC")),
            "list": pa.array([[1, 2], [], None], pa.list_(pa.int32())),
        }
    )
    suite = [expect("expect_column_values_to_not_be_null", column=name) for name in table.column_names]
    suite += [
        expect("expect_column_max_to_be_between", column="a.b", max_value=250),
        expect("expect_column_values_to_be_unique", column="long"),
        expect("expect_column_min_to_be_between", column="at", min_value="2026-01-01T00:00:00"),
        expect("expect_column_value_lengths_to_be_between", column="long", max_value=100_000),
    ]
    words = told(table, suite, folder)
    assert words[:3] == ["fail", "pass", "pass"]
    assert words[-4:] == ["pass"] * 4
    told(table.slice(0, 0), suite, folder)


@pytest.mark.usefixtures("started")
def test_the_whole_step_says_what_it_says_on_one_machine(tmp_path: Path, folder: str) -> None:
    workspace = Workspace(loop="demo", root=tmp_path, state="", store=str(tmp_path / "store"), mlflow="")
    (tmp_path / "dataset").mkdir()
    ingest(DataConfig(limit=400), out=tmp_path / "dataset", workspace=workspace)
    results = {}
    for name in ("spark", "polars"):
        (tmp_path / name).mkdir()
        config = ValidationConfig(engine=name, spark=SparkConfig(folder=folder))
        report = validate(config, dataset=tmp_path / "dataset", out=tmp_path / name, workspace=workspace)
        results[name] = [(line["expectation"], line["column"], line["word"]) for line in report.results]
    assert results["spark"] == results["polars"]
    assert left(folder) == []
    assert not (workspace.kfloop_dir / "spark").exists()


@pytest.mark.usefixtures("started")
def test_what_this_process_cannot_write_is_told(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = folder.replace("s3://ready", "s3://absent")
    for change, place, kind, hint in (
        ({"AWS_SECRET_ACCESS_KEY": "another-secret"}, folder, StateError, "AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_ports(1)[0]}"}, folder, TransientError, "run it again"),
        ({}, absent, StateError, "is the bucket there?"),
    ):
        with monkeypatch.context() as patched:
            for name, value in change.items():
                patched.setenv(name, value)
            with pytest.raises(KfloopError) as caught:
                evaluate(TABLE, SUITE, "spark", folder=place)
        assert type(caught.value) is kind, caught.value
        assert f"spark.folder '{place}' cannot be" in caught.value.message
        assert hint in caught.value.hint
        assert "another-secret" not in json.dumps(caught.value.as_dict())
    assert left(folder) == []
