"""A real MLflow server for tests: its database on PostgreSQL, its artifacts in S3, handed through by the server."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from seaweed import free_ports


@contextmanager
def mlflow_server(folder: Path, database: str, artifacts: str, environment: Mapping[str, str]) -> Iterator[str]:
    """URL of a running server.

    Args:
        folder: Its working folder.
        database: URL of an empty database.
        artifacts: A folder, or ``s3://...``.
        environment: Address and credentials of S3; empty for a folder.
    """
    if artifacts.startswith("s3:") and importlib.util.find_spec("boto3") is None:
        pytest.skip('MLflow reads S3 through boto3 (pip install "aiobotocore[boto3]")')
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database.replace("postgresql:", "postgresql+psycopg:")]
    command += ["--artifacts-destination", artifacts]
    given = os.environ | dict(environment) | {"MLFLOW_S3_ENDPOINT_URL": environment.get("AWS_ENDPOINT_URL", "")}
    given |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "mlflow.txt").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=given, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                said = (folder / "mlflow.txt").read_text()[-2000:]
                assert server.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        # Its workers are children of its own.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
