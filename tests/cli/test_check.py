"""``kfloop check`` and ``kfloop new`` as programs: what they print, in which form, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from checkable import churn
from kfloop.cli.main import COMMANDS, cli
from kfloop.pipelines.checks.rules import RULES

if TYPE_CHECKING:
    from click.testing import Result

SOURCE = """
from kfp import dsl

@dsl.component(base_image="python:3.12", install_kfp_package=False)
def double(number: int) -> int:
    return 2 * number

@dsl.pipeline
def inner(number: int) -> int:
    return double(number=number).output

@dsl.pipeline(name="twice")
def outer(number: int = 3):
    inner(number=number)
"""


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return churn(tmp_path_factory.mktemp("faulty") / "churn.yaml", "tag", "quote")


def test_text_names_place_rule_and_what_to_do(faulty: Path) -> None:
    done = invoke(str(faulty))
    assert done.return_value == 1
    assert done.stdout == ""
    assert f"{faulty.as_posix()}:" in done.stderr
    assert "image-not-pinned: step 'fit' runs image 'python:3.12'" in done.stderr
    assert done.stderr.count(RULES["image-not-pinned"].hint) == 1
    assert "findings in 0 components, 0 loops, 1 pipeline," in done.stderr


def test_exit_codes_of_the_program(tmp_path: Path, faulty: Path) -> None:
    churn(tmp_path / "churn.yaml")
    command = [sys.executable, "-m", "kfloop", "check"]
    codes = {}
    for name, more in {
        "sound": "churn.yaml",
        "faulty": str(faulty),
        "nowhere": "nowhere",
    }.items():
        done = subprocess.run([*command, more], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        codes[name] = done.returncode
        assert "Traceback" not in done.stderr
    assert codes == {"sound": 0, "faulty": 1, "nowhere": 2}


def test_json_holds_what_the_text_says(faulty: Path) -> None:
    told = json.loads(invoke(str(faulty), "--json").stdout)
    assert told == json.loads(invoke(str(faulty), "--format", "json").stdout)
    assert {finding["rule"] for finding in told["findings"]} == {"image-not-pinned", "condition-quote"}
    assert all(set(finding) == {"rule", "file", "line", "message", "hint", "fixable"} for finding in told["findings"])
    assert told["checked"]["pipelines"] == 1
    assert told["fixed"] == []


def sarif(*arguments: str) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(invoke(*arguments, "--format", "sarif").stdout)
    return log


def test_sarif_has_what_its_specification_requires(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # SARIF 2.1.0: 3.13 (log), 3.14 (run), 3.18 and 3.19 (tool), 3.27 (result), 3.28 and 3.29 (location), 3.30 (region), 3.49 (rule)
    monkeypatch.chdir(faulty.parent)
    log = sarif(faulty.name)
    assert set(log) == {"$schema", "version", "runs"}
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"]
    rules = driver["rules"]
    assert [rule["id"] for rule in rules] == list(RULES)
    assert all(rule["shortDescription"]["text"] and rule["help"]["text"] for rule in rules)
    assert run["results"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"none", "note", "warning", "error"}
        assert result["message"]["text"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "churn.yaml"  # relative: the host resolves it in the repository
        assert place["region"]["startLine"] >= 1


def test_sarif_of_nothing_found_has_an_empty_list_of_results(tmp_path: Path) -> None:
    # 3.14.23: an absent list would say that nothing was looked for
    assert sarif(str(churn(tmp_path / "churn.yaml")))["runs"][0]["results"] == []


def test_sarif_names_files_elsewhere_by_uri(tmp_path: Path) -> None:
    folder = tmp_path / "a b%"
    folder.mkdir()
    results = sarif(str(churn(folder / "churn.yaml", "tag")))["runs"][0]["results"]
    uri = results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == (folder / "churn.yaml").as_uri()


# Pipelines as Python.


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "twice.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "broken.py").write_text(
        SOURCE.replace("inner(number=number)", "inner(n=1)"), encoding="utf-8"
    )
    return tmp_path


def told(*arguments: str) -> set[tuple[str, str]]:
    findings = json.loads(invoke(*arguments, "--json").stdout)["findings"]
    return {(finding["rule"], Path(finding["file"]).name) for finding in findings}


def test_pipelines_are_compiled_and_looked_at_whole(sources: Path) -> None:
    rules = {"image-not-pinned", "resources-missing", "timeout-missing", "deadline-missing", "runs-as-root"}
    rules.add("caching-not-explicit")  # which the IR alone does not show: KFP writes its default there
    assert told(str(sources)) == {(rule, "twice.py") for rule in rules}
    findings = json.loads(invoke(str(sources), "--json").stdout)["findings"]
    assert {finding["line"] for finding in findings} == {SOURCE[: SOURCE.index("def outer")].count("\n") + 1}


@pytest.mark.parametrize("said", [True, False])
def test_caching_that_is_said_is_explicit(said: bool, sources: Path) -> None:
    text = SOURCE.replace("double(number=number).output", f"double(number=number).set_caching_options({said}).output")
    (sources / "twice.py").write_text(text, encoding="utf-8")
    assert "caching-not-explicit" not in {rule for rule, _ in told(str(sources))}


def test_code_that_does_not_compile_is_told(sources: Path) -> None:
    assert told(str(sources / "tests" / "broken.py")) == {("pipeline-uncompilable", "broken.py")}
    for text in ("import sys\nsys.exit(0)\n", "import no_such_module\n"):
        (sources / "twice.py").write_text(text + SOURCE, encoding="utf-8")
        assert told(str(sources)) == {("pipeline-uncompilable", "twice.py")}


def test_a_module_without_a_pipeline_is_told(sources: Path) -> None:
    (sources / "helpers.py").write_text("import kfp\n", encoding="utf-8")
    assert told(str(sources / "helpers.py")) == {("nothing-found", "helpers.py")}


def test_code_and_committed_ir_of_one_name_are_compared(sources: Path) -> None:
    module = sources / "twice_committed.py"
    module.write_text(SOURCE, encoding="utf-8")
    script = (
        "from kfp.compiler import Compiler; from twice_committed import outer; Compiler().compile(outer, 'twice.yaml')"
    )
    subprocess.run([sys.executable, "-c", script], cwd=sources, check=True, timeout=120)
    module.unlink()
    source = sources / "twice.py"
    os.utime(source, (1_795_000_000.1, 1_795_000_000.1))
    before = told(str(sources))
    assert {rule for rule, file in before if file == "twice.py"} == {
        "caching-not-explicit"
    }  # the rest is told at the IR
    assert "ir-differs" not in {rule for rule, _ in before}
    source.write_text(SOURCE.replace("number: int = 3", "number: int = 4"), encoding="utf-8")
    os.utime(
        source, (1_795_000_000.2, 1_795_000_000.2)
    )  # as long, and within one second: Python would take its bytecode for this one's
    assert told(str(sources)) - before == {("ir-differs", "twice.yaml")}


# CI files.


@pytest.mark.parametrize(("host", "file"), [("github", ".github/workflows/kfloop.yaml"), ("gitlab", ".gitlab-ci.yml")])
def test_workflows_run_commands_that_exist(
    host: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["new", "workflow", host]).exit_code == 0
    text = (tmp_path / file).read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    if host == "github":
        job = content["jobs"]["check"]
        assert job["timeout-minutes"]
        assert content["permissions"] == {"contents": "read"}
        lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    else:
        commands = content["kfloop"]["before_script"] + content["kfloop"]["script"]
        lines = [line.strip() for command in commands for line in command.splitlines()]
    called = [line.split()[1] for line in lines if line.startswith("kfloop ")]
    assert called == ["compile", "check"]
    assert set(called) <= set(COMMANDS)
    again = CliRunner().invoke(cli, ["new", "workflow", host])
    assert again.exit_code != 0
    assert (tmp_path / file).read_text(encoding="utf-8") == text


def test_the_workflow_of_a_project_that_only_has_its_own_pipelines_asks_for_no_loop_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for host in ("github", "gitlab"):
        assert CliRunner().invoke(cli, ["new", "workflow", host]).exit_code == 0
    job = yaml.safe_load((tmp_path / ".github/workflows/kfloop.yaml").read_text(encoding="utf-8"))["jobs"]["check"]
    steps = {step.get("name", step.get("uses")): step for step in job["steps"]}
    assert steps["The committed pipelines are what the code compiles to"]["if"] == "hashFiles('loop.yaml') != ''"
    # Checking imports the code: what that imports is there before.
    commands = [step.get("run", "") for step in job["steps"]]
    (needs,) = [number for number, text in enumerate(commands) if "-r requirements.txt" in text]
    assert needs < next(number for number, text in enumerate(commands) if "kfloop compile" in text)
    # The cache of packages is keyed by a file, and the action fails where there is none.
    named = steps["actions/setup-python@v5"]["with"]["cache-dependency-path"]
    assert (tmp_path / named).is_file()
    # A check that did not come to its end leaves no SARIF to upload: its own error is the one to be seen.
    assert "hashFiles('kfloop.sarif') != ''" in steps["github/codeql-action/upload-sarif@v3"]["if"]
    gitlab = yaml.safe_load((tmp_path / ".gitlab-ci.yml").read_text(encoding="utf-8"))["kfloop"]
    assert any("-r requirements.txt" in line for line in gitlab["before_script"])
    script = gitlab["script"]
    compiling = next(part for part in script if "kfloop compile" in part)
    command = [shutil.which("sh") or "/bin/sh", "-ec", compiling]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": ""}, check=False, timeout=60)
    assert done.returncode == 0
    (tmp_path / "loop.yaml").touch()
    tried = subprocess.run(command, cwd=tmp_path, env={"PATH": ""}, capture_output=True, check=False, timeout=60)
    assert tried.returncode == 127  # where there is a loop file kfloop is called
