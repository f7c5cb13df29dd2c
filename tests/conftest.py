"""What holds for every test: few threads, no telemetry, and no process left behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postgres import Postgres

pytest_plugins = ["kfloop.testing.plugin"]
CHILDREN_WAIT_S = 10.0
# These helpers of multiprocessing and joblib live as long as the interpreter by design.
TRACKERS = ("multiprocessing.resource_tracker", "loky.backend.resource_tracker")


def pytest_configure() -> None:
    """Set the environment before anything heavy is imported; subprocesses inherit it."""
    # Tests beside each other (make test) get a core each.
    os.environ["OMP_NUM_THREADS"] = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
    from kfloop.core.execution import TELEMETRY_OFF

    os.environ.update(TELEMETRY_OFF)


def _is_ours(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and not any(name in command for name in TRACKERS)
    except psutil.NoSuchProcess:
        return False


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())[:200]}"
    except psutil.NoSuchProcess:
        return f"{process.pid}: (gone)"


@pytest.fixture(scope="session", autouse=True)
def no_process_left_behind() -> Iterator[None]:
    """Fail the session when a child of the test process is still alive at its end."""
    yield
    children = [child for child in psutil.Process().children(recursive=True) if _is_ours(child)]
    _, alive = psutil.wait_procs(children, timeout=CHILDREN_WAIT_S)
    left = [_describe(child) for child in alive if _is_ours(child)]
    if left:
        pytest.fail("the tests left processes behind:\n" + "\n".join(left))


@pytest.fixture(scope="session")
def mlflow_db(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow database for all tests that give their loops names of their own: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all tests, each with a database of its own; skipped where it is not installed."""
    from postgres import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One S3 server for all tests, each with a bucket of its own; skipped where it is not installed."""
    from seaweed import s3_server

    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its endpoint, with address and credentials in the environment of this test only."""
    from seaweed import KEYS

    for name, value in (KEYS | {"AWS_ENDPOINT_URL": s3_endpoint}).items():
        monkeypatch.setenv(name, value)
    return s3_endpoint
