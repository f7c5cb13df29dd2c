"""The report of a run: whole, partial, damaged and hostile."""

from __future__ import annotations

import copy
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from chromium import PROGRAM, Chromium
from kfloop.core.artifacts import write_report
from kfloop.report import render_run
from kfloop.report.html import SECTIONS, Section

VOID = {"meta", "img", "br", "link", "input", "hr"}
EVIL = '<script>alert("x")</script>$\\frac{&\'">'


class Balanced(HTMLParser):
    """Collects what is open, ids, sources and images while checking that every element is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in {"src", "href", "srcset", "action"} and value]
        if (tag == "img" and not fields.get("alt")) or (tag == "svg" and not fields.get("aria-label")):
            self.unnamed.append(self.get_starttag_text() or tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of turn at {self.getpos()}"


def parsed(page: str) -> Balanced:
    """The page, after checking that it is balanced and names each id once."""
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    return parser


def rendered(record: dict[str, Any], folders: dict[str, Path], out: Path) -> str:
    """The page as text, checked for balance."""
    page = render_run(record, folders, out / "report.html").read_text(encoding="utf-8")
    parsed(page)
    return page


def own_folder(folders: dict[str, Path], step: str, report: dict[str, Any], tmp_path: Path) -> dict[str, Path]:
    """The run's folders with another report for one step."""
    folder = tmp_path / step
    folder.mkdir()
    write_report(folder, report)
    return folders | {step: folder}


def sections(page: str) -> set[str]:
    """Keys of the sections that stand in the page."""
    return set(re.findall(r'<section id="([a-z]+)"', page))


def test_a_whole_run_has_every_section(record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path) -> None:
    page = rendered(record, run_folders, tmp_path)

    assert sections(page) == {"steps", "lineage"} | {section.key for section in SECTIONS}
    assert "<h1>The challenger was promoted.</h1>" in page
    assert "Not in this report" not in page
    assert "could not be read" not in page


def test_verdicts_are_in_the_words_of_the_gate(
    record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    page = rendered(record, run_folders, tmp_path)
    report = json.loads((run_folders["gate"] / "report.json").read_text(encoding="utf-8"))

    for verdict in report["verdicts"]:
        assert verdict["sentence"] in page


def test_overrides_that_last_stand_at_the_head(
    record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    line = {"rule": "ece <= 0.1", "who": "<ann>", "why": "busy", "ends": "2026-03-01 00:00 UTC", "row": 7}
    page = render_run({**record, "overrides": [line]}, run_folders, tmp_path / "r.html").read_text()
    head = page.split('<nav aria-label="Sections">')[0]
    assert "ece &lt;= 0.1 does not block until 2026-03-01 00:00 UTC: &lt;ann&gt; overrode it" in head
    assert "Overridden rules" not in render_run(record, run_folders, tmp_path / "s.html").read_text()


def test_examples_are_shown_as_pictures(record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path) -> None:
    page = rendered(record, run_folders, tmp_path)

    assert page.count('src="data:image/png;base64,') == 10 * 8 + 24 + 11  # samples, doubtful labels, mistakes
    assert "no picture" not in page
    assert parsed(page).unnamed == []


def test_nothing_is_loaded_from_anywhere(record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path) -> None:
    page = rendered(record, run_folders, tmp_path)
    found = parsed(page)

    assert [link for link in found.links if not link.startswith(("#", "data:image/png;base64,"))] == []
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\((?!#)", page)
    assert found.tags.isdisjoint({"script", "link", "iframe", "object", "form"})
    assert "default-src 'none'" in page


def test_the_same_run_gives_the_same_bytes(
    record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    first = render_run(record, run_folders, tmp_path / "a.html").read_bytes()
    shuffled = dict(reversed(run_folders.items()))

    assert render_run(copy.deepcopy(record), shuffled, tmp_path / "b.html").read_bytes() == first


def test_half_of_the_steps_names_the_other_half(
    record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    half = {step: run_folders[step] for step in ("ingest", "validate_data", "check_labels")}
    for line in record["steps"][3:]:
        line.update(status="not_run", seconds=0.0, started=None, artifact=None, outcome=None)
    error = {"code": "diverged", "message": "loss is NaN at epoch 2", "hint": "lower train.learning_rate"}
    record["steps"][3].update(status="failed", error=error)
    record.update(status="failed", decision=None, exit_code=1)

    page = rendered(record, half, tmp_path)

    assert sections(page) == {"steps", "lineage", "data", "validation", "labels"}
    assert "<h1>The run failed.</h1>" in page
    assert "<li>Training: train failed (loss is NaN at epoch 2; lower train.learning_rate)</li>" in page
    assert "<li>Comparison: evaluate not run (the run ended before it)</li>" in page


def test_a_step_that_the_run_does_not_have(
    record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    record["steps"] = [line for line in record["steps"] if line["name"] != "monitor"]
    folders = {step: folder for step, folder in run_folders.items() if step != "monitor"}

    assert "<li>Not steps of this run: monitoring</li>" in rendered(record, folders, tmp_path)


def test_a_kept_champion_shows_the_keeping(
    record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    folders = {("keep" if step == "deploy" else step): folder for step, folder in run_folders.items()}
    record.update(status="rejected", decision={"outcome": "reject", "reason": "accuracy is lower"}, exit_code=3)

    page = rendered(record, folders, tmp_path)

    assert "<h1>The challenger was rejected.</h1>" in page
    assert "accuracy is lower" in page
    assert "deployment" in sections(page)


def test_a_reason_that_the_sentence_tells_is_not_told_again(tmp_path: Path) -> None:
    told = {"outcome": "rejected", "reason": "too weak", "sentence": "The challenger was rejected: too weak."}
    folder = tmp_path / "keep"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(told))
    assert rendered({"run_id": "r"}, {"keep": folder}, tmp_path).count("too weak") == 1
    (folder / "report.json").write_text(json.dumps(told | {"sentence": "The challenger was rejected."}))
    assert rendered({"run_id": "r"}, {"keep": folder}, tmp_path).count("too weak") == 1


def test_the_digest_of_the_data_is_called_so(tmp_path: Path) -> None:
    page = rendered({"run_id": "r", "source_digest": "067a983a302c"}, {}, tmp_path)
    assert "source code" not in page
    assert "067a983a302c" in page[page.index("data source") :]


def _hostile(value: Any) -> Any:
    """The same JSON with hostile text in place of every text, keys included where they are names from outside."""
    if isinstance(value, str):
        return EVIL
    if isinstance(value, list):
        return [_hostile(item) for item in value]
    if isinstance(value, dict):
        return {key: _hostile(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    "step", ["validate_data", "check_labels", "train", "package", "evaluate", "bless", "gate", "deploy", "monitor"]
)
def test_hostile_text_is_only_text(
    step: str, record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    report = _hostile(json.loads((run_folders[step] / "report.json").read_text(encoding="utf-8")))
    if step == "evaluate":
        report["challenger"]["slices"][f"class:{EVIL}"] = report["differences"]["champion"]["slices"]["origin:base"]

    page = rendered(record, own_folder(run_folders, step, report, tmp_path), tmp_path)

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "could not be read" not in page


def test_a_hostile_record_is_only_text(record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path) -> None:
    page = rendered(_hostile(record), run_folders, tmp_path)

    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", '{"results": NaN', "\x00\xff", "[" * 100_000])
def test_a_damaged_report_costs_one_section(
    content: str, record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "report.json").write_bytes(content.encode("latin-1"))

    page = rendered(record, run_folders | {"train": broken}, tmp_path)

    assert "The result of train could not be read: " in page
    assert page.count("could not be read") == 1
    assert "<h3>Differences</h3>" in page


def test_a_folder_without_report(record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path) -> None:
    page = rendered(record, run_folders | {"gate": tmp_path / "nowhere"}, tmp_path)

    assert "The result of gate could not be read: there is no report.json in nowhere" in page


@pytest.mark.parametrize("damage", ["card.json", "test.arrow", "train.arrow"])
def test_a_damaged_dataset_leaves_the_rest(
    damage: str, record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "ingest"
    folder.mkdir()
    for path in run_folders["ingest"].iterdir():
        (folder / path.name).write_bytes(b"[]" if path.name == damage else path.read_bytes())

    page = rendered(record, run_folders | {"ingest": folder}, tmp_path)

    assert damage in page or "No pictures" in page
    assert "<h3>Most doubtful labels</h3>" in page
    assert "<h3>Differences</h3>" in page


def _with_leaves(value: Any, wrong: Any) -> Any:
    """The same JSON with every number and text replaced."""
    if isinstance(value, list):
        return [_with_leaves(item, wrong) for item in value]
    if isinstance(value, dict):
        return {key: _with_leaves(item, wrong) for key, item in value.items()}
    return wrong


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.key)
@pytest.mark.parametrize("wrong", [None, "text", -1, 1e300, [[]], {"value": "x"}, True], ids=repr)
def test_values_of_the_wrong_shape(section: Section, wrong: Any, run_folders: dict[str, Path], tmp_path: Path) -> None:
    """The section is made all the same, not replaced by an error: with every other value wrong, and with every leaf."""
    step = section.steps[0]
    good = json.loads((run_folders[step] / "report.json").read_text(encoding="utf-8"))
    names = sorted(good)
    damaged = [{**good, **dict.fromkeys(names[start::2], wrong)} for start in (0, 1)]
    for place, report in enumerate([*damaged, _with_leaves(good, wrong)]):
        folder = tmp_path / str(place)
        folder.mkdir()
        write_report(folder, report)
        page = rendered({}, {step: folder}, folder)
        assert "could not be read: TypeError" not in page
        assert "Error: " not in page.replace("StateError", "")


def test_an_empty_record_and_nothing_else(tmp_path: Path) -> None:
    page = rendered({}, {}, tmp_path)

    assert sections(page) == {"steps", "lineage"}
    assert "The run ended as &#39;unknown&#39;." in page


def test_a_failed_rendering_leaves_the_old_report(
    record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    out.mkdir()  # a folder cannot be replaced by a file

    with pytest.raises(OSError, match="directory"):
        render_run(record, run_folders, out)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_rows_set_aside_for_one_reason_are_counted_together(
    record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    reasons = [f"row {n} (line {n + 1}), column 'age': '-': expected a number" for n in (3, 14, 159)]
    reasons += ["line 7 holds no label", "row 9, column 'plan': no label"]
    rows = [json.dumps({"id": str(place), "reason": reason}) for place, reason in enumerate(reasons)]
    folder = shutil.copytree(run_folders["ingest"], tmp_path / "ingest")
    (folder / "quarantine.jsonl").write_text("\n".join(rows))
    page = html.unescape(rendered(record, run_folders | {"ingest": folder}, tmp_path))

    assert """<td class="wrap">column 'age': '-': expected a number</td><td class="number">3</td>""" in page
    assert (
        """<td class="wrap">line 7 holds no label</td><td class="number">1</td>""" in page
    )  # a single one keeps its place
    assert """<td class="wrap">row 9, column 'plan': no label</td><td class="number">1</td>""" in page


@pytest.mark.skipif(PROGRAM is None, reason="no chromium or google-chrome on PATH")
def test_on_a_phone_no_part_of_the_page_hangs_over_its_side(
    record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(run_folders["deploy"], tmp_path / "deploy")
    report = json.loads((folder / "report.json").read_text())
    report["events"] = [f"model card of version 4: /{'/'.join(['folder'] * 3)}/{'c0ffee' * 12}/card.html"]
    write_report(folder, report)
    rendered(record, run_folders | {"deploy": folder}, tmp_path)
    with Chromium(tmp_path / "profile") as browser:
        browser.resize(400, 900)
        browser.open(tmp_path / "report.html")
        browser.run("document.querySelectorAll('details').forEach(e => e.open = true)")
        wide = browser.run(
            "[...document.querySelectorAll('section')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.id)"
        )
        shown = browser.run("document.querySelectorAll('section').length")
    assert wide == []
    assert shown > 5


def test_the_cause_of_a_training_does_not_lengthen_the_line_of_a_step(
    record: dict[str, Any], run_folders: dict[str, Path], tmp_path: Path
) -> None:
    champion = "765685986c175fe22015afe33155f12f"
    (step,) = (line for line in record["steps"] if line["name"] == "train")
    step["outcome"] = f"{champion}+d57852c913a5"
    page = rendered(record, run_folders, tmp_path)

    assert "<td>765685986c17 <span" in page
    assert champion not in page
    assert "d57852c913a5" not in page
