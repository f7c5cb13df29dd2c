"""The graph of a production ensemble for servers without the onnxruntime backend (copied as ``model.py``): NumPy and onnxruntime are all it needs."""

import json
import os
import sys

import triton_python_backend_utils as pb_utils

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from version import Version


class TritonPythonModel:
    """Tensors in, tensors out; it logs nothing, the last step of the ensemble does."""

    def initialize(self, args):
        """Open the version beside this file; a file that was changed is refused."""
        config = json.loads(args["model_config"])
        threads = int(config["parameters"]["intra_op_threads"]["string_value"])
        self._version = Version(os.path.join(args["model_repository"], args["model_version"]), threads)

    def execute(self, requests):
        """Answer a dynamic batch with one run of the session where the shapes allow it."""
        calls = [self._version.take({tensor.name(): tensor.as_numpy() for tensor in one.inputs()}) for one in requests]
        good = [arrays for arrays, problem in calls if not problem]
        found = iter(self._version.answers(good) if good else ())
        return [self._response(problem or next(found)) for _, problem in calls]

    def _response(self, found):
        if isinstance(found, str | Exception):
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(found), pb_utils.TritonError.INVALID_ARG))
        named = zip(self._version.outputs, found, strict=True)
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(name, array) for name, array in named])
