"""Texts and windows as tensors: nothing seen that lies ahead, nothing that breaks on odd texts, the same numbers after a restart."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from kfloop.core.encoding import restore_encoder
from kfloop.core.encoding.bare.tokens import PADDING, RESERVED, UNKNOWN, known_words, parts_of, tokenise
from kfloop.core.encoding.series import Encoder as SeriesEncoder
from kfloop.core.encoding.series import Windows
from kfloop.core.encoding.text import LONGEST
from kfloop.core.encoding.text import Encoder as TextEncoder
from kfloop.core.versions import read_version
from kfloop.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.versions import DatasetVersion


class Store:
    """Writes dataset versions below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def write(self, splits: dict[str, pa.Table], modality: str, task: str, **schema: Any) -> DatasetVersion:
        self.count += 1
        place = self.folder / str(self.count)
        place.mkdir()
        for split, table in splits.items():
            with (
                pa.OSFile(str(place / f"{split}.arrow"), "wb") as sink,
                pa.ipc.new_stream(sink, table.schema) as writer,
            ):
                writer.write_table(table)
        told = {"digest": str(self.count), "labels": ["even", "odd"], "modality": modality, "task": task}
        card = told | {"schema": schema, "inputs": [], "facts": [], "splits": dict.fromkeys(splits, 0)}
        (place / "card.json").write_text(json.dumps(card))
        return read_version(place)

    def texts(self, *texts: str | None) -> DatasetVersion:
        n = len(texts)
        table = pa.table(
            {
                "id": [f"r{row}" for row in range(n)],
                "text": pa.array(texts, pa.string()),
                "label": pa.array([row % 2 for row in range(n)], pa.int64()),
                "content": [f"c{row}" for row in range(n)],
                "origin": ["base"] * n,
            }
        )
        return self.write({"train": table, "validation": table}, "text", "multiclass")

    def series(
        self,
        *rows: int,
        groups: tuple[str, ...] = (),
        stride: int = 1,
        label: str | None = None,
        gaps: tuple[int, ...] = (),
    ) -> DatasetVersion:
        """Value and id of a row tell its place in time: row t of group g holds t + 1000 g; the second channel is its negative."""
        splits, start = {}, 0
        for split, size in zip(("train", "validation", "test"), rows, strict=True):
            times = np.repeat(np.arange(start, start + size), len(groups) or 1)
            numbers = np.tile(np.arange(len(groups) or 1), size)
            values = np.where(np.isin(times, gaps), np.nan, times + 1000.0 * numbers)
            names = [f"{groups[number] if groups else ''}{time}" for time, number in zip(times, numbers, strict=True)]
            columns = {"id": names, "content": names, "origin": ["base"] * len(names), "x": values, "y": -values}
            if groups:
                columns["group"] = [groups[number] for number in numbers]
            if label is not None:
                columns["label"] = times % 2 if label == "class" else times.astype(np.float64)
            splits[split] = pa.table(columns)
            start += size
        told = {"channels": ["x", "y"], "context": 4, "horizon": 2, "stride": stride}
        return self.write(splits, "series", "forecasting", series=told)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def windows_of(version: DatasetVersion, split: str, objective: str = "forecasting") -> tuple[np.ndarray, Windows]:
    examples = SeriesEncoder.fit(version).examples(version, split, objective)
    assert isinstance(examples, Windows)
    return examples.batch_inputs(np.arange(len(examples)))[0], examples


def test_words_are_lower_case_and_numbers_keep_their_length_alone() -> None:
    assert tokenise("What 's in 1984, Zo\xeb?") == ["what", "'", "s", "in", "0000", ",", "zo\xeb", "?"]
    assert tokenise("123456789 7") == ["0000", "0"]
    assert tokenise("don_t") == ["don", "_", "t"]
    assert tokenise(" \t\n") == []
    assert tokenise("\u65e5\u672c\u8a9e \U0001f642") == ["\u65e5\u672c\u8a9e", "\U0001f642"]
    assert tokenise("cafe\u0301") == tokenise("caf\u00e9")
    assert len(tokenise("x" * 10_000)[0]) == 40


def test_parts_are_the_same_everywhere_and_like_those_of_similar_words() -> None:
    assert parts_of("cat", 1000, 16) == parts_of("cat", 1000, 16)
    assert parts_of("a", 1 << 40, 16) == [1 + zlib.crc32(b"<a>")]
    assert len(set(parts_of("running", 16_384, 16)) & set(parts_of("runner", 16_384, 16))) >= 4
    assert all(1 <= part <= 7 for part in parts_of("something", 7, 16))
    assert len(parts_of("incomprehensibilities", 100, 16)) == 16


def test_rare_words_have_no_id_and_equals_stand_by_alphabet() -> None:
    assert known_words([["b", "a", "c"], ["b", "a"], ["b"]], 10, 2) == ["b", "a"]
    assert known_words([["z", "y"], ["z", "y"]], 1, 1) == ["y"]


def test_texts_become_ids_padded_and_cut(store: Store) -> None:
    version = store.texts("red green", "green red blue", "red", "green")
    encoder = TextEncoder.fit(version)
    tokens, pieces = encoder.encode(version.table("train"))
    assert (tokens.shape, pieces.shape) == ((4, 3), (4, 3, 16))
    assert (tokens.dtype, pieces.dtype) == (np.int64, np.int64)
    red, green = RESERVED + 1, RESERVED  # three each, by alphabet
    assert tokens.tolist()[:2] == [[red, green, PADDING], [green, red, UNKNOWN]]
    assert (pieces[0, 2] == 0).all()
    assert pieces[1, 2].any(), "an unknown word is told by its parts"
    longer = encoder.encode(pa.table({"text": ["red red red red red"]}))[0]
    assert longer.tolist() == [[red, red, red]]


def test_batches_of_texts_are_what_encode_gives(store: Store) -> None:
    version = store.texts("one two", "two three four", None, "", "one")
    encoder = TextEncoder.fit(version)
    examples = encoder.examples(version, "train", "classification")
    rows = np.array([4, 1, 2])
    for got, want in zip(examples.batch_inputs(rows), encoder.encode(version.table("train").take(rows)), strict=True):
        np.testing.assert_array_equal(got, want)
    assert (
        examples.take(rows).batch_inputs(np.array([1]))[0].tolist() == examples.batch_inputs(np.array([1]))[0].tolist()
    )
    assert examples.target.tolist() == [0, 1, 0, 1, 0]


def test_odd_texts_are_texts(store: Store) -> None:
    encoder = TextEncoder.fit(store.texts("some words here", "some more words"))
    tokens, pieces = encoder.encode(
        pa.table({"text": ["", None, "\x00\ud7ff", "\U0001f642\U0001f642", "\n", "\ufb01" * 500, "a" * 100_000]})
    )
    assert (tokens[0] == 0).all()
    assert (tokens[1] == 0).all()
    assert tokens.max() < encoder.facts["words"]
    assert pieces.min() >= 0
    assert pieces.max() < encoder.facts["pieces"]


def test_a_text_encoder_comes_back_from_json(store: Store) -> None:
    version = store.texts("die gro\xdfe Stra\xdfe", "la gro\xdfe ni\xf1a", "gro\xdfe")
    encoder = TextEncoder.fit(version)
    back = restore_encoder(json.loads(json.dumps(encoder.plain())))
    assert back.ports == encoder.ports
    assert back.facts == encoder.facts
    for one, other in zip(back.encode(version.table("train")), encoder.encode(version.table("train")), strict=True):
        np.testing.assert_array_equal(one, other)


def test_very_long_texts_are_cut_at_the_limit(store: Store) -> None:
    assert TextEncoder.fit(store.texts("word " * 1000, "word " * 1000)).ports[0].shape == (LONGEST,)


def test_texts_without_words_are_refused(store: Store) -> None:
    with pytest.raises(InputError, match="have no words"):
        TextEncoder.fit(store.texts("", "   ", None))
    with pytest.raises(InputError, match="the model takes texts"):
        TextEncoder.fit(store.texts("a a")).encode(pa.table({"sentence": ["a"]}))


def test_windows_look_back_into_the_split_before_and_targets_stay_inside(store: Store) -> None:
    version = store.series(20, 6, 7)
    for split, first, last, count in (("train", 4, 20, 15), ("validation", 20, 26, 5), ("test", 26, 33, 6)):
        inputs, examples = windows_of(version, split)
        assert len(examples) == count
        for window, target, name in zip(inputs, examples.target, examples.ids, strict=True):
            times = target[:, 0]
            assert first <= times[0]
            assert times[-1] < last
            np.testing.assert_array_equal(
                np.concatenate([window[:, 0], times]), np.arange(window[0, 0], window[0, 0] + 6)
            )
            np.testing.assert_array_equal(window[:, 1], -window[:, 0])
            assert name == str(int(times[0])), "named by the first row of its target"
    assert examples.target.shape[1:] == (2, 2)


def test_a_stride_counts_from_the_first_row_of_the_split(store: Store) -> None:
    _, examples = windows_of(store.series(20, 8, 7, stride=3), "validation")
    assert examples.target[:, 0, 0].tolist() == [20, 23, 26]


def test_windows_of_one_series_are_views(store: Store) -> None:
    _, examples = windows_of(store.series(50, 6, 7), "train")
    assert examples.inputs[0].base is not None
    assert np.shares_memory(examples.target[0], examples.target[1])


def test_groups_never_mix(store: Store) -> None:
    version = store.series(10, 4, 5, groups=("a", "b", "c"))
    for split, count in (("train", 5), ("validation", 3), ("test", 4)):
        inputs, examples = windows_of(version, split)
        assert len(examples) == 3 * count
        both = np.concatenate([inputs, examples.target], axis=1)[..., 0]
        assert (np.diff(both, axis=1) == 1).all()
        assert {name[0] for name in examples.ids} == {"a", "b", "c"}
        assert [name for name in examples.ids if name[0] == "b"] == [
            f"b{int(row[4]) - 1000}" for row in both if 1000 <= row[0] < 2000
        ]


def test_a_part_of_the_windows_is_those_windows(store: Store) -> None:
    inputs, examples = windows_of(store.series(20, 6, 7, groups=("a", "b")), "train")
    some = examples.take(np.array([3, 17, 5]))
    np.testing.assert_array_equal(some.batch_inputs(np.array([1]))[0][0], inputs[17])
    np.testing.assert_array_equal(some.target[2], examples.target[5])
    mask = np.arange(len(examples)) % 2 == 0
    np.testing.assert_array_equal(examples.take(mask).batch_inputs(np.array([1]))[0][0], inputs[2])


@pytest.mark.parametrize(("label", "objective"), [("class", "classification"), ("number", "regression")])
def test_a_label_belongs_to_the_last_step_of_its_window(store: Store, label: str, objective: str) -> None:
    version = store.series(20, 6, 7, label=label)
    inputs, examples = windows_of(version, "validation", objective)
    assert examples.ids.tolist() == [str(time) for time in range(20, 26)], "each step of the split, none of another"
    assert inputs[:, -1, 0].tolist() == list(range(20, 26))
    assert examples.target.tolist() == ([0, 1] * 3 if label == "class" else list(range(20, 26)))


def test_windows_whose_target_has_a_gap_are_left_out_and_gaps_before_it_stay(store: Store) -> None:
    inputs, examples = windows_of(store.series(20, 10, 7, gaps=(23,)), "validation")
    assert np.isfinite(examples.target).all()
    assert examples.ids.tolist() == ["20", "21", "24", "25", "26", "27", "28"]
    assert np.isnan(inputs[2]).any()
    with pytest.raises(InputError, match=r"each of the 9 windows of the validation split"):
        windows_of(store.series(20, 10, 7, gaps=tuple(range(20, 30))), "validation")


def test_constants_are_of_the_training_rows_without_gaps(store: Store) -> None:
    encoder = SeriesEncoder.fit(store.series(20, 6, 7, gaps=(3,)))
    seen = np.delete(np.arange(20.0), 3)
    assert encoder.facts["mean"] == pytest.approx([seen.mean(), -seen.mean()])
    assert encoder.facts["std"] == pytest.approx([seen.std(), seen.std()])
    told = {"channels": ["x", "y"], "context": 2}
    flat = store.write({"train": pa.table({"x": [5.0] * 9, "y": [0.0] * 9})}, "series", "forecasting", series=told)
    assert SeriesEncoder.fit(flat).facts["std"] == [1.0, 1.0]


def test_series_that_cannot_be_encoded_are_refused(store: Store) -> None:
    version = store.series(20, 6, 7)
    with pytest.raises(InputError, match="no value of x, y"):
        SeriesEncoder.fit(store.series(3, 6, 7, gaps=(0, 1, 2)))
    encoder = SeriesEncoder.fit(version)
    with pytest.raises(InputError, match="no column y"):
        encoder.encode(pa.table({"x": [1.0] * 9}))
    with pytest.raises(InputError, match="has 3 rows, but a window has 4"):
        encoder.encode(version.table("train").slice(0, 3))
    assert len(windows_of(store.series(3, 1, 1), "train")[1]) == 0, "too short for one window is no window"


def test_a_series_encoder_comes_back_from_json(store: Store) -> None:
    version = store.series(20, 6, 7)
    encoder = SeriesEncoder.fit(version)
    back = restore_encoder(json.loads(json.dumps(encoder.plain())))
    assert back.ports == encoder.ports
    assert back.facts == encoder.facts
    np.testing.assert_array_equal(back.encode(version.table("train"))[0], encoder.encode(version.table("train"))[0])
