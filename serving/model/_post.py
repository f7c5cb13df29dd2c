"""Last step of a production ensemble (copied as ``model.py``): passes the answer on with label, confidence and review flag, and logs it.

All outputs of the ensemble come out of this step: Triton leaves steps out whose outputs nobody asks for, and a request must be logged whatever
it asks for. How long a request took is not known here: Triton's own metrics tell that, the log says 0.
"""

import json
import os
import sys

import triton_python_backend_utils as pb_utils

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from raw import Judge
from request_log import RequestLog


class TritonPythonModel:
    """Labels and logs answers."""

    def initialize(self, args):
        """Open the signature and the thresholds beside this file."""
        folder = os.path.join(args["model_repository"], args["model_version"])
        with open(os.path.join(folder, "signature.json"), encoding="utf-8") as stream:
            signature = json.load(stream)
        self._inputs = [port["name"] for port in signature["inputs"]]
        self._outputs = [port["name"] for port in signature["outputs"]]
        classes = signature["objective"] == "classification"
        self._judge = Judge(folder, signature["labels"]) if classes else None
        name = json.loads(args["model_config"])["parameters"]["ensemble"]["string_value"]
        self._log = RequestLog(name, args["model_version"], self._inputs, self._outputs)

    def execute(self, requests):
        """Pass on, tell, log."""
        responses = []
        for request in requests:
            named = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            inputs = [named[f"input.{name}"] for name in self._inputs]
            found = {name: named[f"output.{name}"] for name in self._outputs}
            flags = None
            if self._judge:
                answer = found[self._outputs[0]]
                flags = self._judge.flags(answer)
                told = self._judge.extras(request.requested_output_names(), answer)
            else:
                told = {}
            self._log.add(request.request_id(), [*inputs, *found.values()], 0, review=flags)
            tensors = [pb_utils.Tensor(name, array) for name, array in (found | told).items()]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses
