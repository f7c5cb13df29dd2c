"""The review sheet in a real browser: headless Chromium opens the file, a script clicks like a person, the page's own DOM is read back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chromium import PROGRAM, Chromium
from kfloop.core.review import build_queue, read_answers, read_queue, write_queue
from kfloop.core.review.answer import UNSURE, UNUSABLE
from kfloop.core.review.sheet import answer_keys, render_sheet

browser = pytest.mark.skipif(PROGRAM is None, reason="no chromium or google-chrome on PATH")

# What a person does, as a script: `key` and `click` are the person's hands.
# Downloads are caught where the page makes its blob: their text is told after all else.
HANDS = """
<script>
let caught = "";
const blobs = [];
const tell = (text) => { caught += `${text}\\n`; };
window.addEventListener("error", (event) => tell(`ERROR ${event.message}`));
document.addEventListener("securitypolicyviolation", (event) => tell(`ERROR ${event.blockedURI}`));
const make = URL.createObjectURL;
// A headless browser that has begun a download never ends: the click on the link is where the page's part is over.
HTMLAnchorElement.prototype.click = function () {};
URL.createObjectURL = (blob) => { blobs.push(blob); return make.call(URL, blob); };
const card = () => document.querySelector("article:not([hidden])");
const key = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
const click = (selector) => card().querySelector(selector).click();
const start = (name) => { document.getElementById("name").value = name; document.getElementById("who").requestSubmit(); };
const type = (selector, text) => {
  const field = card().querySelector(selector);
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};
const save = () => document.getElementById("save").click();
const told = async () => caught + (await Promise.all(blobs.map((blob) => blob.text()))).join("");
</script>
"""

STORED = "JSON.stringify(Object.entries(localStorage).sort())"
Check = Callable[..., Path]


def drive(page: str, folder: Path, *scripts: str) -> list[str]:
    """Open the page in a browser once for each script, and give what each was told.

    A browser on a busy machine loses what a page just stored: where the page does not find at its start what was stored, all begins again.
    """
    for attempt in range(10):
        told = _driven(page, folder / f"browser{attempt}", *scripts)
        if len(told) == len(scripts):
            assert "ERROR" not in "".join(told), told
            return told
    raise AssertionError("this browser loses what a page stores")


def _driven(page: str, folder: Path, *scripts: str) -> list[str]:
    folder.mkdir()
    file = folder / "driven.html"
    first = f"<head><script>const found = {STORED};</script>"
    file.write_text(page.replace("<head>", first, 1).replace("</body>", HANDS + "</body>"), encoding="utf-8")
    told: list[str] = []
    stored = "[]"
    with Chromium(folder / "profile") as window:
        for script in scripts:
            window.open(file)
            if window.run("found") != stored:
                return told
            window.run(f"(async () => {{ {script} }})()")
            told.append(str(window.run("told()")))
            stored = window.run(STORED)
    return told


@pytest.fixture
def sheet(make_version: Any, check: Check, tmp_path: Path) -> Callable[..., str]:
    """The page about a few flagged rows of a modality and a task."""

    def page(modality: str, task: str = "multiclass", *, suggested: Any = 1, n: int = 4, names: Any = None) -> str:
        version = make_version(modality, task, names)
        flagged = {"flagged": True, "confidence": 0.875, "suggested": suggested}
        rows = {f"{modality}/{row}": flagged | {"margin": -0.9 + row / 10} for row in range(n)}
        items = build_queue(version, check(version, rows))
        write_queue(tmp_path / "queue.jsonl", items)
        return render_sheet(read_queue(tmp_path / "queue.jsonl"), loop="lo<o>p", dataset=version.digest)

    return page


def saved(text: str, tmp_path: Path, **options: Any) -> list[Any]:
    path = tmp_path / "answers.jsonl"
    path.write_text(text, encoding="utf-8")
    return read_answers(path, **options)


@browser
def test_answers_by_button_and_key_are_saved_as_the_importer_reads_them(
    sheet: Callable[..., str], tmp_path: Path
) -> None:
    script = """
    start("  Anna B. ");
    type(".note", "a <dog> indeed");
    click('[data-answer="cat & dog"]');
    key("2");
    key("u");
    key("s");
    save();
    """
    answers = saved(drive(sheet("image"), tmp_path, script)[0], tmp_path, task="multiclass")
    assert [answer.answer for answer in answers] == ["cat & dog", "<bird>", UNUSABLE, UNSURE]
    assert [answer.id for answer in answers] == [f"image/{row}" for row in range(4)]
    assert [answer.given for answer in answers] == ["cat & dog", "<bird>", 'fish "x"', "0"]
    assert {answer.by for answer in answers} == {"Anna B."}
    assert [answer.note for answer in answers] == ["a <dog> indeed", "", "", ""]
    seconds = (datetime.now(UTC) - datetime.fromisoformat(answers[0].at)).total_seconds()
    assert abs(seconds) < 600


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (list("0123456789"), list("0123456789")),
        (["cat", "dog"], ["1", "2"]),
        (["cat", "1", "dog", "0"], ["2", "1", "3", "0"]),
        ([f"class {number}" for number in range(12)], [*"1234567890", "", ""]),
    ],
)
def test_a_class_called_by_a_digit_has_that_key(names: list[str], keys: list[str]) -> None:
    assert answer_keys(names) == keys


@browser
def test_a_closed_page_loses_nothing_and_an_answer_can_be_changed_or_taken_back(
    sheet: Callable[..., str], tmp_path: Path
) -> None:
    changes = """
    tell(document.getElementById("done").textContent + card().dataset.number);
    key("ArrowLeft"); key("0");           // the second question again: another answer
    key("ArrowLeft"); key("ArrowLeft");   // the first one: taken back by the same button
    click(".chosen");
    key(" "); key("ArrowRight"); key("3");
    """
    tells = 'tell(document.getElementById("done").textContent + card().dataset.number); save();'
    _, changed, kept = drive(sheet("text"), tmp_path, 'start("Anna"); key("1"); key("2");', changes, tells)
    assert changed.split() == [
        "23"
    ]  # two answers were kept, and the page goes on at the first open question: the third
    assert kept.startswith("21")
    answers = saved(kept.split("\n", 1)[1], tmp_path)
    assert [(answer.id, answer.answer) for answer in answers] == [("text/1", "0"), ("text/2", 'fish "x"')]


@browser
def test_two_people_on_one_computer_do_not_see_each_others_answers(sheet: Callable[..., str], tmp_path: Path) -> None:
    script = """
    start("Anna"); key("1"); key("1");
    document.querySelector("footer button").click();
    start("Ben"); tell(document.getElementById("done").textContent);
    key("2"); save();
    """
    caught = drive(sheet("vector"), tmp_path, script)[0]
    first, rest = caught.split("\n", 1)
    assert first == "0"
    assert [(answer.by, answer.answer) for answer in saved(rest, tmp_path)] == [("Ben", "<bird>")]


@browser
def test_damaged_storage_is_put_aside_and_told(sheet: Callable[..., str], tmp_path: Path) -> None:
    page = sheet("text")
    found = re.search(r'"key": ?"(kfloop-review:[0-9a-f]+)"', page)
    assert found is not None
    damages = f'start("Anna"); key("1"); localStorage.setItem("{found[1]}", "{{broken");'
    tells = f'tell(document.getElementById("problem").hidden); tell(localStorage.getItem("{found[1]}:damaged"));'
    caught = drive(page, tmp_path, damages, tells + 'key("2"); save();')[1].split("\n", 2)
    assert caught[:2] == ["false", "{broken"]
    assert [answer.answer for answer in saved(caught[2], tmp_path)] == ["<bird>"]


@browser
def test_several_classes_are_ticked_and_confirmed(sheet: Callable[..., str], tmp_path: Path) -> None:
    script = """
    start("Anna");
    key("2"); key("Enter");                              // the given classes and one more, or without it
    card().querySelectorAll("[type=checkbox]").forEach((box) => { box.checked = false; });
    click(".confirm");                                   // none of the classes
    key("Enter");                                        // as they stand
    save();
    """
    answers = saved(
        drive(sheet("audio", "multilabel", suggested=[0, 2]), tmp_path, script)[0], tmp_path, task="multilabel"
    )
    assert [answer.answer for answer in answers] == [("<bird>", "cat & dog"), (), ("<bird>", 'fish "x"')]
    assert answers[0].given == ("cat & dog",)


@browser
def test_numbers_are_typed_or_taken(sheet: Callable[..., str], tmp_path: Path) -> None:
    script = """
    start("Anna");
    key("Enter");                                        // nothing typed: nothing answered
    type(".number", "-12.5"); click(".confirm");
    key("2");                                            // the suggestion
    key("1");                                            // the given label
    save();
    """
    page = sheet("series", "regression", suggested=3.25)
    answers = saved(drive(page, tmp_path, script)[0], tmp_path, task="regression")
    assert [answer.answer for answer in answers] == [-12.5, 3.25, 0.5]
    assert [answer.given for answer in answers] == [0.0, 0.25, 0.5]


@browser
def test_a_suggested_number_is_rounded_and_recorded_as_shown(sheet: Callable[..., str], tmp_path: Path) -> None:
    page = sheet("series", "regression", suggested=69.00826565577877)
    answers = saved(
        drive(page, tmp_path, 'start("Anna"); click(".suggested"); save();')[0], tmp_path, task="regression"
    )
    assert [answer.answer for answer in answers] == [69.01]
    assert "69.008" not in page


def test_a_model_is_never_wholly_sure(make_version: Any, check: Check) -> None:
    version = make_version("table", "multiclass", None)
    rows = {"table/0": {"flagged": True, "confidence": 0.9996, "suggested": 1, "margin": -0.9}}
    page = render_sheet(build_queue(version, check(version, rows)), loop="loop", dataset=version.digest)
    assert "over 99% sure" in page
    assert "100% sure" not in page


@pytest.mark.parametrize(("modality", "plays"), [("audio", True), ("text", False)])
def test_only_keys_that_do_something_are_named(sheet: Callable[..., str], modality: str, *, plays: bool) -> None:
    page = sheet(modality)
    assert ("<kbd>p</kbd> play" in page) == plays
    assert "<kbd>Enter</kbd> confirm" not in page
    assert "<kbd>Enter</kbd> confirm" in sheet(modality, "multilabel", suggested=[0])


@browser
def test_many_classes_are_picked_from_a_list(sheet: Callable[..., str], tmp_path: Path) -> None:
    script = """
    start("Anna");
    click(".confirm");                                   // nothing picked: nothing answered
    card().querySelector("select").value = "class 17"; click(".confirm");
    key("2");                                            // given and suggested agree here: there is no second button
    key("1");
    save();
    """
    page = sheet("table", names=[f"class {number:02d}" for number in range(30)])
    answers = saved(drive(page, tmp_path, script)[0], tmp_path)
    assert [answer.answer for answer in answers] == ["class 17", "class 01"]


@browser
def test_the_last_answer_leads_to_the_end(sheet: Callable[..., str], tmp_path: Path) -> None:
    script = """
    start("Anna"); key("1"); key("ArrowRight"); key("1"); key("1");
    tell(document.getElementById("end").hidden + document.getElementById("left").textContent);
    document.getElementById("open").click(); tell(card().dataset.number); key("2");
    document.querySelector("#dots li:last-child button").click(); key("ArrowRight");
    tell(document.getElementById("left").textContent);
    """
    caught = drive(sheet("nodes"), tmp_path, script)[0]
    assert caught.split("\n")[:3] == ["false1 are still open.", "2", "All 4 are answered."]


@browser
@pytest.mark.parametrize("modality", ["image", "audio", "text", "table", "vector", "nodes", "series", "graphs"])
def test_every_modality_shows_its_example(sheet: Callable[..., str], tmp_path: Path, modality: str) -> None:
    script = """
    start("Anna");
    const shown = card().querySelector(".shown");
    const images = Array.from(shown.querySelectorAll("img"));
    await Promise.all(images.map((image) => image.decode()));
    const pictures = images.map((image) => [image.complete, image.naturalWidth, image.naturalHeight]);
    const audio = shown.querySelector("audio");
    if (audio && audio.readyState < 1 && !audio.error) await new Promise((heard) => { audio.onloadedmetadata = audio.onerror = heard; audio.load(); });
    tell(JSON.stringify({ pictures, text: shown.innerText, rows: shown.querySelectorAll("tr").length, audio: audio && audio.error }));
    """
    page = sheet(modality)
    seen = json.loads(drive(page, tmp_path, script)[0])
    assert all(complete and width >= 96 and height >= 96 for complete, width, height in seen["pictures"])
    assert len(seen["pictures"]) == (0 if modality in {"text", "table"} else 1)
    expected = {
        "image": "8 x 8 PNG",
        "audio": "0.10 seconds",
        "text": "<b>message</b> 0 & more </script>",
        "table": "town <0>",
        "vector": "16 numbers",
        "nodes": "degree",
        "series": "temperature",
        "graphs": "mean degree",
    }
    assert expected[modality] in seen["text"]
    assert seen["audio"] is None


@pytest.mark.parametrize("modality", ["image", "audio", "text", "table", "vector", "nodes", "series", "graphs"])
def test_the_page_names_no_address_and_is_the_same_each_time(sheet: Callable[..., str], modality: str) -> None:
    page = sheet(modality)
    assert not re.search(r"https?:|//[a-z0-9.-]+\.[a-z]{2,}", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "lo<o>p" not in page


def test_text_of_the_data_never_becomes_markup(sheet: Callable[..., str]) -> None:
    page = sheet("text", names=["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a", "b"])
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
