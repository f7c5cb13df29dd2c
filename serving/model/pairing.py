"""Champion and challenger on the same request: both are asked, timed and compared, and the record goes to the collector.

In a canary both are asked before the answer goes out, because a challenger that fails is replaced by the champion at once. In a
shadow the challenger is asked afterwards in a thread of its own; what does not fit into its queue is dropped and counted.
"""

import json
import os
import queue
import random
import threading
import time

import numpy as np
from sending import Sender

QUEUE = 64  # requests that wait for the challenger of a shadow
ROWS = 256  # most rows of one request that are compared
HALF = 0.5  # probability from which on a label of several is told
TINY = 1e-12


class Pairing:
    """One champion and one challenger.

    Args:
        champion: The version that answers.
        challenger: The version that may come after it.
    """

    def __init__(self, champion, challenger):
        self.champion, self.challenger = champion, challenger
        self._objective, _ = _told(champion.folder)
        self._labels = [_told(version.folder)[1] for version in (champion, challenger)]

    def ask(self, arrays, others):
        """Both answers to one request, in random order, so that neither always finds the caches warm.

        Args:
            arrays: Its tensors for the champion.
            others: Its tensors for the challenger; null where it cannot encode the raw row, which is a failure.

        Returns:
            For champion and challenger: the outputs or the error, whether it failed, and how long it took in microseconds.
        """
        found = [None, None]
        for place in random.sample((0, 1), 2):
            version = (self.champion, self.challenger)[place]
            started = time.perf_counter()
            answer = _attempt(version, (arrays, others)[place])
            found[place] = answer, _failed(answer), int((time.perf_counter() - started) * 1e6)
        return found

    def record(self, identity, found):
        """The evidence of one request, small enough for one packet."""
        (first, first_failed, first_us), (second, second_failed, second_us) = found
        both = not first_failed and not second_failed
        told = [
            self._answers(answer[0][:ROWS], labels) if not failed else []
            for answer, failed, labels in (
                (first, first_failed, self._labels[0]),
                (second, second_failed, self._labels[1]),
            )
        ]
        return {
            "request_id": identity,
            "ts_ns": time.time_ns(),
            "champion_version": self.champion.number,
            "challenger_version": self.challenger.number,
            "champion_error": first_failed,
            "challenger_error": second_failed,
            "champion_us": first_us,
            "challenger_us": second_us,
            "rows": len((first if not first_failed else second)[0]) if not (first_failed and second_failed) else 0,
            "difference": self._differences(first[0][:ROWS], second[0][:ROWS], told) if both else [],
            "champion_answer": told[0],
            "challenger_answer": told[1],
        }

    def _answers(self, values, labels):
        """Each row's answer in words, for people's labels to be compared with; empty where it is a whole array."""
        if self._objective == "classification":
            return [labels[int(row.argmax(-1))] if row.ndim == 1 else "" for row in values]
        if self._objective == "multilabel":
            return [json.dumps([label for label, p in zip(labels, row, strict=False) if p >= HALF]) for row in values]
        return [repr(float(row.reshape(-1)[0])) if row.size == 1 else "" for row in np.asarray(values)]

    def _differences(self, first, second, told):
        """Of classes 0 for the same answer and 1 for another; else the largest difference as a share of the larger magnitude."""
        if self._objective in ("classification", "multilabel") and all(all(words) for words in told):
            return [float(a != b) for a, b in zip(*told, strict=False)]
        if np.shape(first) != np.shape(second):
            return [1.0] * len(first)
        flat = [np.asarray(values, np.float64).reshape(len(values), -1) for values in (first, second)]
        scale = np.maximum(np.abs(flat[0]).max(axis=1), np.abs(flat[1]).max(axis=1)) + TINY
        return (np.abs(flat[0] - flat[1]).max(axis=1) / scale).tolist()


class Evidence:
    """Sends records to the collector and never waits for it; asks the challenger of a shadow in the background.

    Args:
        model: Name of the model.
    """

    def __init__(self, model):
        self._model = model
        self._link = Sender()
        self._sending = threading.Lock()
        self._queue = queue.Queue(QUEUE)
        self._thread = None

    def send(self, salt, record):
        """One record; dropped and counted when the collector does not keep up."""
        if not self._link.address:
            return
        told = {"ids": [record["request_id"]], "names": [], "shapes": [], "dtypes": []}
        with self._sending:
            self._link.send({"model": self._model, "rollout": salt, "record": record} | told, [], 1)

    def shadow(self, salt, pairing, identity, inputs, answer, took_us):
        """Ask the challenger what the champion has answered; the caller does not wait.

        Args:
            salt: The roll-out.
            pairing: Champion and challenger.
            identity: Id of the request.
            inputs: Its tensors for champion and challenger; copied, because Triton takes them back with the answer.
            answer: What the champion answered.
            took_us: How long that took; used where asking the champion again would cost its price.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._ask, name="kfloop-shadow", daemon=True)
            self._thread.start()
        if self._queue.full():
            self._link.dropped += 1
            return
        arrays, others = inputs
        mine = [array.copy() for array in arrays]
        theirs = mine if others is arrays else others  # an encoding of its own is the challenger's already
        self._queue.put((salt, pairing, identity, mine, theirs, answer, took_us))

    def _ask(self):
        while True:
            salt, pairing, identity, arrays, others, answer, took_us = self._queue.get()
            if pairing.champion.external:
                started = time.perf_counter()
                second = _attempt(pairing.challenger, others)
                late = int((time.perf_counter() - started) * 1e6)
                found = [(answer, _failed(answer), took_us), (second, _failed(second), late)]
            else:  # both again, one after the other: a time inside a batch is no time to compare with
                found = pairing.ask(arrays, others)
                found[0] = (answer, _failed(answer), found[0][2])
            self.send(salt, pairing.record(identity, found))


def _attempt(version, arrays):
    """Outputs, or the error: whatever goes wrong in a challenger is no reason to fail a request."""
    try:
        problem = version.problem(arrays)
        return ValueError(problem) if problem else version.answers([arrays])[0]
    except Exception as error:  # noqa: BLE001
        return error


def _failed(answer):
    """Whether there is no answer, or one that is no number."""
    if isinstance(answer, Exception):
        return True
    return not all(np.isfinite(array).all() for array in answer if array.dtype.kind == "f")


def _told(folder):
    """Objective and labels of a version."""
    with open(os.path.join(folder, "signature.json"), encoding="utf-8") as stream:
        signature = json.load(stream)
    return signature["objective"], signature["labels"]
