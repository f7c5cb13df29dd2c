"""A folder of audio files: what is kept of each, the facts about it, and every way in which one can be broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from kfloop.components.ingest.readers.audio import reader as audio
from kfloop.components.ingest.readers.audio.decoding import FACTS, UnreadableAudioError, decode
from kfloop.core.sections import DataConfig
from kfloop.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.components.ingest.source import Source

RATE = 8000


def _tone(seconds: float = 0.5, rate: int = RATE, level: float = 0.5, hertz: float = 440.0) -> NDArray[np.float64]:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def _write(path: Path, samples: NDArray[Any], rate: int = RATE, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def _folder(root: Path) -> Path:
    for label, hertz in (("low", 220.0), ("high", 880.0)):
        for take in range(3):
            _write(root / label / f"{take}.wav", _tone(0.2 + 0.1 * take, hertz=hertz))
    return root


def _open(path: Path, like: Source | None = None, **config: Any) -> Source:
    return audio.open_source(path, DataConfig(source=str(path), **config), like)


def _rows(source: Source) -> tuple[pa.Table, dict[str, str]]:
    batches = list(source.batches())
    aside = {row["id"]: row["reason"] for batch in batches for row in batch.quarantined}
    return pa.concat_tables([batch.table for batch in batches]), aside


def test_a_folder_becomes_rows(tmp_path: Path) -> None:
    source = _open(_folder(tmp_path))
    assert (source.modality, source.task, source.labels, source.n) == ("audio", "multiclass", ("high", "low"), 6)
    assert source.schema == {"sample_rate": RATE}
    assert (source.inputs, source.facts) == (("audio",), FACTS)
    table, aside = _rows(source)
    assert aside == {}
    assert table.column_names == ["id", "audio", *FACTS, "label"]
    assert table.schema.field("audio").type == pa.list_(pa.int16())
    row = table.slice(4, 1).to_pylist()[0]
    assert (row["id"], row["label"], len(row["audio"])) == ("low/1.wav", 1, 2400)
    assert row["bytes"] == (tmp_path / "low/1.wav").stat().st_size
    assert (row["seconds"], row["rate"], row["channels"]) == (0.3, RATE, 1)
    assert _rows(source)[0].equals(table), "the batches can be had again"


def test_sixteen_bit_samples_at_the_right_rate_come_back_bit_by_bit(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    for name in ("a.wav", "a.flac"):
        path = _write(tmp_path / name, samples)
        np.testing.assert_array_equal(decode(path, RATE, 30.0).samples, samples)


def test_facts_are_those_of_a_known_signal(tmp_path: Path) -> None:
    loud = np.concatenate([np.ones(RATE), np.zeros(RATE)])  # a second at full scale, a second of nothing
    facts = decode(_write(tmp_path / "a.wav", loud), RATE, 30.0).facts
    assert facts["clipping"] == 0.5
    assert facts["silence"] == 0.5
    assert facts["rms_db"] == pytest.approx(10 * np.log10(0.5), abs=1e-3)
    facts = decode(_write(tmp_path / "b.wav", _tone(1.0, level=0.1)), RATE, 30.0).facts
    assert facts["rms_db"] == pytest.approx(20 * np.log10(0.1) - 10 * np.log10(2), abs=0.01)
    assert (facts["clipping"], facts["silence"]) == (0.0, 0.0)
    assert decode(_write(tmp_path / "c.wav", np.zeros(100)), RATE, 30.0).facts["rms_db"] == -120.0


def test_channels_are_averaged_and_counted(tmp_path: Path) -> None:
    left = _tone(level=0.4)
    found = decode(_write(tmp_path / "a.wav", np.stack([left, np.zeros_like(left)], axis=1)), RATE, 30.0)
    assert found.facts["channels"] == 2
    np.testing.assert_allclose(found.samples / 32768, left / 2, atol=1e-4)


def test_what_comes_after_max_seconds_is_left_out_but_known(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav", np.concatenate([np.zeros(RATE), np.ones(11 * RATE)]))  # longer than one block
    found = decode(path, RATE, 1.5)
    assert len(found.samples) == 12_000
    assert found.facts["seconds"] == 12.0
    assert found.facts["clipping"] == pytest.approx(11 / 12)
    assert found.facts["silence"] == pytest.approx(1 / 12)


def test_resampling_keeps_the_tone(tmp_path: Path) -> None:
    found = decode(_write(tmp_path / "a.wav", _tone(1.0, rate=44_100), 44_100), RATE, 30.0)
    assert len(found.samples) == RATE
    assert found.facts["rate"] == 44_100
    middle = slice(500, -500)
    np.testing.assert_allclose(found.samples[middle] / 32768, _tone(1.0)[middle], atol=0.01)


def test_the_rate_is_the_most_common_one_at_most_16000_unless_told(tmp_path: Path) -> None:
    for place, rate in enumerate((48_000, 48_000, 8000)):
        _write(tmp_path / "ab"[place % 2] / f"{place}.wav", _tone(0.1, rate=rate), rate)
    source = _open(tmp_path)
    assert source.schema == {"sample_rate": 16_000}
    assert source.notes == ("3 of 3 audio files are resampled to 16000 Hz: the files have 8000 Hz (1), 48000 Hz (2)",)
    table, _ = _rows(source)
    assert [len(row) for row in table["audio"].to_pylist()] == [1600, 1600, 1600]
    assert _open(tmp_path, sample_rate=4000).schema == {"sample_rate": 4000}


def _truncated(path: Path) -> None:
    path.write_bytes(_write(path, _tone()).read_bytes()[:3000])


def _flac_truncated(path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 50_000)
    path.write_bytes(_write(path, noise).read_bytes()[:20_000])


def _not_a_number(path: Path) -> None:
    samples = _tone()
    samples[777] = np.nan
    _write(path, samples, subtype="FLOAT")


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("zero.wav", lambda path: path.write_bytes(b""), "the file is empty"),
        ("cut.wav", _truncated, "truncated: the header promises 8000 bytes of samples, 2956 are there"),
        ("cut.flac", _flac_truncated, "truncated|damaged"),
        ("text.wav", lambda path: path.write_text("hello " * 99), "not a wav or flac file, whatever its name says"),
        ("head.wav", lambda path: _write(path, np.zeros(0)), "it has a header but no samples"),
        ("nan.wav", _not_a_number, r"sample 777 is not a number \(NaN or infinite\)"),
        ("only.wav", lambda path: path.write_bytes(b"RIFF\x24\0\0\0WAVE"), "begins like wav, but is damaged"),
    ],
)
def test_a_broken_file_is_set_aside_with_its_reason(tmp_path: Path, name: str, spoil: Any, reason: str) -> None:
    _folder(tmp_path)
    spoil(tmp_path / "low" / name)
    source = _open(tmp_path)
    assert source.n == 7
    table, aside = _rows(source)
    assert table.num_rows == 6
    assert list(aside) == [f"low/{name}"]
    with pytest.raises(UnreadableAudioError, match=reason):
        decode(tmp_path / "low" / name, RATE, 30.0)


def test_a_missing_file_of_the_table_is_set_aside(tmp_path: Path) -> None:
    _write(tmp_path / "a.wav", _tone())
    _write(tmp_path / "b.wav", _tone())
    (tmp_path / "metadata.csv").write_text("file_name,label\na.wav,x\nb.wav,y\nc.wav,y\n")
    table, aside = _rows(_open(tmp_path))
    assert (table.num_rows, aside) == (2, {"c.wav": "the file is missing"})


def test_a_header_of_a_streaming_writer_is_no_truncation(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav", _tone())
    raw = bytearray(path.read_bytes())
    raw[4:8] = raw[40:44] = b"\xff" * 4
    path.write_bytes(bytes(raw))
    assert decode(path, RATE, 30.0).facts["seconds"] == 0.5


def test_names_with_a_pattern_give_label_and_group(tmp_path: Path) -> None:
    for digit in range(3):
        for who in ("ann", "bob", "cy"):
            for take in range(3):
                _write(tmp_path / f"{digit}_{who}_{take}.wav", _tone(0.05))
    source = _open(tmp_path)
    assert source.suggestions == {"pattern": "{label}_{group}_{take}"}
    table, _ = _rows(source)
    assert set(table["group"].to_pylist()) == {"ann", "bob", "cy"}
    assert source.labels == ("0", "1", "2")


def test_split_folders_and_other_files(tmp_path: Path) -> None:
    for split in ("train", "test"):
        _folder(tmp_path / split)
    (tmp_path / "LICENSE").write_text("free")
    source = _open(tmp_path)
    table, aside = _rows(source)
    assert sorted(set(table["split"].to_pylist())) == ["test", "train"]
    assert aside == {}
    assert source.notes == ("1 files are no audio by their suffix and were not used, such as 'LICENSE'",)


@pytest.mark.parametrize(("task", "kind"), [("regression", pa.float64()), ("multilabel", pa.list_(pa.int64()))])
def test_numbers_and_several_labels_from_a_table(tmp_path: Path, task: str, kind: pa.DataType) -> None:
    for name in "abc":
        _write(tmp_path / f"{name}.wav", _tone(0.05))
    cells = ("0.5", "1", "x") if task == "regression" else ("hum;hiss", "hiss", "click|hum")
    lines = [f"{name}.wav,{cell}" for name, cell in zip("abc", cells, strict=True)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    source = _open(tmp_path, task=task)
    table, aside = _rows(source)
    assert table.schema.field("label").type == kind
    if task == "regression":
        assert (table["label"].to_pylist(), aside) == ([0.5, 1.0], {"c.wav": "its label 'x' is not a number"})
    else:
        assert source.labels == ("click", "hiss", "hum")
        assert table["label"].to_pylist() == [[1, 2], [1], [0, 2]]


def test_fresh_files_take_labels_and_rate_of_the_base(tmp_path: Path) -> None:
    base = _open(_folder(tmp_path / "base"))
    _write(tmp_path / "fresh" / "low" / "9.wav", _tone(0.1, rate=16_000), 16_000)
    fresh = _open(tmp_path / "fresh", like=base)
    assert (fresh.labels, fresh.schema) == (base.labels, base.schema)
    assert _rows(fresh)[0]["label"].to_pylist() == [1]
    _write(tmp_path / "fresh" / "lwo" / "9.wav", _tone(0.1))
    with pytest.raises(
        InputError, match=r"lwo/9.wav' is labelled 'lwo', a class that data.source does not have"
    ) as caught:
        _open(tmp_path / "fresh", like=base)
    assert "did you mean 'low'?" in caught.value.hint


def test_one_class_and_no_header_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "one" / "x" / "a.wav", _tone())
    with pytest.raises(InputError, match=r"has one class only \('x', 1 files\)"):
        _open(tmp_path / "one")
    for label in "xy":
        (tmp_path / "bad" / label).mkdir(parents=True)
        (tmp_path / "bad" / label / "a.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"none of the 2 audio files .* has a header that can be read"):
        _open(tmp_path / "bad")
    with pytest.raises(InputError, match="'forecasting', but the source is a folder of files"):
        _open(_folder(tmp_path / "good"), task="forecasting")


def test_recognise(tmp_path: Path) -> None:
    config = DataConfig(source="x")
    assert not audio.recognise(tmp_path, config)
    assert not audio.recognise(tmp_path / "none.csv", config)
    _folder(tmp_path)
    assert audio.recognise(tmp_path, config)
    assert not audio.recognise(tmp_path, DataConfig(source="x", modality="image"))


def test_a_limit_keeps_some_files_and_all_classes(tmp_path: Path) -> None:
    source = _open(_folder(tmp_path), limit=2)
    assert (_rows(source)[0].num_rows, source.labels) == (2, ("high", "low"))


def test_big_batches_are_cut_by_their_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "SAMPLES_PER_BATCH", 4000)
    source = _open(_folder(tmp_path))
    batches = list(source.batches())
    assert [batch.table.num_rows for batch in batches] == [2, 2, 2, 0][: len(batches)]
    assert sum(batch.table.num_rows for batch in batches) == 6
