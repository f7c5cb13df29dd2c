"""First step of a production ensemble (copied as ``model.py``): raw rows in, the model's tensors out; tensors that come are passed on."""

import json
import os
import sys

import triton_python_backend_utils as pb_utils

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from raw import encoded, raw_form


class TritonPythonModel:
    """Encodes texts, or rows of columns."""

    def initialize(self, args):
        """Open the encoder beside this file."""
        folder = os.path.join(args["model_repository"], args["model_version"])
        with open(os.path.join(folder, "signature.json"), encoding="utf-8") as stream:
            signature = json.load(stream)
        self._form = raw_form(folder, signature)
        self._limit = signature["max_batch_size"]
        self._outputs = [port["name"] for port in signature["inputs"]]

    def execute(self, requests):
        """Encode each request; one that cannot be encoded fails alone, with the column's name."""
        responses = []
        for request in requests:
            named = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            arrays, problem = self._take(named)
            if problem:
                error = pb_utils.TritonError(problem, pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            tensors = [pb_utils.Tensor(name, array) for name, array in zip(self._outputs, arrays, strict=True)]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses

    def _take(self, named):
        """The model's tensors of a request in either form, and what is wrong with it."""
        given = [name for name in self._outputs if name in named]
        if not given:
            return encoded(self._form, named, self._limit)
        if len(given) < len(self._outputs) or len(named) > len(given):
            wanted, found = ", ".join(self._outputs), ", ".join(sorted(named))
            return None, f"send a raw row, or the tensors {wanted} and nothing else; this request has {found}"
        return [named[name] for name in given], ""
