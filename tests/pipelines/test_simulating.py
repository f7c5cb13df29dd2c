"""A replay of a small stream whose rule turns round: real trainings, a real monitor, refusals with the place, and interruptions anywhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from kfloop.cli.simulate import simulate_command
from kfloop.core.config import LoopConfig
from kfloop.core.state import open_state
from kfloop.errors import ConfigError, InputError, KfloopError
from kfloop.pipelines.simulating.outcomes import baselines, paired, summarise
from kfloop.pipelines.simulating.records import Journal, Window
from kfloop.pipelines.simulating.replaying import Played, Replay
from kfloop.pipelines.simulating.settings import Settings, seconds
from kfloop.pipelines.simulating.stream import Stream, read_stream
from kfloop.report.simulation import render_simulation

ROWS, TURN, INITIAL = 600, 350, 300
SETTINGS = Settings(
    window=100,
    every=2,
    policies=("monitor", "never", "every"),
    initial=INITIAL / ROWS,
    memory=200,
    label_delay=3600.0,
)
MEASURED = ("cpu_seconds", "watch_cpu_seconds")
Columns = dict[str, list[Any]]


def columns(n: int = ROWS, turn: int = TURN) -> Columns:
    """From row ``turn`` on ``a`` is 5 higher, and the classes have changed places."""
    rng = np.random.default_rng(0)
    after = np.arange(n) >= turn
    a, b = rng.normal(size=n), rng.normal(size=n)
    up = np.where(after, -a, a) + 0.2 * b > 0
    times = np.datetime64("2024-01-01T00:00:00") + np.arange(n) * np.timedelta64(30, "m")
    return {
        "at": [str(time) for time in times],
        "a": [f"{value:.4f}" for value in a + 5 * after],
        "b": [f"{value:.4f}" for value in b],
        "kind": rng.choice(["x", "y"], n).tolist(),
        "label": ["up" if one else "down" for one in up],
    }


def write(path: Path, told: Columns) -> Path:
    lines = [",".join(told), *(",".join(map(str, row)) for row in zip(*told.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def loop(**sections: Any) -> LoopConfig:
    train = {"family": "mlp", "epochs": 5, "batch_size": 32, "accelerator": "cpu", "options": {"width": 16, "depth": 0}}
    rule = {"metric": "accuracy", "versus": "champion", "at_least": 0.0}
    told = {"name": "small", "data": {"source": "rows.csv", "label": "label", "time": "at"}, "train": train}
    told |= {"gate": {"rules": [rule]}, "evaluate": {"bootstrap": 200, "baseline": "none", "slices": []}}
    return LoopConfig.model_validate(told | sections)


def read(
    folder: Path, told: Columns | None = None, config: LoopConfig | None = None, step: float | None = None
) -> Stream:
    path = write(folder / "rows.csv", told or columns())
    return read_stream(path, (config or loop()).data, step)


def plain(played: Played) -> Any:
    """Everything that two equal replays have in common: not the time they took."""

    def kept(one: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in one.items() if key not in MEASURED}

    found = {name: [kept(one.as_dict()) for one in windows] for name, windows in played.windows.items()}
    return {"windows": found, "trainings": {moment: kept(one) for moment, one in played.trainings.items()}}


def evidence(replay: Replay, window: int) -> Any:
    """What the monitor remembers after a window, and what it concluded."""
    path = replay.folder / "monitor" / f"state-{window + 1:06d}.db"
    state = open_state(f"sqlite:///{path}")
    try:
        champion = state.ledger.champion("small")
        assert champion is not None
        triggers = [replace(one, evidence_digest="") for one in state.triggers.history("small")]
        return state.monitors.load("small", champion.model_digest), triggers, champion.version
    finally:
        state.engine.dispose()
        open_state.cache_clear()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Replay, Played, Stream]]:
    folder = tmp_path_factory.mktemp("whole")
    stream = read(folder)
    replay = Replay(loop(), SETTINGS, stream, folder, folder / "out")
    yield replay, replay.play(), stream
    open_state.cache_clear()


def test_the_monitor_sees_the_turn_and_retrains_when_the_gate_lets_it(whole: Any) -> None:
    _, played, _ = whole
    monitor, never, every = (played.windows[name] for name in SETTINGS.policies)
    assert {len(windows) for windows in played.windows.values()} == {3}
    assert monitor[0].hits == never[0].hits == every[0].hits  # one and the same first model
    assert any(one.promoted for one in monitor)
    assert sum(one.hits for one in monitor) > sum(one.hits for one in never) + 30
    assert all(one.gate for one in monitor if one.trained)
    assert [one.trained for one in every] == [False, True, False]
    assert not any(one.trained for one in never)


def test_a_training_is_made_once_for_all_who_ask_and_knows_no_label_too_early(whole: Any) -> None:
    replay, played, stream = whole
    assert {-1, 1} <= set(played.trainings)
    assert len(list((replay.workspace.root / "trainings").glob("*.json"))) == len(played.trainings)
    first = played.trainings[-1]
    assert (first["rows"], first["newest"]) == (INITIAL, INITIAL - 1)
    for window, training in played.trainings.items():
        if window >= 0:
            end = INITIAL + (window + 1) * SETTINGS.window - 1
            assert training["rows"] == SETTINGS.memory
            assert stream.times_ns[end] - stream.times_ns[training["newest"]] == 3600e9


def test_what_is_played_is_not_played_again(whole: Any) -> None:
    replay, played, _ = whole
    told: list[str] = []
    assert plain(replay.play(lambda name, *_: told.append(name))) == plain(played)
    assert told == []


@pytest.mark.slow
@pytest.mark.parametrize("where", [1, 3, 5])
def test_two_halves_in_another_folder_equal_the_whole(
    whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: int
) -> None:
    """The crash comes at the worst moment: the monitor has saved what it saw, and the window is not on record yet."""
    replay, played, _ = whole
    left, add = [where], Journal.add

    def crash(journal: Journal, window: Window) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        add(journal, window)

    monkeypatch.setattr(Journal, "add", crash)
    with pytest.raises(KeyboardInterrupt):
        Replay(loop(), SETTINGS, read(tmp_path), tmp_path, tmp_path / "out").play()
    journal = next((tmp_path / "out").rglob("monitor.jsonl"), None)
    if journal is not None:
        with journal.open("a", encoding="utf-8") as stream:
            stream.write('{"index": 9, "torn')
    again = Replay(loop(), SETTINGS, read(tmp_path), tmp_path, tmp_path / "out")
    assert plain(again.play()) == plain(played)
    assert evidence(again, 2) == evidence(replay, 2)


def test_a_gate_that_turns_challengers_down_keeps_the_first_model(tmp_path: Path) -> None:
    config = loop(gate={"rules": [{"metric": "accuracy", "at_least": 1.0}]})
    settings = replace(SETTINGS, policies=("monitor", "never"), until=2)
    played = Replay(config, settings, read(tmp_path), tmp_path, tmp_path / "out").play()
    monitor, never = played.windows["monitor"], played.windows["never"]
    trained = [one for one in monitor if one.trained]
    assert trained
    assert not any(one.promoted for one in monitor)
    assert all("accuracy" in one.gate for one in trained)
    assert [one.hits for one in monitor] == [one.hits for one in never]


def test_without_labels_the_monitor_asks_for_them_and_always_learns_nothing_new(tmp_path: Path) -> None:
    settings = replace(SETTINGS, policies=("monitor", "always"), label_delay=90 * 86400.0, until=2)
    played = Replay(loop(), settings, read(tmp_path), tmp_path, tmp_path / "out").play()
    monitor = played.windows["monitor"]
    assert monitor[-1].outcome == "needs_labels"
    assert not any(one.trained for one in monitor)
    assert all(training["failed"] for moment, training in played.trainings.items() if moment >= 0)
    assert len({one.moment for one in played.windows["always"]}) == 1


def test_garbage_missing_labels_and_windows_of_one_class_are_played(tmp_path: Path) -> None:
    told = columns()
    told["a"][310:320] = ["junk"] * 10
    told["b"][330:340] = [""] * 10
    told["kind"][340:380] = ["never seen"] * 40
    told["label"][400:500] = [""] * 100  # the whole second window
    told["label"][500:] = ["up"] * 100  # one class in the third
    stream = read(tmp_path, told)
    assert sum("junk" in note for note in stream.notes) == 1
    assert any("100 rows have no label" in note for note in stream.notes)
    settings = replace(SETTINGS, policies=("monitor", "always"), memory=60)
    played = Replay(loop(), settings, stream, tmp_path, tmp_path / "out").play()
    assert [one.labelled for one in played.windows["always"]] == [100, 0, 100]
    failed = [training for training in played.trainings.values() if training["failed"]]
    assert failed  # 60 rows of one class teach nothing, and the champion stays
    assert all("class" in training["failed"] for training in failed)
    summary = summarise(played, stream, settings, loop())
    assert summary["policies"]["always"]["failed"] == len(failed)
    page = render_simulation(summary, tmp_path / "a.html", made=1.8e9).read_text(encoding="utf-8")
    assert "junk" in page


def test_the_page_shows_policies_baselines_and_the_course(whole: Any, tmp_path: Path) -> None:
    _, played, stream = whole
    summary = summarise(played, stream, SETTINGS, loop(train={"family": "mlp", "price_per_hour": 3600.0}))
    monitor = summary["policies"]["monitor"]
    assert monitor["price"] == pytest.approx(monitor["cpu_seconds"] + monitor["watch_cpu_seconds"])
    assert monitor["rows_trained"] == monitor["trainings"] * 200
    json.dumps(summary, allow_nan=False)
    told = json.loads(json.dumps(summary))
    told["windows"]["monitor"][1]["reason"] = "<script>alert(1)</script>"
    page = render_simulation(told, tmp_path / "a.html", made=1.8e9).read_text(encoding="utf-8")
    assert page.count('<svg class="plot"') == 1
    assert "repeat the last label" in page
    assert "every 2 windows" in page
    assert "<script>" not in page
    assert page == render_simulation(told, tmp_path / "b.html", made=1.8e9).read_text(encoding="utf-8")


def test_baselines_know_no_label_before_its_time(tmp_path: Path) -> None:
    told = columns(8, turn=8) | {"label": ["a", "a", "b", "a", "", "b", "b", "a"]}
    stream = read(tmp_path, told)
    found = baselines(stream, range(3, 8), 3600.0)  # rows are half an hour apart: a label is known two rows later
    assert found["repeat_last"] == pytest.approx(1 / 4)  # a after b, b after a, b after b, a after b
    assert found["repeat_known"] == pytest.approx(1 / 4)  # a: a of row 1; b: a of row 3; b: a of row 3; a: b of row 5
    assert found["majority"] == pytest.approx(2 / 4)
    assert baselines(stream, range(4, 5), 3600.0)["repeat_last"] is None


def windows(hits: list[int], labelled: int = 100) -> list[Window]:
    base = {"start": "", "end": "", "moment": -1, "outcome": "none", "reason": "", "first": 0, "last": 0}
    return [Window(index=at, labelled=labelled, hits=hit, **base) for at, hit in enumerate(hits)]


def test_the_interval_of_a_difference_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(150):
        theirs = rng.binomial(100, 0.7, 60)
        ours = theirs + rng.integers(-4, 9, 60)  # 2 more on average
        found = paired(windows(ours.tolist()), windows(theirs.tolist()))
        covered.append(found["low"] <= 0.02 <= found["high"])
    assert 0.87 <= np.mean(covered) <= 1.0
    few = paired(windows([1, 2]), windows([1, 1]))
    assert (few["value"], few["low"]) == (pytest.approx(1 / 200), None)
    assert paired(windows([0], 0), windows([0], 0))["value"] is None


def backwards(told: Columns) -> None:
    told["at"][7] = told["at"][3]


def new_class(told: Columns) -> None:
    told["label"][500] = "sideways"


def one_class(told: Columns) -> None:
    told["label"][:INITIAL] = ["up"] * INITIAL


def quantity(told: Columns) -> None:
    told["label"] = [f"{at / 7:.3f}" for at in range(ROWS)]


def no_label(told: Columns) -> None:
    del told["label"]


def no_time(told: Columns) -> None:
    del told["at"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (backwards, r"row 8 \(line 9\).*before that of the row before"),
        (new_class, r"class 'sideways' appears first at 2024-01-11T10:00:00"),
        (one_class, r"hold 1 class \(up\)"),
        (quantity, r"class '.*' appears first|for regression"),
        (no_label, r"no column 'label' \(data.label\)"),
        (no_time, r"no column 'at' \(data.time\)"),
    ],
)
def test_rows_that_cannot_be_played_are_refused_with_the_place(tmp_path: Path, damage: Any, message: str) -> None:
    told = columns()
    damage(told)
    with pytest.raises(InputError, match=message):
        Replay(loop(), SETTINGS, read(tmp_path, told), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_without_a_time_are_evenly_apart_and_parquet_has_its_own_types(tmp_path: Path) -> None:
    data = {"source": "rows.csv", "label": "label"}
    told = columns()
    del told["at"]
    stream = read(tmp_path, told, loop(data=data), step=1800.0)
    assert set(np.diff(stream.times_ns).tolist()) == {int(1800e9)}
    with pytest.raises(ConfigError, match="nothing tells the time"):
        read(tmp_path, told, loop(data=data))
    seconds_of = pa.table({"at": [10, 20, 30], "a": [1.0, None, 2.0], "label": [0, 1, None]})
    pq.write_table(seconds_of, tmp_path / "rows.parquet")
    found = read_stream(tmp_path / "rows.parquet", loop().data, None)
    assert (found.times_ns.tolist(), found.truth.tolist()) == ([10**10, 2 * 10**10, 3 * 10**10], ["0", "1", None])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "nowhere.csv"], "'nowhere.csv' does not exist"),
        (["--rows", "{folder}/empty.csv"], "is empty"),
        (["--rows", "{folder}/picture.png"], "is no table"),
        (["--rows", "{folder}/rows.csv", "--policies", "monitor,sometimes"], "'sometimes'"),
        (["--rows", "{folder}/rows.csv", "--policies", "never,never"], "each policy once"),
        (["--rows", "{folder}/rows.csv", "--label-delay", "soon"], "--label-delay is 'soon'"),
        (["--rows", "{folder}/rows.csv", "--window", "0"], "--window is 0"),
        (["--rows", "{folder}/rows.csv", "--initial", "1"], "--initial is 1"),
        (["--rows", "{folder}/rows.csv", "--initial", "0.9999"], "too few"),
        (["--rows", "{folder}/rows.csv", "--time", "when"], "no column 'when'"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "picture.png").write_bytes(b"png")
    write(tmp_path / "rows.csv", columns())
    path = tmp_path / "loop.yaml"
    path.write_text("name: small\ndata: {source: rows.csv, label: label, time: at}\n", encoding="utf-8")
    given = [one.replace("{folder}", str(tmp_path)) for one in arguments]
    with pytest.raises(KfloopError) as caught:
        CliRunner().invoke(simulate_command, [*given, "-c", str(path)], standalone_mode=False, catch_exceptions=False)
    assert message in caught.value.message
    assert caught.value.exit_code == 2
    assert not (tmp_path / "simulation").exists()


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_training_keeps_what_is_done(tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", columns())
    path = tmp_path / "loop.yaml"
    slow = {"family": "mlp", "epochs": 100_000, "patience": 100_000, "accelerator": "cpu"}
    path.write_text(loop(train=slow).model_dump_json(exclude_unset=True), encoding="utf-8")
    command = [sys.executable, "-m", "kfloop", "simulate", "-c", str(path), "--rows", str(tmp_path / "rows.csv")]
    process = subprocess.Popen([*command, "--policies", "never"], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        while not list(tmp_path.glob("simulation/work/*/training-*/work/*.ckpt")):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "interrupted; windows that were played are kept" in told
    assert "Traceback" not in told
    assert not list(tmp_path.glob("simulation/work/*/training-*"))


def test_times_are_read_with_their_unit() -> None:
    assert [seconds(text, "--step") for text in ("90", "30m", "1.5h", "2d", "1w")] == [90, 1800, 5400, 172800, 604800]


def test_the_command_writes_both_files_and_goes_on_where_it_was(tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", columns())
    path = tmp_path / "loop.yaml"
    path.write_text(loop().model_dump_json(exclude_unset=True), encoding="utf-8")
    options = [
        "-c",
        str(path),
        "--rows",
        str(tmp_path / "rows.csv"),
        "--window",
        "100",
        "--initial",
        str(INITIAL / ROWS),
    ]
    options += ["--policies", "never", "--json"]
    first = CliRunner().invoke(simulate_command, [*options, "--until", "2"], standalone_mode=False)
    assert first.exception is None
    assert "2 of 2" in first.stderr
    second = CliRunner().invoke(simulate_command, options, standalone_mode=False)
    told = json.loads(second.stdout)
    assert told == json.loads((tmp_path / "simulation" / "simulation.json").read_text(encoding="utf-8"))
    assert [one["index"] for one in told["windows"]["never"]] == [0, 1, 2]
    assert "3 of 3" in second.stderr
    assert "Accuracy: never" in (tmp_path / "simulation" / "simulation.html").read_text(encoding="utf-8")
