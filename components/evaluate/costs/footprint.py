"""Memory that a packaged model takes, measured in a process of its own: ``python footprint.py '[["model.onnx", "inputs.npz"], ...]'``.

For each model a child is forked from a process that has imported onnxruntime and opened nothing yet, so that what is counted is the model
alone: the largest resident memory while it is loaded and answers once, less what was there before. Linux only: it reads ``/proc``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
MEBIBYTE = 1024  # of the kibibytes that the kernel counts in
SECONDS = 120.0


def footprints(pairs: list[tuple[Path, Path]]) -> list[float | None]:
    """Peak memory of loading each model and answering once, in MiB; null where it cannot be measured.

    Args:
        pairs: For each model its ONNX file, and an ``.npz`` with its inputs by name.
    """
    if not STATUS.is_file() or not pairs:
        return [None] * len(pairs)
    told = json.dumps([[str(model), str(inputs)] for model, inputs in pairs])
    try:
        # -P: the files beside this one are no modules of that process.
        done = subprocess.run(
            [sys.executable, "-P", __file__, told], capture_output=True, timeout=SECONDS, check=True, text=True
        )
        found = [None if item is None else float(item) for item in json.loads(done.stdout)]
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return [None] * len(pairs)
    return found if len(found) == len(pairs) else [None] * len(pairs)


def _measured(model: str, inputs: str) -> float:
    """The same of one model, in this process."""
    import numpy as np
    import onnxruntime

    with np.load(inputs, allow_pickle=False) as stored:
        feed = {name: stored[name] for name in stored.files}
    before = _kibibytes("VmRSS")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, feed)
    return max(0.0, _kibibytes("VmHWM") - before) / MEBIBYTE


def _kibibytes(name: str) -> float:
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(name + ":"))
    return float(line.split()[1])


def _in_child(model: str, inputs: str) -> float | None:
    """``_measured`` in a forked child, which leaves without cleaning up: none of this process's buffers are its to flush."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, str(_measured(model, inputs)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return float(said) if said else None


def main() -> None:
    """Write the memory of each model as a JSON list."""
    import numpy as np  # noqa: F401  # before the forks, so that it does not count
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    onnxruntime.disable_telemetry_events()
    sys.stdout.write(json.dumps([_in_child(model, inputs) for model, inputs in json.loads(sys.argv[1])]))


if __name__ == "__main__":
    main()
