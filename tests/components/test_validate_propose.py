"""Proposing a suite: it passes on its own reference, is the same each time, guards against what it should, and never overwrites a person's work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from kfloop.components.validate_data.engines.choosing import evaluate
from kfloop.components.validate_data.manifest import build_manifest
from kfloop.components.validate_data.proposing import propose, write_suite
from kfloop.components.validate_data.suites import default_suite, load_suite
from kfloop.components.validate_data.validation import run
from kfloop.core.sections import ValidationConfig
from kfloop.core.versions import DatasetVersion, VersionWriter, read_version
from kfloop.core.versions.assigning import Splitter
from kfloop.core.versions.keys import Hasher
from kfloop.core.versions.splitting import Cutoffs
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pathlib import Path

ENGINES = ("great_expectations", "polars")


def version_of(folder: Path, modality: str, task: str, table: pa.Table, **told: Any) -> DatasetVersion:
    """A version of these rows; columns that are neither inputs nor plain are facts."""
    folder.mkdir()
    labels = told.pop("labels", [])
    plain = {"id", "label", "group", "time", *told["inputs"]}
    facts = [name for name in table.column_names if name not in plain]
    hasher = Hasher(
        modality=modality, task=task, labels=labels, schema=told.get("schema", {}), inputs=told["inputs"], facts=facts
    )
    method = Cutoffs(method="random", validation=0.2, test=0.2)
    writer = VersionWriter(folder, name="t", hasher=hasher, splitter=Splitter(method, labels, modality))
    writer.add(table.append_column("origin", pa.array(["base"] * table.num_rows)))
    writer.finish()
    return read_version(folder)


def rows(n: int = 300, *, shift: float = 0.0, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "id": [f"r{place}" for place in range(n)],
        "age": pa.array(rng.integers(18, 90, n)),
        "income": pa.array(rng.normal(30 + shift, 5, n), mask=rng.random(n) < 0.1),
        "colour": pa.array(np.array(["red", "green", "blue"])[rng.integers(0, 3, n)].tolist(), pa.string()),
        "member": pa.array(rng.random(n) < 0.5),
        "since": pa.array(np.datetime64("2020-01-01", "us") + rng.permutation(n).astype("timedelta64[h]")),
        "code": pa.array([f"x{place:05d}" for place in range(n)]),
        "label": pa.array(rng.integers(0, 2, n)),
    }


INPUTS = ["age", "income", "colour", "member", "since", "code"]


def table_version(folder: Path, **changed: Any) -> DatasetVersion:
    table = pa.table(rows() | changed)
    return version_of(folder, "table", "multiclass", table, inputs=INPUTS, labels=["no", "yes"])


def media_versions(folder: Path) -> dict[str, DatasetVersion]:
    """One small version of every modality but table and image."""
    n, rng = 120, np.random.default_rng(0)
    ids, label = [f"r{place}" for place in range(n)], pa.array(np.arange(n) % 2)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(0, 1, 3 * n).astype(np.float32)), 3)
    share = pa.array(np.zeros(n))
    clips = pa.array([rng.integers(-9, 9, 5).astype(np.int16) for _ in range(n)], pa.list_(pa.int16()))
    common: dict[str, Any] = {"labels": ["a", "b"]}
    audio = {
        "seconds": pa.array(rng.uniform(0.5, 2, n)),
        "rms_db": pa.array(rng.normal(-20, 2, n)),
        "clipping": share,
        "silence": share,
    }
    text = [f"a text {place} with words" for place in range(n)]
    hour = pa.array(np.datetime64("2020-01-01", "us") + np.arange(n).astype("timedelta64[h]"))
    graph = {"nodes": n, "edges": 2 * n, "dangling": 0, "self_loops": 1, "duplicate_edges": 0, "directed": False}
    numbers = pa.array(rng.integers(1, 9, n))
    return {
        "audio": version_of(
            folder / "audio",
            "audio",
            "multiclass",
            pa.table({"id": ids, "audio": clips, "label": label, **audio}),
            inputs=["audio"],
            schema={"sample_rate": 8000},
            **common,
        ),
        "text": version_of(
            folder / "text",
            "text",
            "multiclass",
            pa.table({"id": ids, "text": text, "label": label, "characters": numbers, "replacement": share}),
            inputs=["text"],
            **common,
        ),
        "vector": version_of(
            folder / "vector",
            "vector",
            "regression",
            pa.table(
                {
                    "id": ids,
                    "vector": vectors,
                    "label": rng.normal(0, 1, n),
                    "missing": share,
                    "std": pa.array(np.ones(n)),
                }
            ),
            inputs=["vector"],
            schema={"vector_shape": [3]},
        ),
        "series": version_of(
            folder / "series",
            "series",
            "forecasting",
            pa.table({"id": ids, "load": rng.normal(0, 1, n), "wind": rng.normal(0, 1, n), "time": hour}),
            inputs=["load", "wind"],
        ),
        "nodes": version_of(
            folder / "nodes",
            "nodes",
            "multiclass",
            pa.table(
                {
                    "id": ids,
                    "vector": vectors,
                    "label": label,
                    "node": pa.array(range(n)),
                    "degree": numbers,
                    "isolated": pa.array([False] * n),
                }
            ),
            inputs=["vector"],
            schema={"graph": graph},
            **common,
        ),
        "graphs": version_of(
            folder / "graphs",
            "graphs",
            "multiclass",
            pa.table(
                {
                    "id": ids,
                    "nodes": pa.array([rng.normal(0, 1, 4) for _ in range(n)], pa.list_(pa.float32())),
                    "edges": pa.array([[0, 1]] * n),
                    "label": label,
                    "n_nodes": pa.array([2] * n),
                    "n_edges": pa.array([1] * n),
                    "dangling": pa.array([0] * n),
                    "self_loops": pa.array([0] * n),
                }
            ),
            inputs=["nodes", "edges"],
            schema={"node_features": 2},
            **common,
        ),
        "tags": version_of(
            folder / "tags",
            "vector",
            "multilabel",
            pa.table(
                {"id": ids, "vector": vectors, "label": pa.array([[0, 1], [1], [0]] * (n // 3)), "missing": share}
            ),
            inputs=["vector"],
            schema={"vector_shape": [3]},
            **common,
        ),
    }


def words(version: DatasetVersion, suite: list[dict[str, Any]], engine: str = "polars") -> dict[tuple[str, str], str]:
    lines = evaluate(build_manifest(version), suite, engine)
    return {(line["expectation"].removeprefix("expect_"), line["column"]): line["word"] for line in lines}


def test_a_proposal_holds_on_its_reference_by_both_engines(tmp_path: Path) -> None:
    version = table_version(tmp_path / "v")
    suite = propose(version)
    for engine in ENGINES:
        assert set(words(version, suite, engine).values()) == {"pass"}
    found = {(item["type"].removeprefix("expect_"), item["kwargs"].get("column")): item for item in suite}
    assert found["column_values_to_be_of_type", "age"]["kwargs"]["type_"] == "int64"
    assert 0.7 < found["column_values_to_not_be_null", "income"]["kwargs"]["mostly"] < 0.9
    assert "mostly" not in found["column_values_to_not_be_null", "age"]["kwargs"]
    assert found["column_values_to_be_in_set", "colour"]["kwargs"]["value_set"] == ["blue", "green", "red"]
    assert found["column_values_to_be_in_set", "colour"]["severity"] == "warning"
    assert found["column_values_to_be_in_set", "label"]["severity"] == "critical"
    assert found["column_values_to_be_unique", "id"]["severity"] == "critical"
    assert found["column_values_to_be_unique", "code"]["severity"] == "warning"
    assert found["table_row_count_to_be_between", None]["kwargs"] == {"min_value": 150}
    span = found["column_values_to_be_between", "age"]["kwargs"]
    assert 0 <= span["min_value"] < 18
    assert 89 < span["max_value"] <= 100
    assert found["column_values_to_be_between", "since"]["kwargs"]["min_value"] == "2020-01-01T00:00:00"
    assert all(item["meta"]["why"] for item in suite)


@pytest.mark.parametrize(
    ("changed", "broken", "severity"),
    [
        ({"age": pa.array([None] * 200 + [30] * 100, pa.int64())}, ("column_values_to_not_be_null", "age"), "critical"),
        ({"age": pa.array(np.full(300, 30.5))}, ("column_values_to_be_of_type", "age"), "critical"),
        ({"age": pa.array(np.full(300, 900))}, ("column_values_to_be_between", "age"), "warning"),
        ({"income": pa.array(np.full(300, 38.0))}, ("column_mean_to_be_between", "income"), "warning"),
        ({"colour": pa.array(["pink"] * 300)}, ("column_values_to_be_in_set", "colour"), "warning"),
        ({"code": pa.array(["x00000"] * 300)}, ("column_values_to_be_unique", "code"), "warning"),
        ({"code": pa.array(["x" * 99] * 300)}, ("column_value_lengths_to_be_between", "code"), "warning"),
    ],
)
def test_a_proposal_notices_what_changed(
    tmp_path: Path, changed: dict[str, Any], broken: tuple[str, str], severity: str
) -> None:
    suite = propose(table_version(tmp_path / "reference"))
    later = table_version(tmp_path / "later", **changed)
    for engine in ENGINES:
        assert words(later, suite, engine)[broken] == "fail"
    kind, column = broken
    place = [item for item in suite if item["type"] == f"expect_{kind}" and item["kwargs"].get("column") == column]
    assert place[0]["severity"] == severity


def test_a_proposal_of_fewer_rows_and_columns_fails(tmp_path: Path) -> None:
    suite = propose(table_version(tmp_path / "reference"))
    few = pa.table(rows(100)).drop_columns(["code"])
    later = version_of(tmp_path / "v", "table", "multiclass", few, inputs=INPUTS[:-1], labels=["no", "yes"])
    found = words(later, suite)
    assert found["table_row_count_to_be_between", ""] == "fail"
    assert found["table_columns_to_match_set", ""] == "fail"
    assert found["column_values_to_not_be_null", "code"] == "error"


def test_every_modality_has_a_default_and_a_proposed_suite(tmp_path: Path) -> None:
    for name, version in media_versions(tmp_path).items():
        manifest = build_manifest(version)
        default = evaluate(manifest, default_suite(version, manifest), "polars")
        assert {line["word"] for line in default if line["severity"] == "critical"} == {"pass"}, name
        assert len(default) > 4
        suite = propose(version)
        for engine in ENGINES:
            assert {line["word"] for line in evaluate(manifest, suite, engine)} == {"pass"}, name


def test_bad_media_fail_the_default_suite(tmp_path: Path) -> None:
    n = 120
    silent = pa.array([1.0] * 30 + [0.0] * 90)
    table = pa.table(
        {
            "id": [str(place) for place in range(n)],
            "text": [f"t{place}" for place in range(n)],
            "label": np.arange(n) % 2,
        }
    )
    table = table.append_column("replacement", silent).append_column("characters", pa.array([2] * n))
    version = version_of(tmp_path / "v", "text", "multiclass", table, inputs=["text"], labels=["a", "b"])
    manifest = build_manifest(version)
    lines = evaluate(manifest, default_suite(version, manifest), "polars")
    failed = {(line["column"], line["severity"]) for line in lines if not line["passed"]}
    assert failed == {("replacement", "critical"), ("replacement", "warning")}


def test_a_graph_with_dangling_edges_fails(tmp_path: Path) -> None:
    version = media_versions(tmp_path)["nodes"]
    version.card["schema"]["graph"]["dangling"] = 3
    manifest = build_manifest(version)
    lines = evaluate(manifest, default_suite(version, manifest), "great_expectations")
    failed = [line for line in lines if not line["passed"] and line["severity"] == "critical"]
    assert [(line["column"], line["observed"]) for line in failed] == [("graph_dangling", 3)]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_time_must_go_on_in_each_split_and_group(tmp_path: Path, grouped: bool, repeated: bool) -> None:
    n = 90
    hours = np.arange(n) // 2 if grouped else np.arange(n)  # two groups share each hour
    if repeated:
        hours = hours.copy()
        hours[10:14] = hours[10]
    data = {
        "id": [str(place) for place in range(n)],
        "load": np.arange(n) / 7,
        "time": pa.array(np.datetime64("2020-01-01", "us") + hours.astype("timedelta64[h]")),
    }
    if grouped:
        data["group"] = ["a", "b"] * (n // 2)
    folder = tmp_path / "v"
    folder.mkdir()
    hasher = Hasher(modality="series", task="forecasting", labels=[], schema={}, inputs=["load"])
    splitter = Splitter(Cutoffs(method="official", validation=0.2, test=0.2), [], "series")
    split = pa.array(["train"] * 50 + ["validation"] * 20 + ["test"] * 20)
    table = pa.table(data | {"origin": ["base"] * n, "split": split})
    splitter.learn([(table, np.zeros(n))])
    writer = VersionWriter(folder, name="t", hasher=hasher, splitter=splitter)
    writer.add(table)
    writer.finish()
    version = read_version(folder)
    manifest = build_manifest(version)
    steps = manifest["time_step"]
    assert steps.null_count == (6 if grouped else 3)
    lines = evaluate(manifest, default_suite(version, manifest), "polars")
    verdict = next(line for line in lines if line["column"] == "time_step")
    assert verdict["passed"] is not repeated
    if not repeated:
        assert set(steps.drop_null().to_pylist()) == {3600.0}


def test_the_file_is_the_same_each_time_and_great_expectations_loads_it(tmp_path: Path) -> None:
    from great_expectations import ExpectationSuite

    version = table_version(tmp_path / "v")
    first = write_suite(tmp_path / "suites" / "income.json", version)
    text = (tmp_path / "suites" / "income.json").read_text()
    write_suite(tmp_path / "suites" / "income.json", version)  # untouched: may be proposed again
    assert (tmp_path / "suites" / "income.json").read_text() == text
    raw = json.loads(text)
    assert raw["name"] == "income"
    assert raw["meta"]["kfloop"]["reference"] == version.digest
    loaded = ExpectationSuite(**raw)
    assert len(loaded.expectations) == len(first)
    ours = load_suite(tmp_path / "suites" / "income.json")
    assert [item["severity"] for item in ours] == [item["severity"] for item in first]
    theirs = loaded.to_json_dict()
    (tmp_path / "theirs.json").write_text(json.dumps(theirs))  # what Great Expectations writes is read again
    again = load_suite(tmp_path / "theirs.json")
    assert sorted(item["type"] for item in again) == sorted(item["type"] for item in first)
    assert set(words(version, again).values()) == {"pass"}


def test_an_edited_file_is_not_overwritten(tmp_path: Path) -> None:
    version, path = table_version(tmp_path / "v"), tmp_path / "suite.json"
    write_suite(path, version)
    raw = json.loads(path.read_text())
    raw["expectations"][0]["severity"] = "info"
    path.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match="was edited") as error:
        write_suite(path, version)
    assert "--force" in error.value.hint
    assert json.loads(path.read_text()) == raw
    write_suite(path, version, force=True)
    assert json.loads(path.read_text()) != raw
    for other in ("not json", "[]", '{"expectations": []}'):
        path.write_text(other)
        with pytest.raises(ConfigError, match="was edited"):
            write_suite(path, version)


def test_a_proposed_suite_is_enforced(tmp_path: Path) -> None:
    workspace = Workspace(loop="t", root=tmp_path, state="", store=str(tmp_path / "store"), mlflow="")
    path = tmp_path / "suite.json"
    write_suite(path, table_version(tmp_path / "v"))
    (tmp_path / "out").mkdir()
    for engine in ENGINES:
        config = ValidationConfig(suite=str(path), engine=engine)
        report = run(config, dataset=tmp_path / "v", out=tmp_path / "out", workspace=workspace)
        assert (report.outcome_word, report.engine, report.suite_source) == ("pass", engine, str(path))
    table_version(tmp_path / "later", age=pa.array([None] * 300, pa.int64()))
    with pytest.raises(InputError, match="not_be_null on column 'age': observed 300"):
        run(ValidationConfig(suite=str(path)), dataset=tmp_path / "later", out=tmp_path / "out", workspace=workspace)


def test_the_command_shows_a_path_that_stays_right_elsewhere(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from kfloop.cli.steps import step_command

    version = next(iter(media_versions(tmp_path).values()))
    loop = tmp_path / "loop.yaml"
    loop.write_text("name: t\ndata:\n  source: digits\n")
    arguments = ["validate_data", "-c", str(loop), "--propose", "-i", f"dataset={version.folder}"]
    done = CliRunner().invoke(step_command, arguments, standalone_mode=False)
    assert done.exception is None, done.output
    assert "suite: suite.json\n" in done.output
    assert (tmp_path / "suite.json").is_file()
