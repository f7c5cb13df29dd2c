"""Large batches in parts, side by side on the cores of this machine.

One process with one set of weights keeps all cores busy only where a batch is worth dividing: handing a part to another thread costs about as
much as a small model's whole batch. How long a row takes is learned from the calls themselves.
"""

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

PART_SECONDS = 0.0002  # least work of a part: several times what handing it over costs
MEMORY = 0.2  # weight of the newest call in what a row takes


class Cores:
    """Runs batches in as many parts as pay.

    Args:
        threads: Threads that a call uses by itself.
    """

    def __init__(self, threads):
        self._most = max(1, len(os.sched_getaffinity(0)) // max(1, threads))
        self._row_seconds = 0.0
        self._pool = None

    def run(self, compute, arrays):
        """Outputs of all rows.

        Args:
            compute: Inputs in, outputs out; may be called from several threads.
            arrays: Inputs, each with the axis of rows in front.
        """
        rows = len(arrays[0])
        parts = min(self._most, rows, int(rows * self._row_seconds / PART_SECONDS))
        if parts < 2:  # noqa: PLR2004 - one part is the whole
            return self._timed(compute, arrays)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._most - 1, thread_name_prefix="kfloop-cores")
        edges = [rows * part // parts for part in range(parts + 1)]
        cut = [[array[start:end] for array in arrays] for start, end in itertools.pairwise(edges)]
        others = [self._pool.submit(compute, part) for part in cut[1:]]
        try:
            found = [self._timed(compute, cut[0])]
        finally:
            wait(others)  # nobody goes on while a part is still being computed
        found += [other.result() for other in others]
        return [np.concatenate(outputs) for outputs in zip(*found, strict=True)]

    def _timed(self, compute, arrays):
        started = time.perf_counter()
        found = compute(arrays)
        row_seconds = (time.perf_counter() - started) / len(arrays[0])
        self._row_seconds += MEMORY * (row_seconds - self._row_seconds)
        return found
