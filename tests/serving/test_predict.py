"""What ``kfloop predict`` makes of files, and the whole way to a real server and back for a table and for texts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import soundfile
from click.testing import CliRunner, Result

import packages
from kfloop.cli.inputs import read_inputs
from kfloop.cli.predict import predict_command
from kfloop.core.encoding import fit_encoder
from kfloop.core.scoring import PackagedModel
from kfloop.core.sections import DataConfig, SplitConfig
from kfloop.core.signature import OUTPUTS, Port, Signature
from kfloop.core.versions import read_version
from kfloop.errors import InputError

COMPONENTS = Path(__file__).parents[1] / "components"
ROWS = {"age": [40, 41, 42], "income": [5e4, None, 4e4], "town": ["Ulm", "Bonn", "NA"]}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Signature]]:
    """The encoder of a table and of texts as a served version has it, and what its model takes."""
    home, found = tmp_path_factory.mktemp("versions"), {}
    for modality in ("table", "text"):
        dataset = packages.write_dataset(home / modality / "dataset", modality, "multiclass")
        encoder = fit_encoder(read_version(dataset))
        folder = home / modality / "1"
        folder.mkdir()
        (folder / "encoder.json").write_text(json.dumps(encoder.plain()))
        found[modality] = (folder, signature(modality, encoder.ports))
    return found


def signature(modality: str, ports: tuple[Port, ...], objective: str = "classification") -> Signature:
    outputs = tuple(Port(name=name, dtype="float32", shape=(3,)) for name in OUTPUTS[objective])
    return Signature(
        objective=objective,
        modality=modality,
        family="mlp",
        inputs=ports,
        outputs=outputs,
        labels=("north", "east", "south"),
        max_batch_size=16,
    )


def write_rows(path: Path, *, delimiter: str = ",", without: str = "", **changed: list[object]) -> Path:
    """A table of three rows with every column of the training."""
    others = {f"feature_{place}_with_a_long_name": [0.5, -1.0, 2.0] for place in range(18)}
    columns = {name: values for name, values in (ROWS | others | changed).items() if name != without}
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def test_rows_are_read_as_ingest_reads_them(versions: dict[str, tuple[Path, Signature]], tmp_path: Path) -> None:
    version, told = versions["table"]
    label: list[object] = ["", "", ""]
    files = [write_rows(tmp_path / "a.csv", label=label), write_rows(tmp_path / "b.csv", delimiter=";")]
    tensors, names = read_inputs(files, version, told)
    assert set(tensors) == {"number", "category"}
    assert tensors["number"].shape == (6, 20)
    assert tensors["number"].dtype == np.float32
    np.testing.assert_array_equal(tensors["number"][:3], tensors["number"][3:])
    assert np.isnan(tensors["number"][1]).sum() == 1  # the empty income
    assert tensors["category"][2].tolist() == [0]  # NA is a missing town
    assert names[0].endswith("a.csv: row 1 (line 2)")
    assert names[5].endswith("b.csv: row 3 (line 4)")


def test_rows_that_do_not_fit_are_named(versions: dict[str, tuple[Path, Signature]], tmp_path: Path) -> None:
    version, told = versions["table"]
    with pytest.raises(InputError, match="has no column 'income'"):
        read_inputs([write_rows(tmp_path / "lacking.csv", without="income")], version, told)
    with pytest.raises(InputError, match=r"lacking.csv' has no column 'income'"):  # also beside one that has it
        read_inputs([write_rows(tmp_path / "whole.csv"), tmp_path / "lacking.csv"], version, told)
    with pytest.raises(InputError, match="column 'age' is of type string, but the model was trained on numbers"):
        read_inputs([write_rows(tmp_path / "words.csv", age=["old", "young", "new"])], version, told)
    ragged = write_rows(tmp_path / "ragged.csv")
    ragged.write_text(ragged.read_text() + "1,2,3\n")
    with pytest.raises(InputError, match=r"ragged\.csv', row 4 \(line 5\): 3 fields"):
        read_inputs([ragged], version, told)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="is empty"):
        read_inputs([tmp_path / "empty.csv"], version, told)


def test_texts_are_the_lines_of_files(versions: dict[str, tuple[Path, Signature]], tmp_path: Path) -> None:
    version, told = versions["text"]
    (tmp_path / "a.txt").write_text("wind from the north\nrain later\n")
    tensors, names = read_inputs([tmp_path / "a.txt"], version, told)
    assert [array.shape[0] for array in tensors.values()] == [2, 2]
    assert names[1].endswith("a.txt:2")
    (tmp_path / "none.txt").write_text("")
    with pytest.raises(InputError, match="holds no examples"):
        read_inputs([tmp_path / "none.txt"], version, told)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="UTF-8"):
        read_inputs([tmp_path / "latin.txt"], version, told)


def test_arrays_are_held_against_what_the_model_takes(tmp_path: Path) -> None:
    told = signature("vector", (Port(name="vector", dtype="float32", shape=(4,)),))
    path = tmp_path / "a.npz"
    np.savez(path, vector=np.ones((2, 4), np.float32))
    tensors, names = read_inputs([path], tmp_path, told)
    assert (tensors["vector"].shape, names) == ((2, 4), [str(path)])
    for arrays, message in (
        ({"vectors": np.ones((2, 4), np.float32)}, r"holds \['vectors'\], but the model takes \['vector'\]"),
        ({"vector": np.ones((2, 4))}, "this is float64"),
        ({"vector": np.ones((2, 5), np.float32)}, r"float32 \[5\]"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=message):
            read_inputs([path], tmp_path, told)
    path.write_text("no archive")
    with pytest.raises(InputError, match="cannot be read"):
        read_inputs([path], tmp_path, told)


def test_two_archives_are_refused_as_two(tmp_path: Path) -> None:
    told = signature("series", (Port(name="window", dtype="float32", shape=(96, 2)),), "forecasting")
    with pytest.raises(InputError, match=r"2 \.npz files were given .* but one is taken at a time"):
        read_inputs([tmp_path / "a.npz", tmp_path / "b.npz"], tmp_path, told)


def test_other_kinds_of_models_say_what_they_take(tmp_path: Path) -> None:
    told = signature("vector", (Port(name="vector", dtype="float32", shape=(96,)),), "regression")
    (tmp_path / "load.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"no \.npz file, and a model for regression of vector") as caught:
        read_inputs([tmp_path / "load.csv"], tmp_path, told)
    assert "vector float32 [96], with an axis of examples in front" in caught.value.hint


def test_tables_of_other_kinds_give_the_same_rows(versions: dict[str, tuple[Path, Signature]], tmp_path: Path) -> None:
    version, told = versions["table"]
    rows = write_rows(tmp_path / "a.csv")
    expected, _ = read_inputs([rows], version, told)
    table = pa.csv.read_csv(
        rows, convert_options=pa.csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True)
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    for name in ("a.jsonl", "a.parquet"):
        tensors, names = read_inputs([tmp_path / name], version, told)
        for key, array in expected.items():
            np.testing.assert_array_equal(tensors[key], array)
        assert len(names) == 3
    words = write_rows(tmp_path / "words.csv", age=["old", "young", "new"])
    with pytest.raises(InputError, match=r"words\.csv': column 'age' is of type string"):  # of two files, which one
        read_inputs([rows, words], version, told)


def test_texts_in_a_column_are_not_their_lines(versions: dict[str, tuple[Path, Signature]], tmp_path: Path) -> None:
    version, told = versions["text"]
    (tmp_path / "a.txt").write_text("wind from the north\n\n  \nrain\u2028later\n")
    expected, names = read_inputs([tmp_path / "a.txt"], version, told)
    assert [name.rpartition("/")[2] for name in names] == ["a.txt:1", "a.txt:4"]  # as ingest: blank lines are no texts
    lines = [{"n": 1, "wort": "wind from the north"}, {"n": 2, "wort": "rain\u2028later"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "a.csv").write_text('n;wort\n1;wind from the north\n2;"rain\u2028later"\n')
    for name in ("a.jsonl", "a.csv"):
        tensors, _ = read_inputs([tmp_path / name], version, told, DataConfig(text="wort"))
        for key, array in expected.items():
            np.testing.assert_array_equal(tensors[key], array)
    with pytest.raises(InputError, match=r"a\.jsonl' has no column 'text'"):
        read_inputs([tmp_path / "a.jsonl"], version, told)
    (tmp_path / "b.jsonl").write_text('{"text": "rain"}\n{"text": " "}\n')
    with pytest.raises(InputError, match=r"b\.jsonl: line 2, column 'text': no text"):
        read_inputs([tmp_path / "b.jsonl"], version, told)


def described(folder: Path, **encoder: object) -> Path:
    folder.mkdir()
    (folder / "encoder.json").write_text(json.dumps(encoder))
    return folder


def test_sounds_are_brought_to_the_rate_of_the_training(tmp_path: Path) -> None:
    version = described(tmp_path / "1", modality="audio", length=800, sample_rate=8000)
    told = signature("audio", (Port(name="audio", dtype="int16", shape=(800,)),))
    for name, rate, seconds in (("short.wav", 8000, 0.05), ("long.flac", 16000, 0.2)):
        wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
        soundfile.write(tmp_path / name, wave, rate, subtype="PCM_16")
    tensors, names = read_inputs([tmp_path / "short.wav", tmp_path / "long.flac"], version, told)
    assert tensors["audio"].shape == (2, 800)
    assert [Path(name).name for name in names] == ["short.wav", "long.flac"]
    assert not tensors["audio"][0, 400:].any()  # silence after its end
    np.testing.assert_allclose(tensors["audio"][1, 100:400], tensors["audio"][0, 100:400], atol=200)
    (tmp_path / "bad.wav").write_bytes(b"RIFF\x10\x00\x00\x00WAVEjunk")
    with pytest.raises(InputError, match=r"bad\.wav': cannot be decoded"):
        read_inputs([tmp_path / "short.wav", tmp_path / "bad.wav"], version, told)
    with pytest.raises(InputError, match="is a folder"):
        read_inputs([tmp_path], version, told)


def test_the_last_rows_of_a_series_are_its_window(tmp_path: Path) -> None:
    version = described(
        tmp_path / "1", modality="series", channels=["load", "temp"], context=4, mean=[0.0, 0.0], std=[1.0, 1.0]
    )
    told = signature("series", (Port(name="window", dtype="float32", shape=(4, 2)),), "forecasting")
    rows = [f"2026-01-01 {hour:02d}:00,{hour},{'' if hour == 8 else -hour}" for hour in range(10)]
    data = DataConfig(time="Zeit", split=SplitConfig(column="part"), id="row")

    def asked(lines: list[str], head: str = "Zeit,load,temp", **more: object) -> tuple[np.ndarray, list[str]]:
        (tmp_path / "a.csv").write_text("\n".join([head, *lines]) + "\n")
        tensors, names = read_inputs([tmp_path / "a.csv"], version, told, data.model_copy(update=more))
        return tensors["window"], names

    window, names = asked(rows)
    np.testing.assert_array_equal(window, [[[6, -6], [7, -7], [8, np.nan], [9, -9]]])
    assert names[0].endswith("a.csv: after row 10")
    two = [f"{line},{shop}" for line in rows for shop in ("ann", "bob")]
    window, names = asked(two[:-1], "Zeit,load,temp,shop", group="shop")
    assert window[:, -1, 0].tolist() == [9, 8]
    assert [name.partition(": ")[2] for name in names] == ["after row 19 of 'ann'", "after row 18 of 'bob'"]
    with pytest.raises(InputError, match="time goes back"):
        asked([*rows[:5], rows[7], *rows[5:7]])
    with pytest.raises(InputError, match="has 3 rows, but the model looks at the last 4"):
        asked(rows[:3])
    with pytest.raises(InputError, match="temp"):
        asked(["2026-01-01 00:00,1"], "Zeit,load")
    with pytest.raises(InputError, match="row 3"):
        asked([*rows[:2], "soon,1,2", *rows[3:]])


def ask(loop: Path, *arguments: str) -> Result:
    return CliRunner().invoke(predict_command, [*arguments, "-c", str(loop)], standalone_mode=False)


@pytest.mark.slow
@pytest.mark.triton
def test_a_table_texts_and_arrays_are_answered_by_a_real_server(tmp_path: Path) -> None:
    from kfloop.core.config import load_config
    from kfloop.serving.control import Control
    from kfloop.serving.endpoint import publish
    from kfloop.serving.repository import add_version
    from kfloop.serving.server import start_server

    models: dict[str, Path] = {}
    for modality in ("table", "text"):
        _, models[modality] = packages.make_any(tmp_path / modality, modality, "multiclass")
        (tmp_path / f"{modality}.yaml").write_text(f"name: {modality}\ndata: {{source: nowhere}}\n")
    workspace = load_config(tmp_path / "table.yaml").workspace(tmp_path)
    with start_server(workspace.repository, tmp_path / "triton.log") as server:
        publish(workspace, server.endpoint)
        control = Control(server.endpoint)
        for modality, package in models.items():
            add_version(workspace.repository, modality, 1, package)
            control.swap(workspace.repository, modality, [1], 1)
            control.wait_ready(modality, 1, 60)
        rows = write_rows(tmp_path / "rows.csv")
        told = json.loads(ask(tmp_path / "table.yaml", str(rows), "--json").output)
        model = PackagedModel(models["table"])
        tensors, _ = read_inputs([rows], models["table"], model.signature)
        expected = model.run(list(tensors.values()))["probabilities"]
        assert told["version"] == 1
        assert [row["label"] for row in told["answers"]] == [model.labels[place] for place in expected.argmax(1)]
        np.testing.assert_allclose([row["confidence"] for row in told["answers"]], expected.max(1), rtol=1e-4)
        np.savez(tmp_path / "rows.npz", **tensors)
        again = json.loads(ask(tmp_path / "table.yaml", str(tmp_path / "rows.npz"), "--json").output)
        assert [row["confidence"] for row in again["answers"]] == [row["confidence"] for row in told["answers"]]
        assert again["answers"][2]["file"].endswith("rows.npz#2")
        (tmp_path / "lines.txt").write_text("wind from the north\nrain later\n")
        lines = ask(tmp_path / "text.yaml", str(tmp_path / "lines.txt")).output.splitlines()
        assert len(lines) == 2
        assert all(line.split("\t")[1] in {"north", "east", "south"} for line in lines)
        assert lines[0].split("\t")[0].endswith("lines.txt:1")
