"""validate_data: real Great Expectations on the manifest; bad data fails, a broken check is an error, both stop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kfloop.components.validate_data.component import validate_data
from kfloop.components.validate_data.manifest import build_manifest
from kfloop.components.validate_data.suites import load_suite
from kfloop.components.validate_data.validation import run
from kfloop.core.artifacts import read_report
from kfloop.core.config import ValidationConfig
from kfloop.core.versions import Rows, read_version, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, InputError, TerminalError
from kfloop.testing.harness import Harness

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(
        loop="t", root=tmp_path, state=f"sqlite:///{tmp_path}/s.db", store=str(tmp_path / "store"), mlflow=""
    )


def version_of(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    n = len(images)
    rows = Rows(ids=[str(i) for i in range(n)], images=images, labels=np.arange(n) % 2, origin=["base"] * n)
    write_version(folder, name="t", rows=rows, labels=["a", "b"], validation=0.25, test=0.25)
    return folder


def noise(n: int = 120) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 6, 6, 1), dtype=np.uint8)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def suite_file(path: Path, *expectations: dict[str, Any]) -> ValidationConfig:
    path.write_text(json.dumps({"name": "mine", "expectations": list(expectations)}))
    return ValidationConfig(suite=str(path))


def test_good_data_pass(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    report = run(ValidationConfig(), dataset=version_of(tmp_path / "v", noise()), out=out, workspace=workspace)
    assert report.outcome_word == "pass"
    assert report.n_rows == 120
    assert all(line["passed"] for line in report.results)
    assert {line["severity"] for line in report.results} == {"critical", "warning"}
    written = read_report(out)
    assert written["outcome_word"] == "pass"
    assert len(written["results"]) == len(report.results)


def test_the_manifest_states_the_facts_of_each_image(tmp_path: Path) -> None:
    images = noise()
    images[7] = 9
    version = read_version(version_of(tmp_path / "v", images))
    table = build_manifest(version).to_pandas().set_index("id")
    assert len(table) == 120
    assert table.loc["7", "constant"]
    assert table.loc["7", ["mean", "std", "sharpness"]].tolist() == [9.0, 0.0, 0.0]
    pixels = images[3, :, :, 0].astype(float)
    inside = pixels[1:-1, 1:-1]
    laplacian = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:] - 4 * inside
    assert table.loc["3", "mean"] == pytest.approx(pixels.mean())
    assert table.loc["3", "std"] == pytest.approx(pixels.std())
    assert table.loc["3", "sharpness"] == pytest.approx(laplacian.var())
    assert not table["constant"].drop("7").any()


def test_a_few_constant_images_only_warn(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    images = noise()
    images[5] = 77
    report = run(ValidationConfig(), dataset=version_of(tmp_path / "v", images), out=out, workspace=workspace)
    assert report.outcome_word == "pass"
    failed = [line for line in report.results if not line["passed"]]
    assert {line["severity"] for line in failed} == {"warning"}
    assert failed


def test_many_constant_images_stop_and_the_report_stays(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    images = noise()
    images[:40] = np.arange(40, dtype=np.uint8)[:, None, None, None]
    with pytest.raises(InputError, match="expect_column_values_to_be_in_set on column 'constant'") as error:
        run(ValidationConfig(), dataset=version_of(tmp_path / "v", images), out=out, workspace=workspace)
    assert error.value.exit_code == 2
    assert read_report(out)["outcome_word"] == "fail"
    assert read_report(workspace.kfloop_dir / "failed" / "validation")["outcome_word"] == "fail"


def test_an_own_suite(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    config = suite_file(
        tmp_path / "s.json",
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "mean", "min_value": 100, "max_value": 150}},
        {
            "type": "expect_column_max_to_be_between",
            "kwargs": {"column": "std", "max_value": 1},
            "meta": {"severity": "warning"},
        },
    )
    report = run(config, dataset=version_of(tmp_path / "v", noise()), out=out, workspace=workspace)
    own = [line for line in report.results if not line["expectation"].startswith("skew:")]
    assert [(line["passed"], line["severity"]) for line in own] == [(True, "critical"), (False, "warning")]
    assert report.results[0]["observed"] == pytest.approx(127.5, abs=5)


def test_an_own_suite_that_fails_names_what_was_observed(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    config = suite_file(
        tmp_path / "s.json",
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1000}, "meta": None},
    )
    with pytest.raises(InputError, match="expect_table_row_count_to_be_between on the table: observed 120"):
        run(config, dataset=version_of(tmp_path / "v", noise()), out=out, workspace=workspace)


def test_a_missing_column_is_named_before_those_that_are_there(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    expectation = {
        "type": "expect_table_columns_to_match_set",
        "kwargs": {"column_set": ["label", "hours"], "exact_match": False},
    }
    config = suite_file(tmp_path / "suite.json", expectation)
    with pytest.raises(InputError, match=r"on the table: missing: hours; observed \["):
        run(config, dataset=version_of(tmp_path / "v", noise()), out=out, workspace=workspace)


def test_a_broken_check_is_an_error_not_bad_data(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    config = suite_file(
        tmp_path / "s.json", {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "nowhere"}}
    )
    with pytest.raises(TerminalError, match="is broken") as error:
        run(config, dataset=version_of(tmp_path / "v", noise()), out=out, workspace=workspace)
    assert not isinstance(error.value, InputError)
    report = read_report(out)
    assert report["outcome_word"] == "error"
    assert report["results"][0]["passed"] is False


def test_a_broken_warning_does_not_stop_but_never_passes(tmp_path: Path, out: Path, workspace: Workspace) -> None:
    expectation = {
        "type": "expect_column_values_to_not_be_null",
        "kwargs": {"column": "nowhere"},
        "severity": "warning",
    }
    report = run(
        suite_file(tmp_path / "s.json", expectation),
        dataset=version_of(tmp_path / "v", noise()),
        out=out,
        workspace=workspace,
    )
    assert report.results[0]["passed"] is False


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no expectation suite"),
        ("{", "no expectation suite"),
        ("[]", "no expectation suite"),
        ("{}", "no expectation suite"),
        ('{"expectations": []}', "no expectations"),
        ('{"expectations": ["x"]}', "no expectation suite"),
        ('{"expectations": [{"kwargs": {}}]}', "without a 'type'"),
        ('{"expectations": [{"type": "expect_x", "kwargs": "y"}]}', "without a 'type'"),
        ('{"expectations": [{"type": "expect_x", "severity": "critcal"}]}', "severity 'critcal'"),
    ],
)
def test_bad_suite_files(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "s.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_suite(path)


@pytest.mark.parametrize(
    "expectation",
    [
        {"type": "expect_column_values_to_be_pretty", "kwargs": {"column": "mean"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"min_value": 1}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "mean", "minimum": 1}},
    ],
)
def test_unusable_expectations(tmp_path: Path, out: Path, workspace: Workspace, expectation: dict[str, Any]) -> None:
    config = suite_file(tmp_path / "s.json", expectation)
    with pytest.raises(ConfigError, match="unusable expectation"):
        run(config, dataset=version_of(tmp_path / "v", noise()), out=out, workspace=workspace)


def test_the_component(tmp_path: Path, workspace: Workspace) -> None:
    version = version_of(tmp_path / "v", noise())
    done = Harness(tmp_path / "kfp", workspace).run(
        validate_data, config_json=ValidationConfig().model_dump_json(), dataset_digest=version.name, dataset=version
    )
    assert read_report(done.artifacts["validation"])["outcome_word"] == "pass"
    assert done.value == done.metadata["validation"]["digest"]
