"""Tables in S3 between this process and Spark's executors, each with an environment of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from kfloop.core import spark_objects
from kfloop.core.sections import SparkConfig
from kfloop.core.spark import session
from kfloop.errors import KfloopError, StateError, TransientError
from seaweed import free_ports

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {"spark.sql.shuffle.partitions": "1", "spark.driver.memory": "512m"}
TABLE = pa.table({"x": [1, 2, 2]})


@pytest.fixture
def folder(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return f"s3://ready/{tmp_path.name}/spark"


def left(folder: str) -> list[str]:
    import s3fs

    found = s3fs.S3FileSystem(skip_instance_cache=True).find(folder)
    return [path for path in found if path.endswith("rows")]  # this server keeps empty folders as objects


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "kind", "hint"),
    [
        ({"spark.executorEnv.AWS_ACCESS_KEY_ID": "nobody"}, StateError, "secretKeyRef"),
        ({"spark.executorEnv.AWS_ENDPOINT_URL": "http://127.0.0.1:{port}"}, TransientError, "run it again"),
    ],
)
def test_what_the_executors_cannot_read_is_told(
    folder: str, setting: dict[str, str], kind: type[KfloopError], hint: str
) -> None:
    given = {name: value.format(port=free_ports(1)[0]) for name, value in setting.items()}
    config = SparkConfig(master="local[1]", settings=SETTINGS | given)
    with session(config) as spark, spark_objects.object_handover(folder, "manifest") as objects:
        groups = objects.write("rows", TABLE.schema, TABLE.to_batches())
        with pytest.raises(KfloopError) as caught:
            objects.read(spark, "rows", TABLE.schema, groups, 3)
    assert type(caught.value) is kind, caught.value
    assert f"executors cannot read spark.folder '{folder}'" in caught.value.message
    assert "AWS Error" in caught.value.message
    assert hint in caught.value.hint
    assert left(folder) == []


@pytest.mark.slow
def test_rows_that_do_not_all_arrive_are_never_judged(folder: str) -> None:
    with (
        session(SparkConfig(master="local[1]", settings=SETTINGS)) as spark,
        spark_objects.object_handover(folder, "manifest") as objects,
    ):
        groups = objects.write("rows", TABLE.schema, TABLE.to_batches())
        with pytest.raises(StateError, match="gave 3 rows to Spark, 4 were written"):
            objects.read(spark, "rows", TABLE.schema, groups, 4)


@pytest.mark.slow
def test_what_a_killed_task_left_goes_a_day_later(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for what in ("manifest", "other"):
        spark_objects.ObjectFolder(folder, what).write("rows", TABLE.schema, TABLE.to_batches())
    with spark_objects.object_handover(folder, "manifest"):
        assert len(left(folder)) == 2
    monkeypatch.setattr(spark_objects, "KEPT_S", -3600.0)
    with spark_objects.object_handover(folder, "manifest"):
        (kept,) = left(folder)
        assert "/other-" in kept


def test_a_reference_to_a_secret_is_no_secret() -> None:
    settings = {"spark.kubernetes.executor.secretKeyRef.AWS_SECRET_ACCESS_KEY": "kfloop-s3:AWS_SECRET_ACCESS_KEY"}
    assert SparkConfig(settings=settings).settings == settings
    with pytest.raises(ValueError, match="credentials are no settings"):
        SparkConfig(settings={"spark.executorEnv.AWS_SECRET_ACCESS_KEY": "hush"})
