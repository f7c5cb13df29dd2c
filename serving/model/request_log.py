"""Sends what was answered to the collector's socket, many rows in a packet; dropped and counted when the collector does not keep up.

Rows wait for others for a tenth of a second at most: a packet for each request would cost more than the request of a small model. A process
that is killed takes these rows with it.
"""

import hashlib
import itertools
import json
import os
import sys
import threading
import time
import uuid

import numpy as np
from masking import Mask
from sending import PACKET_BYTES, Sender

SETTINGS = "settings.json"  # beside the socket, written by the collector
MOST_ROWS = 256  # that wait
FLUSH_SECONDS = 0.1
IMAGES = ["image", "probabilities", "embedding"]  # the tensors of image classifiers, logged under their own names
REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class RequestLog:
    """Sends log rows to the collector; drops and counts them when it does not keep up.

    Args:
        model: Name of the model.
        version: Version of this process.
        inputs: Names of the input tensors.
        outputs: Names of the outputs.
    """

    def __init__(self, model, version, inputs, outputs):
        self._link = Sender()
        self._model, self._version = model, int(version)
        self._inputs, self._outputs = list(inputs), list(outputs)
        self._settings, self._stamp, self._said = None, None, False
        self._share, self._masks = 1.0, {}
        self._lock = threading.Lock()
        self._waiting, self._rows, self._bytes = {}, 0, 0
        self._flusher = None
        self._numbers = itertools.count()
        self._sender = uuid.uuid4().hex
        if self._link.address:
            self._know()

    def add(self, request_id, arrays, latency_us, version=None, route="stable", review=None):
        """Log the rows of one request.

        Args:
            request_id: Its id; a fresh one when empty.
            arrays: Its inputs and outputs, in the order of the signature, each with the axis of rows in front.
            latency_us: Time that the answer took, in microseconds.
            version: Version that answered; that of this process when null.
            route: ``stable``, ``canary`` or ``shadow``.
            review: Whether a person should look at the row, bool [N], where the model tells.
        """
        if self._link.address:
            # The inputs lie in memory that Triton takes back with the answer; the outputs are ours.
            count = len(self._inputs)
            kept = [*map(np.array, arrays[:count]), *arrays[count:]]
            self.add_batch([request_id], [len(kept[0])], kept, latency_us, version, route, review)

    def add_batch(self, request_ids, counts, arrays, latency_us, version=None, route="stable", review=None):
        """Log the rows of requests that were answered together; the same for each of them but id and number of rows.

        Args:
            request_ids: Their ids; a fresh one for each that is empty.
            counts: Rows of each.
            arrays: Inputs and outputs of all their rows, which nobody changes any more.
            latency_us: As in ``add``.
            version: As in ``add``.
            route: As in ``add``.
            review: Whether a person should look at the row, bool [N], where the model tells.
        """
        if not self._link.address:
            return
        if self._settings is None:
            with self._lock:
                if not self._know():
                    self._link.dropped += sum(counts)
                    return
        identities = [identity or self._fresh() for identity in request_ids]
        if self._share < 1.0:
            chosen = [self._chosen(identity) for identity in identities]
            rows = np.repeat(chosen, counts)
            arrays, review = [array[rows] for array in arrays], None if review is None else review[rows]
            identities, counts = (list(itertools.compress(values, chosen)) for values in (identities, counts))
        total = len(arrays[0])
        if not total:
            return
        if total > len(counts):
            identities = [name for pair in zip(identities, counts, strict=True) for name in _row_names(*pair)]
        version = self._version if version is None else int(version)
        key = (version, route, review is None, *[array.shape[1:] for array in arrays])
        flags = None if review is None else np.asarray(review).astype(bool).reshape(-1)
        with self._lock:
            group = self._waiting.setdefault(key, [])
            group.append((identities, arrays, flags, time.time_ns(), latency_us))
            self._rows += total
            self._bytes += sum([array.nbytes for array in arrays])
            if self._rows >= MOST_ROWS or self._bytes >= PACKET_BYTES:
                self._flush()
            elif self._flusher is None:
                self._flusher = threading.Thread(target=self._flush_now_and_then, name="kfloop-log", daemon=True)
                self._flusher.start()

    def _fresh(self):
        """An id for a request without one; a random number for each would cost more than the rest of this."""
        return f"{self._sender}{next(self._numbers):08x}"

    def flush(self):
        """Send what waits."""
        with self._lock:
            self._flush()

    def _flush_now_and_then(self):
        while True:
            time.sleep(FLUSH_SECONDS)
            self.flush()

    def _flush(self):
        waiting, self._waiting, self._rows, self._bytes = self._waiting, {}, 0, 0
        # In this order: a collector that begins anew writes what it wants before it listens.
        ready = bool(waiting) and self._link.reach() and self._know()
        for (version, route, *_), group in waiting.items():
            ids = [identity for names, *_ in group for identity in names]
            if not ready:
                self._link.dropped += len(ids)
                continue
            try:
                self._send_all(version, route, ids, group)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the log, requests are answered
                self._link.dropped += len(ids)
                sys.stderr.write(f"request log: {len(ids)} rows are not written: {error}\n")

    def _send_all(self, version, route, ids, group):
        """Packets of the rows of one shape."""
        arrays = group[0][1]
        if len(group) > 1:
            arrays = [np.concatenate(parts) for parts in zip(*(kept for _, kept, *_ in group), strict=True)]
        named = self._mask(version).apply(arrays)
        if self._inputs + self._outputs == IMAGES:
            named = {name if name.startswith("hash.") else name.partition(".")[2]: kept for name, kept in named.items()}
        columns = {
            "ids": ids,
            "ts_ns": [at for names, _, _, at, _ in group for _ in names],
            "latency_us": [took for names, _, _, _, took in group for _ in names],
        }
        if group[0][2] is not None:
            columns["review"] = np.concatenate([flags for _, _, flags, *_ in group]).tolist()
        head = {"model": self._model, "version": version, "route": route, "sender": self._sender}
        row_bytes = sum(array[:1].nbytes for array in named.values())
        step = max(1, PACKET_BYTES // max(1, row_bytes))
        for start in range(0, len(ids), step):
            part = slice(start, start + step)
            told = {name: values[part] for name, values in columns.items()}
            self._send(head | told, {name: array[part] for name, array in named.items()})

    def _know(self):
        """Read what the collector wants written, where that is new; whether it is known: else nothing may be written."""
        path = os.path.join(os.path.dirname(self._link.address), SETTINGS)
        try:
            found = os.stat(path)
            stamp = (found.st_ino, found.st_mtime_ns)
            if stamp != self._stamp:
                with open(path, encoding="utf-8") as stream:
                    self._settings = json.load(stream)
                self._share, self._masks = float(self._settings.get("sample", 1.0)), {}
                self._stamp, self._said = stamp, False
        except (OSError, ValueError) as error:
            self._settings = self._stamp = None
            if not self._said:
                sys.stderr.write(f"request log: nothing is logged until its collector runs: {error}\n")
            self._said = True
        return self._settings is not None

    def _chosen(self, identity):
        """By a hash of the id: the same request sent again, and another process, come to the same."""
        if self._share >= 1.0:
            return True
        digest = hashlib.blake2b(identity.encode(), digest_size=8, person=b"kfloop-log").digest()
        return int.from_bytes(digest, "little") < self._share * 2.0**64

    def _mask(self, version):
        """What may be written of a version's requests: a column may be in another slot of another version."""
        if version not in self._masks:
            mask = Mask(os.path.join(REPOSITORY, str(version)), self._inputs, self._outputs, self._settings)
            if mask.unknown:
                names = ", ".join(mask.unknown)
                sys.stderr.write(f"serve.log: version {version} has no {names}: none of its inputs are logged\n")
            self._masks[version] = mask
        return self._masks[version]

    def _send(self, head, named):
        arrays = [np.ascontiguousarray(array) for array in named.values()]
        head |= {
            "names": list(named),
            "shapes": [list(array.shape) for array in arrays],
            "dtypes": [str(array.dtype) for array in arrays],
        }
        self._link.send(head, arrays, len(head["ids"]))


def _row_names(identity, count):
    """Ids of the rows of one request."""
    return [identity] if count == 1 else [f"{identity}#{number}" for number in range(count)]
