"""The documents say what is so: loop files load, commands and links exist, every component has its page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel

from kfloop.cli.main import COMMANDS, cli
from kfloop.core.config import LoopConfig, load_config
from kfloop.core.execution import TELEMETRY_OFF
from kfloop.core.families import FAMILIES, family_module
from kfloop.core.sections import AdapterConfig, ExternalConfig, FinetuneConfig, SearchConfig
from kfloop.pipelines.cluster.schedules import load_schedules

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
LOOP_FILE = ROOT / "docs" / "loop-file.md"
COMPONENTS = sorted(path.parent for path in (ROOT / "components").glob("*/component.py"))
FOLDERS = ("components", "pipelines", "serving", "examples")
PAGES = [
    README,
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(page for folder in FOLDERS for page in (ROOT / folder).rglob("README.md")),
]
EXAMPLES = sorted((ROOT / "examples").glob("*/loop.yaml"))
LONGEST_README = 340
# What a component's page must speak of, whatever the wording: the first column or a bold word.
SUBJECTS = {
    "in": r"(?mi)^\|\s*in\s*\||\*\*(goes )?in\b",
    "out": r"(?mi)^\|\s*out\s*\||\*\*(comes )?out\b",
    "errors": r"(?mi)^\|\s*errors?\s*\||\*\*errors?\b",
    "example": r"(?m)^```(python|bash)$",
}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def loop_blocks() -> list[str]:
    return [block for block in blocks(LOOP_FILE, "yaml") if re.search(r"^name:", block, flags=re.MULTILINE)]


def keys_of(content: Any, prefix: str = "") -> set[str]:
    """Dotted keys of nested mappings, and of the first of a list of them."""
    found: set[str] = set()
    for key, value in content.items():
        found.add(f"{prefix}{key}")
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            found |= keys_of(inner, f"{prefix}{key}.")
    return found


FILLED_IN_MONITOR = ("fresh", "feedback", "window_days", "retrain", "unlogged", "spark")
OF_THE_LEDGER = ("overrides", "champion_row", "turned_down")


def fields_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted names of every field of a model and of the models inside it."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(f"{prefix}{name}")
        for inner in models_in(field.annotation):
            found |= fields_of(inner, f"{prefix}{name}.")
    return found


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Models that stand anywhere in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in models_in(part)]


def test_the_page_has_one_loop_file_and_it_loads(tmp_path: Path) -> None:
    (block,) = loop_blocks()
    path = tmp_path / "loop.yaml"
    path.write_text(block, encoding="utf-8")
    assert load_config(path).gate.rules is not None


def test_the_page_names_every_key_of_a_loop_file() -> None:
    (block,) = loop_blocks()
    # kfloop fills them in
    of_monitor = {f"monitor.{name}" for name in FILLED_IN_MONITOR}
    derived = (
        of_monitor
        | {"data.places", "validation.requests_digest", "deploy.about", "deploy.feedback"}
        | {f"gate.{name}" for name in OF_THE_LEDGER}
    )
    # These are null by default: a comment shows their keys.
    null = (
        "data.dvc.",
        "train.finetune.",
        "train.search.",
        "train.external.",
        "gate.overrides.",
        "deploy.about.",
        "cluster.resources.",
        "cluster.tolerations.",
    )
    of_spark = ("validation.spark", "monitor.spark.")  # from section spark
    fields = {name for name in fields_of(LoopConfig) if not name.startswith((*null, *of_spark))}
    assert keys_of(yaml.safe_load(block)) == fields - derived


def test_keys_that_are_null_stand_in_a_comment() -> None:
    text = LOOP_FILE.read_text(encoding="utf-8")
    for section in (FinetuneConfig, SearchConfig):
        line = next(line for line in text.splitlines() if all(f"{name}:" in line for name in section.model_fields))
        assert "null" in line


def test_the_page_of_external_models_names_every_key() -> None:
    text = (ROOT / "docs" / "external-models.md").read_text(encoding="utf-8")
    names = {*ExternalConfig.model_fields, *AdapterConfig.model_fields}
    assert {name for name in names if f"`{name}`" not in text and f"{name}:" not in text} == set()


def test_loop_files_of_external_models_load(tmp_path: Path) -> None:
    found = blocks(ROOT / "docs" / "external-models.md", "yaml")
    assert len(found) == 2
    for block in found:
        (tmp_path / "loop.yaml").write_text(block, encoding="utf-8")
        assert load_config(tmp_path / "loop.yaml").train.external is not None


def test_files_on_the_page_of_submit_load(tmp_path: Path) -> None:
    loop, own, schedules = blocks(ROOT / "docs" / "submit.md", "yaml")
    (tmp_path / "loop.yaml").write_text(loop, encoding="utf-8")
    config = load_config(tmp_path / "loop.yaml", on_cluster=True)
    assert config.workspace(config.cluster_root).state == "${KFLOOP_STATE_URL}"
    (tmp_path / "own.yaml").write_text(
        "name: own\n" + own.replace("sha256:...", f"sha256:{'0' * 64}"), encoding="utf-8"
    )
    assert load_config(tmp_path / "own.yaml").train.model == "my_model:Digits"
    (tmp_path / "schedules.yaml").write_text(schedules, encoding="utf-8")
    assert load_schedules(tmp_path / "schedules.yaml").schedules["digits-weekly"].pipeline == "training"


def test_the_page_gives_the_defaults() -> None:
    (block,) = loop_blocks()
    written = yaml.safe_load(block)
    defaults = LoopConfig(name="photos").model_dump(mode="json")
    del defaults["data"]["places"], defaults["validation"]["requests_digest"], defaults["validation"]["spark"]
    for name in FILLED_IN_MONITOR:
        del defaults["monitor"][name]
    del defaults["deploy"]["about"], defaults["deploy"]["feedback"]
    for name in OF_THE_LEDGER:
        del defaults["gate"][name]
    del written["gate"]["rules"], defaults["gate"]["rules"]  # the page says that this one is not the default
    assert written == defaults


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_example_loads(path: Path) -> None:
    config = load_config(path)
    written = set(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert {"name", "data", "train", "gate"} <= written
    assert config.gate.rules, "an example says what a model must achieve"


def test_one_example_shows_every_section_and_every_family_has_one() -> None:
    loaded = {path.parent.name: load_config(path) for path in EXAMPLES}
    digits = yaml.safe_load((ROOT / "examples" / "digits" / "loop.yaml").read_text(encoding="utf-8"))
    assert set(digits) == set(LoopConfig.model_fields)
    assert {config.train.family for config in loaded.values()} >= set(FAMILIES)
    assert len({config.name for config in loaded.values()}) == len(loaded)
    listed = set(
        re.findall(r"^\| `(\w+)/`", (ROOT / "examples" / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    assert listed == set(loaded)


def options_of(command: click.Command) -> set[str]:
    """Options of a command, both ways of a switch, and of its subcommands."""
    found = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return found.union(*(options_of(one) for one in below))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_named_in_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join([*blocks(page, "bash"), *blocks(page, "text"), *re.findall(r"`(kfloop [^`\n]+)`", text)])
    named = set(re.findall(r"(?<![\w./-])kfloop ([a-z]+)", code))
    assert named <= set(COMMANDS)
    for name, options in re.findall(r"(?<![\w./-])kfloop ([a-z]+)([^\n#;&|]*)", code):
        command = cli.get_command(None, name)  # type: ignore[arg-type]  # the group does not look at the context
        assert command is not None
        known = options_of(command) | {"--help"}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", options)) <= known, f"kfloop {name}{options}"


def test_commands_for_the_cluster_name_a_container_that_has_the_loop_file() -> None:
    """State of the cluster's loop is read there: on a laptop the same commands read the laptop's."""
    section = (ROOT / "docs" / "kubeflow.md").read_text().split("## 4.")[1].split("## 5.")[0]
    called = re.findall(r"exec (?:-i )?deploy/(\S+) -c (\S+) -- (?:kfloop \w+|sh -c).*?-c (\S+)", section, re.DOTALL)
    metrics = next(yaml.safe_load_all((ROOT / "infra" / "base" / "loop" / "metrics.yaml").read_text()))
    (container,) = metrics["spec"]["template"]["spec"]["containers"]
    known = (metrics["metadata"]["name"], container["name"], container["args"][container["args"].index("-c") + 1])
    assert len(called) == 3
    assert set(called) == {known}
    bare = [
        line for line in section.splitlines() if re.match(r"kfloop (run|status|approve|reject|override|rollback)", line)
    ]
    assert bare == []


def test_make_targets_named_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_a_page_is_python(page: Path) -> None:
    for number, block in enumerate(blocks(page, "python")):
        compile(block, f"{page.name}, block {number}", "exec")


@pytest.mark.parametrize("folder", COMPONENTS, ids=lambda folder: folder.name)
def test_a_component_page_has_all_subjects(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {folder.name}\n")
    assert [name for name, pattern in SUBJECTS.items() if not re.search(pattern, text)] == []


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_options_of_a_family_are_named(family: str) -> None:
    text = (ROOT / "components" / "train" / "README.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(f"| `{family}` |"))
    missing = [name for name in family_module(family).Options.model_fields if f"`{name}`" not in line]
    assert missing == []


def test_every_component_is_listed() -> None:
    listed = set(re.findall(r"\]\((\w+)/README\.md\)", (ROOT / "components" / "README.md").read_text(encoding="utf-8")))
    assert listed == {folder.name for folder in COMPONENTS}


def test_the_readme_names_what_is_switched_off() -> None:
    text = README.read_text(encoding="utf-8")
    quiet = {"TQDM_DISABLE"}  # a progress bar, not telemetry
    assert [
        name for name, value in TELEMETRY_OFF.items() if name not in quiet and f"`{name}={value}`" not in text
    ] == []


def test_the_readme_stays_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < LONGEST_README
