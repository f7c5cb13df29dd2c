"""A week of hourly rounds of the real monitor on a real log, killed at random: the memory is that of a week without kills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import monitored_table
from kfloop.components.monitor.monitoring import after_publish, run
from kfloop.core.sections import MonitorConfig
from kfloop.core.state.monitors import Monitors, Triggers
from kfloop.core.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow
BEGIN, HOUR = 1_760_000_400, 3600  # the first row of the log
HOURS, ROWS, DRIFTS = 7 * 24, 20, 90
KILLS = 0.3


class Killed(BaseException):
    """The process ended here."""


def spoken(bench: Any, hour: int) -> None:
    """What an hour brings: rows, which drift from hour 90 on, and the truth of half of those of the day before."""
    rows = monitored_table.draw(hour + 1, ROWS)
    if hour >= DRIFTS:
        rows["number"][:, 0] += 15
        rows = monitored_table.answered(rows)
    bench.log(rows, hour * ROWS, step=HOUR / ROWS)
    if hour >= 24:
        known = monitored_table.draw(hour - 23, ROWS)["probabilities"].argmax(axis=1)[::2]
        lines = [
            {"request_id": f"r{(hour - 24) * ROWS + 2 * i:06d}", "label": monitored_table.SIGNATURE.labels[k]}
            for i, k in enumerate(known.tolist())
        ]
        with (bench.workspace.root / "feedback.jsonl").open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(line) + "\n" for line in lines))


def look(bench: Any, hour: int, out: Path) -> dict[str, Any]:
    """One round, as the engine makes it: evidence, then the trigger."""
    out.mkdir()
    run(MonitorConfig(), out=out, workspace=bench.workspace, now=BEGIN + (hour + 1) * HOUR + 30.0)
    path = Store(bench.workspace.store).publish(out, "evidence")
    after_publish(path, bench.workspace)
    return dict(json.loads((path / "report.json").read_text()))


def killed_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, before: bool) -> None:
    """The next call of this ends the process, before or after its work."""
    work: Callable[..., Any] = getattr(owner, name)

    def ended(*args: Any, **kwargs: Any) -> Any:
        if not before:
            work(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(owner, name, ended)


def counted(bench: Any) -> dict[str, Any]:
    """The memory without the clock of the last round."""
    memory = bench.memory()
    return dict(memory | {"quality": memory["quality"] | {"now": 0}})


def test_a_week_of_kills_ends_like_one_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFLOOP_RUN_ID", raising=False)
    whole, torn = monitored_table.make_bench(tmp_path / "whole"), monitored_table.make_bench(tmp_path / "torn")
    dice, kills = np.random.default_rng(0), 0
    places = [(Monitors, "save"), (Store, "publish"), (Triggers, "add")]
    for hour in range(HOURS):
        for bench in (whole, torn):
            spoken(bench, hour)
        expected = look(whole, hour, tmp_path / f"whole-{hour}")
        if hour < HOURS - 1 and dice.random() < KILLS:
            owner, name = places[dice.integers(len(places))]
            with monkeypatch.context() as patch:
                killed_at(patch, owner, name, before=bool(dice.integers(2)))
                with pytest.raises(Killed):
                    look(torn, hour, tmp_path / f"torn-{hour}")
            kills += 1
            continue  # the next hour's round takes over
        found = look(torn, hour, tmp_path / f"torn-{hour}")
    assert kills > HOURS * KILLS / 2
    assert counted(torn) == counted(whole)
    assert found["rows_seen"] == expected["rows_seen"] == HOURS * ROWS
    assert found["causes"] == expected["causes"]
    assert (found["cause"], found["alarm_row"]) == ("drift", expected["alarm_row"])
    assert DRIFTS * ROWS < found["alarm_row"] <= (DRIFTS + 24) * ROWS
    # The truth that came says that the champion is as right as it was: the drift is certain, and no harm.
    assert found["outcome"] == "none"
    assert next(line for line in found["causes"] if line["kind"] == "realised")["refutes"]
