"""Serves one packaged model in Triton's python backend, or passes requests on to the endpoint of an external one, and logs every answer
without making it wait.

Runs in the server's own environment: NumPy and onnxruntime are all there is, kfloop is not. Requests of models without a batch
axis (graphs) are not logged: they have no rows.
"""

import json
import os
import select
import sys
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.insert(
    0, os.path.dirname(os.path.abspath(__file__))
)  # the other files of this version; it has a process of its own
from pairing import Evidence
from request_log import RequestLog
from routing import CANARY, SHADOW, STABLE, Router
from version import Unavailable, Version

ALIVE_ID = "kfloop-alive"  # as in kfloop.core.external: answered with zeros, and nobody is asked (or paid)
SERVED_VERSION = "served_version"


class TritonPythonModel:
    """One version of one model; by ``served.json`` its process may answer with another one."""

    def initialize(self, args):
        """Open the version beside this file, and those that the policy names."""
        config = json.loads(args["model_config"])
        threads = int(config["parameters"]["intra_op_threads"]["string_value"])
        self._version = Version(os.path.join(args["model_repository"], args["model_version"]), threads)
        self._router = Router(self._version, lambda folder: Version(folder, threads))
        self._log = RequestLog(config["name"], args["model_version"], self._version.inputs, self._version.outputs)
        self._evidence = Evidence(config["name"])
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()

    def execute(self, requests):
        """Answer a dynamic batch: one run of the session for all valid requests of one version, one each for those of a canary.

        A stable request of the same batch waits for the canary's: a slow challenger is noticed by its own times and withdrawn.
        """
        started = time.perf_counter()
        policy = self._router.policy  # one look: the batch is answered by one policy
        calls = [_Call(request, policy, *self._router.choose(policy, request)) for request in requests]
        groups = {}
        for call in calls:
            if call.found is None and call.route != CANARY:
                groups.setdefault(call.version.number, []).append(call)
        batches = []
        for group in groups.values():
            answers, batch = group[0].version.together([call.arrays for call in group])
            for call, found in zip(group, answers, strict=True):
                call.found = found
            if batch and all(call.route == group[0].route for call in group):
                batches.append((group, batch))
        for call in calls:
            if call.found is None:
                self._canary(policy, call)
        latency_us = int((time.perf_counter() - started) * 1e6)
        for group, batch in batches:
            self._keep(group, batch, latency_us)
        return [self._response(policy, call, latency_us) for call in calls]

    def _canary(self, policy, call):
        """Ask both; the challenger's answer goes out, unless it failed."""
        pairing = policy.pairing
        found = pairing.ask(call.arrays, call.others)
        (answer, _, _), (other, failed, _) = found
        call.found = answer if failed else other
        if not failed:
            call.version, call.arrays = pairing.challenger, call.others
        self._evidence.send(policy.salt, pairing.record(call.identity, found))

    def _keep(self, group, batch, latency_us):
        """Log requests that were answered in one call as one: a small model answers sooner than a row is logged alone."""
        version = group[0].version
        ids, counts = [call.identity for call in group], [len(call.arrays[0]) for call in group]
        flags = version.flags(batch[len(version.inputs) :])
        self._log.add_batch(ids, counts, batch, latency_us, version.number, group[0].route, flags)
        for call in group:
            call.logged = True

    def _response(self, policy, call, latency_us):
        found, version = call.found, call.version
        if call.route == SHADOW and not call.problem:
            self._evidence.shadow(
                policy.salt, policy.pairing, call.identity, (call.arrays, call.others), found, latency_us
            )
        if isinstance(found, str | Exception):
            return pb_utils.InferenceResponse(error=_error(found))
        if version.limit and not call.idle and not call.logged:
            flags = version.flags(found)
            self._log.add(call.identity, [*call.arrays, *found], latency_us, version.number, call.route, review=flags)
        wanted = call.request.requested_output_names()  # a tensor that nobody asked for costs as much as one that was
        named = {name: array for name, array in zip(version.outputs, found, strict=True) if name in wanted}
        if version.judge:
            named |= version.extras(wanted, found)
        if SERVED_VERSION in wanted:
            rows = (len(call.arrays[0]), 1) if version.limit else (1,)
            named[SERVED_VERSION] = np.full(rows, version.number, np.int64)
        return pb_utils.InferenceResponse(
            output_tensors=[pb_utils.Tensor(name, array) for name, array in named.items()]
        )


class _Call:
    """One request on its way: who answers it on which route, its inputs, and what was found.

    ``others`` are the tensors for the challenger: its own encoding of a raw row, else the same tensors.
    """

    __slots__ = ("arrays", "found", "identity", "idle", "logged", "others", "problem", "request", "route", "version")

    def __init__(self, request, policy, version, route, identity):
        self.request, self.version, self.route, self.identity = request, version, route, identity
        named = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        self.arrays, self.problem = version.take(named)
        self.others = self.arrays
        if route != STABLE and not self.problem and not policy.alike:
            # Tensors that were encoded for the champion mean something else to a challenger with another encoder.
            self.others, problem = policy.pairing.challenger.take(named) if version.is_raw(named) else (None, "")
            if self.others is None and not problem:
                self.route = STABLE
        if self.problem:
            self.route = STABLE  # a bad request tells nothing about anybody
        self.logged = False
        self.idle = version.external and identity == ALIVE_ID
        self.found = self.problem or (version.zeros(self.arrays) if self.idle else None)


def _error(found):
    kind = pb_utils.TritonError.UNAVAILABLE if isinstance(found, Unavailable) else pb_utils.TritonError.INVALID_ARG
    return pb_utils.TritonError(str(found), kind)


def _end_with_parent(pid):
    """End this process when the server is gone: a killed server leaves its backends behind."""
    poller = select.poll()
    poller.register(os.pidfd_open(pid), select.POLLIN)
    poller.poll()
    os._exit(0)
