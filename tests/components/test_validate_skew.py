"""Skew: the statistics against scipy, the rate of false alarms, and which pairs of sets are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.validate_data import skew
from kfloop.components.validate_data.manifest import build_manifest
from kfloop.components.validate_data.pairs import compare, skew_results
from kfloop.components.validate_data.profile import profile
from kfloop.components.validate_data.validation import run
from kfloop.core.sections import ValidationConfig
from kfloop.core.store import Store
from kfloop.core.versions import Rows, read_version, write_version
from kfloop.core.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", range(6))
def test_kolmogorov_smirnov_is_scipys(seed: int) -> None:
    from scipy import special, stats

    rng = np.random.default_rng(seed)
    n, m = rng.integers(800, 2000, 2)
    first, second = rng.normal(0, 1, n), rng.normal(0.03 * seed, 1, m)
    if seed % 2:  # repeated values
        first, second = np.round(first, 1), np.round(second, 1)
    statistic, p = skew.ks_2samp(first, second)
    theirs = stats.ks_2samp(first, second, method="asymp")
    assert statistic == pytest.approx(theirs.statistic, abs=1e-12)
    assert p == pytest.approx(theirs.pvalue, abs=0.02)  # theirs is that of a finite sample
    assert p == pytest.approx(special.kolmogorov(statistic * np.sqrt(n * m / (n + m))), abs=1e-12)


def test_kolmogorovs_distribution_at_its_ends() -> None:
    from scipy import special

    for z in (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 30.0):
        assert skew.kolmogorov(z) == pytest.approx(special.kolmogorov(z), abs=1e-12)


def test_chi_squared_is_scipys() -> None:
    from scipy import stats

    first, second = np.array([50, 30, 20, 100]), np.array([40, 45, 25, 90])
    statistic, p, effect = skew.chi2(first, second)
    theirs = stats.chi2_contingency(np.stack([first, second]), correction=False)
    assert (statistic, p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert effect == pytest.approx(0.5 * np.abs(first / 200 - second / 200).sum())


def test_rare_categories_are_pooled_and_one_category_cannot_differ() -> None:
    from scipy import stats

    statistic, p, effect = skew.chi2(np.array([90, 1, 2, 3, 4]), np.array([80, 5, 5, 5, 5]))
    theirs = stats.chi2_contingency([[90, 10], [80, 20]], correction=False)
    assert (statistic, p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert effect == pytest.approx(0.1)
    assert skew.chi2(np.array([9, 1]), np.array([10, 0]))[:2] == (0.0, 1.0)
    assert skew.chi2(np.array([5]), np.array([7])) == (0.0, 1.0, 0.0)


def table(rng: np.random.Generator, n: int, **changed: Any) -> pa.Table:
    columns = {
        "id": [f"r{place}" for place in range(n)],
        "real": pa.array(rng.normal(0, 1, n)),
        "whole": pa.array(rng.integers(0, 5, n)),
        "holes": pa.array(rng.normal(0, 1, n), mask=rng.random(n) < 0.2),
        "colour": pa.array(
            np.array(["red", "green", "blue", "rare"])[rng.choice(4, n, p=[0.5, 0.3, 0.19, 0.01])].tolist()
        ),
        "flag": pa.array(rng.random(n) < 0.3),
        "text": [f"words {rng.integers(1 << 40)}" for _ in range(n)],
        "when": pa.array(np.datetime64("2020-01-01", "us") + rng.integers(0, 9999, n).astype("timedelta64[m]")),
    }
    return pa.table(columns | changed)


def compared(first: pa.Table, second: pa.Table, level: float = 0.01, effect: float = 0.1) -> dict[str, dict[str, Any]]:
    found = skew.compare_tables(first, second, pair="a/b", level=level, effect=effect)
    return {entry["column"]: entry for entry in found}


def test_false_alarms_are_as_rare_as_said() -> None:
    rng, alarms, rounds = np.random.default_rng(0), 0, 400
    for _ in range(rounds):
        found = compared(table(rng, 200), table(rng, 150), level=0.05, effect=0.0)
        alarms += any(entry["skewed"] for entry in found.values())
    error = np.sqrt(0.05 * 0.95 / rounds)
    assert 0 < alarms / rounds < 0.05 + 3 * error


@pytest.mark.parametrize(
    ("column", "skewed", "changed"),
    [
        ("real", "real", lambda rng, n: pa.array(rng.normal(0.5, 1, n))),
        ("whole", "whole", lambda rng, n: pa.array(rng.integers(0, 3, n))),
        ("holes", "holes (missing)", lambda rng, n: pa.array(rng.normal(0, 1, n), mask=rng.random(n) < 0.5)),
        ("holes", "holes (missing)", lambda _, n: pa.array([None] * n, pa.float64())),
        ("holes", "holes (missing)", lambda _, n: pa.array([float("nan")] * n)),
        ("colour", "colour", lambda _, n: pa.array(["pink"] * n)),
        ("flag", "flag", lambda rng, n: pa.array(rng.random(n) < 0.6)),
        ("when", "when", lambda _, n: pa.array(np.datetime64("2021-01-01", "us") + np.zeros(n, "timedelta64[us]"))),
    ],
)
def test_a_shift_is_found_in_its_own_column(column: str, skewed: str, changed: Any) -> None:
    rng = np.random.default_rng(1)
    found = compared(table(rng, 1000), table(rng, 800, **{column: changed(rng, 800)}))
    assert [name for name, entry in found.items() if entry["skewed"]] == [skewed]
    entry = found[skewed]
    assert entry["p_adjusted"] < 0.01
    assert entry["effect"] >= 0.1
    assert "id" not in found
    assert "text" not in found  # values that never come back are no categories


def test_a_difference_beyond_chance_that_does_not_matter_is_no_skew() -> None:
    rng = np.random.default_rng(2)
    first, second = pa.table({"x": rng.normal(0, 1, 60_000)}), pa.table({"x": rng.normal(0.05, 1, 60_000)})
    assert compared(first, second)["x"]["p_adjusted"] < 0.001
    assert not compared(first, second)["x"]["skewed"]
    assert compared(first, second, effect=0.01)["x"]["skewed"]


def test_big_tables_are_sampled_the_same_way_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skew, "MOST_ROWS", 500)
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, 3000)
    chunked = pa.concat_tables([pa.table({"x": values[start : start + 700]}) for start in range(0, 3000, 700)])
    picked = skew.sample(chunked, np.arange(1000, 3000), 500)
    assert picked.equals(skew.sample(chunked, np.arange(1000, 3000), 500))
    assert picked.num_rows == 500
    assert set(picked["x"].to_pylist()) <= set(values[1000:].tolist())
    assert skew.sample(chunked, np.arange(3000), 3000) is chunked


def test_an_empty_side_is_not_compared() -> None:
    rng = np.random.default_rng(4)
    full = table(rng, 50)
    assert skew.compare_tables(full, full.slice(0, 0), pair="a/b", level=0.01, effect=0.1) == []
    nothing = pa.table({"x": pa.array([], pa.float64())})
    assert skew.compare_tables(nothing, nothing, pair="a/b", level=0.01, effect=0.1) == []


def images_of(folder: Path, images: np.ndarray, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    n = len(images)
    rows = Rows(ids=[str(place) for place in range(n)], images=images, labels=np.arange(n) % 2, origin=["base"] * n)
    write_version(folder, name="t", rows=rows, labels=["a", "b"], validation=0.25, test=0.25)
    return folder


def noise(n: int = 200, low: int = 0, high: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (n, 6, 6, 1), dtype=np.uint8)


def log_requests(folder: Path, images: np.ndarray) -> Path:
    path = folder / "t" / "2026-01-01-00"
    path.mkdir(parents=True)
    n = len(images)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), images[0].size)
    floats = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2 * n, np.float32)), 2)
    whole = pa.array(np.zeros(n, np.int64))
    columns = {"request_id": [str(place) for place in range(n)], "ts_ns": whole, "version": whole, "image": flat}
    pq.write_table(
        pa.table(columns | {"probabilities": floats, "embedding": floats, "latency_us": whole}), path / "0.parquet"
    )
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(loop="t", root=tmp_path, state="", store=str(tmp_path / "store"), mlflow="")


def test_splits_of_one_source_are_alike_and_skew_never_stops(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "out").mkdir()
    report = run(
        ValidationConfig(), dataset=images_of(tmp_path / "v", noise()), out=tmp_path / "out", workspace=workspace
    )
    assert {entry["pair"] for entry in report.skew} == {"train/validation", "train/test"}
    assert not any(entry["skewed"] for entry in report.skew)
    lines = [line for line in report.results if line["expectation"].startswith("skew:")]
    assert [(line["severity"], line["passed"]) for line in lines] == [("warning", True)] * 2
    assert {line["column"] for line in report.profile} >= {"id", "label", "mean", "split"}


def test_the_last_version_and_the_requests_are_compared(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "out").mkdir()
    before = read_version(images_of(tmp_path / "before", noise(seed=1)))
    Store(workspace.store).publish(before.folder, "datasets", before.digest)
    now = read_version(images_of(tmp_path / "now", noise(high=200)))
    now.card["previous"] = before.digest
    requests = log_requests(tmp_path / "requests", noise(100, low=100, seed=2))
    config = ValidationConfig(requests=str(requests))
    found, notes = compare(now, build_manifest(now), config, workspace)
    skewed = {(entry["pair"], entry["column"]) for entry in found if entry["skewed"]}
    assert {("previous/current", "mean"), ("train/requests", "mean")} <= skewed
    assert not notes
    entry = next(entry for entry in found if entry["pair"] == "train/requests")
    assert entry["n_current"] == 100


def test_why_a_pair_is_not_compared_is_told(tmp_path: Path, workspace: Workspace) -> None:
    now = read_version(images_of(tmp_path / "now", noise()))
    now.card["previous"] = "0" * 32
    config = ValidationConfig(requests=str(log_requests(tmp_path / "requests", np.zeros((9, 5, 5, 1), np.uint8))))
    _, notes = compare(now, build_manifest(now), config, workspace)
    assert "no longer in the store" in notes["previous/current"]
    assert "0.parquet: logged images have 25 values, those of this version 36" in notes["train/requests"]
    (tmp_path / "requests" / "t" / "2026-01-01-00" / "0.parquet").write_bytes(b"broken")
    _, notes = compare(now, build_manifest(now), config, workspace)
    assert "that can be used: 0.parquet" in notes["train/requests"]
    (tmp_path / "empty").mkdir()
    _, notes = compare(now, build_manifest(now), ValidationConfig(requests=str(tmp_path / "empty")), workspace)
    assert notes["train/requests"] == "no requests to 't' are logged"
    _, notes = compare(now, build_manifest(now), ValidationConfig(requests=str(tmp_path / "nowhere")), workspace)
    assert "there is no folder" in notes["train/requests"]


def test_a_log_that_was_out_of_reach_where_the_run_was_submitted_is_told(tmp_path: Path, workspace: Workspace) -> None:
    """As of a run that was sent to a cluster from a laptop: there is a log, and nobody could name its state."""
    now = read_version(images_of(tmp_path / "now", noise(100)))
    assert "train/requests" not in compare(now, build_manifest(now), ValidationConfig(), workspace)[1]
    log_requests(workspace.request_log, noise(50))
    skew, notes = compare(now, build_manifest(now), ValidationConfig(), workspace)
    assert "out of reach" in notes["train/requests"]
    assert not [entry for entry in skew if entry["pair"] == "train/requests"]
    told = [line for line in skew_results(skew, notes) if line["expectation"] == "skew:train/requests"]
    assert [line["detail"] for line in told] == [notes["train/requests"]]


def test_the_profile_of_every_kind_of_column() -> None:
    rng = np.random.default_rng(5)
    found = {
        line["column"]: line for line in profile(table(rng, 500).append_column("items", pa.array([[1], None] * 250)))
    }
    assert found["whole"]["type"] == "int"
    assert found["whole"]["distinct"] == 5
    assert (found["whole"]["minimum"], found["whole"]["maximum"]) == (0, 4)
    assert sum(item["share"] for item in found["whole"]["top"]) == pytest.approx(1)
    assert found["holes"]["missing"] == pytest.approx(100, abs=40)
    assert found["holes"]["top"] == []
    assert found["colour"]["top"][0]["value"] == "red"
    assert found["colour"]["mean"] is None
    assert found["flag"]["mean"] == pytest.approx(0.3, abs=0.1)
    assert found["when"]["minimum"].startswith("2020-01-0")
    assert found["text"]["distinct"] == 500
    assert (found["items"]["type"], found["items"]["missing"], found["items"]["distinct"]) == ("list", 250, None)
    empty = profile(table(rng, 0))
    assert {line["distinct"] for line in empty if line["type"] != "other"} == {0}
