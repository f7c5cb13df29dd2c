"""A folder of somebody's photos: ``kfloop init``, ``kfloop run``, and nothing to edit."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

pytestmark = [pytest.mark.slow, pytest.mark.triton]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, one_shell: Any) -> Any:
    """A loop made by ``kfloop init`` over 2 x 30 JPEGs of different sizes, and the end of its first run."""
    shell = one_shell(tmp_path_factory.mktemp("images"))
    random = np.random.default_rng(5)
    for name in ("china", "flower"):
        whole = load_sample_image(f"{name}.jpg")
        (shell.folder / "photos" / name).mkdir(parents=True)
        for number in range(30):
            height, width = random.integers(90, 240, 2)
            top, left = random.integers(0, whole.shape[0] - height), random.integers(0, whole.shape[1] - width)
            crop = Image.fromarray(whole[top : top + height, left : left + width])
            crop.save(shell.folder / "photos" / name / f"{name}-{number:02d}.jpg", quality=92)
    made = shell.run("init", "photos/")
    assert made.returncode == 0, made.stderr
    assert "60 images of 2 classes" in made.stderr
    first = shell.run("run", "--json")
    return shell, first


def report_of(record: dict[str, Any], step: str) -> dict[str, Any]:
    place = next(found["artifact"]["path"] for found in record["steps"] if found["name"] == step)
    return dict(json.loads((Path(place) / "report.json").read_text(encoding="utf-8")))


def test_two_classes_of_thirty_photos_are_learned_and_promoted(trained: Any) -> None:
    shell, first = trained
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout)
    assert record["decision"]["outcome"] == "promote"
    ingested = report_of(record, "ingest")
    assert (ingested["n_rows"], ingested["n_quarantined"], ingested["labels"]) == (60, 0, ["china", "flower"])
    assert ingested["image_shape"][2] == 3
    assert shell.json("status")["champion"]["version"] == 1


def test_predicting_without_a_server_says_how_to_start_one(trained: Any) -> None:
    shell, _ = trained
    done = shell.run("predict", "photos/china/china-00.jpg")
    assert done.returncode == 1
    assert "no server of loop 'photos' is running" in done.stderr
    assert "kfloop serve" in done.stderr


def test_a_truncated_photo_is_named_set_aside_and_the_run_goes_on(trained: Any) -> None:
    shell, _ = trained
    broken = shell.folder / "photos" / "flower" / "flower-07.jpg"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    done = shell.run("run", "--json")
    assert done.returncode in {0, 3}, done.stderr
    record = json.loads(done.stdout)
    ingested = report_of(record, "ingest")
    assert (ingested["n_rows"], ingested["n_quarantined"]) == (59, 1)
    assert ingested["quarantined"][0]["id"] == "flower/flower-07.jpg"
    assert any("flower/flower-07.jpg" in warning for warning in ingested["warnings"])
    assert "flower/flower-07.jpg" in Path(record["report"]).read_text(encoding="utf-8")


def test_too_many_broken_photos_stop_the_run_and_keep_the_champion(trained: Any) -> None:
    shell, _ = trained
    for number in range(10, 20):
        (shell.folder / "photos" / "china" / f"china-{number}.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    before = shell.json("status")["champion"]
    done = shell.run("run", "--json")
    assert done.returncode == 2, done.stderr
    message = json.loads(done.stdout)["error"]["message"]
    assert re.search(r"1[01] of 60 rows cannot be used \(1[78]%, allowed 10%\)", message)
    assert "china/china-10.jpg" in message
    assert shell.json("status")["champion"] == before


def test_the_server_answers_for_a_photo(trained: Any) -> None:
    shell, _ = trained
    try:
        started = shell.run("serve", "--detach")
        assert started.returncode == 0, started.stderr
        answer = shell.json("predict", "photos/china/china-00.jpg", "photos/flower/flower-00.jpg")
    finally:
        shell.run("serve", "--stop")
    assert [row["label"] for row in answer["answers"]] == ["china", "flower"]
    assert shell.run("predict", "photos/china/china-00.jpg").returncode == 1
