"""Text lines and folders of texts: labels on either side, bytes that are no UTF-8, and what cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kfloop.components.ingest.readers.text import lines as text_lines
from kfloop.components.ingest.readers.text import reader as text
from kfloop.components.ingest.readers.text.facts import is_free_text, text_facts
from kfloop.components.ingest.source import Source
from kfloop.core.sections import DataConfig
from kfloop.errors import ConfigError, InputError

LINES = "".join(f"{'good' if i % 2 else 'bad'}\tthis is text {i}\n" for i in range(20))


def written(folder: Path, content: str | bytes, name: str = "lines.txt") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def opened(path: Path, like: Source | None = None, **config: Any) -> Source:
    return text.open_source(path, DataConfig(source=str(path), **config), like)


def read(source: Source) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    batches = list(source.batches())
    return [row for batch in batches for row in batch.table.to_pylist()], [
        row for batch in batches for row in batch.quarantined
    ]


def refused(path: Path, *words: str, **config: Any) -> None:
    with pytest.raises(InputError) as caught:
        read(opened(path, **config))
    for word in words:
        assert word in f"{caught.value.message} | {caught.value.hint}"


def test_label_then_text(tmp_path: Path) -> None:
    source = opened(written(tmp_path, LINES))
    rows, quarantined = read(source)
    assert (source.kind, source.modality, source.task, source.labels, source.n) == (
        "text_lines",
        "text",
        "multiclass",
        ("bad", "good"),
        20,
    )
    assert (source.inputs, source.facts, source.suggestions) == (("text",), ("characters", "words", "replacement"), {})
    assert rows[1] == {
        "id": "1",
        "text": "this is text 1",
        "characters": 14,
        "words": 4,
        "replacement": 0.0,
        "label": 1,
    }
    assert not quarantined


def test_text_then_label_is_seen_by_which_side_repeats(tmp_path: Path) -> None:
    turned = "".join("\t".join(reversed(line.split("\t"))) + "\n" for line in LINES.splitlines())
    assert read(opened(written(tmp_path, turned)))[0] == read(opened(written(tmp_path, LINES, "plain.txt")))[0]


def test_a_tab_inside_the_text_stays(tmp_path: Path) -> None:
    rows, _ = read(opened(written(tmp_path, LINES + "good\tone\ttwo\n")))
    assert rows[-1]["text"] == "one\ttwo"


@pytest.mark.parametrize("block", [16, 4 << 20])
def test_odd_lines_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(text_lines, "BLOCK", block)
    odd = b"\n\ngood\tcaf\xe9\nno tab here\n\tno label\r\ngood\t \r\nbad\tlast"
    rows, quarantined = read(opened(written(tmp_path, b"\xef\xbb\xbf" + LINES.encode() + odd)))
    assert [row["id"] for row in rows] == [*map(str, range(21)), "24"]
    assert (rows[20]["text"], rows[20]["replacement"]) == ("caf\ufffd", 0.25)
    assert rows[0]["label"] == 0
    assert rows[-1]["text"] == "last"
    assert quarantined == [
        {"id": "21", "reason": "line 24: no TAB in 'no tab here'"},
        {"id": "22", "reason": "line 25, column 'label': no label"},
        {"id": "23", "reason": "line 26, column 'text': no text"},
    ]


def test_a_header_is_no_example(tmp_path: Path) -> None:
    source = opened(written(tmp_path, "Label\tText\n" + LINES + "oops\n"))
    rows, quarantined = read(source)
    assert (len(rows), source.labels, source.n) == (20, ("bad", "good"), 21)
    assert "header" in source.notes[0]
    assert "line 22: no TAB" in quarantined[0]["reason"]


def test_another_delimiter_and_a_pattern(tmp_path: Path) -> None:
    spaced = written(tmp_path, "".join(f"{i % 3} what is {i} ?\n" for i in range(30)), "questions.all")
    told = opened(spaced, modality="text", delimiter=" ")
    assert told.labels == ("0", "1", "2")
    assert read(told)[0][4]["text"] == "what is 4 ?"
    assert read(opened(spaced, pattern="{label} {text}"))[0] == read(told)[0]
    fine = written(tmp_path, "".join(f"{'AB'[i % 2]}:sub{i} why {i} ?\n" for i in range(30)) + "oops\n")
    source = opened(fine, pattern="{label}:{fine} {text}")
    rows, quarantined = read(source)
    assert (source.labels, rows[3]["text"]) == (("A", "B"), "why 3 ?")
    assert "fine left out" in source.notes[0]
    assert quarantined[0]["reason"].startswith("line 31: no '{label}:{fine} {text}' in 'oops'")
    with pytest.raises(ConfigError, match="expected one"):
        opened(fine, pattern="{label}_{take}")


def test_a_pattern_may_tell_groups(tmp_path: Path) -> None:
    source = opened(
        written(tmp_path, "".join(f"{i % 2}/{i // 4}/words {i}\n" for i in range(30))),
        pattern="{label}/{who}/{text}",
        group="who",
    )
    assert read(source)[0][5]["group"] == "1"


def test_limit(tmp_path: Path) -> None:
    source = opened(written(tmp_path, LINES), limit=5)
    assert (source.n, len(read(source)[0])) == (5, 5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["is empty"]),
        ("\n \n", ["is empty"]),
        ("one\ntwo\n", ["line 1 has no TAB", "'one'"]),
        ("a\tsame\na\tsame\n", ["one class only"]),
        ("a\tx\nb\ty\n", ["every one of the 2 labels"]),
    ],
)
def test_bad_lines_are_refused(tmp_path: Path, content: str, words: list[str]) -> None:
    refused(written(tmp_path, content), *words)
    refused(tmp_path / "missing.txt", "does not exist")


def test_fresh_lines_take_the_side_and_the_classes_of_the_source(tmp_path: Path) -> None:
    base = opened(written(tmp_path, LINES))
    fresh = opened(written(tmp_path, "same text\tgood\nsame text\tbad\nsame text\tgood\n", "fresh.txt"), base)
    assert [row["label"] for row in read(fresh)[0]] == [1, 0, 1]
    with pytest.raises(InputError) as caught:
        opened(written(tmp_path, "good\tfine\nugly\tnot fine\n", "fresh.txt"), base)
    assert "line 2, column 'label': 'ugly' is a class that data.source does not have" in caught.value.message


# Folders


def folder_of(root: Path, *names: str) -> Path:
    for name in names:
        written(root, f"text of {name}\n", name)
    return root


def test_a_folder_of_class_subfolders(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "f", *(f"{'pos' if i % 2 else 'neg'}/{i}.txt" for i in range(6)))
    written(root, "", "pos/empty.txt")
    written(root, "x", "README.md")
    written(root, b"\xe9t\xe9", "neg/latin.txt")
    source = opened(root)
    rows, quarantined = read(source)
    assert (source.kind, source.labels, source.n) == ("text_folder", ("neg", "pos"), 8)
    assert [row["id"] for row in rows][:2] == ["neg/0.txt", "neg/2.txt"]
    assert next(row for row in rows if row["id"] == "neg/latin.txt")["replacement"] == pytest.approx(2 / 3)
    assert quarantined == [{"id": "pos/empty.txt", "reason": "'pos/empty.txt', column 'text': no text"}]
    assert "'README.md'" in source.notes[0]


def test_folders_named_like_splits_are_the_official_split(tmp_path: Path) -> None:
    root = folder_of(
        tmp_path / "f", *(f"{'train' if i < 8 else 'test'}/{'pos' if i % 2 else 'neg'}/{i}.txt" for i in range(12))
    )
    source = opened(root)
    rows, _ = read(source)
    assert source.labels == ("neg", "pos")
    assert [row["split"] for row in rows].count("test") == 4
    bare = folder_of(tmp_path / "g", *(f"{'train' if i < 8 else 'test'}/{i}.txt" for i in range(12)))
    refused(bare, "named like splits (test, train)")


def test_the_digest_of_a_folder_is_of_names_and_bytes(tmp_path: Path) -> None:
    names = [f"{'ab'[i % 2]}/{i}.txt" for i in range(4)]
    first, second = folder_of(tmp_path / "f", *names), folder_of(tmp_path / "g", *names)
    assert opened(first).digest == opened(second).digest
    (second / "a/0.txt").write_text("other")
    assert opened(first).digest != opened(second).digest


# Recognition and facts


def test_recognise(tmp_path: Path) -> None:
    config = DataConfig()
    assert text.recognise(written(tmp_path, LINES), config)
    assert text.recognise(written(tmp_path, LINES, "l.tsv"), config)
    assert not text.recognise(written(tmp_path, "label\ttext\n" + LINES, "h.tsv"), config)
    assert not text.recognise(written(tmp_path, "a\tb\tc\n", "t.tsv"), config)
    assert not text.recognise(written(tmp_path, LINES, "rows.all"), config)
    assert text.recognise(tmp_path / "rows.all", DataConfig(pattern="{label}\t{text}"))
    assert text.recognise(tmp_path / "rows.all", DataConfig(modality="text", delimiter="\t"))
    assert not text.recognise(tmp_path / "missing", config)
    assert not text.recognise(tmp_path, config)
    assert text.recognise(folder_of(tmp_path / "f", "a/1.txt", "b/2.txt"), config)
    written(tmp_path, "x", "g/a/1.png")
    assert not text.recognise(tmp_path / "g", config)


def test_facts() -> None:
    facts = text_facts(pa.array(["two words", "", None, "\ufffd\u20ac", " a\u00a0b\n"]))
    assert facts["characters"].to_pylist() == [9, 0, 0, 2, 5]
    assert facts["words"].to_pylist()[:4] == [2, 0, 0, 1]
    assert facts["replacement"].to_pylist() == [0.0, 0.0, 0.0, 0.5, 0.0]


def test_sentences_differ_from_categories() -> None:
    assert is_free_text(pa.array([f"this is sentence {i}" for i in range(10)]))
    assert not is_free_text(pa.array(["very long category name"] * 10))
    assert not is_free_text(pa.array([f"code{i}" for i in range(10)]))
    assert not is_free_text(pa.array([None], pa.string()))
