"""The peers of ``benchmarks/serving.py``, in their own environment without kfloop: ``serving_peers.py KIND FOLDER ...``.

    fastapi FOLDER PORT        FastAPI in uvicorn, onnxruntime in the event loop, every answer logged to Parquet in the background
    mlflow FOLDER PORT         ``mlflow models serve`` of the onnx flavor, one worker
    session FOLDER             onnxruntime in this process; reads "CONCURRENCY SECONDS" from stdin, answers a line of JSON for each
    versions                   versions of the peers, as JSON

FOLDER holds ``model.onnx`` and ``model.json`` (``name``, ``dtype`` and ``shape`` of the input without its batch axis).
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import threading
import time
import uuid
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FLUSH_SECONDS = 1.0
LONGEST_LOG = 100_000  # rows in memory; kfloop's collector has a bound, too
OUTPUTS = ["probabilities", "embedding"]
PEERS = ("fastapi", "uvicorn", "uvloop", "httptools", "mlflow", "onnxruntime")


class Model:
    """The graph with one thread inside an operator, as in kfloop's server.

    Args:
        folder: See above.
    """

    def __init__(self, folder: Path) -> None:
        told = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.name, self.shape, self.dtype = told["name"], tuple(told["shape"]), np.dtype(told["dtype"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])

    def __call__(self, rows: Any) -> list[Any]:
        """Both outputs."""
        return self._session.run(OUTPUTS, {self.name: rows})


class RequestLog:
    """Rows to Parquet once a second, by a thread of its own; drops rows when it cannot keep up.

    Args:
        folder: Where the files go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._rows: deque[tuple[Any, ...]] = deque()
        self._dropped = 0
        threading.Thread(target=self._write_now_and_then, daemon=True).start()

    def add(self, *row: Any) -> None:
        """One row: id, time, latency, and the three tensors."""
        if len(self._rows) < LONGEST_LOG:
            self._rows.append(row)
        else:
            self._dropped += 1

    def _write_now_and_then(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        while True:
            time.sleep(FLUSH_SECONDS)
            rows = [self._rows.popleft() for _ in range(len(self._rows))]
            if not rows:
                continue
            identity, ts_ns, latency_us, *tensors = zip(*rows, strict=True)
            columns = {"request_id": pa.array(identity), "ts_ns": pa.array(ts_ns), "latency_us": pa.array(latency_us)}
            for name, parts in zip(("input", *OUTPUTS), tensors, strict=True):
                flat = np.concatenate([part.reshape(len(part), -1) for part in parts])
                columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
            name = self._folder / f"{time.time_ns()}.parquet"
            pq.write_table(pa.table(columns), name.with_suffix(".tmp"))
            name.with_suffix(".tmp").rename(name)


def serve_fastapi(folder: Path, port: int) -> None:
    """Raw bytes in and out."""
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request, Response

    model, log, app = Model(folder), RequestLog(folder / "fastapi-log"), FastAPI()
    size = int(np.prod(model.shape)) * model.dtype.itemsize

    async def infer(request: Request) -> Response:
        body = await request.body()
        if not body or len(body) % size:
            raise HTTPException(400, f"the body must hold rows of {size} bytes, got {len(body)} bytes")
        started = time.perf_counter()
        rows = np.frombuffer(body, model.dtype).reshape(-1, *model.shape)
        probabilities, embedding = model(rows)
        latency_us = int((time.perf_counter() - started) * 1e6)
        identity = request.headers.get("x-request-id") or uuid.uuid4().hex
        log.add(identity, time.time_ns(), latency_us, rows, probabilities, embedding)
        return Response(probabilities.tobytes(), media_type="application/octet-stream")

    infer.__annotations__ = {"request": Request, "return": Response}  # FastAPI reads them, and here they are text
    app.post("/infer", response_class=Response)(infer)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def serve_mlflow(folder: Path, port: int) -> None:
    """The command a user types."""
    import os

    import mlflow.onnx
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    place = folder / "mlflow"
    if not place.exists():
        told = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        given = TensorSpec(np.dtype(told["dtype"]), (-1, *told["shape"]), told["name"])  # JSON has no uint8
        mlflow.onnx.save_model(
            onnx.load(folder / "model.onnx"), str(place), signature=ModelSignature(inputs=Schema([given]))
        )
    command = ["-m", "mlflow", "models", "serve", "-m", str(place), "-p", str(port), "-w", "1", "--env-manager"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts uvicorn by name
    os.execv(sys.executable, [sys.executable, *command, "local"])  # noqa: S606 - the benchmark ends this process


def run_session(folder: Path) -> None:
    """The graph alone, as many threads as there would be clients."""
    model = Model(folder)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1, *model.shape)).astype(model.dtype)
    if model.dtype == np.uint8:
        rows = rng.integers(0, 256, (1, *model.shape), dtype=np.uint8)
    for line in sys.stdin:
        concurrency, seconds = line.split()
        end = time.perf_counter() + float(seconds)
        parts: list[list[float]] = [[] for _ in range(int(concurrency))]

        def client(taken: list[float], end: float = end) -> None:
            before = time.perf_counter()
            while before < end:
                model(rows)
                after = time.perf_counter()
                taken.append(after - before)
                before = after

        threads = [threading.Thread(target=client, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        every = np.concatenate(parts)
        p50, p99 = (np.percentile(every, (50, 99)) * 1e3).tolist()
        told = {"requests": len(every), "seconds": float(seconds), "p50_ms": p50, "p99_ms": p99, "errors": 0}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "versions":
        print(json.dumps({name: importlib.metadata.version(name) for name in PEERS}))
    elif kind == "session":
        run_session(Path(rest[0]))
    else:
        {"fastapi": serve_fastapi, "mlflow": serve_mlflow}[kind](Path(rest[0]), int(rest[1]))
