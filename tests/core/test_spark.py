"""The owner of a Spark session: what it is told, what it says when something is missing, and that nothing of it stays."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa
import pytest

from kfloop.components.monitor.log.layout import Layout
from kfloop.components.monitor.log.spark import open_reader
from kfloop.components.validate_data.engines.choosing import choose, evaluate
from kfloop.core.config import load_config, parse_section, section_json
from kfloop.core.sections import SparkConfig
from kfloop.core.spark import MASTER_ENV, handover, master_of, scratch_of, session
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = SparkConfig(master="local[1]", settings={"spark.driver.memory": "512m", "spark.sql.shuffle.partitions": "1"})
SUITE: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "x"}, "severity": "critical"},
    {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "x", "min_value": 0}, "severity": "critical"},
]
TABLE = pa.table({"x": [1, 2, 2]})


def javas() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "java" in child.name()]


def loop_file(root: Path, text: str) -> Path:
    path = root / "loop.yaml"
    path.write_text(f"name: x\n{text}", encoding="utf-8")
    return path


def test_the_section_reaches_the_steps_that_use_spark(tmp_path: Path) -> None:
    told = "spark: {master: 'local[2]', folder: shared, settings: {spark.driver.memory: 1g}}\n"
    config = load_config(loop_file(tmp_path, told + "validation: {engine: spark}\nmonitor: {engine: spark}\n"))
    for step in ("validate_data", "monitor"):
        section = parse_section(step, section_json(config, step))
        assert section.spark.master == "local[2]"
        assert section.spark.folder == str(tmp_path / "shared")
        assert section.spark.settings == {"spark.driver.memory": "1g"}
    assert choose("spark", 1, 10) == "spark"
    # The master of an engine that is not used changes no step, and so no cached result.
    plain, named = (load_config(loop_file(tmp_path, text)) for text in ("", told))
    for step in ("validate_data", "monitor"):
        assert section_json(plain, step) == section_json(named, step)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("{mastr: x}", "unknown key 'spark.mastr'"),
        ("{folder: 'http://host/x'}", "'http://host/x' is an address"),
        ("{settings: {executor.memory: 1g}}", "'executor.memory' is no property of Spark"),
        ("{settings: {spark.hadoop.fs.s3a.secret.key: hush-hush}}", "credentials are no settings"),
        ("{settings: {spark.hadoop.fs.s3a.access.key: hush-hush}}", "credentials are no settings"),
        ("{settings: {spark.authenticate.secret: hush-hush}}", "credentials are no settings"),
    ],
)
def test_what_the_section_refuses(tmp_path: Path, told: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(loop_file(tmp_path, f"spark: {told}\n"))
    assert message in caught.value.message
    assert "hush" not in str(caught.value.as_dict())


def test_a_folder_in_s3_is_for_validation_alone(tmp_path: Path) -> None:
    workspace = Workspace(loop="x", root=tmp_path, state="", store=str(tmp_path), mlflow="")
    assert scratch_of(SparkConfig(), workspace) == tmp_path / ".kfloop" / "spark"
    assert scratch_of(SparkConfig(folder="/shared/spark"), workspace) == Path("/shared/spark")
    config = load_config(loop_file(tmp_path, "spark: {folder: 's3://bucket/x'}\nmonitor: {engine: spark}\n"))
    assert scratch_of(config.monitor.spark, workspace) == "s3://bucket/x"
    with pytest.raises(ConfigError, match=r"spark.folder is 's3://bucket/x'") as caught:
        open_reader(config.monitor, workspace, 1, Layout(answer="p", answers=2, embedding=0), 0.0)
    assert "monitor.engine: pyarrow" in caught.value.hint


def test_which_master(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MASTER_ENV, raising=False)
    assert master_of(SparkConfig()) == "local[*]"
    monkeypatch.setenv(MASTER_ENV, "spark://there:7077")
    assert master_of(SparkConfig()) == "spark://there:7077"
    assert master_of(SparkConfig(master="local[3]")) == "local[3]"


def without_pyspark(patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setitem(sys.modules, "pyspark", None)


def without_java(patch: pytest.MonkeyPatch, empty: Path) -> None:
    patch.delenv("JAVA_HOME", raising=False)
    patch.setenv("PATH", str(empty))


def with_a_wrong_home(patch: pytest.MonkeyPatch, empty: Path) -> None:
    patch.setenv("JAVA_HOME", str(empty))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_pyspark, "needs pyspark"),
        (without_java, "there is no java on PATH"),
        (with_a_wrong_home, "holds no bin/java"),
    ],
)
def test_what_is_missing_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch, Path], None], message: str
) -> None:
    change(monkeypatch, tmp_path)
    with pytest.raises(ConfigError, match=message) as caught, session(SMALL):
        pass
    assert "kfloop[spark]" in caught.value.hint
    assert "Java 17" in caught.value.hint


@pytest.mark.parametrize(
    ("master", "message"),
    [("lokal[2]", "is no master that Spark knows"), ("spark://127.0.0.1", "names no port")],
)
def test_a_master_that_is_none(master: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message), session(SparkConfig(master=master)):
        pass


def test_a_master_that_does_not_answer_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    master = f"spark://127.0.0.1:{port}"
    with (
        pytest.raises(TransientError, match=f"no Spark master answers at '{master}'"),
        session(SparkConfig(master=master)),
    ):
        pass


def test_what_a_killed_task_left_is_deleted_a_day_later(tmp_path: Path) -> None:
    for name, age in (("rows-old", 90_000), ("rows-new", 60), ("mine", 90_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with handover(tmp_path, "rows") as place:
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["mine", "rows-new", place.name])
    assert not place.exists()


@pytest.mark.slow
def test_a_master_that_is_none_and_a_process_that_is_killed_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'local\[two\]' is no master that Spark knows"):
        evaluate(TABLE, SUITE, "spark", cluster=SparkConfig(master="local[two]"), folder=tmp_path)
    assert not javas()

    asked = threading.Event()

    def kill() -> None:
        while not asked.wait(0.01):
            if list(tmp_path.glob("manifest-*/rows.parquet")):
                for process in javas():
                    process.kill()
                return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(TransientError, match="ended in the middle"):
            evaluate(TABLE, SUITE * 20, "spark", cluster=SMALL, folder=tmp_path)
    finally:
        asked.set()
        killer.join()
    assert not javas()
    assert not list(tmp_path.iterdir())
    told = evaluate(TABLE, SUITE, "spark", cluster=SMALL, folder=tmp_path)
    assert [line["word"] for line in told] == ["fail", "pass"]
    assert not javas()


@pytest.mark.slow
def test_a_session_of_somebody_else_is_used_and_left_running(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with session(SMALL) as spark:
        spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
        told = evaluate(TABLE, SUITE, "spark", cluster=SparkConfig(master="spark://nowhere:1"), folder=tmp_path)
        assert [line["word"] for line in told] == ["fail", "pass"]
        with ThreadPoolExecutor(1) as threads:  # as the monitor reads ahead
            assert threads.submit(evaluate, TABLE, SUITE, "spark", folder=tmp_path).result() == told
        assert spark.range(3).count() == 3
        assert spark.conf.get("spark.sql.session.timeZone") == "Asia/Tokyo"
    assert not javas()
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
