"""Schedules as code: the cluster's recurring runs become those of the file, and stay so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cluster_loops import QUICK, write_loop
from kfloop.cli.schedule import schedule_command
from kfloop.core.config import load_config
from kfloop.errors import ConfigError, KfloopError, ServerUnavailable
from kfloop.pipelines.cluster.compiling import compile_pipelines
from kfloop.pipelines.cluster.cron import checked_cron
from kfloop.pipelines.cluster.schedules import load_schedules
from kfloop.pipelines.cluster.scheduling import Plan, apply, plan
from kfp_server import KfpServer, Trouble, kfp_server

NIGHTLY = {"pipeline": "monitoring", "cron": "0 0 3 * * *"}
WEEKLY = {"pipeline": "training", "cron": "0 30 4 * * 1"}


@pytest.fixture
def kfp() -> Iterator[KfpServer]:
    with kfp_server() as server:
        yield server


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    compile_pipelines(load_config(write_loop(folder, "http://nobody"), on_cluster=True).cluster, folder)
    return folder


@pytest.fixture
def folder(kfp: KfpServer, tmp_path: Path) -> Path:
    write_loop(tmp_path, kfp.url)
    return tmp_path


def planned(folder: Path, compiled: Path, schedules: dict[str, Any], owner: str = "default", **options: Any) -> Plan:
    file = folder / "schedules.yaml"
    file.write_text(yaml.safe_dump({"set": owner, "schedules": schedules}))
    return plan(load_schedules(file), folder, compiled=compiled, patience=QUICK, **options)


def applied(folder: Path, compiled: Path, schedules: dict[str, Any], **options: Any) -> list[tuple[str, str]]:
    """What applying the schedules did."""
    found = planned(folder, compiled, schedules, **options)
    apply(found)
    return [(change.action, change.name) for change in found.todo]


def shown(kfp: KfpServer) -> list[tuple[str, str, str]]:
    """Name, state and cron of what is on the server."""
    return sorted(
        (one["display_name"], one["status"], one["trigger"]["cron_schedule"]["cron"]) for one in kfp.recurring
    )


def test_a_second_time_changes_nothing(kfp: KfpServer, folder: Path, compiled: Path) -> None:
    both = {"nightly": NIGHTLY, "weekly": WEEKLY}
    assert applied(folder, compiled, both) == [("create", "nightly"), ("create", "weekly")]
    assert shown(kfp) == [("nightly", "ENABLED", "0 0 3 * * *"), ("weekly", "ENABLED", "0 30 4 * * 1")]
    posts = kfp.count("POST")
    assert applied(folder, compiled, both) == []
    assert kfp.count("POST") == posts
    assert kfp.count("DELETE") == 0


def test_a_file_that_was_cut_off_deletes_nothing(kfp: KfpServer, folder: Path, compiled: Path) -> None:
    applied(folder, compiled, {"nightly": NIGHTLY})
    file = folder / "schedules.yaml"
    file.write_text("set: default\nloop: loop.yaml\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'schedules' is missing"):
        load_schedules(file)
    assert applied(folder, compiled, {}, prune=True) == [("delete", "nightly")]  # none, where it says so


def test_one_run_at_a_time_and_nothing_made_up_for(kfp: KfpServer, folder: Path, compiled: Path) -> None:
    applied(folder, compiled, {"nightly": NIGHTLY | {"start": "2027-01-01T00:00:00+01:00"}})
    (made,) = kfp.recurring
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == ("1", True, "DISABLE")
    assert made["service_account"] == "kfloop-runner"
    assert made["trigger"]["cron_schedule"]["start_time"] == "2027-01-01T00:00:00+01:00"
    assert json.loads(made["runtime_config"]["parameters"]["workspace"])["root"] == "/kfloop/digits"


def test_a_change_makes_the_new_one_before_the_old_one_goes(kfp: KfpServer, folder: Path, compiled: Path) -> None:
    applied(folder, compiled, {"nightly": NIGHTLY})
    before = len(kfp.requests)
    found = planned(folder, compiled, {"nightly": NIGHTLY | {"cron": "0 0 5 * * *"}})
    assert [change.why for change in found.todo] == ["changed: cron 0 0 3 * * * -> 0 0 5 * * *"]
    apply(found)
    assert shown(kfp) == [("nightly", "ENABLED", "0 0 5 * * *")]
    writes = [
        line.split("/")[0].split(":")[0] + line[line.rfind(":") :] * (":" in line) for line in kfp.requests[before:]
    ]
    assert [line for line in writes if not line.startswith("GET")] == ["POST recurringruns", "POST recurringruns:enable", "DELETE recurringruns"]  # fmt: skip


def test_a_changed_loop_is_a_changed_schedule(kfp: KfpServer, folder: Path, compiled: Path) -> None:
    applied(folder, compiled, {"nightly": NIGHTLY})
    loop = yaml.safe_load((folder / "loop.yaml").read_text())
    (folder / "loop.yaml").write_text(yaml.safe_dump(loop | {"train": {"seed": 7}}))
    (change,) = planned(folder, compiled, {"nightly": NIGHTLY}).todo
    assert (change.action, change.why) == ("replace", "changed: train_config")


def test_off_and_on_again(kfp: KfpServer, folder: Path, compiled: Path) -> None:
    off = {"nightly": NIGHTLY | {"enabled": False}}
    assert applied(folder, compiled, off) == [("create", "nightly")]
    assert shown(kfp)[0][1] == "DISABLED"
    assert applied(folder, compiled, {"nightly": NIGHTLY}) == [("enable", "nightly")]
    assert applied(folder, compiled, off) == [("disable", "nightly")]
    assert len(kfp.recurring) == 1
    assert kfp.count("POST recurringruns") - kfp.count("POST recurringruns/") == 1


def test_what_somebody_switched_off_by_hand_is_switched_on(kfp: KfpServer, folder: Path, compiled: Path) -> None:
    applied(folder, compiled, {"nightly": NIGHTLY})
    kfp.recurring[0]["status"] = "DISABLED"
    assert applied(folder, compiled, {"nightly": NIGHTLY}) == [("enable", "nightly")]


def test_what_the_file_does_not_name(kfp: KfpServer, folder: Path, compiled: Path) -> None:
    """Only with ``prune``, only of this set, and never what somebody else made."""
    applied(folder, compiled, {"nightly": NIGHTLY, "weekly": WEEKLY})
    applied(folder, compiled, {"theirs": NIGHTLY}, owner="other-team")
    by_hand = kfp.recurring[0] | {
        "recurring_run_id": "by-hand",
        "description": "made in the UI",
        "display_name": "mine",
    }
    kfp.stored["recurringruns"]["by-hand"] = by_hand
    found = planned(folder, compiled, {"nightly": NIGHTLY})
    assert found.todo == []
    assert found.left == ["theirs (0 0 3 * * *, of set 'other-team')", "weekly (0 30 4 * * 1)"]
    assert applied(folder, compiled, {"nightly": NIGHTLY}, prune=True) == [("delete", "weekly")]
    assert [one[0] for one in shown(kfp)] == ["mine", "nightly", "theirs"]
    assert applied(folder, compiled, {}, prune=True) == [("delete", "nightly")]
    with pytest.raises(
        ConfigError, match="'theirs' of namespace 'kubeflow' belongs to set 'other-team', not to 'default'"
    ):
        planned(folder, compiled, {"theirs": NIGHTLY})


@pytest.mark.parametrize("killed_at", ["POST recurringruns", ":enable", "DELETE"])
@pytest.mark.parametrize("before", [True, False])
def test_cut_short_anywhere_the_next_apply_goes_on(
    killed_at: str, before: bool, kfp: KfpServer, folder: Path, compiled: Path
) -> None:
    """The schedule runs at every moment, and in the end exactly once."""
    changed = {"nightly": NIGHTLY | {"cron": "0 0 5 * * *"}}
    applied(folder, compiled, {"nightly": NIGHTLY})
    dead = False

    def kill(asked: str) -> Trouble | None:
        """From the fatal request on nobody answers; of two kills one comes before it is carried out, one after."""
        nonlocal dead
        fatal = not dead and (asked == killed_at or asked.endswith(killed_at) or asked.startswith(f"{killed_at} "))
        dead = dead or fatal
        return Trouble(done=fatal and not before) if dead else None

    kfp.trouble = kill
    with pytest.raises(ServerUnavailable):
        applied(folder, compiled, changed)
    assert any(one["status"] == "ENABLED" for one in kfp.recurring)
    kfp.trouble = lambda _: None
    applied(folder, compiled, changed)
    assert shown(kfp) == [("nightly", "ENABLED", "0 0 5 * * *")]
    assert applied(folder, compiled, changed) == []


@pytest.mark.parametrize("verb", ["POST recurringruns", "DELETE"])
def test_a_lost_answer_repeats_nothing(verb: str, kfp: KfpServer, folder: Path, compiled: Path) -> None:
    applied(folder, compiled, {"nightly": NIGHTLY})
    lost = [Trouble(done=True)]
    kfp.trouble = lambda asked: lost.pop() if lost and asked.startswith(verb) and not asked.endswith("able") else None
    applied(folder, compiled, {"nightly": NIGHTLY | {"cron": "0 0 5 * * *"}})
    assert lost == []
    assert shown(kfp) == [("nightly", "ENABLED", "0 0 5 * * *")]


def test_two_clusters_in_one_file(kfp: KfpServer, folder: Path, compiled: Path) -> None:
    with kfp_server() as other:
        (folder / "wine").mkdir()
        write_loop(folder / "wine", other.url, name="wine")
        applied(folder, compiled, {"nightly": NIGHTLY, "wine": NIGHTLY | {"loop": "wine/loop.yaml"}})
        assert ([one[0] for one in shown(kfp)], [one[0] for one in shown(other)]) == (["nightly"], ["wine"])


def test_an_image_that_is_not_released(kfp: KfpServer, folder: Path) -> None:
    write_loop(folder, kfp.url, image=None)
    (folder / "schedules.yaml").write_text(yaml.safe_dump({"schedules": {"nightly": NIGHTLY}}))
    with pytest.raises(ConfigError, match="is not released"):
        plan(load_schedules(folder / "schedules.yaml"), folder, patience=QUICK)
    assert kfp.requests == []


# -- the file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("schedules: {a: {cron: '0 3 * * *'}}", r"'schedules.a.cron': '0 3 \* \* \*' has five fields, .* seconds first: '0 0 3 \* \* \*'", ""),
        ("schedules: {a: {cron: '@daily'}}", "has 1 field", ""),
        ("schedules: {a: {cron: '0 0 25 * * *'}}", "hours is '25', expected 0 to 23", ""),
        ("schedules: {a: {}}", "'schedules.a.cron' is missing", "cron"),
        ("schedules: {a: {cron: '0 0 3 * * *', pipline: training}}", "unknown key 'schedules.a.pipline'", "did you mean 'pipeline'"),
        ("schedules: {a: {cron: '0 0 3 * * *', pipeline: approval}}", "'approval'", ""),
        ("schedules: {Night Run: {cron: '0 0 3 * * *'}}", "Night Run", ""),
        ("schedules: {a: {cron: '0 0 3 * * *', start: '2027-01-01T00:00:00'}}", "timezone", ""),
        ("schedules: {a: {cron: '0 0 3 * * *', start: 2027-02-01T00:00:00Z, end: 2027-01-01T00:00:00Z}}", "is not after start", ""),
        ("schedules: {a: {cron: '0 0 3 * * *'}, a: {cron: '0 0 4 * * *'}}", "'a' stands there twice", "line 1"),
        ("- a", "holds a list, expected", ""),
        ("schedules: [", "is not valid YAML", ""),
    ],
)  # fmt: skip
def test_a_wrong_file(text: str, message: str, hint: str, tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as told:
        load_schedules(file)
    assert hint in told.value.hint + told.value.message


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no schedules file"):
        load_schedules(tmp_path / "schedules.yaml")


@pytest.mark.parametrize(
    "cron", ["0 0 3 * * *", "0 */15 * * * ?", "0 0 8-18/2 1,15 JAN-mar mon", "59 59 23 31 12 6", "0  0 3 * * 0"]
)
def test_crons_that_are_taken(cron: str) -> None:
    assert checked_cron(cron) == " ".join(cron.split())


@pytest.mark.parametrize(
    "cron",
    ["", "0 0 3 * *", "60 0 3 * * *", "0 0 3 0 * *", "0 0 3 * 13 *", "0 0 3 * * 7", "0 0 5-3 * * *", "0 */0 * * * *",
     "0 0 3 * * mon-", "0 0 3 * * *; reboot", "0 0 3 * foo *", "0 0 1-2-3 * * *", "0 0 -1 * * *", "@every 1h", "0 0 3 * * * 2027", "0 ,1 * * * *"],
)  # fmt: skip
def test_crons_that_are_not(cron: str) -> None:
    with pytest.raises(ValueError, match=r"expected|wants"):
        checked_cron(cron)


# -- the command -------------------------------------------------------------------------------------


def command(*arguments: str) -> Any:
    return CliRunner().invoke(schedule_command, list(arguments), standalone_mode=False)


def test_dry_run_apply_and_list(kfp: KfpServer, folder: Path, compiled: Path) -> None:
    file = folder / "schedules.yaml"
    file.write_text(yaml.safe_dump({"schedules": {"nightly": NIGHTLY}}))
    arguments = ["apply", str(file), "--compiled", str(compiled)]
    told = command(*arguments, "--dry-run", "--json")
    assert json.loads(told.stdout) == {
        "changes": [{"action": "create", "name": "nightly", "why": "new, 0 0 3 * * *"}],
        "left": [],
        "dry_run": True,
    }
    assert kfp.count("POST") == 0
    assert "1 change(s) made" in command(*arguments).stderr
    assert "nothing to change" in command(*arguments).stderr
    told = command("list", "-c", str(folder / "loop.yaml"), "--json")
    (one,) = json.loads(told.stdout)["schedules"]
    assert (one["name"], one["enabled"], one["cron"], one["set"]) == ("nightly", True, "0 0 3 * * *", "default")
    assert "  on   nightly" in told.stderr


def test_the_command_of_a_wrong_token(kfp: KfpServer, folder: Path, compiled: Path) -> None:
    kfp.secret = "Bearer somebody"
    (folder / "schedules.yaml").write_text(yaml.safe_dump({"schedules": {"nightly": NIGHTLY}}))
    told = command("apply", str(folder / "schedules.yaml"), "--compiled", str(compiled))
    assert isinstance(told.exception, KfloopError)
    assert told.exception.exit_code == 2
