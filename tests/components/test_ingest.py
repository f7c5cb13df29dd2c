"""Ingest: sources looked at, images of every kind decoded, bad input named."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from kfloop.components.ingest.component import ingest
from kfloop.components.ingest.ingestion import run
from kfloop.components.ingest.readers.images.decoding import UnreadableImageError, decode
from kfloop.components.ingest.readers.images.reader import digit_arrays
from kfloop.components.ingest.sources import inspect
from kfloop.core.config import DataConfig
from kfloop.core.sections import SeriesConfig
from kfloop.core.versions import SPLITS, read_version, verify_version
from kfloop.core.windows import count_windows
from kfloop.core.workspace import Workspace
from kfloop.errors import InputError
from kfloop.testing.harness import Harness

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kfloop.components.ingest.ingestion import IngestReport


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "loop"
    root.mkdir()
    return Workspace(
        loop="t", root=root, state=f"sqlite:///{root}/s.db", store=str(root / ".kfloop" / "store"), mlflow=""
    )


@pytest.fixture
def do(workspace: Workspace, tmp_path: Path) -> Callable[[DataConfig], tuple[IngestReport, Path]]:
    count = iter(range(99))

    def inner(config: DataConfig) -> tuple[IngestReport, Path]:
        out = tmp_path / f"out-{next(count)}"
        out.mkdir()
        return run(config, out=out, workspace=workspace), out

    return inner


def picture(seed: int, size: tuple[int, int] = (20, 16), *, colour: bool = True) -> Image.Image:
    shape = (size[1], size[0], 3) if colour else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def image_folder(
    place: Path, per_class: int = 40, labels: tuple[str, ...] = ("cat", "dog"), suffix: str = "png"
) -> Path:
    for index, label in enumerate(labels):
        (place / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            picture(1000 * index + number).save(place / label / f"{number:03d}.{suffix}")
    return place


def test_digits(do: Callable[..., Any]) -> None:
    report, out = do(DataConfig())
    version = verify_version(out)
    assert report.digest == version.digest
    assert version.image_shape == (8, 8, 1)
    assert sum(report.splits.values()) == report.n_rows == 1797
    images, labels = digit_arrays()
    assert images.max() == 255
    assert images.shape == (1797, 8, 8, 1)
    assert len(labels) == 1797
    assert {path.name for path in out.iterdir()} == {
        *(f"{name}.arrow" for name in SPLITS),
        "card.json",
        "quarantine.jsonl",
        "report.json",
    }


def test_digits_resized_and_in_colour(do: Callable[..., Any]) -> None:
    _, out = do(DataConfig(image_size=12, channels=3, limit=400))
    assert read_version(out).image_shape == (12, 12, 3)


def test_a_limit_takes_the_same_rows_each_time_and_fewer_are_a_part_of_more(do: Callable[..., Any]) -> None:
    def ids(limit: int) -> set[str]:
        version = read_version(do(DataConfig(limit=limit))[1])
        return {str(name) for part in SPLITS for name in version.split(part).ids}

    assert len(ids(400)) == 400
    assert ids(400) <= ids(600)


def test_the_same_source_gives_the_same_digest(do: Callable[..., Any], tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b")
    first, second = (do(DataConfig(source=str(tmp_path / name)))[0] for name in "ab")
    assert first.digest == second.digest
    assert first.source_digest == second.source_digest == inspect(DataConfig(source=str(folder))).digest


def test_another_encoding_of_the_same_pixels_is_the_same_dataset(do: Callable[..., Any], tmp_path: Path) -> None:
    for suffix in ("png", "bmp"):
        image_folder(tmp_path / suffix, suffix=suffix)
    first, second = (do(DataConfig(source=str(tmp_path / suffix)))[0] for suffix in ("png", "bmp"))
    assert first.digest == second.digest
    assert first.source_digest != second.source_digest


@pytest.mark.parametrize("per_class", [30, 60])
def test_small_sets_of_photos(do: Callable[..., Any], tmp_path: Path, per_class: int) -> None:
    folder = image_folder(tmp_path / "photos", per_class, suffix="jpg")
    report, out = do(DataConfig(source=str(folder)))
    assert report.labels == ["cat", "dog"]
    assert report.image_shape == [16, 16, 3]
    assert all(report.per_class[part][label] > 0 for part in SPLITS for label in report.labels)
    assert verify_version(out).card["sources"][0]["kind"] == "image_folder"


def test_metadata_table(do: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    lines = ["file_name,kind,note"]
    for number in range(80):
        picture(number, colour=False).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'odd' if number % 2 else 'even'},x")
    (folder / "metadata.csv").write_text(
        "\ufeff" + "\n".join([*lines, "5.png,odd,again", "gone.png,odd,x", "7.png,,x"])
    )
    report, out = do(DataConfig(source=str(folder), label="kind"))
    assert report.labels == ["even", "odd"]
    assert report.image_shape[2] == 1
    assert report.n_rows == 80
    reasons = {line["id"]: line["reason"] for line in report.quarantined}
    assert reasons == {"gone.png": "the file is missing", "7.png": "no kind in line 84 of metadata.csv"}
    lines = (out / "quarantine.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == set(reasons)


def test_numeric_classes_are_in_the_order_of_their_value(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "n", 2, labels=("10", "9", "1"))
    assert inspect(DataConfig(source=str(folder))).labels == ("1", "9", "10")


def test_fresh_rows(do: Callable[..., Any], tmp_path: Path) -> None:
    folder, fresh = image_folder(tmp_path / "base"), tmp_path / "fresh"
    config = DataConfig(source=str(folder), fresh=str(fresh))
    before, old = do(config)
    (fresh / "cat").mkdir(parents=True)
    assert inspect(config).digest == before.source_digest
    for number in range(12):
        picture(9000 + number, size=(90, 70)).save(fresh / "cat" / f"{number:03d}.png")
    after, out = do(config)
    assert inspect(config).digest != before.source_digest
    assert (after.fresh_rows, after.n_rows) == (12, before.n_rows + 12)
    assert after.image_shape == before.image_shape  # chosen from the base alone: a change would move every split
    for part in SPLITS:
        assert set(read_version(old).split(part).content) <= set(read_version(out).split(part).content)
    origins = [str(name) for part in SPLITS for name in read_version(out).split(part).origin]
    assert origins.count("fresh") == 12


def test_a_fresh_class_that_is_unknown_is_refused(tmp_path: Path) -> None:
    folder, fresh = image_folder(tmp_path / "base"), image_folder(tmp_path / "fresh", 1, labels=("dgo",))
    with pytest.raises(InputError, match="'dgo'") as error:
        inspect(DataConfig(source=str(folder), fresh=str(fresh)))
    assert "did you mean 'dog'" in error.value.hint


def test_broken_files_are_named_and_set_aside(do: Callable[..., Any], tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "base")
    whole = (folder / "cat" / "001.png").read_bytes()
    (folder / "cat" / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "empty.png").write_bytes(b"")
    (folder / "dog" / "text.jpg").write_text("no image")
    (folder / "dog" / "notes.txt").write_text("nothing")
    (folder / ".hidden.png").write_text("")
    report, _ = do(DataConfig(source=str(folder)))
    assert report.n_rows == 80
    reasons = {line["id"]: line["reason"] for line in report.quarantined}
    assert set(reasons) == {"cat/broken.png", "cat/empty.png", "dog/text.jpg"}
    assert reasons["cat/empty.png"] == "the file is empty"
    assert str(tmp_path) not in json.dumps(reasons)
    assert any("notes.txt" in line for line in report.warnings)


def test_too_many_broken_files_stop(do: Callable[..., Any], tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "base", 20)
    for number in range(10):
        (folder / "cat" / f"bad{number}.jpg").write_bytes(b"\xff\xd8\xff\xe0 truncated")
    with pytest.raises(InputError, match=r"10 of 50 rows cannot be used \(20%, allowed 10%\).*cat/bad0.jpg") as error:
        do(DataConfig(source=str(folder)))
    assert error.value.exit_code == 2
    with pytest.raises(InputError, match=r"cannot be used"):
        do(DataConfig(source=str(folder), max_quarantined_share=0.19))


def test_all_files_broken(do: Callable[..., Any], tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "bad" / label).mkdir(parents=True)
        (tmp_path / "bad" / label / "1.png").write_bytes(b"?")
    for share in (0.1, 1.0):
        with pytest.raises(InputError):
            do(DataConfig(source=str(tmp_path / "bad"), max_quarantined_share=share))


def test_duplicates_and_conflicts_are_told(do: Callable[..., Any], tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "base")
    shutil.copy(folder / "cat" / "000.png", folder / "cat" / "copy.png")
    shutil.copy(folder / "cat" / "001.png", folder / "dog" / "conflict.png")
    report, _ = do(DataConfig(source=str(folder)))
    assert any("repeat the content" in line for line in report.warnings)
    assert any("another label" in line and "dog/conflict.png" in line for line in report.warnings)


def test_sources_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    image_folder(tmp_path / "one", 3, labels=("cat",))
    image_folder(tmp_path / "splits", 3, labels=("train", "test"))
    (tmp_path / "loose").mkdir()
    picture(0).save(tmp_path / "loose" / "a.png")
    cases = {
        "emtpy": "does not exist",
        "empty": "cannot be read by kfloop: it is empty",
        "file.txt": "line 1 has no TAB",
        "one": "one class only",
        "splits": "named like splits",
        "loose": "nothing says their class",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as error:
            inspect(DataConfig(source=str(tmp_path / name)))
        assert error.value.exit_code == 2
        assert error.value.hint
    with pytest.raises(InputError) as unknown:
        inspect(DataConfig(source=str(tmp_path / "digitts")))
    assert "digits" in unknown.value.hint


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        (None, "has no metadata.csv", "write metadata.csv"),
        ("file_name,kinds\na.png,x\n", "no column 'kind': it has file_name, kinds", "did you mean 'kinds'"),
        ("name,kind\na.png,x\n", "no column 'file_name'", "did you mean 'name'"),
        ("", "it has none", "write the columns"),
        ("file_name,kind\n", "has no labelled file", "subfolder"),
        ("file_name,kind\n../a.png,x\n", "outside the folder", "inside"),
        ("file_name,kind\na.png,x\na.png,y\n", "label of 'a.png' is 'y' here and 'x' before", "one line"),
        ("file_name,kind\na.png,x\nb.png,x\n", "one class only", "data.label"),
        (b"file_name,kind\na.png,\xff\xfe\n", "is not CSV in UTF-8", "save it again"),
    ],
)
def test_bad_metadata_tables(tmp_path: Path, table: str | bytes | None, message: str, hint: str) -> None:
    if table is not None:
        (tmp_path / "metadata.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(InputError, match=message) as error:
        inspect(DataConfig(source=str(tmp_path), label="kind"))
    assert hint in error.value.hint


def test_loose_images_beside_a_table_name_its_columns(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,kind\na.png,x\n")
    with pytest.raises(InputError) as error:
        inspect(DataConfig(source=str(tmp_path)))
    assert "set data.label" in error.value.hint
    assert "kind" in error.value.hint


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_is_decoded(tmp_path: Path, mode: str) -> None:
    ramp = np.tile(np.linspace(0, 255, 16), (16, 1))
    if mode == "I;16":
        image = Image.fromarray((ramp * 257).astype(np.uint16))
    elif mode == "I":
        image = Image.fromarray((ramp * 257).astype(np.int32))
    elif mode == "F":
        image = Image.fromarray((ramp / 255).astype(np.float32))
    else:
        image = Image.fromarray(ramp.astype(np.uint8)).convert(mode)
    path = tmp_path / ("a.tif" if mode in {"CMYK", "YCbCr", "I", "F"} else "a.png")
    image.save(path)
    pixels = decode(path, 16, 1).pixels
    tolerance = 255 if mode == "1" else 4
    np.testing.assert_allclose(pixels[:, :, 0].astype(float), ramp, atol=tolerance)
    assert decode(path, 8, 3).pixels.shape == (8, 8, 3)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert decode(tmp_path / "clear.png", 4, 3).pixels.min() == 255


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(np.rot90(upright)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "a.png", 8, 3).pixels, upright)


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="missing"):
        decode(tmp_path / "none.png", 8, 1)


def test_the_component_publishes_and_tracks(tmp_path: Path, workspace: Workspace) -> None:
    config = DataConfig(limit=300).model_dump_json()
    done = Harness(tmp_path / "kfp", workspace).run(ingest, config_json=config)
    assert done.artifacts["dataset"].name == done.value == done.metadata["dataset"]["digest"]
    assert verify_version(done.artifacts["dataset"]).digest == done.value
    assert (workspace.kfloop_dir / "dvc" / "datasets" / f"{done.value}.dvc").is_file()


def test_windows_of_a_series_lie_in_one_split_and_look_only_back(do: Callable[..., Any], tmp_path: Path) -> None:
    lines = [
        "time,load,heat",
        *(f"2024-01-{1 + hour // 24:02d}T{hour % 24:02d}:00:00,{hour},{-hour}" for hour in range(700)),
    ]
    (tmp_path / "load.csv").write_text("\n".join(lines))
    config = DataConfig(source=str(tmp_path / "load.csv"), series=SeriesConfig(context=24, horizon=6, stride=2))
    version = read_version(do(config)[1])
    for split in SPLITS:
        hours = version.table(split)["load"].to_numpy()
        inputs, targets, starts = version.windows(split)
        assert inputs.shape[1:] == (24, 2)
        assert targets.shape[1:] == (6, 2)
        assert len(starts) == count_windows(len(hours), 24, 6, 2) > 0
        assert (targets[:, 0, 0] == inputs[:, -1, 0] + 1).all()
        assert inputs[:, :, 0].min() >= hours.min()
        assert targets[:, :, 0].max() <= hours.max()
    with pytest.raises(InputError, match="only a time series has windows"):
        read_version(do(DataConfig(limit=300))[1]).windows("train")
