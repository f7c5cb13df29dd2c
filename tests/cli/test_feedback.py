"""``kfloop feedback``: nothing is lost, and whatever is odd is said."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from kfloop.cli.feedback import feedback_command
from kfloop.components.ingest.readers.requests.feedback import read_feedback
from kfloop.core.ground_truth import keep
from kfloop.core.signature import OUTPUTS, Port, Signature, write_signature
from kfloop.errors import ConfigError, InputError
from kfloop.serving.repository import SERVED


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """A loop with three logged requests."""
    path = tmp_path / "loop.yaml"
    path.write_text("name: m\n")
    folder = tmp_path / ".kfloop" / "requests" / "m" / "20260101T00"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"request_id": ["a", "b#0", "b#1"]}), folder / "1.parquet")
    (folder / "2.parquet").write_bytes(b"junk")
    return path


def give(loop: Path, *arguments: str) -> Result:
    return CliRunner().invoke(feedback_command, [*arguments, "-c", str(loop)], standalone_mode=False)


def test_one_answer_is_kept_where_ingest_finds_it(loop: Path) -> None:
    assert "1 answers added" in give(loop, "a", "cat", "--by", "ann").output
    (answer,) = read_feedback(loop.parent / "feedback.jsonl").answers.values()
    assert (answer.label, answer.by) == ("cat", "ann")
    assert answer.at is not None


def serve(loop: Path, objective: str, labels: list[str]) -> None:
    """What stands in the repository of a loop with a champion, as far as feedback reads it."""
    folder = loop.parent / ".kfloop" / "triton" / "repository" / "m" / "1"
    folder.mkdir(parents=True)
    policy = {"default": 1, "versions": [1]}
    (folder.parent.parent / f"m.{SERVED}").write_text(json.dumps(policy))
    ports = [Port(name=name, dtype="float32", shape=(3,)) for name in OUTPUTS[objective]]
    told = Signature(
        objective=objective,
        modality="table",
        family="mlp",
        inputs=(Port(name="number", dtype="float32", shape=(2,)),),
        outputs=tuple(ports),
        labels=tuple(labels),
        max_batch_size=8,
    )
    write_signature(folder, told)


@pytest.mark.parametrize(
    ("objective", "labels", "good", "odd", "expected"),
    [
        ("regression", [], "12.5", "dear", "numbers"),
        ("regression", [], "1e3", "nan", "numbers"),
        ("classification", ["cat", "dog"], "dog", "dgo", "cat, dog"),
    ],
)
def test_answers_that_the_champion_never_gives_are_told_and_kept(
    loop: Path, objective: str, labels: list[str], good: str, odd: str, expected: str
) -> None:
    serve(loop, objective, labels)
    assert "never answers" not in give(loop, "a", good).output
    told = give(loop, "b#0", odd).output
    assert f"1 of the answers tell what the champion never answers ({expected}): b#0" in told
    assert json.loads(give(loop, "b#1", odd, "--json").output)["strange"] == ["b#1"]
    found = read_feedback(loop.parent / "feedback.jsonl")
    assert [answer.label for answer in found.answers.values()] == [good, odd, odd]


def test_odd_line_ends_and_an_open_last_line_lose_nothing(loop: Path) -> None:
    odd = "two\u2028lines"
    give(loop, "a", odd)
    with (loop.parent / "feedback.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"request_id": "b#0", "lab')  # whoever wrote this was stopped
    give(loop, "b#1", "cat")
    found = read_feedback(loop.parent / "feedback.jsonl")
    assert {key: answer.label for key, answer in found.answers.items()} == {"a": odd, "b#1": "cat"}


def test_unknown_repeated_and_conflicting_answers_are_told_and_kept(loop: Path, tmp_path: Path) -> None:
    loop.write_text("name: m\ndata: {feedback: truth.jsonl}\n")
    table = tmp_path / "new.csv"
    table.write_text("request_id,label,by\na,cat,ann\nb#0,dog,\nghost,cat,\n")
    told = json.loads(give(loop, str(table), "--json").output)
    assert (told["added"], told["unknown"], told["changed"], told["repeated"]) == (3, ["ghost"], [], [])
    lines = tmp_path / "more.jsonl"
    lines.write_text('{"request_id": "a", "label": "dog"}\n\n{"request_id": "b#0", "label": "dog"}\n')
    output = give(loop, str(lines)).output
    assert "differ from an earlier answer to the same request: the later counts: a" in output
    assert "were there already, and are not added again: b#0" in output
    found = read_feedback(tmp_path / "truth.jsonl")
    assert {key: answer.label for key, answer in found.answers.items()} == {"a": "dog", "b#0": "dog", "ghost": "cat"}
    assert found.answers["a"].by is None
    assert len((tmp_path / "truth.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "id,label\n1,2\n", "no column 'request_id': it has id, label"),
        ("a.csv", "request;label\na;cat\n", "no column 'request_id': it has request, label"),
        ("a.csv", "\n", "no column 'request_id'"),
        ("a.csv", "request_id,label\na\n", "line 2"),
        ("a.csv", "request_id,label\na,cat\nb,\n", "line 3 has no label"),
        ("a.jsonl", '{"request_id": "a", "label": "x"}\n{"request_id"', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "no JSON object"),
        ("a.jsonl", '{"request_id": ["a"], "label": "x"}\n', "expected text"),
        ("a.jsonl", "", "holds no answers"),
    ],
)
def test_of_a_bad_file_nothing_is_taken(loop: Path, tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    failed = give(loop, str(tmp_path / name))
    assert isinstance(failed.exception, InputError)
    assert says in str(failed.exception)
    assert not (tmp_path / "feedback.jsonl").exists()


def test_neither_a_file_nor_a_label(loop: Path) -> None:
    failed = give(loop, "a")
    assert isinstance(failed.exception, ConfigError)
    assert "kfloop feedback a LABEL" in failed.exception.hint


def test_a_line_that_was_left_open_is_closed_and_other_lines_stay(loop: Path, tmp_path: Path) -> None:
    place = tmp_path / "feedback.jsonl"
    place.write_text('{"request_id": "x", "label": 3.5, "mine": true}')
    give(loop, "a", "4")
    first, second = map(json.loads, place.read_text().splitlines())
    assert first == {"request_id": "x", "label": 3.5, "mine": True}
    assert (second["request_id"], second["label"]) == ("a", "4")


def _keep(arguments: tuple[Path, int]) -> Any:
    place, number = arguments
    return keep(place, [{"request_id": f"{number}-{row}", "label": "x"} for row in range(50)], ()).added


def test_two_at_the_same_moment_lose_nothing(tmp_path: Path) -> None:
    place = tmp_path / "feedback.jsonl"
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(_keep, [(place, number) for number in range(6)])) == [50] * 6
    assert len(read_feedback(place).answers) == 300


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("A.CSV", ","), ("a.csv", "\t")])
def test_a_table_is_read_with_whatever_stands_between_its_columns(loop: Path, name: str, mark: str) -> None:
    table = loop.parent / name
    table.write_text(f'label{mark}request_id\n"a{mark}b"{mark}a\n')
    assert "1 answers added" in give(loop, str(table)).output
    (answer,) = read_feedback(loop.parent / "feedback.jsonl").answers.values()
    assert answer.label == f"a{mark}b"


def test_an_answer_that_is_spelled_otherwise_is_not_strange(loop: Path, tmp_path: Path) -> None:
    """As the monitor reads it: 3.0 is the class 3."""
    serve(loop, "classification", ["3", "4"])
    place = tmp_path / "truth.jsonl"
    place.write_text('{"request_id": "a", "label": 3.0}\n{"request_id": "b", "label": 5}\n')
    assert json.loads(give(loop, str(place), "--json").stdout)["strange"] == ["b"]
