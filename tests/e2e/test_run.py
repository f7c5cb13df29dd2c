"""Training rounds through the real command line: promoted, repeated, cached, rejected; on digits and on somebody's photos."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.triton]

LOOP = """\
name: small
data: {{limit: 700}}
train: {{epochs: {epochs}, shuffle_labels: {shuffled}}}
evaluate: {{bootstrap: 300}}
bless: {{requests: 40}}
gate:
  rules:
    - {{metric: accuracy, at_least: {floor}}}
    - {{metric: accuracy, versus: champion, at_least: -0.05, use: interval}}
"""


def loop(epochs: int = 8, floor: float = 0.8, *, shuffled: bool = False) -> str:
    return LOOP.format(epochs=epochs, floor=floor, shuffled=str(shuffled).lower())


def statuses(record: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["status"] for step in record["steps"]}


def test_the_life_of_a_loop_without_a_server(shell: Any) -> None:
    shell.write(loop())
    first = shell.json("run")
    assert first["exit_code"] == 0, first["message"]
    assert first["decision"]["outcome"] == "promote"
    assert first["champion"]["before"] is None
    assert first["champion"]["after"]["version"] == 1
    assert statuses(first)["keep"] == "skipped"
    page = Path(first["report"]).read_text(encoding="utf-8")
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")

    again = shell.json("run")
    assert again["status"] == "nothing_new"
    assert again["exit_code"] == 0
    assert "nothing new" in again["message"]
    assert set(statuses(again).values()) == {"cached", "skipped"}
    assert again["repeated_of"] == first["run_id"]

    shell.write(loop(floor=0.75))
    stricter = shell.json("run")
    assert statuses(stricter)["train"] == "cached"
    assert stricter["decision"]["outcome"] == "reject"
    assert "champion" in stricter["decision"]["reason"]

    shell.write(loop(epochs=1, shuffled=True))
    worse = shell.run("run", "--json")
    assert worse.returncode == 3
    record = json.loads(worse.stdout)
    assert record["status"] == "rejected"
    assert record["champion"]["after"]["version"] == 1
    assert statuses(record)["deploy"] == "skipped"
    assert record["decision"]["reason"][:40] in Path(record["report"]).read_text(encoding="utf-8")
    repeated = shell.run("run")
    assert repeated.returncode == 3
    assert "Nothing new" in repeated.stderr
    status = shell.json("status")
    assert status["champion"]["version"] == 1


def photos(folder: Path, count: int) -> None:
    """Crops of two photographs, of many sizes, as JPEGs in a folder per class."""
    from sklearn.datasets import load_sample_image

    random = np.random.default_rng(0)
    for name in ("china", "flower"):
        whole = load_sample_image(f"{name}.jpg")
        (folder / name).mkdir(parents=True)
        for number in range(count):
            side = int(random.integers(90, 200))
            y, x = (int(random.integers(0, size - side)) for size in whole.shape[:2])
            Image.fromarray(whole[y : y + side, x : x + side]).save(folder / name / f"{number:02d}.jpg")


def test_a_folder_of_my_photos_works_without_editing_and_a_truncated_one_is_named(shell: Any) -> None:
    photos(shell.folder / "photos", 30)
    torn = shell.folder / "photos" / "china" / "07.jpg"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    assert shell.run("init", "photos").returncode == 0
    record = shell.json("run")
    assert record["exit_code"] == 0, record["message"]
    data = next(step for step in record["steps"] if step["name"] == "ingest")["artifact"]["path"]
    report = json.loads((Path(data) / "report.json").read_text())
    assert "07.jpg" in json.dumps(report["quarantined"])
    assert any("07.jpg" in warning for warning in report["warnings"])
    assert "07.jpg" in Path(record["report"]).read_text(encoding="utf-8")
    alone = shell.run("predict", "photos/china/01.jpg")
    assert alone.returncode == 1
    assert "kfloop serve" in alone.stderr
