"""Blessing: the packaged model on a private, real Triton: does it load, answer rightly, refuse nonsense, and how fast
is it?

A model that fails is a report with ``passed: false``, which the gate rejects. Only a missing server is an error.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.bless.oddities import far_requests, odd_requests, refused, survived
from kfloop.components.bless.timing import Timing, time_requests
from kfloop.core.artifacts import read_report, write_report
from kfloop.core.scoring import GOLDEN
from kfloop.core.signature import read_signature
from kfloop.errors import ServerUnavailable, ServingError, StateError
from kfloop.serving.control import Control, GoldenResult, read_golden
from kfloop.serving.repository import add_version, set_versions
from kfloop.serving.server import start_server

if TYPE_CHECKING:
    import numpy as np

    from kfloop.core.sections import BlessConfig
    from kfloop.core.signature import Signature
    from kfloop.core.workspace import Workspace
    from kfloop.serving.server import Server

MODEL = "candidate"
VERSION = 1
PROTOCOLS = ("http", "grpc")
LOG_LINES = 30
FAILURE_LINES = 12
LINE_LENGTH = 400
TOLD_ALWAYS = ("I", "|", "+")  # lines of the log that tell no trouble: information, and tables
MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class BlessingReport:
    """What the trial showed; a number is None when the trial did not get that far.

    Attributes:
        model_digest: The package.
        dataset_digest: Dataset version of the run.
        passed: Whether nothing failed.
        triton_version: Version of tritonserver.
        load_seconds: From the load request to readiness.
        golden: Number, largest difference (absolute for probabilities, else in units of the output's largest magnitude), tolerance,
            whether passed, and the difference by protocol.
        latency_ms: p50, p95, p99, number of requests and clients, over the first protocol that was timed; ``protocols`` has these figures and
            the requests per second of each.
        throughput_rps: Requests per second during the timing over that protocol.
        memory_mb: Resident memory of server and backend, in MiB.
        odd_requests: Answer to each odd request: ``refused``, ``survived`` (numbers out of range) or what was wrong.
        log_tail: Last lines of the server's log.
        failures: What failed, in sentences.
        failure_logs: What the server wrote into its log while that failed, by failure; only those of which it wrote something.
    """

    model_digest: str
    dataset_digest: str
    passed: bool
    triton_version: str | None
    load_seconds: float | None
    golden: dict[str, Any] | None
    latency_ms: dict[str, Any] | None
    throughput_rps: float | None
    memory_mb: float | None
    odd_requests: dict[str, str]
    log_tail: tuple[str, ...]
    failures: tuple[str, ...]
    failure_logs: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Trial:
    """Findings as they come in.

    Attributes:
        log: The server's log.
        read: How many of its bytes belong to what was tried before.
    """

    log: Path
    read: int = 0
    failures: list[str] = field(default_factory=list)
    failure_logs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    triton_version: str | None = None
    load_seconds: float | None = None
    golden: dict[str, GoldenResult] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)
    memory_mb: float | None = None
    odd: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        """What the server writes from here on belongs to what is tried now."""
        self.read = self.log.stat().st_size if self.log.is_file() else 0

    def fail(self, sentence: str) -> None:
        """Note a failure with what the server wrote about it."""
        self.failures.append(sentence)
        if not self.log.is_file():
            return
        with self.log.open("rb") as stream:
            stream.seek(self.read)
            lines = stream.read().decode("utf-8", "replace").splitlines()
        said = [line[:LINE_LENGTH] for line in lines if line.strip() and not line.startswith(TOLD_ALWAYS)]
        if said:
            self.failure_logs[sentence] = tuple(said[-FAILURE_LINES:])


def run(config: BlessConfig, *, dataset: Path, model: Path, out: Path, workspace: Workspace) -> BlessingReport:
    """Try the package on a private server.

    Args:
        config: Section ``bless``.
        dataset: Dataset version; only its digest is recorded.
        model: The package.
        out: Scratch folder of this step.
        workspace: Places of the loop (the trial touches none of them).

    Raises:
        NoEmbeddedServer: No server can be started on this machine.
        ServingError: The server itself did not come up.
    """
    del workspace
    with tempfile.TemporaryDirectory(prefix="kfloop-bless-") as folder:
        trial = _Trial(log=Path(folder) / "triton.log")
        repository = Path(folder) / "repository"
        with start_server(repository, trial.log, timeout=config.timeout_seconds) as server:
            try:
                _try(trial, config, server, repository, model)
            except (ServingError, ServerUnavailable, StateError, OSError, KeyError, ValueError) as error:
                trial.fail(f"{type(error).__name__}: {error}")
            tail = tuple(server.log_tail(LOG_LINES))
    report = _report(trial, config, model, dataset, tail)
    write_report(out, report)
    return report


def _try(trial: _Trial, config: BlessConfig, server: Server, repository: Path, package: Path) -> None:
    """The trial; a failure that makes the rest pointless is raised, the others are collected."""
    control = Control(server.endpoint, timeout=config.timeout_seconds)
    trial.triton_version = control.server_version()
    add_version(repository, MODEL, VERSION, package)
    set_versions(repository, MODEL, [VERSION], VERSION)
    trial.begin()
    started = time.perf_counter()
    control.load(MODEL)
    control.wait_ready(MODEL, VERSION, config.timeout_seconds)
    trial.load_seconds = time.perf_counter() - started
    _check_golden(trial, config, control, package, "")
    if trial.failures:
        return
    signature = read_signature(package)
    for requests, check, good in ((odd_requests, refused, "refused"), (far_requests, survived, "survived")):
        for name, body in requests(signature).items():
            trial.begin()
            trial.odd[name] = check(server.endpoint, MODEL, body, config.timeout_seconds) or good
            if trial.odd[name] != good:
                trial.fail(f"request with {name}: {trial.odd[name]}")
    _check_golden(trial, config, control, package, " after odd requests")
    inputs = read_golden(package / GOLDEN)[0]
    for protocol in PROTOCOLS if config.protocol == "both" else (config.protocol,):
        trial.begin()
        trial.timings[protocol] = _timed(config, server, signature, inputs, protocol)
    trial.memory_mb = _memory(server)
    _check_limits(trial, config)


def _check_limits(trial: _Trial, config: BlessConfig) -> None:
    """Slow answers, and more memory than there may be."""
    for protocol, timing in trial.timings.items():
        if config.latency_ms_p95 is not None and timing.p95 > config.latency_ms_p95:
            trial.fail(
                f"answers over {protocol} are slow: 95 % within {timing.p95:.3g} ms, "
                f"bless.latency_ms_p95 allows {config.latency_ms_p95:g} ms"
            )
    if config.memory_mb is not None and trial.memory_mb is not None and trial.memory_mb > config.memory_mb:
        trial.fail(
            f"server and backend take {trial.memory_mb:.0f} MiB of memory, bless.memory_mb allows {config.memory_mb:g}"
        )


def _check_golden(trial: _Trial, config: BlessConfig, control: Control, package: Path, when: str) -> None:
    for protocol in PROTOCOLS:
        trial.begin()
        result = control.golden(MODEL, VERSION, package / GOLDEN, tolerance=config.tolerance, protocol=protocol)
        before = trial.golden.get(protocol)
        trial.golden[protocol] = max(before or result, result, key=lambda found: found.max_abs_diff)
        if not result.passed:
            trial.fail(
                f"golden answers over {protocol}{when} differ by {result.max_abs_diff:g}, allowed are {result.tolerance:g}"
            )


def _timed(
    config: BlessConfig, server: Server, signature: Signature, inputs: dict[str, np.ndarray], protocol: str
) -> Timing:
    from tritonclient.utils import InferenceServerException

    try:
        return time_requests(
            server.endpoint,
            MODEL,
            signature,
            inputs,
            requests=config.requests,
            concurrency=config.concurrency,
            timeout=config.timeout_seconds,
            protocol=protocol,
        )
    except InferenceServerException as error:
        message = f"a timed request over {protocol} failed: {error.message()}"
        raise ServingError(message) from error


def _memory(server: Server) -> float | None:
    """Resident memory of this server and its backend processes, in MiB; found by the repository on its command line."""
    import psutil

    total = 0
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            command = process.cmdline()
            if f"--model-repository={server.endpoint.repository}" in command:
                total += process.memory_info().rss
                total += sum(child.memory_info().rss for child in process.children(recursive=True))
        except psutil.NoSuchProcess:
            continue
    return total / MEBIBYTE if total else None


def _dataset_digest(dataset: Path) -> str:
    """Digest in the dataset's card; empty when there is no card."""
    card = dataset / "card.json"
    return str(json.loads(card.read_text(encoding="utf-8")).get("digest", "")) if card.is_file() else ""


def _report(trial: _Trial, config: BlessConfig, model: Path, dataset: Path, tail: tuple[str, ...]) -> BlessingReport:
    golden = None
    if trial.golden:
        results = list(trial.golden.values())
        golden = {
            "n": results[0].n,
            "max_abs_diff": max(result.max_abs_diff for result in results),
            "tolerance": config.tolerance,
            "passed": len(results) > 1 and all(result.passed for result in results),
            "protocols": {protocol: result.max_abs_diff for protocol, result in trial.golden.items()},
        }
    timing = next(iter(trial.timings.values()), None)
    latency: dict[str, Any] | None = None
    if timing:
        names = ("p50", "p95", "p99", "n", "concurrency")
        latency = {name: getattr(timing, name) for name in names}
        latency["protocols"] = {
            protocol: {name: getattr(found, name) for name in (*names, "throughput_rps")}
            for protocol, found in trial.timings.items()
        }
    return BlessingReport(
        model_digest=str(read_report(model).get("digest") or model.name),
        dataset_digest=_dataset_digest(dataset),
        passed=not trial.failures and bool(golden and golden["passed"]) and timing is not None,
        triton_version=trial.triton_version,
        load_seconds=trial.load_seconds,
        golden=golden,
        latency_ms=latency,
        throughput_rps=timing.throughput_rps if timing else None,
        memory_mb=trial.memory_mb,
        odd_requests=trial.odd,
        log_tail=tail,
        failures=tuple(trial.failures),
        failure_logs=trial.failure_logs,
    )
