"""``kfloop check`` is green on the project, and each planted fault is told by its own rule and no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from checkable import churn, everything
from kfloop.cli.main import cli
from kfloop.errors import ConfigError
from kfloop.pipelines.checks.checking import CheckReport, check
from kfloop.pipelines.checks.rules import RULES, known_rules

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent.parent
COMPILED = ROOT / "pipelines" / "compiled"
Documents = list[dict[str, Any]]


def rules_of(*paths: Path) -> set[str]:
    return {finding.rule for finding in check(paths).findings}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    """Both documents of a pipeline without a fault."""
    file = churn(tmp_path_factory.mktemp("sound") / "churn.yaml")
    assert check([file]).findings == ()
    return list(yaml.load_all(file.read_text(encoding="utf-8"), yaml.CSafeLoader))


def written(file: Path, documents: Documents) -> Path:
    file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return file


# Faults that KFP's own compiler lets through.


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("tag", "image-not-pinned"),
        ("packages", "packages-at-runtime"),
        ("no memory limit", "resources-missing"),
        ("no timeout", "timeout-missing"),
        ("no deadline", "deadline-missing"),
        ("gpu without shm", "shared-memory-missing"),
        ("no user", "runs-as-root"),
        ("root", "runs-as-root"),
        ("secret parameter", "secret-parameter"),
        ("secret variable", "secret-value"),
        ("key in variable", "secret-value"),
        ("key in argument", "secret-value"),
        ("cached deploy", "caching-side-effect"),
        ("cached exit handler", "caching-side-effect"),
        ("cached and gives nothing", "caching-side-effect"),
        ("retried deploy", "retry-not-idempotent"),
        ("retried exit handler", "retry-not-idempotent"),
        ("bare if", "if-named-output"),
        ("quote", "condition-quote"),
        ("one of artifacts", "one-of-artifacts"),
        ("nested without parameters", "nested-artifacts-only"),
        ("loop over named output", "loop-named-output"),
    ],
)
def test_a_compiled_fault_is_told_by_its_rule(fault: str, rule: str, tmp_path: Path) -> None:
    report = check([churn(tmp_path / "churn.yaml", fault)])
    assert {finding.rule for finding in report.findings} == {rule}
    lines = (tmp_path / "churn.yaml").read_text(encoding="utf-8").count("\n")
    assert all(1 < finding.line <= lines for finding in report.findings)


@pytest.mark.parametrize("harmless", ["unreleased", "gpu"])
def test_what_only_looks_like_a_fault_is_not_told(harmless: str, tmp_path: Path) -> None:
    assert rules_of(churn(tmp_path / "churn.yaml", harmless)) == set()


def test_what_kfp_offers_is_not_taken_for_broken(tmp_path: Path) -> None:
    # What is left is what its author did not say: images are pinned, and conditions, loops, wires and volumes are sound.
    left = {"resources-missing", "timeout-missing", "deadline-missing", "runs-as-root", "caching-side-effect"}
    report = check([everything(tmp_path / "everything.yaml")])
    assert {finding.rule for finding in report.findings} == left
    cached = {finding.message for finding in report.findings if finding.rule == "caching-side-effect"}
    assert cached == {"step 'tell' is cached, but it is an exit handler"}


@pytest.mark.parametrize(
    "compared",
    ["'a' && 'b' == 'b'", "'x' or 'a'=='a'", "'a\\' ", "''')", "'a' || open('b') == 'c'"],
)
def test_text_that_leaves_its_quotes_is_told(compared: str, sound: Documents, tmp_path: Path) -> None:
    documents = json.loads(json.dumps(sound))
    task = documents[0]["components"]["comp-condition-branches-2"]["dag"]["tasks"]["condition-3"]
    (channel,) = task["inputs"]["parameters"]
    task["triggerPolicy"]["condition"] = f"inputs.parameter_values['{channel}'] == {compared}"
    assert rules_of(written(tmp_path / "churn.yaml", documents)) == {"condition-quote"}


def test_a_secret_is_told_without_repeating_it(tmp_path: Path) -> None:
    for fault in ("secret variable", "key in variable", "key in argument"):
        report = check([churn(tmp_path / "churn.yaml", fault)])
        told = " ".join(finding.message for finding in report.findings)
        assert "hunter2" not in told
        assert "ABCDEFGHIJ" not in told


def test_a_finding_stands_at_the_line_of_what_is_wrong(tmp_path: Path) -> None:
    file = churn(tmp_path / "churn.yaml", "tag")
    lines = file.read_text(encoding="utf-8").splitlines()
    for finding in check([file]).findings:
        assert lines[finding.line - 1].strip() == "image: python:3.12"


# Faults that somebody edited into a compiled file.


def an_executor_more(documents: Documents) -> None:
    executors = documents[0]["deploymentSpec"]["executors"]
    executors["exec-left-over"] = executors["exec-extract"]


def a_component_more(documents: Documents) -> None:
    documents[0]["components"]["comp-left-over"] = documents[0]["components"]["comp-extract"]


def no_task_names_the_executors(documents: Documents) -> None:
    documents[0]["root"]["dag"]["tasks"] = {}


def an_empty_branch(documents: Documents) -> None:
    documents[0]["components"]["comp-condition-3"]["dag"]["tasks"] = {}


def an_executor_less(documents: Documents) -> None:
    del documents[0]["deploymentSpec"]["executors"]["exec-extract"]


def a_component_less(documents: Documents) -> None:
    del documents[0]["components"]["comp-tell"]


def a_producer_renamed(documents: Documents) -> None:
    tasks = documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    tasks["training"]["dependentTasks"] = ["extrakt"]


def in_the_handler(documents: Documents, task: str) -> dict[str, Any]:
    found: dict[str, Any] = documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"][task]
    return found


def an_input_less(documents: Documents) -> None:
    del in_the_handler(documents, "extract")["inputs"]


def an_input_from_nowhere(documents: Documents) -> None:
    in_the_handler(documents, "warm-up")["inputs"]["parameters"]["region"] = {}


def an_input_from_another_input(documents: Documents) -> None:
    in_the_handler(documents, "extract")["inputs"]["parameters"]["limit"]["componentInputParameter"] = "most"


def an_output_that_nobody_makes(documents: Documents) -> None:
    source = in_the_handler(documents, "training")["inputs"]["artifacts"]["table"]
    source["taskOutputArtifact"]["outputArtifactKey"] = "tables"


def nobody_waits(documents: Documents) -> None:
    in_the_handler(documents, "training")["dependentTasks"] = []


def a_promise_that_nobody_keeps(documents: Documents) -> None:
    outputs = documents[0]["components"]["comp-training"]["dag"]["outputs"]
    outputs["artifacts"]["Output"]["artifactSelectors"][0]["producerSubtask"] = "fat"


def a_condition_on_nothing(documents: Documents) -> None:
    task = documents[0]["components"]["comp-condition-branches-2"]["dag"]["tasks"]["condition-3"]
    task["triggerPolicy"]["condition"] = "inputs.parameter_values['verdict'] == 'fine'"


def a_loop_over_nothing(documents: Documents) -> None:
    in_the_handler(documents, "for-loop-5")["parameterIterator"]["items"]["inputParameter"] = "places"


def an_executor_that_does_nothing(documents: Documents) -> None:
    documents[0]["deploymentSpec"]["executors"]["exec-extract"] = {}


def a_secret_as_a_number(documents: Documents) -> None:
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors["exec-extract"]["secretAsEnv"] = 3


def a_platform_setting_for_nobody(documents: Documents) -> None:
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors["exec-extrakt"] = executors["exec-extract"]


def caching_not_said(documents: Documents) -> None:
    tasks = documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    del tasks["extract"]["cachingOptions"]


def no_platform_document(documents: Documents) -> None:
    del documents[1]


def no_root(documents: Documents) -> None:
    del documents[0]["root"]


def tasks_as_a_list(documents: Documents) -> None:
    documents[0]["root"]["dag"]["tasks"] = ["tell"]


def another_second_document(documents: Documents) -> None:
    documents[1] = {"kind": "ConfigMap"}


@pytest.mark.parametrize(
    ("edit", "rules"),
    [
        (an_executor_more, {"ir-unused"}),
        (a_component_more, {"ir-unused"}),
        (no_task_names_the_executors, {"ir-no-tasks"}),
        (an_executor_less, {"ir-broken-reference"}),
        (a_component_less, {"ir-broken-reference", "ir-unused"}),  # its executor is left without it
        (a_producer_renamed, {"ir-broken-reference"}),
        (a_platform_setting_for_nobody, {"ir-broken-reference"}),
        (an_input_less, {"ir-broken-reference"}),
        (an_input_from_nowhere, {"ir-broken-reference"}),
        (an_input_from_another_input, {"ir-broken-reference"}),
        (an_output_that_nobody_makes, {"ir-broken-reference"}),
        (nobody_waits, {"ir-broken-reference"}),
        (a_promise_that_nobody_keeps, {"ir-broken-reference"}),
        (a_condition_on_nothing, {"ir-broken-reference"}),
        (a_loop_over_nothing, {"ir-broken-reference"}),
        (an_executor_that_does_nothing, {"ir-broken-reference"}),
        (a_secret_as_a_number, {"ir-unreadable"}),
        (caching_not_said, {"caching-not-explicit"}),
        (no_platform_document, {"timeout-missing", "deadline-missing", "runs-as-root"}),  # what it alone can say
        (no_root, {"ir-unreadable"}),
        (tasks_as_a_list, {"ir-unreadable"}),
        (another_second_document, {"ir-unreadable"}),
    ],
)
def test_an_edited_fault_is_told_by_its_rule(
    edit: Callable[[Documents], None], rules: set[str], sound: Documents, tmp_path: Path
) -> None:
    documents = json.loads(json.dumps(sound))
    edit(documents)
    assert rules_of(written(tmp_path / "churn.yaml", documents)) == rules


def test_a_nested_part_without_tasks_is_told(sound: Documents, tmp_path: Path) -> None:
    documents = json.loads(json.dumps(sound))
    an_empty_branch(documents)
    report = check([written(tmp_path / "churn.yaml", documents)])
    told = {finding.message for finding in report.findings if finding.rule == "ir-no-tasks"}
    assert told == {"'comp-condition-3' has no task"}
    assert {finding.rule for finding in report.findings} <= {
        "ir-no-tasks",
        "ir-unused",
    }  # what stood in it is left over


def places(value: Any, above: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every container with every key or index of it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        above.append((value, key))
        places(item, above)
    return above


@pytest.mark.parametrize("seed", range(12))
def test_whatever_stands_in_a_file_a_check_comes_to_an_end(seed: int, sound: Documents, tmp_path: Path) -> None:
    random = Random(seed)  # noqa: S311 - no secret
    documents = json.loads(json.dumps(sound))
    container, key = random.choice(places(documents, [])[1:])
    container[key] = random.choice([None, "", -1, 1.5, True, [], {}, ["x"], {"x": 1}, [None]])
    assert rules_of(written(tmp_path / "churn.yaml", documents)) <= set(RULES)


@pytest.mark.parametrize("text", ["", "# PIPELINE DEFINITION\n", "---\n...\n", "\n\n"])
def test_an_empty_file_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "churn.yaml").write_text(text, encoding="utf-8")
    assert rules_of(tmp_path / "churn.yaml") == {"ir-empty"}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_off_is_told(share: float, sound: Documents, tmp_path: Path) -> None:
    text = written(tmp_path / "whole.yaml", sound).read_text(encoding="utf-8")
    cut = tmp_path / "cut.yaml"
    cut.write_text(text[: int(len(text) * share)], encoding="utf-8")
    assert rules_of(cut) <= set(RULES)
    assert rules_of(cut)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00garbage", b"pipelineInfo: [1, 2", b"- just\n- a list\n", b"42\n", b"\x00"]
)
def test_garbage_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "churn.yaml").write_bytes(content)
    assert rules_of(tmp_path / "churn.yaml") == {"ir-unreadable"}


def test_json_is_read_as_well(sound: Documents, tmp_path: Path) -> None:
    (tmp_path / "churn.json").write_text(json.dumps(sound[0]), encoding="utf-8")
    assert rules_of(tmp_path / "churn.json") == {"timeout-missing", "deadline-missing", "runs-as-root"}


# Ways of passing without having looked.


def test_a_path_that_does_not_exist_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no '.*nowhere'"):
        check([tmp_path / "nowhere"])


def test_a_folder_that_holds_nothing_is_told_beside_one_that_does(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.yaml").write_text("of: something else\n", encoding="utf-8")
    some = tmp_path / "some"
    some.mkdir()
    churn(some / "churn.yaml")
    assert rules_of(some, tmp_path / "none") == {"nothing-found"}
    assert rules_of(some) == set()


def test_an_empty_file_counts_in_a_folder_too(tmp_path: Path) -> None:
    churn(tmp_path / "churn.yaml")
    (tmp_path / "other.yaml").touch()
    assert rules_of(tmp_path) == {"ir-empty"}


def test_a_path_named_twice_is_looked_at_once(tmp_path: Path) -> None:
    file = churn(tmp_path / "churn.yaml", "tag")
    once, twice = check([file]), check([file, tmp_path, file])
    assert once.checked == twice.checked
    assert once.findings == twice.findings


# The project itself.


@pytest.fixture(scope="module")
def project() -> CheckReport:
    return check([ROOT])


def test_the_project_is_sound(project: CheckReport) -> None:
    assert project.findings == ()
    on_disk = [path for path in (ROOT / "components").iterdir() if (path / "component.py").exists()]
    assert project.checked["components"] == len(on_disk)
    assert project.checked["pipelines"] == len(list(COMPILED.glob("*.yaml")))
    assert project.checked["loops"] >= len(list((ROOT / "examples").glob("*/loop.yaml")))
    executors = [line for file in COMPILED.glob("*.yaml") for line in file.read_text(encoding="utf-8").splitlines()]
    assert project.checked["steps"] == sum(line.strip().startswith("executorLabel:") for line in executors) > 0


def test_every_rule_is_broken_by_a_test() -> None:
    files = [*sorted(Path(__file__).parent.glob("test_checks*.py")), ROOT / "tests" / "cli" / "test_check.py"]
    tests = "".join(path.read_text(encoding="utf-8") for path in files)
    assert [rule for rule in RULES if f'"{rule}"' not in tests] == []


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed pipelines of the project, for tests that change them."""
    return Path(shutil.copytree(COMPILED, tmp_path_factory.mktemp("project") / "compiled"))


@pytest.fixture
def compiled(copied: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(copied, tmp_path / "compiled"))


def edit_text(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_change_of_the_committed_file_is_told_in_plain_words_and_mended(compiled: Path) -> None:
    edit_text(compiled / "approval.yaml", "resourceMemoryLimit: 8Gi", "resourceMemoryLimit: 64Gi")
    report = check([compiled])
    assert [(finding.rule, finding.message) for finding in report.findings] == [
        ("ir-differs", "step 'exit-handler-1/approve': memory limit is '64Gi'; the code says '8Gi'")
    ]
    mended = check([compiled], fix=True)
    assert (mended.findings, mended.fixed) == ((), (compiled / "approval.yaml",))
    assert (compiled / "approval.yaml").read_bytes() == (COMPILED / "approval.yaml").read_bytes()
    assert check([compiled], fix=True).fixed == ()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda spec: spec["pipelineInfo"].update(description="Another."), "the pipeline: description is 'Another.'"),
        (
            lambda spec: spec["root"]["inputDefinitions"]["parameters"]["reason"].update(parameterType="LIST"),
            "the pipeline: parameter 'reason' is",
        ),
        (
            lambda spec: spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]["approve"]["inputs"][
                "parameters"
            ].pop("actor"),
            "step 'exit-handler-1/approve': no input 'actor'",
        ),
        (
            lambda spec: spec["deploymentSpec"]["executors"]["exec-approve"]["container"].update(command=["true"]),
            "step 'exit-handler-1/approve': code is",
        ),
        (lambda spec: spec.update(defaultPipelineRoot="s3://elsewhere"), "'defaultPipelineRoot' is 's3://elsewhere'"),
    ],
)
def test_each_kind_of_difference_has_its_words(
    edit: Callable[[dict[str, Any]], Any], message: str, compiled: Path
) -> None:
    documents = list(yaml.load_all((compiled / "approval.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader))
    edit(documents[0])
    written(compiled / "approval.yaml", documents)
    told = [finding.message for finding in check([compiled / "approval.yaml"]).findings if finding.rule == "ir-differs"]
    assert len(told) == 1
    assert message in told[0]


def test_another_sdk_alone_is_no_difference(compiled: Path) -> None:
    edit_text(compiled / "approval.yaml", "sdkVersion: kfp-", "sdkVersion: kfp-99.")
    assert rules_of(compiled) == set()


def test_two_files_of_one_pipeline_are_both_compared(compiled: Path) -> None:
    shutil.copy(compiled / "approval.yaml", compiled / "approval-old.yaml")
    assert rules_of(compiled) == set()
    for name in ("approval-old.yaml", "approval.yaml"):
        edit_text(compiled / name, "resourceMemoryLimit: 8Gi", "resourceMemoryLimit: 64Gi")
    assert {finding.file.name for finding in check([compiled]).findings} == {"approval-old.yaml", "approval.yaml"}
    assert len(check([compiled], fix=True).fixed) == 2


def test_a_checkout_without_any_committed_pipeline_is_told(tmp_path: Path) -> None:
    (tmp_path / "components").symlink_to(ROOT / "components")
    report = check([tmp_path])
    assert [finding.rule for finding in report.findings] == ["ir-missing"] * len(list(COMPILED.glob("*.yaml")))


def test_a_pipeline_that_was_not_committed_is_told_and_written(compiled: Path) -> None:
    (compiled / "monitoring.yaml").unlink()
    assert rules_of(compiled) == {"ir-missing"}
    assert rules_of(compiled / "training.yaml") == set()  # named alone, it is alone
    assert check([compiled], fix=True).fixed == (compiled / "monitoring.yaml",)
    assert (compiled / "monitoring.yaml").read_bytes() == (COMPILED / "monitoring.yaml").read_bytes()


@pytest.mark.parametrize(
    ("file", "step", "old", "new", "rule"),
    [
        ("training", "gate", "cachingOptions: {}", "cachingOptions: {enableCache: true}", "caching-side-effect"),
        ("training", "ingest", "cachingOptions: {}", "cachingOptions: {enableCache: true}", "caching-side-effect"),
    ],
)
def test_kfloops_own_steps_are_known(file: str, step: str, old: str, new: str, rule: str, compiled: Path) -> None:
    text = (compiled / f"{file}.yaml").read_text(encoding="utf-8")
    before, mark, after = text.partition(f"        {step}:\n")
    assert mark
    (compiled / f"{file}.yaml").write_text(before + mark + after.replace(old, new, 1), encoding="utf-8")
    assert rules_of(compiled / f"{file}.yaml") == {rule, "ir-differs"}


# Loop files.


def loop(folder: Path, text: str) -> Path:
    file = folder / "loop.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "loop-empty"),
        ("# nothing yet\n", "loop-empty"),
        ("name: [", "loop-invalid"),
        ("name: digits\ntrian: {}\n", "loop-invalid"),
        ("- name: digits\n", "loop-invalid"),
        ("name: digits\ntrain: {epochs: -1}\n", "loop-invalid"),
    ],
)
def test_a_loop_file_that_is_wrong_is_told(text: str, rule: str, tmp_path: Path) -> None:
    assert rules_of(loop(tmp_path, text)) == {rule}


def test_a_loop_file_is_held_against_the_pipelines_beside_it(compiled: Path) -> None:
    file = loop(compiled, "name: digits\n")
    assert rules_of(file) == set()
    text = (compiled / "approval.yaml").read_text(encoding="utf-8")
    (compiled / "approval.yaml").write_text(text.replace("deploy_config", "budget"), encoding="utf-8")
    report = check([compiled], ignore=frozenset({"ir-differs"}))
    assert {finding.rule for finding in report.findings} == {"loop-pipeline"}
    told = " ".join(finding.message for finding in report.findings)
    assert "asks for budget" in told
    assert "does not take deploy_config" in told


def test_settings_of_the_cluster_are_those_of_the_loop_file_above(compiled: Path) -> None:
    loop(compiled.parent, "name: digits\ncluster: {deadline_hours: 7}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(compiled.parent)
        report = check([Path()])
        told = {finding.message for finding in report.findings if "approval" in finding.file.name}
        assert {finding.rule for finding in report.findings} == {"ir-differs"}
        assert told == {"the pipeline: seconds it may take is '172800'; the code says '25200'"}
        assert len(check([Path()], fix=True).fixed) == len(list(COMPILED.glob("*.yaml")))
        assert rules_of(Path()) == set()
        loop(Path(), "name: digits\ncluster: {deadline: 7}\n")
        assert rules_of(Path()) == {"loop-invalid"}  # what it should hold is not known; nothing is written
        assert check([Path()], fix=True).fixed == ()


# Rules by name.


def test_a_rule_that_does_not_exist_cannot_be_ignored() -> None:
    with pytest.raises(ConfigError, match="no rule is called 'image-unpinned'"):
        known_rules(("image-unpinned",))


def test_an_ignored_rule_is_not_told(tmp_path: Path) -> None:
    file = churn(tmp_path / "churn.yaml", "tag", "quote")
    assert {finding.rule for finding in check([file], ignore=known_rules(("condition-quote",))).findings} == {
        "image-not-pinned"
    }


def test_every_rule_has_one_sentence_and_a_hint() -> None:
    for rule in RULES.values():
        assert rule.sentence.endswith(".")
        assert rule.hint
    listed = CliRunner().invoke(cli, ["check", "--rules"]).output
    assert all(f"{name}\n" in listed or f"{name} (--fix)\n" in listed for name in RULES)


def test_the_page_lists_every_rule_as_the_code_has_it() -> None:
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert {row[0].strip("| `"): row[1] for row in rows if row[0].strip("| `") in RULES} == {
        rule.id: rule.sentence for rule in RULES.values()
    }
