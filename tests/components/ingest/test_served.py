"""The next version is made of old rows and of what the loop was asked: from the log of each kind of data, by a recipe, the same one for the same log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfloop.components.ingest.ingestion import run
from kfloop.components.ingest.sources import inspect
from kfloop.components.monitor.policy.freshness import Labels, count_fresh_labels
from kfloop.core.artifacts import write_report
from kfloop.core.config import LoopConfig, _resolved
from kfloop.core.encoding import fit_encoder
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.core.versions import read_version
from kfloop.errors import InputError
from kfloop.serving.packets import as_table

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.core.versions import DatasetVersion

START = 1_795_000_000_000_000_000
DAY = 86_400_000_000_000
COLORS = ["red", "green", "blue"]


@dataclass(kw_only=True)
class Loop:
    """A loop with a champion whose tensors the log holds."""

    root: Path
    data: dict[str, Any]
    encoder: Any = None
    made: int = 0

    def config(self, **changes: Any) -> LoopConfig:
        plain = {"name": "loop", "data": self.data | changes}
        return _resolved(LoopConfig.model_validate(plain), self.root, self.root)

    @property
    def workspace(self) -> Any:
        return self.config().workspace(self.root)

    def ingest(self, **changes: Any) -> DatasetVersion:
        self.made += 1
        out = self.root / f"version-{self.made}"
        out.mkdir()
        self.report = run(self.config(**changes).data, out=out, workspace=self.workspace)
        return read_version(out)

    def serve(self, version: DatasetVersion, number: int = 1) -> None:
        """Promote a package that holds nothing but the encoder and the name of its dataset."""
        self.encoder = fit_encoder(version)
        digest = Store(self.workspace.store).publish(version.folder, "datasets", version.digest).name
        package = self.root / f"package-{number}"
        package.mkdir()
        (package / "encoder.json").write_text(json.dumps({"modality": version.modality} | self.encoder.state()))
        write_report(package, {"dataset_digest": digest})
        Store(self.workspace.store).publish(package, "models", f"model-{number}")
        ledger = open_state(self.workspace.state).ledger
        intent = ledger.intend(
            "loop",
            action="promote",
            version=number,
            model_digest=f"model-{number}",
            expected_champion=f"model-{number - 1}" if number > 1 else None,
            actor="test",
            reason="test",
        )
        ledger.close(intent, done=True)

    def ask(self, table: pa.Table, *, name: str = "r", day: int = 0, version: int = 1, **more: Any) -> None:
        """Log rows as the collector does."""
        tensors = self.encoder.encode(table)
        names = [port.name for port in self.encoder.ports]
        plain = names == ["image"]
        head = {
            "ids": [f"{name}{row}" for row in range(table.num_rows)],
            "ts_ns": START + day * DAY,
            "model": "loop",
            "version": version,
            "latency_us": 900,
            "names": [*(names if plain else [f"input.{item}" for item in names]), *self._outputs(plain)],
        }
        answers = [np.ones((table.num_rows, 3), np.float32), np.ones((table.num_rows, 4), np.float32)]
        folder = self.workspace.request_log / "loop" / f"202611{10 + day}T10"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(as_table([(head | more, [*tensors, *answers])]), folder / f"{name}.parquet")

    @staticmethod
    def _outputs(plain: bool) -> list[str]:
        return ["probabilities", "embedding"] if plain else ["output.probabilities", "output.embedding"]

    def tell(self, labels: dict[str, Any]) -> None:
        lines = [json.dumps({"request_id": name, "label": label}) for name, label in labels.items()]
        with (self.root / "feedback.jsonl").open("a") as stream:
            stream.write("\n".join(lines) + "\n")


def rows(version: DatasetVersion, split: str | None = None, origin: str = "fresh") -> list[dict[str, Any]]:
    tables = [version.table(name) for name in version.splits if split in (None, name)]
    return [row for table in tables for row in table.to_pylist() if row["origin"] == origin]


@pytest.fixture
def table(tmp_path: Path) -> Loop:
    """A table of numbers, flags, dates and categories, and a champion."""
    rng = np.random.default_rng(0)
    n = 300
    frame = {
        "age": rng.integers(18, 90, n),
        "income": rng.normal(0, 1, n).round(2),
        "far": 1e9 + rng.integers(0, 50, n),
        "member": rng.random(n) > 0.5,
        "since": np.array("2025-01-01", "datetime64[us]") + rng.integers(0, 365, n) * np.timedelta64(1, "D"),
        "color": rng.choice(COLORS, n),
        "label": rng.choice(["no", "yes"], n),
    }
    pq.write_table(pa.table(frame), tmp_path / "data.parquet")
    loop = Loop(root=tmp_path, data={"source": "data.parquet", "label": "label", "fresh": "requests"})
    loop.serve(loop.ingest())
    return loop


def asked(n: int = 60, seed: int = 9, color: str | None = None) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "age": rng.integers(18, 90, n),
            "income": rng.normal(3, 1, n).round(2),
            "far": 1e9 + rng.integers(0, 50, n),
            "member": rng.random(n) > 0.5,
            "since": np.array("2026-01-01", "datetime64[us]") + rng.integers(0, 300, n) * np.timedelta64(1, "D"),
            "color": [color] * n if color else rng.choice(COLORS, n),
        }
    )


def test_a_table_comes_back_from_its_tensors(table: Loop) -> None:
    given = asked()
    table.ask(given)
    table.tell({f"r{row}": "yes" if row % 2 else "no" for row in range(50)} | {"elsewhere": "no"})
    version = table.ingest()
    found = rows(version)
    assert len(found) == 50
    assert version.card["origins"] == {"base": 300, "fresh": 50}
    before = given.to_pylist()
    for row in found:
        number = int(row["id"].removeprefix("fresh/r"))
        assert row["label"] == number % 2
        for name in ("age", "income", "far", "member", "color"):
            assert row[name] == before[number][name], name
        assert abs((row["since"] - before[number]["since"]).total_seconds()) < 20
    source = version.card["sources"][1]
    assert (source["kind"], source["n"]) == ("fresh_requests", 50)
    recipe = {"window_days": None, "old_share": None, "per_class_floor": 0, "old_rows_left_out": 0}
    assert recipe.items() <= source.items()
    assert any("7 digits" in line for line in table.report.warnings)


def test_the_same_log_gives_the_same_version_and_splits_do_not_move(table: Loop) -> None:
    before = table.ingest()
    table.ask(asked(), name="r")
    table.ask(asked(seed=4), name="s", day=1)
    table.tell({f"r{row}": "yes" for row in range(30)} | {f"s{row}": "no" for row in range(30)})
    version = table.ingest()
    parts = sorted((table.workspace.request_log / "loop").rglob("*.parquet"))
    whole = pa.concat_tables([pq.read_table(path) for path in reversed(parts)])
    for path in parts:
        path.unlink()
    pq.write_table(whole, parts[0])  # compacted, in another order
    assert table.ingest().digest == version.digest
    table.ask(asked(seed=5), name="t", day=2)  # requests without an answer are no data
    assert table.ingest().digest == version.digest
    assert inspect(table.config().data).digest == table.report.source_digest
    for split in version.splits:
        assert [row["id"] for row in rows(before, split, "base")] == [row["id"] for row in rows(version, split, "base")]


def test_the_recipe_cuts_a_window_and_thins_old_training_rows_only(table: Loop) -> None:
    table.ask(asked(), name="old", day=0)
    table.ask(asked(seed=4), name="new", day=9)
    table.tell({f"{name}{row}": "yes" for name in ("old", "new") for row in range(40)})
    everything = table.ingest()
    half = table.ingest(recipe={"window_days": 5, "old_share": 0.5})
    assert {row["id"][:9] for row in rows(half)} == {"fresh/new"}
    assert any("40 labelled requests are older" in line for line in table.report.warnings)
    for split in ("validation", "test"):
        assert [row["id"] for row in rows(half, split, "base")] == [
            row["id"] for row in rows(everything, split, "base")
        ]
    kept = {row["id"] for row in rows(half, "train", "base")}
    every = {row["id"] for row in rows(everything, "train", "base")}
    assert kept < every
    assert 0.35 * len(every) < len(kept) < 0.65 * len(every)
    assert half.card["sources"][1]["old_rows_left_out"] == len(every) - len(kept)
    less = {row["id"] for row in rows(table.ingest(recipe={"old_share": 0.2}), "train", "base")}
    assert less < kept  # a smaller share is a part of a larger one
    floor = rows(table.ingest(recipe={"old_share": 0.0, "per_class_floor": 7}), "train", "base")
    assert sorted(row["label"] for row in floor) == [0] * 7 + [1] * 7
    whole = rows(table.ingest(recipe={"old_share": 0.0, "per_class_floor": 10_000}), "train", "base")
    assert {row["id"] for row in whole} == every


def test_what_the_log_has_deleted_stays_with_the_champions_dataset(table: Loop) -> None:
    table.ask(asked(), name="r")
    table.tell({f"r{row}": "yes" for row in range(40)})
    first = table.ingest()
    table.serve(first, 2)
    again = table.ingest()
    assert again.digest == first.digest  # the log has them all: nothing is taken twice
    for path in (table.workspace.request_log / "loop").glob("20261110T10/*"):
        path.unlink()
    kept = table.ingest()
    assert kept.digest == first.digest  # the same rows, wherever they are read from
    assert any("40 fresh rows are those of the champion's dataset" in line for line in table.report.warnings)
    table.ask(asked(seed=4), name="s", day=40, version=2)
    table.tell({f"s{row}": "no" for row in range(10)})
    version = table.ingest()
    assert version.card["origins"] == {"base": 300, "fresh": 50}
    assert {row["label"] for row in rows(version) if row["id"].startswith("fresh/r")} == {1}
    assert table.ingest(recipe={"window_days": 5}).card["origins"]["fresh"] == 10  # a window forgets on purpose


def test_without_fresh_rows_nothing_is_left_out(table: Loop) -> None:
    version = table.ingest(recipe={"old_share": 0.1})
    assert version.card["n_rows"] == 300
    assert len(version.card["sources"]) == 1
    table.tell({"nobody": "yes"})
    assert table.ingest(recipe={"old_share": 0.1}).card["n_rows"] == 300


def test_a_category_that_the_model_did_not_know_gets_no_code_of_its_own(table: Loop) -> None:
    table.ask(asked(color="violet"))
    table.tell({f"r{row}": "yes" for row in range(60)})
    version = table.ingest()
    assert {row["color"] for row in rows(version)} == {"(another)"}
    column = next(item for item in fit_encoder(version).columns if item["name"] == "color")
    assert sorted(column["names"]) == sorted(COLORS)


def test_what_cannot_be_turned_back_is_set_aside_and_named(table: Loop) -> None:
    table.ask(asked(), name="r")
    table.ask(asked(3), name="x", version=8)
    path = table.workspace.request_log / "loop" / "20261110T10" / "bare.parquet"
    kept = ["request_id", "ts_ns", "version", "output.probabilities"]
    bare = pq.read_table(path.with_name("r.parquet"), columns=kept).slice(0, 2)
    pq.write_table(bare.set_column(0, "request_id", pa.array(["b0", "b1"])), path)
    path.with_name("broken.parquet").write_bytes(b"PAR1")
    table.tell({f"{name}{row}": "yes" for name in "rxb" for row in range(3)})
    version = table.ingest()
    assert sorted(row["id"] for row in rows(version)) == ["fresh/r0", "fresh/r1", "fresh/r2"]
    told = {line["id"]: line["reason"] for line in table.report.quarantined}
    assert "no version 8" in told["x0"]
    assert "the log has no 'number'" in told["b0"]
    table.tell({"r9": "perhaps"})
    with pytest.raises(InputError, match=r"'perhaps' is a class that data\.source does not have"):
        table.ingest()


def test_the_monitor_counts_what_the_champion_did_not_take(table: Loop) -> None:
    package = Store(table.workspace.store).path("models", "model-1")

    def count(package: Path, **recipe: Any) -> Labels | None:
        return count_fresh_labels(table.config(recipe=recipe).monitor, package, table.workspace)

    assert count(package) == Labels(fresh=0, known=0)
    table.ask(asked(), name="r")
    table.tell({f"r{row}": "yes" for row in range(50)} | {"unlogged": "no"})
    assert count(package) == Labels(fresh=50, known=50)
    table.serve(table.ingest(), 2)
    package = Store(table.workspace.store).path("models", "model-2")
    assert count(package) == Labels(fresh=0, known=50)
    table.ask(asked(seed=4), name="s", day=30)
    table.tell({f"s{row}": "no" for row in range(20)} | {f"r{row}": "no" for row in range(50, 55)})
    assert count(package) == Labels(fresh=25, known=75)
    assert count(package, window_days=3) == Labels(fresh=20, known=75)
    for path in (table.workspace.request_log / "loop").glob("20261110T10/*"):
        path.unlink()  # the log forgets; what was known stays known
    assert count(package) == Labels(fresh=20, known=70)


def test_pictures_vectors_and_texts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (120, 8, 8), dtype=np.uint8)
    vectors = rng.normal(size=(120, 5)).astype(np.float32)
    labels = np.arange(120) % 2
    words = [f"{rng.choice(['rain', 'sun'])} {rng.choice(['today', 'tomorrow', 'later'])} {i % 7}" for i in range(120)]
    for name, values in {"image": pictures, "vector": vectors}.items():
        np.savez(tmp_path / f"{name}.npz", X=values, y=labels)
        (tmp_path / name).mkdir()
        loop = Loop(root=tmp_path / name, data={"source": f"../{name}.npz", "fresh": "requests", "image_size": 8})
        before = loop.ingest()
        loop.serve(before)
        assert before.modality == name
        given = before.table("test", [name])
        loop.ask(given)
        loop.tell({f"r{row}": 1 for row in range(given.num_rows)})
        found = {row["id"]: row for row in rows(loop.ingest())}
        assert [found[f"fresh/r{row}"][name] for row in range(given.num_rows)] == given[name].to_pylist()
        facts = rows(before, "test", "base")[0].keys() - {"origin", "content", "id", "label", name}
        known = [key for key in facts if found["fresh/r0"][key] is not None]
        assert len(known) >= 4, facts
    (tmp_path / "text").mkdir()
    lines = "".join(f"{label}\t{word}\n" for label, word in zip(labels, words, strict=True))
    (tmp_path / "text.txt").write_text(lines)
    loop = Loop(root=tmp_path / "text", data={"source": "../text.txt", "fresh": "requests"})
    loop.serve(loop.ingest())
    loop.ask(pa.table({"text": ["Rain today", "snow tomorrow"]}))
    loop.tell({"r0": 0, "r1": 1})
    assert sorted(row["text"] for row in rows(loop.ingest())) == ["? tomorrow", "rain today"]
    assert any("'?'" in line for line in loop.report.warnings)


def test_sounds(tmp_path: Path) -> None:
    import soundfile

    rng = np.random.default_rng(0)
    for row in range(24):
        place = tmp_path / "sounds" / f"{row % 2}" / f"{row}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place, rng.normal(0, 0.1, 1600 + 10 * row), 8000, subtype="PCM_16")
    loop = Loop(
        root=tmp_path,
        data={"source": "sounds", "fresh": "requests", "split": {"method": "stratified"}},
    )
    before = loop.ingest()
    loop.serve(before)
    given = before.table("test", ["audio"])
    loop.ask(given)
    loop.tell({f"r{row}": 0 for row in range(given.num_rows)})
    found = {row["id"]: row for row in rows(loop.ingest())}
    length = loop.encoder.length
    for row in range(given.num_rows):
        assert found[f"fresh/r{row}"]["audio"] == given["audio"][row].as_py()[:length]
        assert found[f"fresh/r{row}"]["rate"] == 8000


def test_a_series_says_that_its_requests_are_no_rows(tmp_path: Path) -> None:
    hours = np.datetime64("2026-01-01T00:00:00") + np.arange(2000) * np.timedelta64(1, "h")
    lines = "".join(f"{hour},{place % 24}\n" for place, hour in enumerate(hours))
    (tmp_path / "series.csv").write_text("time,value\n" + lines)
    loop = Loop(root=tmp_path, data={"source": "series.csv", "fresh": "requests", "modality": "series", "time": "time"})
    with pytest.raises(InputError, match="series data"):
        loop.ingest()


def test_groups_times_and_official_splits_are_filled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 200
    frame = {
        "x": rng.normal(size=n).round(3),
        "who": [f"p{row % 40}" for row in range(n)],
        "when": np.array("2026-01-01", "datetime64[us]") + np.arange(n) * np.timedelta64(1, "h"),
        "part": np.array(["train", "train", "validation", "test"] * 50),
        "label": rng.choice(["a", "b"], n),
    }
    frame["who"] = [f"{part}-{who}" for part, who in zip(frame["part"], frame["who"], strict=True)]
    pq.write_table(pa.table(frame), tmp_path / "data.parquet")
    data = {"source": "data.parquet", "fresh": "requests", "group": "who", "time": "when", "split": {"column": "part"}}
    loop = Loop(root=tmp_path, data=data)
    loop.serve(loop.ingest())
    loop.ask(pa.table({"x": rng.normal(size=80).round(3)}))
    loop.tell({f"r{row}": "a" for row in range(80)})
    version = loop.ingest()
    found = rows(version)
    assert len(found) == 80
    assert len({row["group"] for row in found}) == 80
    assert {row["time"].year for row in found} == {2026}
    sizes = [len(rows(version, split)) for split in ("train", "validation", "test")]
    assert min(sizes) > 3
    assert sizes[0] > 30
    assert any("each counts as a group of its own" in line for line in loop.report.warnings)
