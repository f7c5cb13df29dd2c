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
LOG_LINES = 30
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
        latency_ms: p50, p95, p99, number of requests and clients.
        throughput_rps: Requests per second during the timing.
        memory_mb: Resident memory of server and backend, in MiB.
        odd_requests: Answer to each odd request: ``refused``, ``survived`` (numbers out of range) or what was wrong.
        log_tail: Last lines of the server's log.
        failures: What failed, in sentences.
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


@dataclass(kw_only=True)
class _Trial:
    """Findings as they come in."""

    failures: list[str] = field(default_factory=list)
    triton_version: str | None = None
    load_seconds: float | None = None
    golden: dict[str, GoldenResult] = field(default_factory=dict)
    timing: Timing | None = None
    memory_mb: float | None = None
    odd: dict[str, str] = field(default_factory=dict)


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
    trial = _Trial()
    with tempfile.TemporaryDirectory(prefix="kfloop-bless-") as folder:
        repository = Path(folder) / "repository"
        with start_server(repository, Path(folder) / "triton.log", timeout=config.timeout_seconds) as server:
            try:
                _try(trial, config, server, repository, model)
            except (ServingError, ServerUnavailable, StateError, OSError, KeyError, ValueError) as error:
                trial.failures.append(f"{type(error).__name__}: {error}")
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
            trial.odd[name] = check(server.endpoint, MODEL, body, config.timeout_seconds) or good
            if trial.odd[name] != good:
                trial.failures.append(f"request with {name}: {trial.odd[name]}")
    _check_golden(trial, config, control, package, " after odd requests")
    trial.timing = _timed(config, server, signature, read_golden(package / GOLDEN)[0])
    trial.memory_mb = _memory(server)


def _check_golden(trial: _Trial, config: BlessConfig, control: Control, package: Path, when: str) -> None:
    for protocol in ("http", "grpc"):
        result = control.golden(MODEL, VERSION, package / GOLDEN, tolerance=config.tolerance, protocol=protocol)
        before = trial.golden.get(protocol)
        trial.golden[protocol] = max(before or result, result, key=lambda found: found.max_abs_diff)
        if not result.passed:
            trial.failures.append(
                f"golden answers over {protocol}{when} differ by {result.max_abs_diff:g}, allowed are {result.tolerance:g}"
            )


def _timed(config: BlessConfig, server: Server, signature: Signature, inputs: dict[str, np.ndarray]) -> Timing:
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
        )
    except InferenceServerException as error:
        message = f"a timed request failed: {error.message()}"
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
    timing = trial.timing
    latency = None
    if timing:
        latency = {name: getattr(timing, name) for name in ("p50", "p95", "p99", "n", "concurrency")}
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
    )
