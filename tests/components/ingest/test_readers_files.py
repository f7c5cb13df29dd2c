"""Listings of folders of files: what says the label, what is left out, and what is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from kfloop.components.ingest.files.columns import class_names, times
from kfloop.components.ingest.files.items import FileItem, FileListing
from kfloop.components.ingest.files.listing import files_digest, has_files, list_files
from kfloop.components.ingest.files.pattern import guess_pattern, match_stem, parse_pattern
from kfloop.core.sections import DataConfig, SplitConfig
from kfloop.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = frozenset({".wav", ".flac"})


def _write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def _list(folder: Path, **config: Any) -> FileListing:
    return list_files(folder, DataConfig(source=str(folder), **config), SUFFIXES, what="audio file")


def _told(listing: FileListing) -> dict[str, str]:
    return {item.id: item.label for item in listing.items}


def test_class_subfolders(tmp_path: Path) -> None:
    listing = _list(_write(tmp_path, "yes/a.wav", "yes/deep/b.FLAC", "no/c.wav", "no/.hidden.wav", ".git/d.wav"))
    assert listing.layout == "class_folders"
    assert _told(listing) == {"yes/a.wav": "yes", "yes/deep/b.FLAC": "yes", "no/c.wav": "no"}
    assert listing.skipped == ()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    listing = _list(_write(tmp_path, "yes/a.wav", "no/b.wav", "no/notes.txt", "loose.wav"))
    assert dict(listing.skipped) == {
        "no/notes.txt": "not an audio file by its suffix",
        "loose.wav": "lies outside the class subfolders",
    }
    assert listing.foreign == ("no/notes.txt",)
    assert [name for name, _ in listing.unlabelled] == ["loose.wav"]


def test_split_subfolders_with_class_subfolders_are_official_splits(tmp_path: Path) -> None:
    listing = _list(_write(tmp_path, "train/yes/a.wav", "Val/no/b.wav", "test/yes/c.wav", "test/d.wav"))
    assert listing.layout == "split_folders"
    assert {item.id: (item.label, item.split) for item in listing.items} == {
        "train/yes/a.wav": ("yes", "train"),
        "Val/no/b.wav": ("no", "validation"),
        "test/yes/c.wav": ("yes", "test"),
    }
    assert listing.skipped == (("test/d.wav", "lies outside the class subfolders of the splits"),)


def test_subfolders_named_like_splits_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"named like splits \(test, train\) and hold no class subfolders"):
        _list(_write(tmp_path, "train/a.wav", "test/b.wav"))


def test_metadata_gives_label_group_time_and_split(tmp_path: Path) -> None:
    _write(tmp_path, "a.wav", "sub/b.wav")
    text = "file_name,word,who,when,split\na.wav,yes,ann,2026-01-01,train\nsub/b.wav,no,bob,2026-01-02,dev\n"
    (tmp_path / "metadata.csv").write_text(text)
    listing = _list(tmp_path, label="word", group="who", time="when")
    assert listing.layout == "metadata"
    assert [(item.id, item.label, item.group, item.time, item.split) for item in listing.items] == [
        ("a.wav", "yes", "ann", "2026-01-01", "train"),
        ("sub/b.wav", "no", "bob", "2026-01-02", "validation"),
    ]
    assert listing.suggestions == {}


def test_a_metadata_column_called_like_a_label_is_found_and_suggested(tmp_path: Path) -> None:
    _write(tmp_path, "clips/a.wav", "clips/b.wav")
    (tmp_path / "metadata.csv").write_text("file_name,Label\nclips/a.wav,yes\nclips/b.wav,no\n")
    listing = _list(tmp_path)
    assert _told(listing) == {"clips/a.wav": "yes", "clips/b.wav": "no"}
    assert listing.suggestions == {"label": "Label"}


def test_lines_without_label_or_name_are_set_aside(tmp_path: Path) -> None:
    _write(tmp_path, "a.wav", "b.wav")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.wav,yes\nb.wav, \n,no\n")
    listing = _list(tmp_path, label="label")
    assert _told(listing) == {"a.wav": "yes"}
    assert dict(listing.skipped) == {
        "b.wav": "no label in line 3 of metadata.csv",
        "metadata.csv:4": "no file_name in line 4 of metadata.csv",
    }


@pytest.mark.parametrize(
    ("text", "config", "said"),
    [
        ("file_name,word\na.wav,1\n", {"label": "wrod"}, "has no column 'wrod': it has file_name, word"),
        ("file_name,label\na.wav,1\n", {"label": "label", "group": "who"}, "has no column 'who'"),
        ("file_name,label\n../a.wav,1\n", {"label": "label"}, r"line 2: '../a.wav' lies outside the folder"),
        (
            "file_name,label\na.wav,1\na.wav,2\n",
            {"label": "label"},
            "line 3: label of 'a.wav' is '2' here and '1' before",
        ),
        ("file_name,label,split\na.wav,1,trian\n", {"label": "label"}, "line 2, column 'split': 'trian' is no split"),
        ('file_name,label\n"a.wav,1\n', {"label": "label"}, "is not CSV in UTF-8"),
    ],
)
def test_bad_metadata_is_refused_by_line_and_column(
    tmp_path: Path, text: str, config: dict[str, Any], said: str
) -> None:
    _write(tmp_path, "a.wav")
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        _list(tmp_path, **config)


def test_metadata_in_another_encoding_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "a.wav")
    (tmp_path / "metadata.csv").write_bytes("file_name,label\na.wav,\xfcber\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not CSV in UTF-8"):
        _list(tmp_path, label="label")


def test_a_label_column_needs_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.label is 'word', but .* has no metadata.csv"):
        _list(_write(tmp_path, "a/b.wav"), label="word")


def test_a_split_column_with_another_name(tmp_path: Path) -> None:
    _write(tmp_path, "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,label,part\na.wav,1,testing\n")
    listing = _list(tmp_path, label="label", split=SplitConfig(column="part"))
    assert listing.items[0].split == "test"


def test_names_with_few_values_each_many_times_are_used_and_suggested(tmp_path: Path) -> None:
    names = [f"{digit}_{who}_{take}.wav" for digit in range(3) for who in ("ann", "bob", "cy") for take in range(5)]
    listing = _list(_write(tmp_path, *names))
    assert listing.layout == "pattern"
    assert listing.suggestions == {"pattern": "{label}_{group}_{take}"}
    assert "was guessed" in listing.notes[0]
    assert {(item.label, item.group) for item in listing.items} == {(d, w) for d in "012" for w in ("ann", "bob", "cy")}


def test_names_tell_the_label_when_there_is_one_subfolder_only(tmp_path: Path) -> None:
    names = [f"recordings/{name}_{take}.wav" for name in ("yes", "no") for take in range(4)]
    listing = _list(_write(tmp_path, *names))
    assert (listing.layout, {item.label for item in listing.items}) == ("pattern", {"yes", "no"})


def test_a_name_that_is_not_utf8_is_set_aside(tmp_path: Path) -> None:
    _write(tmp_path, "yes/a.wav", "no/b.wav")
    (tmp_path / "no" / os.fsdecode(b"gr\xf6n.wav")).write_bytes(b"c")
    assert _list(tmp_path).skipped == (("no/gr\\xf6n.wav", "its name is not UTF-8"),)


@pytest.mark.parametrize(
    ("stems", "pattern"),
    [
        (
            [f"{digit}_{who}_{take}" for digit in range(10) for who in "abcd" for take in range(50)],
            "{label}_{group}_{take}",
        ),
        ([f"{name}-{take:03d}" for name in ("cat", "dog") for take in range(4)], "{label}-{take}"),
        ([f"clip_{name}_{take}" for take in range(9) for name in ("yes", "no", "up")], "{part1}_{label}_{take}"),
        ([f"x_{take}" for take in range(9)], None),
        (["cat_1", "dog_1", "cat-2"], None),
        (["cat_1", "dog_1", "emu_1"], None),
        (["plain", "names"], None),
        ([], None),
    ],
)
def test_a_pattern_is_guessed_only_when_a_part_looks_like_a_label(stems: list[str], pattern: str | None) -> None:
    assert guess_pattern(stems) == pattern


def test_a_told_pattern_wins_over_subfolders_and_names_what_does_not_fit(tmp_path: Path) -> None:
    _write(tmp_path, "x/7_ann_1.wav", "x/8_bob_2.wav", "y/oops.wav")
    listing = _list(tmp_path, pattern="{label}_{group}_{take}")
    assert [(item.label, item.group) for item in listing.items] == [("7", "ann"), ("8", "bob")]
    assert listing.skipped == (("y/oops.wav", "its name does not fit data.pattern '{label}_{group}_{take}'"),)


def test_id_and_time_in_a_pattern(tmp_path: Path) -> None:
    listing = _list(_write(tmp_path, "u1-20260131-yes.wav", "u2-20260201-no.wav"), pattern="{id}-{time}-{label}")
    assert [(item.id, item.time, item.label) for item in listing.items] == [
        ("u1", "20260131", "yes"),
        ("u2", "20260201", "no"),
    ]
    assert [str(time) for time in times(listing.items) or []] == ["2026-01-31 00:00:00", "2026-02-01 00:00:00"]


def test_the_same_id_in_two_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'u1-yes.wav' and 'u1-no.wav' in .* have the same \{id\} 'u1'"):
        _list(_write(tmp_path, "u1-no.wav", "u1-yes.wav"), pattern="{id}-{label}")


def test_a_pattern_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of the 2 audio files .* fits data.pattern '\{label\}_\{take\}'"):
        _list(_write(tmp_path, "a.wav", "b.wav"), pattern="{label}_{take}")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{group}_{take}", r"has no \{label\}"),
        ("{label}_{label}", "twice"),
        ("{label}{group}", r"nothing separates \{label\}"),
        ("{label", "data.pattern"),
        ("{label}_{}", "is not a name"),
    ],
)
def test_a_pattern_that_cannot_be_read_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_pattern(pattern)


def test_a_pattern_reads_a_name_in_one_way_only() -> None:
    pattern = parse_pattern("{label}_{group}.{take}")
    assert match_stem(pattern, "new-york_ann.3") == {"label": "new-york", "group": "ann", "take": "3"}
    assert match_stem(pattern, "new_york_ann.3") is None
    assert match_stem(parse_pattern("{label}"), "any_thing") == {"label": "any_thing"}


def test_nothing_says_the_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds 2 audio files .*but nothing says their class") as caught:
        _list(_write(tmp_path, "a.wav", "b.wav"))
    assert "data.pattern" in caught.value.hint
    (tmp_path / "metadata.csv").write_text("file_name,word\na.wav,1\n")
    with pytest.raises(InputError) as caught:
        _list(tmp_path)
    assert "it has file_name, word" in caught.value.hint


def test_empty_missing_and_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no audio files \(.flac, .wav\)"):
        _list(_write(tmp_path, "a/readme.txt"))
    with pytest.raises(InputError, match="is a file: expected a folder"):
        _list(tmp_path / "a" / "readme.txt")
    with pytest.raises(InputError, match="is not there"):
        _list(tmp_path / "b")


def test_has_files_never_raises(tmp_path: Path) -> None:
    assert not has_files(tmp_path / "none", SUFFIXES)
    _write(tmp_path, "a/b/c.WAV", "a/d.txt")
    assert has_files(tmp_path, SUFFIXES)
    assert not has_files(tmp_path, SUFFIXES, enough=2)
    assert not has_files(tmp_path / "a" / "d.txt", SUFFIXES)


def test_the_digest_is_of_names_labels_and_bytes_and_not_of_the_place(tmp_path: Path) -> None:
    one = files_digest(_list(_write(tmp_path / "one", "yes/a.wav", "no/b.wav")).items)
    assert one == files_digest(_list(_write(tmp_path / "two", "no/b.wav", "yes/a.wav")).items)
    (tmp_path / "two" / "no" / "b.wav").write_bytes(b"other")
    assert one != files_digest(_list(tmp_path / "two").items)
    items = list(_list(tmp_path / "one").items)
    other = FileItem(id=items[0].id, path=items[0].path, label="maybe")
    assert one != files_digest([other, *items[1:]])


def test_class_names_are_in_the_order_of_their_value() -> None:
    assert class_names(["10", "9", "9", "1"]) == ("1", "9", "10")
    assert class_names(["b", "10", "9"]) == ("10", "9", "b")


@pytest.mark.parametrize(
    ("told", "found"), [(["2026-01-01", None], ["2026-01-01 00:00:00", "None"]), (["3", "2"], ["3", "2"])]
)
def test_times_of_files(tmp_path: Path, told: list[str | None], found: list[str]) -> None:
    items = [FileItem(id=str(place), path=tmp_path, label="x", time=time) for place, time in enumerate(told)]
    assert [str(time) for time in times(items) or []] == found


def test_times_with_an_offset_become_utc_and_others_are_refused(tmp_path: Path) -> None:
    item = FileItem(id="a", path=tmp_path, label="x", time="2026-01-01T02:00:00+02:00")
    assert [str(time) for time in times([item]) or []] == ["2026-01-01 00:00:00"]
    with pytest.raises(InputError, match="time 'soon' of 'b' is neither ISO 8601 nor a whole number"):
        times([item, FileItem(id="b", path=tmp_path, label="x", time="soon")])
    assert times([FileItem(id="a", path=tmp_path, label="x")]) is None


def test_two_speakers_are_no_group_because_they_cannot_fill_three_splits(tmp_path: Path) -> None:
    names = [f"{digit}_{who}_{take}.wav" for digit in range(3) for who in ("ann", "bob") for take in range(5)]
    assert _list(_write(tmp_path, *names)).suggestions == {"pattern": "{label}_{part2}_{take}"}
