"""The loop file: strict, frozen, and clear about what is wrong."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from kfloop.core.config import STEP_SECTIONS, LoopConfig, load_config, parse_section, section_json
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "loop.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_name_is_enough(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "name: tiny\n"))
    assert config.data.source == "digits"
    assert config.gate.rules is None


def test_paths_are_relative_to_the_loop_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "name: x\ndata: {source: photos, fresh: incoming}\n"))
    assert config.data.source == str(tmp_path / "photos")
    assert config.monitor.fresh == str(tmp_path / "incoming")
    workspace = config.workspace(tmp_path)
    assert workspace.state == f"sqlite:///{tmp_path}/.kfloop/state.db"
    assert workspace.store == str(tmp_path / ".kfloop/store")


def test_where_servers_publish_their_request_logs_is_part_of_the_workspace(tmp_path: Path) -> None:
    text = "name: x\ncluster: {requests: 's3://cluster/requests', root: /volume}\n"
    path = write(tmp_path, text + "requests: s3://bucket/requests\n")
    workspace = load_config(path).workspace(tmp_path)
    assert workspace.requests == "s3://bucket/requests"
    assert workspace.request_log != workspace.collected
    assert Workspace.from_json(workspace.to_json()) == workspace
    assert load_config(path, on_cluster=True).workspace(tmp_path).requests == "s3://cluster/requests"
    assert load_config(write(tmp_path, "name: x\nrequests: shared\n")).workspace(tmp_path).requests == str(
        tmp_path / "shared"
    )
    plain = load_config(write(tmp_path, "name: x\n")).workspace(tmp_path)
    assert plain.request_log == plain.collected == tmp_path / ".kfloop" / "requests"
    assert "requests" not in json.loads(plain.to_json())  # a cache that a loop has goes on
    with pytest.raises(ConfigError, match="holds a password"):
        load_config(write(tmp_path, "name: x\nrequests: 's3://key:hidden@bucket/requests'\n"))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("name: x\ntrian: {}\n", "unknown key 'trian'", "did you mean 'train'"),
        ("name: x\ntrain: {epoch: 3}\n", "unknown key 'train.epoch'", "did you mean 'epochs'"),
        (
            "name: x\ngate: {rules: [{metric: accuracy, atleast: 1}]}\n",
            "unknown key 'gate.rules.0.atleast'",
            "at_least",
        ),
        ("data: {}\n", "'name' is missing", "name:"),
        ("name: X Y\n", "'name' is 'X Y'", ""),
        ("name: x\ntrain: {epochs: -1}\n", "'train.epochs' is -1", ""),
        ("name: x\ntrain: {epochs: many}\n", "'train.epochs' is 'many'", ""),
        ("name: x\ndata: {split: {validation: .5, test: .6}}\n", "sum to less than 1", ""),
        ("name: x\ngate: {rules: [{metric: accuracy}]}\n", "exactly one of at_least and at_most", ""),
        (
            "name: x\ngate: {rules: [{metric: acuracy, at_least: .5}]}\n",
            "no such figure (did you mean 'accuracy'?)",
            "",
        ),
        ("name: x\ngate: {rules: [{metric: p95_ms, at_most: 5}]}\n", "evaluate has no such figure", ""),
        ("name: x\ngate: {rules: [{metric: accuracy, at_most: .9}]}\n", "higher is better, so give at_least", ""),
        ("name: x\ngate: {rules: [{metric: p95_ms, source: bless, at_least: 1}]}\n", "lower is better", ""),
        (
            "name: x\ngate: {rules: [{metric: accuracy, versus: champion, relative: true, at_least: 0}]}\n",
            "relative is for errors",
            "",
        ),
        ("name: x\ngate: {rules: [{metric: mse, slice: chanel:a, at_most: 1}]}\n", "there is no slice 'chanel:a'", ""),
        ("name: x\ngate: {rules: [{metric: noise, source: labels, versus: champion, at_most: 1}]}\n", "alone", ""),
        (
            "name: x\ngate: {rules: [{metric: p95_ms, source: bless, use: interval, at_most: 1}]}\n",
            "bless gives no intervals",
            "",
        ),
        ("- a\n", "holds a list", ""),
        ("", "holds nothing", ""),
        ("name: [\n", "not valid YAML", ""),
    ],
)
def test_a_wrong_file_is_refused_with_a_message_that_helps(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no loop file") as caught:
        load_config(tmp_path / "loop.yaml")
    assert "kfloop init" in caught.value.hint


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        LoopConfig(name="x").name = "y"  # type: ignore[misc]  # that is the point


def test_every_section_travels_as_json_and_back_without_change() -> None:
    config = LoopConfig(name="x")
    for step, key in STEP_SECTIONS.items():
        assert parse_section(step, section_json(config, step)) == config.section(key)


def test_integers_stay_integers_on_the_way() -> None:
    assert '"processes":1' in section_json(LoopConfig(name="x"), "train")


def test_a_garbled_section_is_refused() -> None:
    with pytest.raises(ConfigError, match="step 'train'"):
        parse_section("train", '{"epochs": 0}')
