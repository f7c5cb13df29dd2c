from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kfloop.core.review import Answer, decide, merge_answers, read_answers
from kfloop.core.review.answer import UNSURE, UNUSABLE, listed
from kfloop.core.review.answers import tally
from kfloop.errors import InputError

LABELS = ["cat", "dog", "bird"]
LINE = {"content": "c1", "id": "row 1", "answer": "cat", "by": "Anna", "at": "2026-01-31T09:30:00Z", "given": "dog"}


def answer(content: str, what: Any, by: str, at: str = "2026-01-31T09:30:00Z") -> Answer:
    return Answer(content=content, id=f"id of {content}", answer=what, by=by, at=at, given="dog")


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), "utf-8")
    return path


def test_answers_are_read_as_they_were_saved(tmp_path: Path) -> None:
    path = write(
        tmp_path / "answers.jsonl",
        LINE,
        "",
        LINE | {"answer": ["dog", "cat"], "given": [], "note": " hm "},
        LINE | {"answer": 3, "given": None, "at": "2026-01-31T10:30:00.5+01:00", "by": " Ben "},
    )
    first, second, third = read_answers(path)
    assert first.as_dict() == LINE | {"at": "2026-01-31T09:30:00.000Z"}
    assert (second.answer, second.given, second.note) == (("cat", "dog"), (), "hm")
    assert (third.answer, third.given, third.by, third.at) == (3.0, None, "Ben", "2026-01-31T09:30:00.500Z")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2 is not JSON"),
        ("[]", r"line 2 holds \[\], expected one JSON object"),
        ({key: value for key, value in LINE.items() if key != "by"}, "line 2 has no 'by'"),
        ({key: value for key, value in LINE.items() if key != "given"}, "line 2 has no 'given'"),
        (LINE | {"anwser": "cat"}, "line 2 has an unknown key 'anwser'"),
        (LINE | {"by": "  "}, "'by' is '  '"),
        (LINE | {"by": 7}, "'by' is 7"),
        (LINE | {"note": None}, "'note' is None"),
        (LINE | {"answer": "zebra"}, "line 2: 'answer' names the class 'zebra'"),
        (LINE | {"answer": None}, "'answer' is None"),
        (LINE | {"answer": True}, "'answer' is True"),
        (LINE | {"answer": {"a": 1}}, "'answer' is {'a': 1}"),
        (LINE | {"answer": ""}, "'answer' is ''"),
        (LINE | {"answer": ["cat"]}, "expected the name of one class"),
        (LINE | {"answer": 1.5}, "'answer' is 1.5, expected the name of one class"),
        (LINE | {"at": "yesterday"}, "'at' is 'yesterday'"),
        (LINE | {"at": "2026-01-31T09:30:00"}, "names no time zone"),
        (json.dumps(LINE).replace('"cat"', "NaN"), "NaN is no JSON number"),
    ],
)
def test_a_bad_line_is_refused_by_its_number_and_value(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path / "answers.jsonl", LINE, line)
    with pytest.raises(InputError, match=message):
        read_answers(path, labels=LABELS, task="multiclass")


def test_an_answer_has_to_fit_the_task(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.jsonl", LINE | {"answer": 2.5})
    assert read_answers(path, labels=[], task="regression")[0].answer == 2.5
    with pytest.raises(InputError, match="expected a list of class names"):
        read_answers(path, labels=LABELS, task="multilabel")
    write(path, LINE | {"answer": ["cat", "zebra"]})
    with pytest.raises(InputError, match="'zebra'"):
        read_answers(path, labels=LABELS, task="multilabel")
    write(path, LINE | {"answer": "cat"})
    with pytest.raises(InputError, match="expected a number"):
        read_answers(path, labels=[], task="regression")
    with pytest.raises(InputError, match="no label that a person could answer"):
        read_answers(path, task="forecasting")
    for task in ("multiclass", "multilabel", "regression"):
        for verdict in (UNUSABLE, UNSURE):
            write(path, LINE | {"answer": verdict})
            assert read_answers(path, labels=[] if task == "regression" else LABELS, task=task)[0].answer == verdict


def test_a_second_import_adds_nothing(tmp_path: Path) -> None:
    corrections = tmp_path / "new" / "corrections.jsonl"
    answers = [answer("c1", "cat", "Anna"), answer("c2", UNUSABLE, "Anna"), answer("c9", "cat", "Anna")]
    first = merge_answers(corrections, answers, LABELS, {"c1", "c2"})
    assert (first.added, first.repeated, first.unknown, first.conflicting) == (2, 0, ("c9",), ())
    before = corrections.read_bytes()
    second = merge_answers(corrections, [*answers, answers[0]], LABELS, set())  # in the file means known
    assert (second.added, second.repeated, second.unknown) == (0, 3, ("c9",))
    assert corrections.read_bytes() == before
    assert [kept.by for kept in read_answers(corrections)] == ["Anna", "Anna"]
    assert {path.name for path in corrections.parent.iterdir()} == {"corrections.jsonl", ".corrections.jsonl.lock"}


def test_what_was_there_stays_as_it_was(tmp_path: Path) -> None:
    corrections = tmp_path / "corrections.jsonl"
    corrections.write_text(json.dumps(LINE), encoding="utf-8")  # no newline at the end: edited by hand
    corrections.chmod(0o664)
    merge_answers(corrections, [answer("c2", "dog", "Ben")], LABELS, {"c2"})
    lines = corrections.read_text(encoding="utf-8").splitlines()
    assert lines[0] == json.dumps(LINE)
    assert json.loads(lines[1])["by"] == "Ben"
    assert corrections.stat().st_mode & 0o777 == 0o664


def test_an_unknown_class_or_a_damaged_file_changes_nothing(tmp_path: Path) -> None:
    corrections = write(tmp_path / "corrections.jsonl", LINE)
    with pytest.raises(InputError, match="'zebra'"):
        merge_answers(corrections, [answer("c1", "dog", "Ben"), answer("c1", "zebra", "Ben")], LABELS, {"c1"})
    assert corrections.read_text(encoding="utf-8") == json.dumps(LINE) + "\n"
    write(corrections, LINE, "broken")
    with pytest.raises(InputError, match="line 2 is not JSON"):
        merge_answers(corrections, [answer("c1", "dog", "Ben")], LABELS, {"c1"})
    assert corrections.read_text(encoding="utf-8").endswith("broken\n")


def test_the_newest_answer_of_each_person_and_the_majority_of_people(tmp_path: Path) -> None:
    corrections = tmp_path / "corrections.jsonl"
    late, later = "2026-02-01T00:00:00+02:00", "2026-02-01T00:00:00Z"  # the first is the earlier moment
    answers = [
        answer("one", "cat", "Anna"),
        answer("changed", "cat", "Anna", later),
        answer("changed", "dog", "anna", late),
        answer("most", "cat", "Anna"),
        answer("most", "cat", "Ben", late),
        answer("most", "dog", "Cleo"),
        answer("convinced", "dog", "Anna"),
        answer("convinced", "cat", "Ben", late),
        answer("convinced", "cat", "Anna", later),
        answer("tie", "cat", "Anna"),
        answer("tie", "dog", "Ben"),
        answer("plural", "cat", "Anna"),
        answer("plural", "cat", "Ben"),
        answer("plural", "dog", "Cleo"),
        answer("plural", "bird", "Dan"),
        answer("unsure", UNSURE, "Anna"),
        answer("abstained", UNSURE, "Anna"),
        answer("abstained", "dog", "Ben"),
        answer("withdrawn", "cat", "Anna"),
        answer("withdrawn", UNSURE, "Anna", later),
        answer("bad", UNUSABLE, "Anna"),
        answer("bad", UNUSABLE, "Ben"),
        answer("bad", "dog", "Cleo"),
    ]
    result = merge_answers(corrections, answers, LABELS, {item.content for item in answers})
    decisions = decide(corrections)
    assert {content: decision.label for content, decision in decisions.items()} == {
        "one": "cat",
        "changed": "cat",
        "most": "cat",
        "convinced": "cat",
        "abstained": "dog",
        "bad": None,
    }
    assert {content for content, decision in decisions.items() if decision.unusable} == {"bad"}
    assert (decisions["most"].by, decisions["most"].at) == ("Anna, Ben", "2026-01-31T22:00:00.000Z")
    assert (decisions["convinced"].by, decisions["convinced"].at) == ("Anna, Ben", "2026-02-01T00:00:00.000Z")
    assert decisions["abstained"].by == "Ben"
    undecided = {item.content: item.reason for item in tally(corrections).undecided}
    assert undecided == {"tie": "tie", "plural": "tie", "unsure": "unsure", "withdrawn": "unsure"}
    assert set(result.conflicting) == set(undecided)


def test_sets_and_numbers_are_decided_by_being_equal(tmp_path: Path) -> None:
    corrections = tmp_path / "corrections.jsonl"
    write(
        corrections,
        LINE | {"answer": ["cat", "dog"]},
        LINE | {"answer": ["dog", "cat"], "by": "Ben"},
        LINE | {"content": "c2", "answer": []},
        LINE | {"content": "c3", "answer": 2},
        LINE | {"content": "c3", "answer": 2.0, "by": "Ben"},
        LINE | {"content": "c4", "answer": 2},
        LINE | {"content": "c4", "answer": 2.1, "by": "Ben"},
    )
    decisions = decide(corrections)
    assert {content: listed(decision.label) for content, decision in decisions.items()} == {
        "c1": ["cat", "dog"],
        "c2": [],
        "c3": 2.0,
    }
    assert decisions["c1"].by == "Anna, Ben"


def test_nobody_answered_yet(tmp_path: Path) -> None:
    assert decide(tmp_path / "corrections.jsonl") == {}


def _import_many(path: Path, person: int) -> None:
    for number in range(20):
        merge_answers(path, [answer(f"c{number}", "cat", f"person {person}")], LABELS, {f"c{number}"})


def test_imports_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "corrections.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_import_many, args=(path, person)) for person in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(read_answers(path)) == 60


def test_a_killed_import_leaves_a_whole_file_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "corrections.jsonl"
    code = f"""
import sys
from pathlib import Path
from kfloop.core.review import Answer, merge_answers
for number in range(100_000):
    one = Answer(content=str(number), id="x", answer="cat", by="Anna", at="2026-01-31T09:30:00Z", given=None)
    merge_answers(Path({str(path)!r}), [one], ["cat"], [str(number)])
    if number == 5:
        print("going", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    n = len(read_answers(path))
    assert n > 5
    assert merge_answers(path, [answer("last", "cat", "Ben")], LABELS, {"last"}).added == 1
    assert len(read_answers(path)) == n + 1
