"""Pipelines as other people write them under ``kfloop check``: each is found, none is changed, and nothing sound is taken for a fault."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from kfp.compiler import Compiler
from kfp.dsl.pipeline_context import Pipeline

from checkable import churn
from kfloop.pipelines.checks.checking import check
from kfloop.pipelines.checks.importing import imported
from kfloop.pipelines.checks.secrecy import VALUES, is_secret_name

if TYPE_CHECKING:
    from kfloop.pipelines.checks.rules import Finding

STEP = """
from kfp import dsl, kubernetes


@dsl.component(base_image="python:3.12", install_kfp_package=False)
def step(n: int = 1) -> int:
    return n
"""
PIPELINE = f"""{STEP}

@dsl.pipeline(name="orders")
def orders(n: int = 1):
    step(n=n)
"""


def findings_of(folder: Path, rule: str) -> list[Finding]:
    return [finding for finding in check([folder]).findings if finding.rule == rule]


def written(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def compiled(module: Path, out: Path) -> Path:
    """Compile the pipeline ``orders``, as its author would."""
    Compiler().compile(imported(module, f"author_{out.stem}").orders, str(out))
    return out


# Found, however it is written.


@pytest.mark.parametrize(
    ("imports", "decorator"),
    [
        ("import kfp", "kfp.dsl.pipeline"),
        ("import kfp.dsl as kd", "kd.pipeline(name='orders')"),
        ("from kfp import dsl as d", "d.pipeline()"),
        ("from kfp.dsl import component, pipeline as pipe", "pipe(name='orders')"),
        ("from kfp.dsl import *", "pipeline"),
    ],
)
def test_a_pipeline_is_found_under_any_name_of_its_decorator(imports: str, decorator: str, tmp_path: Path) -> None:
    text = f"{imports}\n{STEP}\n\n@{decorator}\ndef orders():\n    step()\n"
    written(tmp_path / "orders.py", text)
    checked = check([tmp_path]).checked
    assert (checked["pipelines"], checked["steps"]) == (1, 1)


def test_a_pipeline_of_another_framework_is_left_alone(tmp_path: Path) -> None:
    text = "from elsewhere import pipeline  # runs on kfp too\n\n\n@pipeline\ndef orders():\n    pass\n"
    written(tmp_path / "orders.py", text)
    assert [finding.rule for finding in check([tmp_path]).findings] == ["nothing-found"]


@pytest.mark.parametrize("packaged", [True, False])
def test_a_module_of_a_package_is_imported_as_one(
    packaged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"shop_{'with' if packaged else 'without'}_init"
    written(tmp_path / place / "steps.py", STEP)
    text = "from kfp import dsl\n\nfrom ..steps import step\n\n\n@dsl.pipeline\ndef orders():\n    step()\n"
    written(tmp_path / place / "flows" / "orders.py", text)
    for folder in (tmp_path / place, tmp_path / place / "flows") if packaged else ():
        (folder / "__init__.py").touch()
    if not packaged:
        monkeypatch.chdir(tmp_path)
    report = check([tmp_path])
    assert "pipeline-uncompilable" not in {finding.rule for finding in report.findings}
    assert report.checked["steps"] == 1


def test_a_module_that_is_no_python_is_told_in_a_folder_too(tmp_path: Path) -> None:
    written(tmp_path / "orders.py", PIPELINE)
    broken = written(tmp_path / "broken.py", PIPELINE.replace("def orders(n", "def orders((n"))
    for path in (tmp_path, broken):
        (finding,) = findings_of(path, "pipeline-uncompilable")
        assert (finding.file, "is no Python" in finding.message) == (broken, True)
        assert "def orders((n" in broken.read_text(encoding="utf-8").splitlines()[finding.line - 1]


def test_a_name_that_another_pipeline_happens_to_use_hides_nothing(tmp_path: Path) -> None:
    written(tmp_path / "orders.py", PIPELINE.replace("def orders", "def step_two").replace('"orders"', '"two"'))
    other = PIPELINE.replace("def step(", "def step_two(").replace("    step(", "    step_two(")
    written(tmp_path / "other.py", other)
    assert check([tmp_path]).checked["pipelines"] == 2


@pytest.mark.parametrize(
    "nesting",
    [
        "from inner import inner\n",
        "import inner\n",
        "from flows.inner import inner as part\n",
        "from flows import inner\n",
    ],
)
def test_a_pipeline_that_another_nests_is_part_of_it(nesting: str, tmp_path: Path) -> None:
    inner = PIPELINE.replace("def orders", "def inner").replace('"orders"', '"inner"')
    written(tmp_path / "flows" / "inner.py", inner)
    call = {"import inner\n": "inner.inner", "from flows.inner import inner as part\n": "part"}.get(nesting, "inner")
    text = f"from kfp import dsl\n{nesting}\n\n@dsl.pipeline\ndef outer():\n    {call}(n=1)\n"
    written(tmp_path / "outer.py", text)
    assert check([tmp_path]).checked["pipelines"] == 1


def test_a_pipeline_in_a_manifest_of_kubernetes_is_checked_like_its_ir(tmp_path: Path) -> None:
    plain, wrapped = tmp_path / "plain.yaml", tmp_path / "wrapped.yaml"
    churn(plain, "tag", "no timeout")
    spec, platform = yaml.safe_load_all(plain.read_text(encoding="utf-8"))
    head = {"apiVersion": "pipelines.kubeflow.org/v2beta1", "metadata": {"name": "churn"}}
    pipeline = head | {"kind": "Pipeline", "spec": {"displayName": "churn"}}
    version = head | {"kind": "PipelineVersion", "spec": {"pipelineSpec": spec, "platformSpec": platform}}
    wrapped.write_text(yaml.safe_dump_all([pipeline, version]), encoding="utf-8")
    lines = wrapped.read_text(encoding="utf-8").splitlines()
    found = check([wrapped]).findings
    assert [(one.rule, one.message) for one in found] == [(one.rule, one.message) for one in check([plain]).findings]
    assert {lines[one.line - 1].strip() for one in found if one.rule == "image-not-pinned"} == {"image: python:3.12"}
    wrapped.write_text(yaml.safe_dump_all([version, version]), encoding="utf-8")
    (told,) = check([wrapped]).findings
    assert (told.rule, "2 manifests" in told.message) == ("ir-unreadable", True)
    version["spec"] = {"pipelineName": "churn"}
    wrapped.write_text(yaml.safe_dump(version), encoding="utf-8")
    assert [one.rule for one in check([wrapped]).findings] == ["ir-unreadable"]


@pytest.mark.parametrize("files", [("parts.py",), ("train/Dockerfile", "train/component.yaml"), ("Button/index.tsx",)])
def test_components_without_a_room_are_somebody_elses(files: tuple[str, ...], tmp_path: Path) -> None:
    written(tmp_path / "orders.py", PIPELINE)
    for file in ("__init__.py", *files):
        written(tmp_path / "components" / file, "")
    if "train/component.yaml" in files:
        written(tmp_path / "components" / "train" / "component.yaml", "name: train\n")
    report = check([tmp_path])
    assert report.checked == {"components": 0, "loops": 0, "pipelines": 1, "steps": 1}
    assert not {finding.rule for finding in report.findings} & {"components-none", "room-incomplete", "room-unlisted"}


# Looked at, and left as it is.


def test_a_module_that_compiles_and_talks_when_it_is_imported_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kfloop.cli.check import check_command

    ir = tmp_path / "orders.yaml"
    module = written(tmp_path / "orders.py", PIPELINE)
    before = compiled(module, ir).read_bytes()
    ending = f"""
import sys
from kfp.compiler import Compiler

assert sys.argv == [{str(module)!r}]
print("compiling")
Compiler().compile(orders, {str(ir)!r})
"""
    written(module, PIPELINE + ending)
    check_command.main([str(tmp_path), "--json"], standalone_mode=False)
    told = capsys.readouterr()
    assert ir.read_bytes() == before
    assert "compiling" not in told.out
    assert "compiling" in told.err
    assert '"ir-differs"' not in told.out
    assert '"pipeline-uncompilable"' not in told.out


# Code and committed IR.


def test_every_committed_file_of_a_pipeline_is_compared(tmp_path: Path) -> None:
    module = written(tmp_path / "orders.py", PIPELINE)
    compiled(module, tmp_path / "orders.yaml")
    shutil.copy(tmp_path / "orders.yaml", tmp_path / "a.yaml")
    assert findings_of(tmp_path, "ir-differs") == []
    text = (tmp_path / "a.yaml").read_text(encoding="utf-8")
    written(tmp_path / "a.yaml", text.replace("defaultValue: 1.0", "defaultValue: 2.0"))
    assert {finding.file.name for finding in findings_of(tmp_path, "ir-differs")} == {"a.yaml"}


def test_two_versions_of_one_pipeline_are_each_held_against_their_own_file(tmp_path: Path) -> None:
    for name, image in (("dev", "python:3.12"), ("prod", "python:3.13")):
        module = written(tmp_path / f"{name}.py", PIPELINE.replace("python:3.12", image))
        compiled(module, tmp_path / f"{name}.yaml")
    assert findings_of(tmp_path, "ir-differs") == []
    (tmp_path / "prod.yaml").unlink()
    assert findings_of(tmp_path, "ir-differs") == []
    told = {(finding.file.name, "3.13" in finding.message) for finding in findings_of(tmp_path, "image-not-pinned")}
    assert told == {("dev.yaml", False), ("prod.py", True)}


@pytest.mark.parametrize("default", [False, True])
def test_the_default_for_caching_is_that_of_the_environment(
    default: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What KFP takes from KFP_DISABLE_EXECUTION_CACHING_BY_DEFAULT when it is imported.
    monkeypatch.setattr(Pipeline, "_execution_caching_default", default)
    module = written(tmp_path / "orders.py", PIPELINE)
    compiled(module, tmp_path / "orders.yaml")
    assert findings_of(tmp_path, "ir-differs") == []
    assert len(findings_of(tmp_path, "caching-not-explicit")) == 1


def test_another_compiler_is_named_beside_what_differs(tmp_path: Path) -> None:
    module = written(tmp_path / "orders.py", PIPELINE)
    ir = compiled(module, tmp_path / "orders.yaml")
    text = ir.read_text(encoding="utf-8").replace("sdkVersion: kfp-2", "sdkVersion: kfp-1")
    written(ir, text)
    assert findings_of(tmp_path, "ir-differs") == []  # alone it changes nothing
    written(ir, text.replace("defaultValue: 1.0", "defaultValue: 2.0"))
    one, other = findings_of(tmp_path, "ir-differs")
    assert "parameter 'n'" in one.message
    assert other.message.startswith("compiled by kfp-1")
    assert "sdkVersion" in ir.read_text(encoding="utf-8").splitlines()[other.line - 1]


# What only looks like a fault, and what does not look like one.


def test_tasks_without_a_pod_need_not_say_whether_they_are_cached(tmp_path: Path) -> None:
    body = """    dsl.importer(artifact_uri="s3://a/b", artifact_class=dsl.Dataset)
    kubernetes.CreatePVC(pvc_name_suffix="-x", access_modes=["ReadWriteMany"], size="1Gi", storage_class_name="nfs")
"""
    written(tmp_path / "orders.py", PIPELINE + body)
    told = [finding.message for finding in findings_of(tmp_path, "caching-not-explicit")]
    assert told == ["pipeline 'orders': step 'step' does not say whether it is cached"]


@pytest.mark.parametrize(
    ("made", "deleted", "told"),
    [
        ('pvc_name_suffix="-x"', "made.outputs['name']", set()),
        ('pvc_name="data"', "made.outputs['name']", {"createpvc", "deletepvc"}),
        ('pvc_name_suffix="-x"', "'data'", {"deletepvc"}),
    ],
)
def test_a_volume_of_a_fixed_name_is_not_cached(made: str, deleted: str, told: set[str], tmp_path: Path) -> None:
    body = f"""    made = kubernetes.CreatePVC({made}, access_modes=["ReadWriteMany"], size="1Gi", storage_class_name="nfs")
    gone = kubernetes.DeletePVC(pvc_name={deleted})
"""
    module = written(tmp_path / "orders.py", PIPELINE + body)
    found = findings_of(tmp_path, "caching-side-effect")
    assert {name for finding in found for name in ("createpvc", "deletepvc") if f"'{name}'" in finding.message} == told
    written(module, PIPELINE + body + "    made.set_caching_options(False)\n    gone.set_caching_options(False)\n")
    assert findings_of(tmp_path, "caching-side-effect") == []


@pytest.mark.parametrize(("both", "rules"), [(False, []), (True, ["shared-memory-missing"])])
def test_a_launcher_whose_gpu_is_for_its_job_needs_no_shared_memory(
    both: bool, rules: list[str], tmp_path: Path
) -> None:
    handed = f"dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.RESOURCES, apply_to_task={both})"
    text = f"""
from kfp import dsl


@dsl.component(base_image="python:3.12", install_kfp_package=False, task_config_passthroughs=[{handed}])
def launch(nodes: int, task_config: dsl.TaskConfig = None) -> str:
    return "job"


@dsl.pipeline
def launching(nodes: int = 2):
    launch(nodes=nodes).set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(8)
"""
    written(tmp_path / "launching.py", text)
    assert [finding.rule for finding in findings_of(tmp_path, "shared-memory-missing")] == rules


@pytest.mark.parametrize(
    "name",
    ["pad_token", "max_token", "eosToken", "token_url", "password_column", "image_pull_secret", "secret_version"],
)
def test_a_name_that_only_speaks_of_a_secret_is_none(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize("name", ["hf_token", "access_token", "clientSecret", "db_password", "API_KEY", "secret"])
def test_a_name_that_holds_a_secret_is_one(name: str) -> None:
    assert is_secret_name(name)


def test_a_number_or_a_truth_value_is_no_secret(tmp_path: Path) -> None:
    signature = "def orders(password: str, use_token: bool = True, auth_token: int = 3, n: int = 1)"
    written(tmp_path / "orders.py", PIPELINE.replace("def orders(n: int = 1)", signature))
    (finding,) = findings_of(tmp_path, "secret-parameter")
    assert "'password'" in finding.message


@pytest.mark.parametrize(
    "value",
    ["https://hooks.slack.com/services/" + "T0000000/B0000000/" + "x" * 24, "AIza" + "b" * 35, "ASIA" + "Z" * 16],
)
def test_keys_of_providers_are_known(value: str) -> None:
    assert VALUES.search(value)


@pytest.mark.parametrize(
    "text",
    [
        'create_engine(f"postgresql://{user}:{password}@{host}/shop")',
        '"mysql://%s:%s@%s/shop" % (user, password, host)',
        '"https://x-access-token:${TOKEN}@github.com/shop"',
        "mongodb://<user>:<password>@host",
        "For example: https://user:password@host",
        "registry.example/sk-learn-training-pipeline",
    ],
)
def test_a_place_for_a_secret_is_none(text: str) -> None:
    assert not VALUES.search(text)


def test_a_url_with_a_password_is_a_secret() -> None:
    assert VALUES.search("postgresql://ann:hunter2@db/shop")
    assert VALUES.search("amqp://ann:p%40ss%73@queue")
