"""``kfloop review`` from end to end: doubtful labels out, people's answers in, the next dataset version right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import pytest

WRONG = (3, 60, 110)
AT = "2026-01-31T09:30:00Z"


class Shell(Protocol):
    folder: Path

    def run(self, *arguments: str, **options: Any) -> Any: ...

    def json(self, *arguments: str) -> dict[str, Any]: ...

    def write(self, text: str, name: str = "loop.yaml") -> Path: ...


def truth() -> list[str]:
    from sklearn.datasets import load_iris

    iris = load_iris()
    return [str(iris.target_names[label]) for label in iris.target]


@pytest.fixture
def flowers(shell: Shell) -> Shell:
    """A loop about flowers, three of them with the name of another kind."""
    from sklearn.datasets import load_iris

    iris, names = load_iris(), truth()
    others = {"setosa": "versicolor", "versicolor": "virginica", "virginica": "setosa"}
    lines = ["sepal_length,sepal_width,petal_length,petal_width,label"]
    for row, values in enumerate(iris.data):
        label = others[names[row]] if row in WRONG else names[row]
        lines.append(",".join([*(f"{value:.1f}" for value in values), label]))
    shell.write("\n".join(lines) + "\n", "flowers.csv")
    shell.write("name: flowers\ndata: {source: flowers.csv}\n")
    return shell


def answers(shell: Shell, *given: tuple[dict[str, Any], Any, str]) -> str:
    lines = [
        {"content": item["content"], "id": item["id"], "answer": answer, "by": by, "at": AT, "given": item["given"]}
        for item, answer, by in given
    ]
    shell.write("".join(json.dumps(line) + "\n" for line in lines), "answers.jsonl")
    return "answers.jsonl"


def labels_of(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Label and who said so, by content."""
    from kfloop.core.versions import read_version

    version = read_version(folder)
    rows = version.manifest().to_pylist()
    return {row["content"]: (version.labels[row["label"]], row.get("label_by")) for row in rows}


@pytest.mark.slow
def test_wrong_labels_are_asked_about_and_right_in_the_next_version(flowers: Shell) -> None:
    run = flowers.json("run", "--until", "check_labels")
    assert run["exit_code"] == 0, run["message"]
    folders = {step["name"]: step["artifact"]["path"] for step in run["steps"] if step["artifact"]}
    out = flowers.json("review", "export", "-o", "review")
    items = [json.loads(line) for line in (flowers.folder / out["queue"]).read_text(encoding="utf-8").splitlines()]
    assert (flowers.folder / out["sheet"]).read_text(encoding="utf-8").count("<article") == len(items) == out["items"]
    named = ("-i", f"dataset={folders['ingest']}", "-i", f"labels={folders['check_labels']}")
    assert flowers.json("review", "export", *named, "-o", "named") | {"queue": "", "sheet": ""} == out | {
        "queue": "",
        "sheet": "",
    }
    half = flowers.run("review", "export", *named[:2])
    assert (half.returncode, "give labels too" in half.stderr) == (2, True)

    right, asked = truth(), {item["id"]: item for item in items}
    first, second, third = (asked[str(row)] for row in WRONG)
    assert [item["suggested"] for item in (first, second, third)] == [right[row] for row in WRONG]
    file = answers(
        flowers,
        (first, first["suggested"], "Anna"),
        (second, "__unusable__", "Anna"),
        (third, third["suggested"], "Anna"),
        (third, third["given"], "Ben"),
    )
    told = flowers.json("review", "import", file)
    assert (told["answers"], told["added"], told["settled"], told["open"]) == (4, 4, 2, [third["content"]])
    again = flowers.json("review", "import", file)
    assert (again["added"], again["repeated"]) == (0, 4)

    assert flowers.run("step", "ingest", "-o", "next").returncode == 0
    labels = labels_of(flowers.folder / "next")
    assert labels[first["content"]] == (first["suggested"], "Anna")
    assert second["content"] not in labels
    assert labels[third["content"]] == (third["given"], None)
    aside = (flowers.folder / "next" / "quarantine.jsonl").read_text(encoding="utf-8")
    assert second["id"] in aside
    assert "Anna" in aside

    left = flowers.json("review", "export", "-o", "rest")
    assert left["settled_before"] == 2
    rest = (flowers.folder / "rest" / "queue.jsonl").read_text(encoding="utf-8")
    assert first["content"] not in rest
    assert third["content"] in rest
    assert flowers.json("review", "export", "-o", "all", "--again")["items"] == len(items)

    unknown = answers(flowers, (first | {"content": "f" * 64}, first["suggested"], "Anna"))
    assert flowers.json("review", "import", unknown)["unknown"] == ["f" * 64]
    bad = answers(flowers, (first, "tulip", "Anna"))
    done = flowers.run("review", "import", bad)
    assert done.returncode == 2
    assert "answers.jsonl' line 1" in done.stderr
    assert "'tulip'" in done.stderr

    nothing = flowers.run("review", "export", "-o", "none", "--reason", "conflict", "--json")
    assert (nothing.returncode, json.loads(nothing.stdout)["items"]) == (0, 0)
    assert "nothing to review" in nothing.stderr
    assert not (flowers.folder / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export",), "has no run with ingest and check_labels yet"),
        (("export", "-c", "other.yaml"), "no loop file"),
        (("export", "-i", "data=."), "did you mean 'dataset'?"),
        (("export", "-i", "dataset=nowhere", "-i", "labels=."), "no folder 'nowhere'"),
        (("export", "--limit", "0"), "0 is not in the range"),
        (("export", "--project", "3"), "--project 3 needs --label-studio"),
        (("import",), "give either a file of answers or --label-studio"),
        (("import", "answers.jsonl"), "has no run with ingest yet"),
    ],
)
def test_what_cannot_be_done_is_said_with_status_2(shell: Shell, arguments: tuple[str, ...], message: str) -> None:
    shell.write("name: small\n")
    done = shell.run("review", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not (shell.folder / "review").exists()


def test_without_a_file_for_corrections_nothing_is_imported(shell: Shell) -> None:
    shell.write("name: small\ndata: {corrections: null}\n")
    shell.write("", "answers.jsonl")
    (shell.folder / "dataset").mkdir()
    done = shell.run("review", "import", "answers.jsonl", "-i", "dataset=dataset", "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert "data.corrections is null" in error["message"]
    assert "corrections.jsonl" in error["hint"]


@pytest.mark.parametrize("command", [("review",), ("review", "export"), ("review", "import")])
def test_help_has_an_example(shell: Shell, command: tuple[str, ...]) -> None:
    done = shell.run(*command, "--help")
    assert done.returncode == 0
    assert "Example:\n    kfloop " in done.stdout.replace("\r", "")
