"""One version: its files checked by digest, its session (or the endpoint that it stands for), and answers to requests."""

import hashlib
import itertools
import json
import os
import sys

import numpy as np
import onnxruntime
from cores import Cores
from onnxruntime.capi import onnxruntime_pybind11_state as failures
from raw import Judge, encoded, raw_form

DIGESTS = "files.json"
ON_INPUTS = (failures.Fail, failures.InvalidArgument, failures.RuntimeException)


class Refused(Exception):
    """The request cannot be answered; its words are for the caller."""


class Unavailable(Exception):
    """The endpoint behind an external model gave no answer."""


class Version:
    """One version folder, opened.

    Args:
        folder: The version's folder.
        threads: Threads inside one operator.
    """

    def __init__(self, folder, threads):
        check_digests(folder)
        with open(os.path.join(folder, "signature.json"), encoding="utf-8") as stream:
            signature = json.load(stream)
        self.folder = folder
        self.number = int(os.path.basename(folder))
        self.external = os.path.exists(os.path.join(folder, "external.json"))
        self._raw = raw_form(folder, signature)
        # A graph's nodes have no batch axis: their classes are told by the probabilities alone.
        classes = signature["objective"] == "classification" and signature["max_batch_size"]
        self.judge = Judge(folder, signature["labels"]) if classes else None
        if self.external:
            self._session, self._on_inputs, self._on_endpoint = _endpoint(folder)
        else:
            self._session, self._on_inputs, self._on_endpoint = _graph(folder, threads), ON_INPUTS, ()
        self.ports = signature["inputs"]
        self.inputs = [port["name"] for port in self.ports]
        # Compared as objects: the name of an array's dtype takes longer than the rest of the check.
        self._dtypes = [np.dtype(port["dtype"]) for port in self.ports]
        self._sizes = [tuple(port["shape"]) for port in self.ports]
        self._fixed = all(-1 not in sizes for sizes in self._sizes)
        self.outputs = [port["name"] for port in signature["outputs"]]
        self._cores = Cores(threads)
        self._shapes = [[max(size, 1) for size in port["shape"]] for port in signature["outputs"]]
        self.limit = int(signature["max_batch_size"])
        # Rows of several requests make one call where all rows have one shape.
        self._stacks = self.limit > 0 and self._fixed

    def take(self, named):
        """Tensors of a request in the order of ``inputs``, and what is wrong with them.

        Args:
            named: Arrays of the request by name: the tensors, or a raw row's columns where the version has such a form.
        """
        if self._raw and not all(name in named for name in self.inputs):
            if not any(name in named for name in self.inputs):
                return encoded(self._raw, named, self.limit)
        elif len(named) > len(self.inputs):
            extra = sorted(set(named) - set(self.inputs))
            return None, f"a raw row and a tensor came together ({', '.join(extra)}): send one of the two forms"
        arrays = [named.get(name) for name in self.inputs]
        return arrays, self.problem(arrays)

    def is_raw(self, named):
        """Whether a request came in the raw form."""
        return self._raw is not None and not any(name in named for name in self.inputs)

    def extras(self, wanted, found):
        """Label, confidence and review flag by name, those that the request asks for."""
        return self.judge.extras(wanted, found[0]) if self.judge else {}

    def flags(self, found):
        """Which rows a person should look at, bool [N], for the log; null where the version has no thresholds."""
        return self.judge.flags(found[0]) if self.judge else None

    def zeros(self, arrays):
        """Outputs of the right shapes that nobody computed."""
        return [np.zeros([len(arrays[0]), *shape], np.float32) for shape in self._shapes]

    def answers(self, requests):
        """Outputs of each request (arrays in the order of ``inputs``), or the ``Refused`` or ``Unavailable`` that is its answer."""
        return self.together(requests)[0]

    def together(self, requests):
        """The same, and what was computed in one call: inputs and outputs of all rows; null where each request had a call of its own."""
        if len(requests) > 1 and self._stacks:
            inputs = [np.concatenate(arrays) for arrays in zip(*requests, strict=True)]
            found = self._run(inputs)
            if not isinstance(found, Exception):
                ends = list(itertools.accumulate([len(arrays[0]) for arrays in requests]))
                # Plain slices: np.split takes four times as long.
                parts = [[output[start:end] for output in found] for start, end in zip([0, *ends], ends, strict=False)]
                return parts, [*inputs, *found]
        return [self._run(arrays) for arrays in requests], None  # one that fails must not fail the others

    def problem(self, arrays):
        """What is wrong with the inputs; Triton's own check can be passed by with an absurd batch size."""
        for place, array in enumerate(arrays):
            if array is None or array.dtype != self._dtypes[place] or not self._fits(place, array.shape):
                return self._misfit(self.ports[place], array)
        counts = [len(array) for array in arrays]
        if self.limit and (len(set(counts)) > 1 or not 1 <= counts[0] <= self.limit):
            return f"each input must hold the same 1 to {self.limit} rows, got {counts}"
        return ""

    def _fits(self, place, shape):
        """Whether an input has the shape of its port."""
        sizes = self._sizes[place]
        if self.limit:
            if not shape:
                return False
            shape = shape[1:]
        if -1 not in sizes:
            return shape == sizes
        return len(shape) == len(sizes) and all(want in (-1, size) for want, size in zip(sizes, shape, strict=True))

    def _misfit(self, port, array):
        """What is wrong with an input, in words."""
        if array is None:
            return f"{port['name']} is missing"
        wanted = ", ".join(map(str, [*(["n"] if self.limit else []), *port["shape"]]))
        return f"{port['name']} must be {port['dtype']} of shape [{wanted}], got {array.dtype} {list(array.shape)}"

    def _run(self, arrays):
        try:
            if self.limit and not self.external:
                return self._cores.run(self._compute, arrays)
            return self._compute(arrays)
        except self._on_inputs as error:
            return Refused(f"the model cannot compute these values: {str(error).splitlines()[0]}")
        except self._on_endpoint as error:
            return Unavailable(f"the external model gave no answer: {error}")

    def _compute(self, arrays):
        return self._session.run(self.outputs, dict(zip(self.inputs, arrays, strict=True)))


def check_digests(folder):
    """Refuse files that are not those that were put here: a version that a disk or a person changed is never loaded."""
    with open(os.path.join(folder, DIGESTS), encoding="utf-8") as stream:
        told = json.load(stream)
    for name, digest in told.items():
        with open(os.path.join(folder, name), "rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                raise ValueError(f"{name} of this version was changed after it was packaged; it is not loaded")


def _graph(folder, threads):
    """A session of onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"])


def _endpoint(folder):
    """What asks the endpoint of an external model, and its errors: of rows, and of the endpoint."""
    sys.path.insert(0, folder)  # the version's own copy
    from external.answers import BadAnswer
    from external.calling import CallFailed
    from external.remote import Remote
    from external.rows import BadRows

    return Remote(folder), (BadRows,), (BadAnswer, CallFailed)
