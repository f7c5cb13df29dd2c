"""A whole run to report on: real digits as a dataset version, and the reports that its steps would leave."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kfloop.core.artifacts import write_report

LABELS = [str(digit) for digit in range(10)]
DIGEST = "0123456789abcdef0123456789abcdef"


def _estimate(value: float, half: float, n: int = 360) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "n": n, "level": 0.95}


UNKNOWN = {"value": None, "low": None, "high": None, "n": 0, "level": 0.95}


def write_digits(folder: Path) -> dict[str, list[str]]:
    """Write 900 of scikit-learn's digits as a dataset version; gives the ids of each split."""
    from sklearn.datasets import load_digits

    from kfloop.core.versions import Rows, read_version, write_version

    digits = load_digits()
    images = (digits.images[:900, :, :, None] * 15).astype(np.uint8)
    rows = Rows(
        ids=[f"digit-{row:04d}" for row in range(900)],
        images=images,
        labels=np.asarray(digits.target[:900], dtype=np.int64),
        origin=["fresh" if row % 5 == 0 else "base" for row in range(900)],
    )
    set_aside = [{"id": "x1", "reason": "duplicate of digit-0003"}] * 3 + [
        {"id": "x2", "reason": "label '11' is unknown"}
    ]
    source = {"kind": "npz", "uri": "data/digits.npz", "digest": "feed" * 8}
    write_version(folder, name="digits", rows=rows, labels=LABELS, validation=0.2, test=0.2)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    card |= {"sources": [source], "lineage": {"git_revision": "abc1234", "kfloop": "0.1.0"}}
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    (folder / "quarantine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in set_aside), encoding="utf-8")
    version = read_version(folder)
    return {name: [str(identity) for identity in version.split(name).ids] for name in ("train", "test")}


def _model(digest: str | None, accuracy: float, loss: float, half: float) -> dict[str, Any]:
    slices = {
        f"class:{name}": {"accuracy": _estimate(accuracy - 0.01 * int(name) / 3, 4 * half, 18)} for name in LABELS
    }
    slices |= {"origin:base": {"accuracy": _estimate(accuracy + 0.01, half, 144)}}
    slices |= {"origin:fresh": {"accuracy": _estimate(accuracy - 0.04, 3 * half, 36)}}
    return {
        "digest": digest,
        "overall": {
            "accuracy": _estimate(accuracy, half),
            "macro_f1": _estimate(accuracy - 0.004, half),
            "log_loss": _estimate(loss, 0.05),
            "ece": _estimate(0.02 + loss / 10, 0.01),
        },
        "slices": slices,
    }


def _against(scale: float) -> dict[str, Any]:
    names = [*(f"class:{name}" for name in LABELS), "origin:base", "origin:fresh"]
    return {
        "overall": {
            "accuracy": _estimate(0.02 * scale, 0.012),
            "macro_f1": _estimate(0.021 * scale, 0.013),
            "log_loss": _estimate(-0.06 * scale, 0.03),
            "ece": _estimate(-0.004 * scale, 0.01),
        },
        "slices": {
            name: {"accuracy": _estimate(scale * 0.01 * (place % 4 - 0.6), 0.05)} for place, name in enumerate(names)
        },
    }


def _evaluation(test_ids: list[str]) -> dict[str, Any]:
    confusion = np.diag([17, 18, 16, 18, 15, 18, 18, 17, 14, 16])
    confusion[8, 1], confusion[4, 9], confusion[2, 3] = 3, 2, 1
    return {
        "dataset_digest": DIGEST,
        "n_test": 180,
        "challenger": _model("c0ffee" * 5, 0.956, 0.15, 0.02),
        "champion": _model("beef" * 8, 0.936, 0.21, 0.024),
        "baseline": _model(None, 0.911, 0.31, 0.028) | {"kind": "logistic_regression"},
        "differences": {"champion": _against(1), "baseline": _against(2.2)},
        "overlap": {"challenger": 0, "champion": 0},
        "confusion": confusion.tolist(),
        "labels": LABELS,
        "examples": [
            {"id": name, "label": place % 10, "predicted": (place + 3) % 10, "confidence": 0.99 - 0.03 * place}
            for place, name in enumerate(test_ids[:11])
        ],
    }


def _verdicts() -> list[dict[str, Any]]:
    return [
        {
            "rule": "not worse than champion",
            "verdict": "pass",
            "value": 0.02,
            "low": 0.008,
            "high": 0.032,
            "threshold": -0.01,
            "n": 180,
            "mode": "enforce",
            "sentence": "accuracy, challenger minus champion is +0.02 (95% interval +0.008 to +0.032) on 180 examples; "
            "lower end must be at least -0.01: pass",
        },
        {
            "rule": "latency",
            "verdict": "pass",
            "value": 2.91,
            "low": None,
            "high": None,
            "threshold": 50.0,
            "n": 200,
            "mode": "enforce",
            "sentence": "p95 latency in ms is 2.91 on 200 requests; must be at most 50: pass",
        },
        {
            "rule": "memory",
            "verdict": "not_evaluated",
            "value": None,
            "low": None,
            "high": None,
            "threshold": 500.0,
            "n": None,
            "mode": "warn",
            "sentence": "memory in MB must be at most 500, but it is missing: not evaluated",
        },
    ]


def _monitoring() -> dict[str, Any]:
    """A round that watched everything: drift that matters, a fall that labels confirm, a service that is slow, and a broken column."""
    start, hour = 1_795_000_000, 3600
    rounds = range(14)
    accuracy = [0.94 - 0.012 * max(0, k - 6) for k in rounds]
    points = [
        {
            "ts_ns": (start + hour * k) * 10**9,
            "rows": 200 * k,
            "value": accuracy[k],
            "low": accuracy[k] - 0.02,
            "high": accuracy[k] + 0.02,
        }
        for k in rounds
    ]
    realised = [
        {
            "ts_ns": (start + hour * k) * 10**9,
            "labels": 20 * k,
            "value": accuracy[k] - 0.02,
            "low": accuracy[k] - 0.07,
            "high": accuracy[k] + 0.03,
            "plain": accuracy[k] + 0.01,
        }
        for k in rounds[3:]
    ]
    basis = {
        "name": "accuracy",
        "reference": 0.94,
        "reference_rows": 1000,
        "measured": True,
        "evidence": 12.5,
        "threshold": 20.0,
    }
    latency = {"p50": 12.1, "p95": 81.5, "p99": 140.2, "rows": 812}
    return {
        "outcome": "retrain",
        "reason": "e-value 412.3 reached 100 and accuracy is estimated at 0.81",
        "champion_digest": "beef" * 8,
        "champion_version": 3,
        "rows_seen": 2800,
        "rows_new": 200,
        "e_value": 412.3,
        "threshold": 100.0,
        "history": [
            {"ts": start + hour * k, "rows": 200 * (k + 1), "log_e": 0.4 * math.sin(k) + max(0, k - 6) * 0.86}
            for k in rounds
        ],
        "effects": [
            {"name": "mean_confidence", "reference": 0.94, "current": 0.81, "shift_sd": -1.31},
            {"name": "embedding_direction_1", "reference": 0.02, "current": 0.61, "shift_sd": 0.82},
            {"name": "share_of_class_8", "reference": 0.1, "current": 0.12, "shift_sd": 0.07},
        ],
        "columns": {"age": 0.71, "city": -0.2},
        "c2st_auc": 0.78,
        "data_quality": [
            {"check": "blank images", "sentence": "7 of 200 new rows are blank (3.5 %), expected at most 1 %"}
        ],
        "fresh_labels": 140,
        "alarm_row": 2410,
        "streams": {"age, mean": 5.1, "embedding": 2.2},
        "guarantee": "On average at most 1 false alarm a year, with 1000 rows of reference and a tolerance of 0.1.",
        "rehearsal": "In 40 runs on the reference none alarmed.",
        "unwatched": ["column 'name' is no number and has too many values"],
        "causes": [
            {"kind": "drift", "declared": True, "matters": True, "refutes": False, "size": _estimate(0.78, 0.02), "unit": "C2ST AUC", "since": "2026-11-18T14:13:20+00:00", "key": "row 2410", "moved": ["age"], "reason": "drift since row 2410"},
            {"kind": "realised", "declared": True, "matters": True, "refutes": False, "size": _estimate(0.09, 0.05), "unit": "fall of accuracy", "since": "2026-11-18T15:13:20+00:00", "key": "label 240", "moved": [], "reason": "240 labels show a fall"},
            {"kind": "estimated", "declared": False, "matters": None, "refutes": False, "size": UNKNOWN, "unit": "", "since": "", "key": "", "moved": [], "reason": "not yet"},
            {"kind": "data_quality", "declared": True, "matters": False, "refutes": False, "size": _estimate(0.3, 0.1), "unit": "share of unexpected values", "since": "2026-11-18T12:00:00+00:00", "key": "k", "moved": ["age"], "reason": "column 'age' holds values above 120"},
        ],
        "quality": {
            "problem": "",
            "estimated": basis | {"quality": _estimate(0.86, 0.02), "fall": _estimate(0.08, 0.02), "drop": 0.05, "rows": 2800, "since": "", "history": points, "by_label": {"cat": 0.8, "dog": 0.9}, "blind_spot": "The estimate cannot see a change of the labels themselves."},
            "realised": basis | {"quality": _estimate(0.84, 0.05), "unweighted": _estimate(0.87, 0.05), "fall": _estimate(0.1, 0.05), "drop": 0.02, "labels": 260, "requests": 2800, "effective_labels": 190.5, "unlabelled_share": 0.25, "since": "2026-11-18T15:13:20+00:00", "known_after": {"1 h": _estimate(0.02, 0.01), "1 d": _estimate(0.09, 0.02), "1 w": UNKNOWN}, "delay_seconds": {"median": 5400.0, "p90": 40000.0}, "waiting": 3, "refutes": False, "adwin": {"changes": [120], "before": 0.93, "after": 0.85, "n": 260, "statement": "ADWIN saw a fall after label 120"}, "history": realised, "problems": ["3 answers have no request"]},
        },
        "health": {
            "rows": 2800,
            "rows_per_hour": {"now": 203.5, "before": 198.0},
            "volume": [[f"2026-11-18T{k:02d}:00:00+00:00", 150 + 20 * (k % 5)] for k in rounds],
            "latency_ms": {"now": latency, "before": latency | {"p95": 30.2}, "blessed_p95": 22.0, "limit_p95": 50.0},
            "service": {"answered": 4000, "failed": 60, "refused": 2, "written": 4000, "dropped": 0, "failure_share": 0.0148, "dropped_share": 0.0},
            "cost": {"price_per_1000": 0.4, "per_day": 1.95},
            "expectations": {"asked": 5, "left_out": [], "unmet": [{"expectation": "expect_column_values_to_be_between", "column": "age", "severity": "critical", "judged": 812, "unexpected": 240, "allowed": 0.0, "beyond": True, "share": 0.296, "sentence": "s"}]},
            "clock_backwards": 0,
            "findings": ["latency p95 is 81.5 ms, monitor.latency_ms_p95 is 50"],
        },
    }  # fmt: skip


def _reports(ids: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    expectation = {
        "expectation": "expect_column_values_to_be_between",
        "column": "brightness",
        "severity": "critical",
        "passed": True,
        "observed": "0.19 to 0.42",
        "detail": "between 0 and 1",
    }
    ranked = [
        {
            "id": ids["train"][7 * k],
            "given": k % 10,
            "suggested": (k + 5) % 10,
            "margin": 0.97 - 0.02 * k,
            "split": "train",
        }
        for k in range(30)
    ]
    return {
        "ingest": {"digest": DIGEST, "labels": LABELS, "warnings": ["2 files of the source were unreadable"]},
        "validate_data": {
            "outcome_word": "pass",
            "n_rows": 900,
            "suite_digest": "aa" * 16,
            "results": [
                expectation,
                expectation
                | {
                    "column": "label",
                    "passed": False,
                    "severity": "warning",
                    "detail": "class 8 has 5.1 % of the rows, expected at least 6 %",
                },
                expectation | {"column": "content", "passed": None, "detail": "the check crashed"},
            ],
        },
        "check_labels": {
            "n": 720,
            "n_flagged": 30,
            "noise": _estimate(0.041, 0.012, 720),
            "method": "confident learning, 5 folds",
            "per_class": [{"label": k, "n": 72, "noise": 0.01 * k} for k in range(10)],
            "ranked": ranked,
        },
        "train": {
            "family": "cnn",
            "epochs": 12,
            "best_epoch": 9,
            "parameters": 21_450,
            "seconds": 14.2,
            "device": "cpu",
            "seed": 7,
            "resumed_from_epoch": None,
            "mlflow_run_id": "5b" * 16,
            "history": [
                {
                    "epoch": k,
                    "train_loss": 2.2 * 0.68**k,
                    "validation_loss": 2.1 * 0.72**k + 0.01 * max(0, k - 9),
                    "validation_accuracy": 1 - 0.85 * 0.7**k,
                }
                for k in range(12)
            ],
        },
        "package": {
            "digest": "c0ffee" * 5,
            "family": "cnn",
            "max_abs_diff": 3.1e-7,
            "tolerance": 1e-4,
            "opset": 18,
            "bytes": {"model.onnx": 91_234},
            "files": {"model.onnx": "ab" * 32},
            "git": {"commit": "0123abcd" * 5, "dirty": True},
            "made_with": {"torch": "2.13.0"},
            "review": {
                "asked": 0.95,
                "level": 0.9,
                "n_validation": 270,
                "n_test": 450,
                "classes": [
                    {
                        "label": label,
                        "threshold": threshold,
                        "n_validation": 90,
                        "n_test": 150,
                        "precision": _estimate(0.97, 0.02)
                        if threshold
                        else {"value": None, "low": None, "high": None, "n": 0},
                        "coverage": _estimate(0.9 if threshold else 0.0, 0.02),
                    }
                    for label, threshold in (("cat", 0.71), ("dog", None))
                ],
                "precision": _estimate(0.97, 0.02),
                "coverage": _estimate(0.62, 0.02),
                "curve": [[k / 20, 0.002 * k] for k in range(1, 21)],
            },
        },
        "evaluate": _evaluation(ids["test"]),
        "bless": {
            "model_digest": "c0ffee" * 5,
            "passed": True,
            "triton_version": "2.55.0",
            "load_seconds": 0.8,
            "golden": {
                "n": 16,
                "max_abs_diff": 2.4e-7,
                "tolerance": 1e-3,
                "passed": True,
                "protocols": {"http": 2.4e-7, "grpc": 2.4e-7},
            },
            "latency_ms": {"p50": 1.7, "p95": 2.91, "p99": 4.4, "n": 200, "concurrency": 4},
            "throughput_rps": 1810.0,
            "memory_mb": None,
            "odd_requests": {"empty_batch": "refused", "wrong_shape": "refused"},
            "log_tail": ["I1121 successfully loaded 'digits'"],
            "failures": [],
        },
        "gate": {
            "outcome": "promote",
            "reason": "all enforced rules passed",
            "verdicts": _verdicts(),
            "notes": ["No rule about cost."],
            "champion_digest": "beef" * 8,
            "challenger_digest": "c0ffee" * 5,
            "dataset_digest": DIGEST,
            "triton_version": "2.55.0",
            "evidence_digest": "e1" * 16,
        },
        "deploy": {
            "outcome": "promoted",
            "version": 4,
            "previous_version": 3,
            "model_digest": "c0ffee" * 5,
            "ledger_row": 9,
            "verification": {"where": "supervisor", "n": 16, "max_abs_diff": 2.4e-7, "tolerance": 1e-3},
            "events": ["intent written", "version 4 loaded and verified", "alias moved"],
            "sentence": "version 4 serves instead of version 3",
        },
        "monitor": _monitoring(),
    }


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artifact folders of a run in which every step left its report."""
    root = tmp_path_factory.mktemp("run")
    (root / "ingest").mkdir()
    ids = write_digits(root / "ingest")
    folders = {}
    for step, report in _reports(ids).items():
        folders[step] = root / step
        folders[step].mkdir(exist_ok=True)
        write_report(folders[step], report)
    return folders


@pytest.fixture
def record(run_folders: dict[str, Path]) -> dict[str, Any]:
    """The record of that run."""
    seconds = {
        "ingest": 1.4,
        "validate_data": 3.2,
        "check_labels": 4.1,
        "train": 14.2,
        "package": 3.9,
        "incumbent": 0.2,
        "evaluate": 2.5,
        "bless": 6.0,
        "gate": 0.3,
        "deploy": 3.3,
        "keep": 0.0,
        "monitor": 2.2,
    }
    steps, started = [], 1_795_000_000.0
    for name, spent in seconds.items():
        status = {"keep": "skipped", "ingest": "cached"}.get(name, "succeeded")
        artifact = {"kind": name, "digest": f"{len(steps):02d}" * 16} if name in run_folders else None
        steps.append(
            {
                "name": name,
                "status": status,
                "seconds": spent,
                "started": started,
                "error": None,
                "artifact": artifact,
                "outcome": "promote" if name == "gate" else None,
            }
        )
        started += spent + 0.1
    return {
        "run_id": "20261121-044510-a1b2c3",
        "loop": "digits",
        "pipeline": "training",
        "status": "succeeded",
        "started": 1_795_000_000.0,
        "finished": started,
        "seconds": started - 1_795_000_000.0,
        "steps": steps,
        "decision": {"outcome": "promote", "reason": "all enforced rules passed"},
        "trigger": None,
        "champion": {"before": {"version": 3, "digest": "beef" * 8}, "after": {"version": 4, "digest": "c0ffee" * 5}},
        "digests": {"ingest": DIGEST},
        "config_digest": "cc" * 16,
        "versions": {"kfloop": "0.1.0", "python": "3.11.9", "torch": "2.9.0"},
        "engine": "local",
        "substitutes": ["Triton: embedded server"],
        "cost": {"cpu_seconds": 61.5},
        "repeated_of": None,
        "exit_code": 0,
        "report": "reports/20261121.html",
    }
