"""Serves one packaged ONNX model in Triton's python backend, and logs every answer without making it wait.

Runs in the server's own environment: NumPy and onnxruntime are all there is, kfloop is not. Each request is logged as one packet to
the collector's socket; when that is full the rows are dropped and counted, the answer never waits.
"""

import json
import os
import select
import socket
import struct
import threading
import time
import uuid

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

LOG_SOCKET = "KFLOOP_LOG_SOCKET"
PACKET_BYTES = 120_000


class RequestLog:
    """Sends log rows to the collector; drops and counts them when it does not keep up."""

    def __init__(self, model, version):
        self._address = os.environ.get(LOG_SOCKET)
        self._head = {"model": model, "version": int(version)}
        self._dropped = 0
        self._socket = None

    def add(self, request_id, image, probabilities, embedding, latency_us):
        """Log the rows of one request."""
        if not self._address:
            return
        identity = request_id or uuid.uuid4().hex
        row_bytes = image[:1].nbytes + probabilities[:1].nbytes + embedding[:1].nbytes
        step = max(1, PACKET_BYTES // max(1, row_bytes))
        for start in range(0, len(image), step):
            part = slice(start, min(start + step, len(image)))
            self._send(identity, len(image), part, (image[part], probabilities[part], embedding[part]), latency_us)

    def _send(self, identity, total, part, arrays, latency_us):
        numbers = range(part.start, part.stop)
        head = dict(
            self._head,
            ids=[identity if total == 1 else f"{identity}#{number}" for number in numbers],
            ts_ns=time.time_ns(),
            latency_us=latency_us,
            dropped=self._dropped,
            shapes=[list(array.shape) for array in arrays],
        )
        text = json.dumps(head).encode()
        body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        try:
            self._connected().send(struct.pack("<I", len(text)) + text + body)
        except BlockingIOError:  # the collector is behind: the answer matters more
            self._dropped += len(head["ids"])
        except OSError:  # nobody listens; the next request tries to connect again
            self._socket = None
            self._dropped += len(head["ids"])

    def _connected(self):
        # Sequenced packets and not datagrams: those are limited to ten packets in flight on an ordinary kernel.
        if self._socket is None:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            link.setblocking(False)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * PACKET_BYTES)
            link.connect(self._address)
            self._socket = link
        return self._socket


class TritonPythonModel:
    """One version of one model."""

    def initialize(self, args):
        """Load ``model.onnx`` beside this file."""
        config = json.loads(args["model_config"])
        folder = os.path.join(args["model_repository"], args["model_version"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(config["parameters"]["intra_op_threads"]["string_value"])
        self._session = onnxruntime.InferenceSession(
            os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._dims = [int(size) for size in config["input"][0]["dims"]]
        self._limit = int(config["max_batch_size"])
        self._log = RequestLog(config["name"], args["model_version"])
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()

    def execute(self, requests):
        """Answer a dynamic batch: one run of the session for all requests that are valid."""
        started = time.perf_counter()
        inputs, problems = [], []
        for request in requests:
            image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            problem = self._problem(image)
            problems.append(problem)
            inputs.append(None if problem else image)
        valid = [image for image in inputs if image is not None]
        outputs = self._session.run(["probabilities", "embedding"], {"image": np.concatenate(valid)}) if valid else None
        latency_us = int((time.perf_counter() - started) * 1e6)
        responses, start = [], 0
        for request, image, problem in zip(requests, inputs, problems, strict=True):
            if problem:
                error = pb_utils.TritonError(problem, pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            probabilities, embedding = (output[start : start + len(image)] for output in outputs)
            start += len(image)
            self._log.add(request.request_id(), image, probabilities, embedding, latency_us)
            tensors = [pb_utils.Tensor("probabilities", probabilities), pb_utils.Tensor("embedding", embedding)]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses

    def _problem(self, image):
        """What is wrong with an input; Triton's own check can be passed by with an absurd batch size."""
        if list(image.shape[1:]) != self._dims or image.dtype != np.uint8:
            return f"image must be uint8 of shape [n, {', '.join(map(str, self._dims))}], got {image.dtype} {list(image.shape)}"
        if not 1 <= len(image) <= self._limit:
            return f"image must hold 1 to {self._limit} rows, got {len(image)}"
        return ""


def _end_with_parent(pid):
    """End this process when the server is gone: a killed server leaves its backends behind."""
    poller = select.poll()
    poller.register(os.pidfd_open(pid), select.POLLIN)
    poller.poll()
    os._exit(0)
