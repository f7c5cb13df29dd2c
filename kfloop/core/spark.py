"""A Spark session with one owner: started for one task, quiet, and gone afterwards with its Java process.

Whoever has a session already (a notebook, an executor image's own driver) keeps it: it is used under settings of our own and left running.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import ConfigError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

    from kfloop.core.sections import SparkConfig
    from kfloop.core.workspace import Workspace

MASTER_ENV = "KFLOOP_SPARK_MASTER"
LOCAL = "local[*]"
MASTER_WAIT_S = 5.0
ENDING_WAIT_S = 20.0
DYING_WAIT_S = 1.0
KEPT_S = 86_400.0
SAID_LINES = 5
INSTALL = "pip install 'kfloop[spark]'; it needs Java 17 or later (JAVA_HOME, or java on PATH)"

# Settings of the whole process; what spark.settings says goes over them.
_QUIET = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.app.name": "kfloop",
    "spark.eventLog.enabled": "false",
    "spark.python.sql.dataFrameDebugging.enabled": "false",
}
_LOCAL = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
# What the meaning of our own queries rests on, in whatever session they run.
_MEANING = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "true",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
    "spark.sql.parquet.mergeSchema": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.files.ignoreCorruptFiles": "false",
}


def master_of(config: SparkConfig) -> str:
    """The master that the loop file names, or else the environment (``KFLOOP_SPARK_MASTER``), or else all cores of this machine."""
    return config.master or os.environ.get(MASTER_ENV) or LOCAL


def require() -> None:
    """Raise unless pyspark and Java are there.

    Raises:
        ConfigError: One of them is missing; the hint says what to install.
    """
    try:
        import pyspark  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ConfigError(f"engine 'spark' needs pyspark: {error}", hint=INSTALL) from error
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if java is None:
        where = f"JAVA_HOME '{home}' holds no bin/java" if home else "there is no java on PATH"
        raise ConfigError(f"engine 'spark' needs Java: {where}", hint=INSTALL)


def scratch_of(config: SparkConfig, workspace: Workspace) -> Path | str:
    """Where rows go to Spark and come from it: a folder, or as a text an address ``s3://...``."""
    if config.folder is None:
        return workspace.kfloop_dir / "spark"
    return config.folder if "://" in config.folder else Path(config.folder)


@contextlib.contextmanager
def handover(folder: Path, what: str) -> Iterator[Path]:
    """A folder of one task, through which rows go to Spark or come from it; deleted after the body.

    What a task that was killed left behind more than a day ago is deleted as well.

    Args:
        folder: Where it is made; the executors must see it, and run as the same user.
        what: Beginning of its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{what}-*"):
        with contextlib.suppress(FileNotFoundError):  # another task was faster
            if left.stat().st_mtime < time.time() - KEPT_S:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{what}-") as place:
        yield Path(place)


@contextlib.contextmanager
def session(config: SparkConfig) -> Iterator[SparkSession]:
    """A session for the body; errors of Spark inside it come out as kfloop's own.

    Args:
        config: Section ``spark``.

    Raises:
        ConfigError: pyspark or Java is missing, or the master is none that Spark knows.
        TransientError: The master does not answer, or Spark's process is gone.
        TerminalError: Spark refused or failed.
    """
    require()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # pyspark about pandas, which is not used here
        from pyspark.sql import SparkSession

    # A session is active in one thread only, and a process has room for one: whoever started it in another thread has it, too.
    current = SparkSession.getActiveSession() or SparkSession._instantiatedSession  # noqa: SLF001
    if current is not None:
        yield _ours(current.newSession())
        return
    with _started(config) as fresh:
        yield _ours(fresh)


def _ours(spark: SparkSession) -> SparkSession:
    for name, value in _MEANING.items():
        spark.conf.set(name, value)
    return spark


@contextlib.contextmanager
def _started(config: SparkConfig) -> Iterator[SparkSession]:
    """A session with a Java process of its own; both end with the body."""
    from py4j.protocol import Py4JError, Py4JNetworkError  # type: ignore[import-untyped]
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    master = master_of(config)
    _answers(master)
    local = re.match(r"local($|\[)", master) is not None
    told = _QUIET | (_LOCAL if local else {}) | dict(config.settings)
    settings = SparkConf(loadDefaults=False).setMaster(master).setAll(list(told.items()))
    with tempfile.TemporaryFile() as log:
        gateway = context = spark = None
        try:
            gateway = launch_gateway(settings, {"stdout": log, "stderr": log})
            context = SparkContext(conf=settings, gateway=gateway)
            if local:  # workers beside this process are of its own Python, whatever is first on PATH
                context.pythonExec = os.environ.get("PYSPARK_PYTHON", sys.executable)
            spark = SparkSession(context)
            yield spark
        except (Py4JError, PySparkException, ConnectionError, EOFError) as error:
            gone = isinstance(error, Py4JNetworkError | ConnectionError | EOFError) or _ended(gateway)
            raise _told(error, master, log, started=spark is not None, gone=gone) from error
        finally:
            _end(gateway, context, spark)


def _answers(master: str) -> None:
    """Look whether the master is one, and a standalone one is there: Spark itself would try for minutes."""
    if re.match(r"(local($|\[)|spark://|k8s://|yarn$)", master) is None:
        raise _no_master(master)
    found = re.fullmatch(r"spark://(.+)", master)
    if found is None:
        return
    problems = []
    for place in found[1].split(","):
        host, _, port = place.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=MASTER_WAIT_S).close()
        except ValueError as error:
            raise ConfigError(f"spark.master '{master}' names no port", hint="write spark://HOST:7077") from error
        except OSError as error:
            problems.append(f"{place}: {error}")
        else:
            return
    raise TransientError(
        f"no Spark master answers at '{master}': {'; '.join(problems)}",
        hint=f"start it, or name another one in spark.master or {MASTER_ENV}",
    )


def said(error: Exception) -> str:
    """What an error of Spark says, without the traces of its Java."""
    told = [line.strip(" :") for line in str(error).splitlines() if line.strip(" :")] or [type(error).__name__]
    return next((line for line in told if not line.startswith("An error occurred while calling")), told[0])


def _no_master(master: str) -> ConfigError:
    return ConfigError(
        f"spark.master '{master}' is no master that Spark knows",
        hint="local[*], local[N], spark://HOST:PORT, k8s://https://HOST:PORT or yarn",
    )


def _told(error: Exception, master: str, log: Any, *, started: bool, gone: bool) -> Exception:
    """The error in kfloop's words, with what Spark's process said last."""
    log.seek(0)
    whole = log.read().decode(errors="replace") + str(error)
    traces = ("\tat ", "Exception in thread", "Using ", "WARNING: Using")
    lines = [line for line in whole.splitlines() if line.strip() and not line.startswith(traces)]
    last = " | ".join(lines[-SAID_LINES:])
    message = said(error)
    if gone and started:
        return TransientError(
            f"Spark's process ended in the middle: {message}",
            hint=f"run it again; if it was killed for memory, give it less or more with spark.settings. It said: {last or 'nothing'}",
        )
    if "Could not parse Master URL" in whole:
        return _no_master(master)
    start = "Spark failed" if started else f"Spark did not start on '{master}'"
    return TerminalError(f"{start}: {message}", hint=f"it said: {last or 'nothing'}")


def _ended(gateway: Any) -> bool:
    """Whether the Java process is gone; one that was just killed takes a moment."""
    if gateway is None or gateway.proc is None:
        return False
    try:
        gateway.proc.wait(DYING_WAIT_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(gateway: Any, context: Any, spark: Any) -> None:
    """Stop the session and its Java process; nothing of a dead one is left for the next."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    for ending in (spark, context):
        if ending is not None:
            with contextlib.suppress(Exception):  # the process may be gone: there is nothing to stop then
                ending.stop()
    if gateway is None:
        return
    with contextlib.suppress(Exception):
        gateway.shutdown()
    if gateway.proc is not None:
        gateway.proc.stdin.close()
        try:
            gateway.proc.wait(ENDING_WAIT_S)
        except subprocess.TimeoutExpired:
            gateway.proc.kill()
            gateway.proc.wait()
    SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001 - pyspark keeps a dead gateway for the life of the process otherwise
    SparkContext._active_spark_context = None  # noqa: SLF001
    SparkSession._instantiatedSession = None  # noqa: SLF001
