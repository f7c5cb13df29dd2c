"""Serves one packaged ONNX model in Triton's python backend, and logs every answer without making it wait.

Runs in the server's own environment: NumPy and onnxruntime are all there is, kfloop is not. Each request is logged as one packet to
the collector's socket; when that is full the rows are dropped and counted, the answer never waits. Requests of models without a batch
axis (graphs) are not logged: they have no rows.
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
from onnxruntime.capi import onnxruntime_pybind11_state as failures

LOG_SOCKET = "KFLOOP_LOG_SOCKET"
PACKET_BYTES = 120_000
IMAGES = ["image", "probabilities", "embedding"]  # the tensors of image classifiers, logged under their own names
ON_INPUTS = (failures.Fail, failures.InvalidArgument, failures.RuntimeException)


class RequestLog:
    """Sends log rows to the collector; drops and counts them when it does not keep up."""

    def __init__(self, model, version, inputs, outputs):
        self._address = os.environ.get(LOG_SOCKET)
        names = inputs + outputs
        if names != IMAGES:
            names = [f"input.{name}" for name in inputs] + [f"output.{name}" for name in outputs]
        self._head = {"model": model, "version": int(version), "names": names}
        self._dropped = 0
        self._socket = None

    def add(self, request_id, arrays, latency_us):
        """Log the rows of one request: its inputs and outputs, in the order of the signature."""
        if not self._address:
            return
        identity = request_id or uuid.uuid4().hex
        total = len(arrays[0])
        row_bytes = sum(array[:1].nbytes for array in arrays)
        step = max(1, PACKET_BYTES // max(1, row_bytes))
        for start in range(0, total, step):
            part = slice(start, min(start + step, total))
            self._send(identity, total, part, [array[part] for array in arrays], latency_us)

    def _send(self, identity, total, part, arrays, latency_us):
        numbers = range(part.start, part.stop)
        head = dict(
            self._head,
            ids=[identity if total == 1 else f"{identity}#{number}" for number in numbers],
            ts_ns=time.time_ns(),
            latency_us=latency_us,
            dropped=self._dropped,
            shapes=[list(array.shape) for array in arrays],
            dtypes=[str(array.dtype) for array in arrays],
        )
        text = json.dumps(head).encode()
        body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        try:
            self._connected().send(struct.pack("<I", len(text)) + text + body)
        except BlockingIOError:  # the collector is behind: the answer matters more
            self._dropped += len(head["ids"])
        except OSError:  # nobody listens, or a row is too long for a packet; the next request tries to connect again
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
        """Load ``model.onnx`` and ``signature.json`` beside this file."""
        config = json.loads(args["model_config"])
        folder = os.path.join(args["model_repository"], args["model_version"])
        with open(os.path.join(folder, "signature.json"), encoding="utf-8") as stream:
            signature = json.load(stream)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(config["parameters"]["intra_op_threads"]["string_value"])
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._ports = signature["inputs"]
        self._outputs = [port["name"] for port in signature["outputs"]]
        self._limit = int(signature["max_batch_size"])
        # Rows of several requests make one call where all rows have one shape.
        self._stacks = self._limit > 0 and all(-1 not in port["shape"] for port in self._ports)
        names = [port["name"] for port in self._ports]
        self._log = RequestLog(config["name"], args["model_version"], names, self._outputs)
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()

    def execute(self, requests):
        """Answer a dynamic batch: one run of the session for all requests that are valid."""
        started = time.perf_counter()
        inputs = [[_array(request, port["name"]) for port in self._ports] for request in requests]
        problems = [self._problem(arrays) for arrays in inputs]
        valid = [number for number, problem in enumerate(problems) if not problem]
        outputs = dict(zip(valid, self._answers([inputs[number] for number in valid]), strict=True))
        latency_us = int((time.perf_counter() - started) * 1e6)
        responses = []
        for number, (request, arrays, problem) in enumerate(zip(requests, inputs, problems, strict=True)):
            found = outputs.get(number)
            if problem or isinstance(found, str):
                error = pb_utils.TritonError(problem or found, pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            if self._limit:
                self._log.add(request.request_id(), [*arrays, *found], latency_us)
            tensors = [pb_utils.Tensor(name, array) for name, array in zip(self._outputs, found, strict=True)]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses

    def _answers(self, requests):
        """Outputs of each request, or what the model does not accept in it."""
        if len(requests) > 1 and self._stacks:
            found = self._run([np.concatenate(arrays) for arrays in zip(*requests, strict=True)])
            if not isinstance(found, str):
                cuts = np.cumsum([len(arrays[0]) for arrays in requests])[:-1]
                return list(zip(*(np.split(output, cuts) for output in found), strict=True))
        return [self._run(arrays) for arrays in requests]  # one that fails must not fail the others

    def _run(self, arrays):
        feed = {port["name"]: array for port, array in zip(self._ports, arrays, strict=True)}
        try:
            return self._session.run(self._outputs, feed)
        except ON_INPUTS as error:
            return f"the model cannot compute these values: {str(error).splitlines()[0]}"

    def _problem(self, arrays):
        """What is wrong with the inputs; Triton's own check can be passed by with an absurd batch size."""
        batch = ["n"] if self._limit else []
        for port, array in zip(self._ports, arrays, strict=True):
            wanted = [*batch, *port["shape"]]
            if array is None:
                return f"{port['name']} is missing"
            fits = len(wanted) == array.ndim and all(
                want in ("n", -1, size) for want, size in zip(wanted, array.shape, strict=True)
            )
            if not fits or str(array.dtype) != port["dtype"]:
                return (
                    f"{port['name']} must be {port['dtype']} of shape [{', '.join(map(str, wanted))}], "
                    f"got {array.dtype} {list(array.shape)}"
                )
        counts = [len(array) for array in arrays]
        if self._limit and (len(set(counts)) > 1 or not 1 <= counts[0] <= self._limit):
            return f"each input must hold the same 1 to {self._limit} rows, got {counts}"
        return ""


def _array(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _end_with_parent(pid):
    """End this process when the server is gone: a killed server leaves its backends behind."""
    poller = select.poll()
    poller.register(os.pidfd_open(pid), select.POLLIN)
    poller.poll()
    os._exit(0)
