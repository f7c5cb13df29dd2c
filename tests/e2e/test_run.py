"""``kfloop run``, round after round, as a person sees it: promoted, repeated, judged by other rules, rejected."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.triton]

WORSE = "train: {epochs: 1, shuffle_labels: true}"
OTHER_RULE = "gate: {rules: [{metric: accuracy, at_least: 0.3}]}\n"


class References(HTMLParser):
    """Everything a page would fetch, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "srcset", "data"} or (name == "href" and tag in {"link", "use", "image"}):
                self.fetched.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def statuses(record: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["status"] for step in record["steps"]}


def run(shell: Any, code: int) -> tuple[dict[str, Any], str]:
    """One ``kfloop run --json``: its record and what it said."""
    done = shell.run("run", "--json")
    assert done.returncode == code, done.stderr
    record = json.loads(done.stdout)
    assert record["exit_code"] == code
    return record, done.stderr


def outside(page: str) -> list[str]:
    """What a page would have to fetch from elsewhere."""
    fetched = [place for place in References(page).fetched if not place.startswith(("data:", "#"))]
    return fetched + re.findall(r"@import[^;]*|url\((?!['\"]?(?:data:|#))[^)]*\)", page)


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, one_shell: Any) -> tuple[Any, dict[str, Any], str]:
    """A loop whose first run has just promoted version 1."""
    shell = one_shell(tmp_path_factory.mktemp("run"))
    shell.write(shell.small)
    record, said = run(shell, 0)
    return shell, record, said


@pytest.fixture
def loop(promoted: Any) -> Any:
    """The loop with its first loop file."""
    promoted[0].write(promoted[0].small)
    return promoted[0]


def test_the_first_run_promotes_and_says_so_in_its_record_and_report(promoted: Any) -> None:
    shell, record, said = promoted
    assert (record["status"], record["decision"]["outcome"], record["error"]) == ("succeeded", "promote", None)
    assert statuses(record) == {
        name: "skipped" if name == "keep" else "succeeded"
        for name in (
            "ingest", "validate_data", "check_labels", "train", "package", "incumbent", "evaluate", "bless", "gate", "deploy", "keep",
            "notify",
        )
    }  # fmt: skip
    assert record["champion"] == {"before": None, "after": {"version": 1, "digest": record["digests"]["package"]}}
    assert all(
        step["seconds"] > 0 and step["artifact"] for step in record["steps"] if step["name"] not in {"keep", "notify"}
    )
    page = Path(record["report"]).read_text(encoding="utf-8")
    assert outside(page) == []
    assert record["run_id"] in page
    assert record["decision"]["reason"].split(";")[0][:40] in References(page).text
    assert record["report"] in said
    facts = shell.json("status")
    assert facts["champion"] == record["champion"]["after"]
    assert facts["ledger_rows"] == 2


def test_with_nothing_new_no_step_runs_and_it_says_so(promoted: Any, loop: Any) -> None:
    first = promoted[1]
    record, said = run(loop, 0)
    assert record["status"] == "nothing_new"
    assert record["repeated_of"] == first["run_id"]
    assert set(statuses(record).values()) == {"cached", "skipped"}
    assert record["digests"] == first["digests"]
    assert "nothing new" in said.lower()


def test_another_rule_judges_again_without_training_again(promoted: Any, loop: Any) -> None:
    loop.write(loop.small + OTHER_RULE)
    record, _ = run(loop, 3)  # the same training gives the champion itself, which the gate never promotes over itself
    found = statuses(record)
    assert {found[name] for name in ("validate_data", "check_labels", "train", "package")} == {"cached"}
    assert found["gate"] == "succeeded"
    assert record["repeated_of"] is None
    assert "is the champion already" in record["decision"]["reason"]
    assert record["champion"]["after"] == promoted[1]["champion"]["after"]
    assert loop.json("status")["champion"]["version"] == 1


def test_a_challenger_made_worse_is_rejected_and_the_same_run_again_does_nothing(promoted: Any, loop: Any) -> None:
    loop.write(re.sub(r"train: .*", WORSE, loop.small))
    record, said = run(loop, 3)
    assert (record["status"], record["decision"]["outcome"]) == ("rejected", "reject")
    found = statuses(record)
    assert (found["deploy"], found["keep"]) == ("skipped", "succeeded")
    assert record["champion"]["before"] == record["champion"]["after"] == promoted[1]["champion"]["after"]
    facts = loop.json("status")
    assert facts["champion"] == promoted[1]["champion"]["after"]
    assert facts["runs"][0]["status"] == "rejected"
    text = References(Path(record["report"]).read_text(encoding="utf-8")).text
    assert "accuracy" in record["decision"]["reason"]
    assert record["decision"]["reason"].split(";")[0].strip() in " ".join(text.split())
    assert "reject" in said.lower()

    again, said = run(loop, 3)
    assert (again["status"], again["repeated_of"]) == ("nothing_new", record["run_id"])
    assert "nothing new" in said.lower()
    assert loop.json("status")["champion"] == facts["champion"]


def test_the_report_can_be_written_again(promoted: Any, loop: Any) -> None:
    written = Path(promoted[1]["report"])
    written.unlink()
    assert loop.json("report", promoted[1]["run_id"])["report"] == str(written)
    assert outside(written.read_text(encoding="utf-8")) == []
