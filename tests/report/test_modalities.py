"""Data, validation and labels of every modality: whole, partial and damaged."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import modalities
from kfloop.core.artifacts import write_report
from kfloop.core.workspace import Workspace
from kfloop.report import data_plots, drawings, examples, render_run
from kfloop.report.people import people
from kfloop.report.pictures import Pictures, label_words
from kfloop.report.runs import write_run_report
from kfloop.report.values import interval, share
from loading import load

made = modalities
pages = load(Path(__file__).parent / "test_html.py")

CASES = [
    ("image", "multiclass"),
    ("image", "multilabel"),
    ("audio", "multiclass"),
    ("text", "multilabel"),
    ("table", "multiclass"),
    ("table", "regression"),
    ("vector", "regression"),
    ("series", "forecasting"),
    ("nodes", "multiclass"),
    ("graphs", "multiclass"),
]


def _page(folders: dict[str, Path], tmp_path: Path, record: dict[str, Any] | None = None) -> str:
    page: str = pages.rendered(record or {}, folders, tmp_path)
    assert "could not be read" not in page
    return page


@pytest.mark.parametrize(("modality", "task"), CASES)
def test_every_modality_has_its_examples(modality: str, task: str, tmp_path: Path) -> None:
    folders = made.write_run(tmp_path / "run", modality, task)
    page = _page(folders, tmp_path)
    found = pages.parsed(page)

    kind = {"image": "picture", "audio": "sound", "text": "text", "table": "cells"}.get(modality, "drawing")
    if modality != "series":
        assert f'<ul class="examples {kind}">' in page  # among them the doubtful labels
        assert page.count("not shown") == 0
    assert ("<audio " in page) == (modality == "audio")
    assert ('<svg class="small"' in page) == (modality in {"audio", "vector", "nodes", "graphs"})
    assert ("First rows of the training split" in page) == (modality in {"table", "series"})
    assert ("<h3>Over time</h3>" in page) == (modality == "series")
    assert "No pictures" not in page
    assert found.unnamed == []
    own = ("#", "data:image/png;base64,", "data:audio/wav;base64,")
    assert [link for link in found.links if not link.startswith(own)] == []
    assert "script" not in found.tags
    assert "<b>north</b> " not in page.replace("given <b>north</b>", "")  # the texts hold that as words
    assert len(page) < 2_000_000


@pytest.mark.parametrize(
    ("modality", "task"), [("table", "regression"), ("text", "multilabel"), ("audio", "multiclass")]
)
def test_labels_are_spelled_by_the_task(modality: str, task: str, tmp_path: Path) -> None:
    page = _page(made.write_run(tmp_path / "run", modality, task), tmp_path)

    given, suggested = {
        "regression": ("1.25", "-0.5"),
        "multilabel": ("north, east", "none of them"),
        "multiclass": ("north", "south"),
    }[task]
    assert f"given <b>{given}</b><br>suggested <b>{suggested}</b>" in page
    assert ("<h3>Balance of the classes</h3>" in page) == (task != "regression")
    assert ("<h3>Annotators</h3>" in page) == (task != "regression")
    assert ("estimated share of wrong labels by given class" in page) == (task != "regression")


def test_the_parts_of_the_label_check(tmp_path: Path) -> None:
    page = _page(made.write_run(tmp_path / "run", "image", "multiclass"), tmp_path)

    assert "<dt>estimated share of wrong labels</dt><dd>14.0 % (7.0 to 21.0)</dd>" in page
    assert "<dt>held-out rows with a duplicate in training</dt><dd>16.6 % (6.6 to 26.6)</dd>" in page
    assert "<dt>waiting for people</dt><dd>9</dd>" in page
    assert page.count('<span class="pill bad">conflict</span>') == 2
    assert page.count('<span class="pill wait">leak</span>') == 4
    assert page.count('<div class="sides">') == 4
    assert 'style="--share: 86" title="86.0 % (84.0 to 88.0)">86</td>' in page
    assert "4 rows unlike all others" in page
    assert page.count('<span class="pill bad">worse</span>') == 1
    assert "<dt>Krippendorff&#39;s alpha, 1 when all agree</dt><dd>0.610 (0.530 to 0.690)</dd>" in page
    assert "consensus <b>south</b>, 93.0 %" in page
    assert "<dt>largest class</dt><dd>north (30 rows)</dd>" in page


def test_a_matrix_of_many_classes_becomes_a_list(tmp_path: Path) -> None:
    folders = made.write_run(tmp_path / "run", "vector", "multiclass")
    report = json.loads((folders["check_labels"] / "report.json").read_text())
    names = [f"class {place}" for place in range(40)]
    grid = [[made.estimate(0.9 if a == b else 0.001 * a) for b in range(40)] for a in range(40)]
    report["noise_matrix"] = {"labels": names, "given_true": grid}
    write_report(folders["check_labels"], report)
    page = _page(folders, tmp_path)

    assert 'class="matrix"' not in page
    assert '<tr><th scope="row">class 39</th><td>class 0</td><td>3.9 % (1.9 to 5.9)</td>' in page


def test_the_parts_of_the_validation(tmp_path: Path) -> None:
    page = _page(made.write_run(tmp_path / "run", "table", "multiclass"), tmp_path)

    assert "<dt>not met</dt><dd>1 warning</dd>" in page
    assert "<dt>suite</dt><dd>suite.json aaaaaaaaaaaa</dd>" in page
    assert "<dt>engine</dt><dd>polars</dd>" in page
    assert "16 expectations that were met" in page
    assert (
        '<th scope="row">train and test</th><td>40 and 14 rows</td><td class="number">3</td><td class="number">1</td>'
        in page
    )
    assert page.count('<span class="pill wait">skewed</span>') == 2
    assert "Ulm 60.0 %" in page
    assert "2 (3.1 %)" in page


def test_facts_of_the_data(tmp_path: Path) -> None:
    series = _page(made.write_run(tmp_path / "series", "series", "forecasting"), tmp_path)
    nodes = _page(made.write_run(tmp_path / "nodes", "nodes", "multiclass"), tmp_path)

    assert "<dt>steps forecast</dt><dd>24</dd>" in series
    assert "by time, validation from 2023-11-14 22:13:20 UTC" in series
    assert "<li>Not steps of this run: verdicts, comparison, blessing, " in series
    assert "<dt>edges to nowhere</dt><dd>2</dd>" in nodes
    assert "<dt>directed</dt><dd>no</dd>" in nodes
    assert "commit abcdabcd" in nodes


def _workspace(root: Path) -> Workspace:
    return Workspace(loop="t", root=root, state="sqlite:///x", store=str(root / "store"), mlflow="sqlite:///y")


def _failed_record(folder: Path, run: str, started: float) -> dict[str, Any]:
    steps = [
        {
            "name": "ingest",
            "status": "succeeded",
            "artifact": {"path": str(folder), "digest": "aa"},
            "started": started,
            "seconds": 1.0,
        },
        {
            "name": "validate-data",
            "status": "failed",
            "artifact": None,
            "started": started,
            "seconds": 1.0,
            "error": {"message": "the data fail"},
        },
        {"name": "check-labels", "status": "not_run", "artifact": None, "started": None, "seconds": 0.0},
    ]
    return {"run_id": run, "loop": "t", "status": "failed", "steps": steps}


def test_a_run_that_stopped_at_the_validation_shows_why(tmp_path: Path) -> None:
    made.write_modality(tmp_path / "version", "table")
    workspace = _workspace(tmp_path)
    failed = workspace.kfloop_dir / "failed" / "validation"
    failed.mkdir(parents=True)
    write_report(failed, made.validation_report(failed=True))
    record = _failed_record(tmp_path / "version", "20261121-080000-aaaaaa", time.time())
    page = write_run_report(record, workspace).read_text()

    assert '<section id="validation"' in page
    assert "<dt>not met</dt><dd>1 critical, 1 warning</dd>" in page
    assert "<dt>broken</dt><dd>1 critical</dd>" in page
    assert (
        page.index("there is no column &#39;agee&#39;")
        < page.index("unexpected: [-4]")
        < page.index("unexpected: [-1, -7]")
    )
    assert "<h3>Examples</h3>" in page

    # A later run fails otherwise: the first one's report keeps what it showed, and a run before that one gets nothing of it.
    write_report(failed, made.validation_report(failed=True) | {"results": []})
    assert write_run_report(record, workspace).read_text() == page
    before = _failed_record(tmp_path / "version", "20261120-080000-bbbbbb", time.time() - 1000)
    assert '<section id="validation"' not in write_run_report(before, workspace).read_text()


def test_a_failed_report_older_than_the_run_is_not_its_own(tmp_path: Path) -> None:
    made.write_modality(tmp_path / "version", "table")
    workspace = _workspace(tmp_path)
    failed = workspace.kfloop_dir / "failed" / "validation"
    failed.mkdir(parents=True)
    written = write_report(failed, made.validation_report(failed=True))
    os.utime(written, (time.time() - 600, time.time() - 600))
    record = _failed_record(tmp_path / "version", "20261121-080000-aaaaaa", time.time())

    assert '<section id="validation"' not in write_run_report(record, workspace).read_text()


@pytest.mark.parametrize("modality", ["image", "audio", "text", "table", "series", "graphs"])
def test_a_card_that_lies(modality: str, tmp_path: Path) -> None:
    """Whatever the card says, the section is made, and what cannot be shown is missing."""
    folders = made.write_run(tmp_path / "run", modality, "multiclass")
    path = folders["ingest"] / "card.json"
    card = json.loads(path.read_text())
    for change in (
        {"schema": {}},
        {"labels": []},
        {"splits": {}},
        {"per_class": None, "inputs": []},
        {"task": "regression"},
    ):
        path.write_text(json.dumps(card | change))
        _page(folders, tmp_path)


def test_a_version_that_is_gone_leaves_what_the_ingest_reported(tmp_path: Path) -> None:
    report = {
        "digest": "ab" * 16,
        "modality": "text",
        "task": "multiclass",
        "labels": ["a", "b"],
        "n_rows": 30,
        "splits": {"train": 20, "validation": 4, "test": 6},
        "per_class": {"train": {"a": 11, "b": 9}, "validation": {"a": 2, "b": 2}, "test": {"a": 3, "b": 3}},
    }
    write_report(tmp_path, report)
    page = render_run({}, {"ingest": tmp_path}, tmp_path / "report.html").read_text()

    assert "No pictures: " in page
    assert '<th scope="row">train</th><td class="number">20</td><td class="number">66.7 %</td>' in page
    assert '<th scope="row">b</th><td class="number">9</td><td class="number">2</td><td class="number">3</td>' in page


def test_sounds_are_short_and_slow_enough(tmp_path: Path) -> None:
    times = np.arange(5 * 44_100) / 44_100
    uri = drawings.wav_uri((10_000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16), 44_100)
    with wave.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as sound:
        heard = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
        rate = sound.getframerate()

    assert len(uri) < 45_000
    assert rate <= drawings.HIGHEST_RATE
    assert len(heard) / rate == pytest.approx(2, abs=0.01)
    assert np.abs(np.fft.rfft(heard)).argmax() / (len(heard) / rate) == pytest.approx(440, abs=1)


def test_only_the_first_sounds_can_be_played(tmp_path: Path) -> None:
    ids = made.write_modality(tmp_path / "v", "audio")
    found = examples.by_id(Pictures(folder=tmp_path / "v"), ids["train"][:6], players=2)

    assert [bool(example.uri) for example in found.values()] == [True, True, False, False, False, False]
    assert all(example.drawing for example in found.values())


def test_examples_of_ids_that_are_not_there(tmp_path: Path) -> None:
    ids = made.write_modality(tmp_path / "v", "table")
    pictures = Pictures(folder=tmp_path / "v")

    assert list(examples.by_id(pictures, ["nobody", None, ids["test"][0], ids["test"][0]])) == [ids["test"][0]]
    assert examples.by_id(Pictures(folder=None), ids["test"]) == {}
    assert pictures.by_id(ids["test"]) == {}  # no pictures of a table


def test_drawings_of_nothing_and_of_odd_values() -> None:
    assert drawings.curve(np.array([]), "x") == ""
    assert drawings.curve(np.array([np.nan, np.inf]), "x") == ""
    assert drawings.curve(np.array([1.0, np.nan, 1.0]), "x").count("M") == 2
    assert drawings.waveform(np.array([], np.int16), "x") == ""
    assert drawings.waveform(np.full(3, -32768, np.int16), "x").count("V") == 3
    quiet = drawings.waveform(np.array([100, -200, 50], np.int16), "x")
    assert quiet == drawings.waveform(np.array([10_000, -20_000, 5_000], np.int16), "x")
    assert quiet != drawings.waveform(np.array([1, -2, 1], np.int16), "x")  # silence stays flat
    assert drawings.graph(0, np.empty((0, 2), int), "x") == ""
    assert drawings.graph(500, np.empty((0, 2), int), "x") == ""
    assert drawings.graph(3, np.array([[0, 1], [0, 1], [2, 9], [-1, 0]]), "x").count("L") == 1
    assert 'aria-label="&lt;b&gt;"' in drawings.curve(np.ones(3), "<b>")


def test_plots_of_odd_values() -> None:
    assert data_plots.distribution("d", "d", {"a": np.array([np.nan])}) == ""
    assert data_plots.distribution("d", "d", {"a": np.ones(5)}) == ""
    assert data_plots.distribution("d", "d", {"a": np.array([-1e308, 1e308])}) == ""
    assert "<svg" in data_plots.distribution("d", "d", {"a": np.arange(5.0), "b": np.array([2.0])})
    assert "<svg" in data_plots.series({"a": np.array([1.0])}, {"train": 0}, ())
    found = interval(made.estimate(0.5, 0.7))
    assert found is not None
    assert "<svg" in data_plots.shares("s", "s", {"a": found})


@pytest.mark.parametrize(
    ("value", "task", "words"),
    [
        (1, "multiclass", "b"),
        ("b", "multiclass", "b"),
        (7, "multiclass", "7"),
        ([0, 1], "multilabel", "a, b"),
        ([], "multilabel", "none of them"),
        (1, "regression", "1"),
        (0.123456, "regression", "0.1235"),
        (None, "regression", ""),
        (True, "multiclass", "True"),
    ],
)
def test_labels_in_words(value: Any, task: str, words: str) -> None:
    assert label_words(value, task, ["a", "b"]) == words


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        ({"value": 0.14, "low": 0.07, "high": 0.21}, "14.0 % (7.0 to 21.0)"),
        ({"value": 0.14, "low": None, "high": 0.21}, "14.0 %"),
        (0.5, "50.0 %"),
        ({"value": None}, "\N{EN DASH}"),
        (None, "\N{EN DASH}"),
    ],
)
def test_shares_in_words(value: Any, spelled: str) -> None:
    assert share(value) == spelled


def test_the_page_allows_sounds_of_its_own_only(tmp_path: Path) -> None:
    page = render_run({}, {}, tmp_path / "report.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)

    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "media-src data:;" in policy[1]


def _settle(version: Path, ids: list[str]) -> None:
    """Write who settled some labels into the training split."""
    with pa.ipc.open_stream((version / "train.arrow").read_bytes()) as stream:
        table = stream.read_all()
    settled = [identity in ids for identity in table["id"].to_pylist()]
    who = ["<Anna>" if yes else None for yes in settled]
    when = [f"2026-11-{20 + row % 2}T09:00:00.5Z" if yes else None for row, yes in enumerate(settled)]
    table = table.append_column("label_by", pa.array(who, pa.string()))
    table = table.append_column("label_at", pa.array(when, pa.string()))
    with pa.ipc.new_stream(str(version / "train.arrow"), table.schema) as sink:
        sink.write_table(table)


def test_what_to_do_next_stands_on_top(tmp_path: Path) -> None:
    folders = made.write_run(tmp_path / "run", "image", "multiclass")
    page = _page(folders, tmp_path)
    top = page[: page.index("<nav")]

    assert "9 doubtful labels, 2 conflicting pairs" in top
    assert "<code>kfloop review export</code>" in top
    assert "4 pairs of alike rows in different splits" in top
    assert "1 warning of the validation" in top
    assert top.index("doubtful labels") < top.index("1 warning")


def test_nothing_to_do_is_not_a_heading(tmp_path: Path) -> None:
    folders = {"ingest": made.write_run(tmp_path / "run", "text", "multiclass")["ingest"]}

    assert "What to do next" not in _page(folders, tmp_path)


def test_what_people_settled_is_shown_and_not_asked_again(tmp_path: Path) -> None:
    folders = made.write_run(tmp_path / "run", "image", "multiclass")
    _settle(folders["ingest"], [f"image/{row:04d}" for row in range(4)])
    page = _page(folders, tmp_path)

    found = people(Pictures(folder=folders["ingest"]))
    assert [(person.name, person.rows, person.first, person.last) for person in found] == [
        ("<Anna>", 4, "2026-11-20 09:00:00 UTC", "2026-11-21 09:00:00 UTC")
    ]
    assert '<tr><th scope="row">&lt;Anna&gt;</th><td class="number">4</td>' in page
    assert page.count("settled by &lt;Anna&gt;, 2026-11-2") == 4
    assert "5 doubtful labels" in page


def test_expectations_in_words(tmp_path: Path) -> None:
    folders = made.write_run(tmp_path / "run", "text", "multiclass")
    report = json.loads((folders["validate_data"] / "report.json").read_text())
    line = {"severity": "warning", "passed": False, "word": "fail"}
    report["results"] = [
        line
        | {
            "expectation": "expect_column_values_to_be_unique",
            "column": "content",
            "observed": 24,
            "detail": "unexpected: ['5cfee919d43e']",
        },
        line | {"expectation": "skew:train/test", "column": "words", "observed": 0.5, "detail": "words (ks 0.50)"},
        line
        | {
            "expectation": "skew:train/requests",
            "passed": True,
            "word": "pass",
            "column": "",
            "observed": None,
            "detail": "the log was out of reach",
        },
    ]
    report["suite_source"] = "/a/long/path/of/somebody/suite.json"
    write_report(folders["validate_data"], report)
    page = _page(folders, tmp_path)

    assert "5cfee919d43e" not in page
    assert '<td class="wrap">24 against</td><td class="wrap">rows equal to another row' in page
    assert '<th scope="row">no skew between train and test</th>' in page
    assert re.search(
        r">not compared</span></td><th[^>]*>no skew between train and requests</th>.*the log was out of reach", page
    )
    assert "<dd>suite.json " in page


def test_groups_that_are_no_worse_are_folded_away(tmp_path: Path) -> None:
    folders = made.write_run(tmp_path / "run", "table", "multiclass")
    report = json.loads((folders["check_labels"] / "report.json").read_text())
    report["groups"] = [line | {"p_adjusted": 1.0} for line in report["groups"]]
    report["imbalance"] = {"largest": {"label": "north", "n": 7}, "smallest": {"label": "east", "n": 7}, "ratio": 1.0}
    write_report(folders["check_labels"], report)
    page = _page(folders, tmp_path)

    assert "No group has clearly more flagged rows than the others." in page
    assert page.index("Groups no worse than chance allows") > page.index("more groups</summary>")
    assert "<dt>classes</dt><dd>all of one size</dd>" in page


def test_a_forecast_shows_no_empty_label_counts(tmp_path: Path) -> None:
    page = _page(made.write_run(tmp_path / "series", "series", "regression"), tmp_path)
    assert "<dt>rows checked</dt>" in page
    folders = made.write_run(tmp_path / "forecast", "series", "forecasting")
    (tmp_path / "forecast" / "labels").mkdir()
    write_report(tmp_path / "forecast" / "labels", {"n": 0, "n_flagged": 0, "task": "forecasting", "policy": "report"})
    page = _page(folders | {"check_labels": tmp_path / "forecast" / "labels"}, tmp_path)
    assert "<dt>rows checked</dt>" not in page
    assert "A forecast has no labels to doubt." in page
