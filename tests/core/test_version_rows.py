"""Versions of any rows: hashes of columns, digests blind to batches, splits that never change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from kfloop.core.sections import SplitConfig
from kfloop.core.versions import SPLITS, VersionWriter, read_version, verify_version
from kfloop.core.versions.assigning import Splitter
from kfloop.core.versions.hashing import hash_rows, hexadecimal
from kfloop.core.versions.keys import Hasher
from kfloop.core.versions.splitting import (
    Cutoffs,
    chosen_method,
    class_cutoffs,
    configured_times,
    stable_share,
    time_cutoffs,
)
from kfloop.errors import ConfigError, InputError, StateError

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ["a", "b", "c"]
BEGIN = datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None)


def people(n: int = 900, seed: int = 0, **columns: Any) -> pa.Table:
    random = np.random.default_rng(seed)
    table = {
        "id": [f"{seed}-{row}" for row in range(n)],
        "age": pa.array(random.normal(size=n), mask=random.random(n) < 0.1),
        "visits": pa.array(random.integers(0, 9, n)),
        "town": pa.array(random.choice(["Ulm", "Bern", ""], n), mask=random.random(n) < 0.1),
        "member": pa.array(random.random(n) < 0.5),
        "seen": pa.array([BEGIN + timedelta(minutes=int(m)) for m in random.integers(0, 10**6, n)], pa.timestamp("us")),
        "label": pa.array(random.integers(0, 3, n)),
        "origin": ["base"] * n,
    }
    return pa.table(table | columns)


def write(
    folder: Path,
    table: pa.Table,
    *,
    method: str = "random",
    at_once: int = 200,
    cutoffs: Cutoffs | None = None,
    **more: Any,
) -> dict[str, Any]:
    folder.mkdir(parents=True)
    hasher = Hasher(
        modality="table",
        task="multiclass",
        labels=LABELS,
        schema={},
        inputs=["age", "visits", "town", "member", "seen"],
    )
    splitter = Splitter(cutoffs or Cutoffs(method=method, validation=0.15, test=0.25), LABELS, "table")
    parts = [table.slice(start, at_once) for start in range(0, table.num_rows, at_once)]
    if splitter.must_learn:
        splitter.learn((part, hasher.contents(part)[2]) for part in parts)
    writer = VersionWriter(folder, name="people", hasher=hasher, splitter=splitter)
    for part in parts:
        writer.add(part)
    return writer.finish(**more)


def places(folder: Path) -> dict[str, str]:
    version = read_version(folder)
    return {text: split for split in version.splits for text in version.table(split)["content"].to_pylist()}


def test_a_table_reads_back_what_was_written(tmp_path: Path) -> None:
    table = people()
    card = write(tmp_path / "v", table)
    version = verify_version(tmp_path / "v")
    assert (version.digest, version.modality, version.task) == (card["digest"], "table", "multiclass")
    rows = {row["id"]: row for split in SPLITS for row in version.table(split).to_pylist()}
    assert len(rows) == card["n_rows"] == 900
    for row in table.to_pylist():
        assert {key: rows[row["id"]][key] for key in row} == row
    assert set(version.manifest().column_names) == {*table.column_names, "content", "split"}


def test_the_digest_is_blind_to_batches_order_and_ids(tmp_path: Path) -> None:
    table = people()
    mixed = table.take(np.random.default_rng(1).permutation(900))
    mixed = mixed.set_column(0, "id", pa.array([f"other/{row}" for row in range(900)]))
    first, second = write(tmp_path / "a", table), write(tmp_path / "b", mixed, at_once=77)
    assert first["digest"] == second["digest"]
    assert places(tmp_path / "a") == places(tmp_path / "b")


@pytest.mark.parametrize("column", ["age", "visits", "town", "member", "seen", "label", "origin"])
def test_the_digest_sees_a_change_in_every_column(tmp_path: Path, column: str) -> None:
    table = people()
    values = table[column].to_pylist()
    values[7], values[8] = values[8], values[7]
    other = next(row for row in range(9, 900) if values[row] != values[7]) if column != "origin" else 7
    values[7] = "fresh" if column == "origin" else values[other]
    changed = table.set_column(
        table.column_names.index(column), column, pa.array(values, table.schema.field(column).type)
    )
    assert write(tmp_path / "a", table)["digest"] != write(tmp_path / "b", changed)["digest"]


def test_digests_stay_the_same_from_release_to_release(tmp_path: Path) -> None:
    """A change here renames every dataset version of every user, and moves rows between splits."""
    table = pa.table(
        {
            "number": pa.array([1.5, -0.0, None, float("nan")]),
            "whole": pa.array([1, -2, None, 2**62]),
            "text": pa.array(["a", "", None, "\u00e9"]),
            "flag": pa.array([True, False, None, True]),
            "list": pa.array([[1, 2], [], [3], [1]], pa.list_(pa.int16())),
        }
    )
    assert hexadecimal(hash_rows(table, table.column_names)).to_pylist() == FROZEN_HASHES
    assert stable_share("kfloop", "split") == pytest.approx(0.9478100640889608, abs=1e-15)


def test_equal_numbers_have_equal_hashes_and_nothing_else_does() -> None:
    def lanes(values: Any, kind: Any = None) -> list[tuple[int, ...]]:
        return [tuple(row) for row in hash_rows(pa.table({"x": pa.array(values, kind)}), ["x"]).tolist()]

    assert lanes([0.0])[0] == lanes([-0.0])[0]
    assert lanes([float("nan")])[0] == lanes([-float("nan")])[0]
    assert len(set(lanes([0.0, 1.0, None, float("nan"), 1e-300]))) == 5
    assert len(set(lanes(["", None, "null", "None"]))) == 4
    assert len(set(lanes([[1, 2], [2, 1], [12], []], pa.list_(pa.int64())))) == 4
    swapped = pa.table({"x": [1, 2], "y": [2, 1]})
    assert len({tuple(row) for row in hash_rows(swapped, ["x", "y"]).tolist()}) == 2


def test_hashes_do_not_collide_in_a_grid_of_small_numbers() -> None:
    a, b = np.meshgrid(np.arange(400), np.arange(400))
    hashes = hash_rows(pa.table({"a": a.ravel(), "b": b.ravel()}), ["a", "b"])
    assert len(np.unique(hashes[:, 0])) == len(np.unique(hashes[:, 1])) == 160_000
    share = (hashes[:, 0] >> np.uint64(11)) / float(1 << 53)
    assert np.histogram(share, 16, (0, 1))[0] / 10_000 == pytest.approx(1.0, abs=0.05)


def test_a_group_never_crosses_splits_within_a_version_or_between_versions(tmp_path: Path) -> None:
    owner: dict[str, set[str]] = {}
    for number in range(6):
        random = np.random.default_rng(number)
        group = pa.array([f"patient {value}" for value in random.integers(0, 60, 700)])
        write(tmp_path / str(number), people(700, number, group=group), method="group")
        version = read_version(tmp_path / str(number))
        for split in SPLITS:
            for name in version.table(split)["group"].to_pylist():
                owner.setdefault(name, set()).add(split)
    assert len(owner) == 60
    assert all(len(splits) == 1 for splits in owner.values())


@pytest.mark.parametrize("method", ["random", "stratified", "group", "time"])
def test_a_row_keeps_its_split_when_rows_are_added(tmp_path: Path, method: str) -> None:
    n = 700
    extra = {
        "group": pa.array([f"g{row % 50}" for row in range(2 * n)]),
        "time": pa.array(np.random.default_rng(5).integers(0, 10**6, 2 * n)),
    }
    table = people(2 * n, 3, **extra)
    small = write(tmp_path / "small", table.slice(0, n), method=method)
    cutoffs = Cutoffs.from_card(small, method, SplitConfig())
    write(tmp_path / "large", table, method=method, cutoffs=cutoffs)
    before, after = places(tmp_path / "small"), places(tmp_path / "large")
    assert before.items() <= after.items()


@pytest.mark.parametrize("n", [3, 4, 5])
def test_few_groups_fill_every_split_and_stay_there(tmp_path: Path, n: int) -> None:
    for seed in range(6):
        group = pa.array([f"speaker {seed} {row % n}" for row in range(300)])
        card = write(tmp_path / f"{seed}", people(300, seed, group=group), method="group")
        assert all(card["splits"][split] for split in SPLITS)
        more = pa.array([f"speaker {seed} {row % 40}" for row in range(900)])
        cutoffs = Cutoffs.from_card(card, "group", SplitConfig())
        write(tmp_path / f"{seed}-more", people(900, seed + 50, group=more), cutoffs=cutoffs)
        owner: dict[str, set[str]] = {}
        for folder in (f"{seed}", f"{seed}-more"):
            version = read_version(tmp_path / folder)
            for split in SPLITS:
                for name in version.table(split)["group"].to_pylist():
                    owner.setdefault(name, set()).add(split)
        assert all(len(splits) == 1 for splits in owner.values())


def test_two_groups_cannot_fill_three_splits(tmp_path: Path) -> None:
    group = pa.array([f"speaker {row % 2}" for row in range(300)])
    with pytest.raises(InputError, match="column 'group' has 2 different values"):
        write(tmp_path / "v", people(300, group=group), method="group")


def test_stratified_gives_every_class_its_share_and_a_rare_class_a_row_in_each_split(tmp_path: Path) -> None:
    label = np.array([0] * 600 + [1] * 97 + [2] * 3)
    card = write(tmp_path / "v", people(700, label=pa.array(label)), method="stratified")
    assert card["per_class"]["test"] == {"a": 150, "b": 24, "c": 1}
    assert card["per_class"]["validation"] == {"a": 90, "b": 15, "c": 1}


def test_equal_rows_share_a_split_under_stratified_too() -> None:
    low, high = class_cutoffs(np.array([0.1, 0.1, 0.1, 0.5, 0.9]), 0.15, 0.25)
    assert 0.1 < low < 0.5 < high < 0.9
    assert class_cutoffs(np.array([0.4, 0.4]), 0.15, 0.25) == pytest.approx((0.25, 0.4))


def test_splits_by_time_are_in_order_and_equal_times_stay_together(tmp_path: Path) -> None:
    time = pa.array(np.random.default_rng(0).integers(0, 40, 900))
    write(tmp_path / "v", people(900, time=time), method="time")
    version = read_version(tmp_path / "v")
    found = {split: np.array(version.table(split)["time"]) for split in SPLITS}
    assert found["train"].max() < found["validation"].min() <= found["validation"].max() < found["test"].min()
    assert len(found["test"]) / 900 == pytest.approx(0.25, abs=0.04)


def test_times_in_the_configuration_are_the_cutoffs(tmp_path: Path) -> None:
    config = SplitConfig(method="time", validation_from="2024-02-01", test_from="2024-03-01T00:00:00")
    times = [BEGIN + timedelta(days=row % 90) for row in range(900)]
    cutoffs = Cutoffs(method="time", validation=0.15, test=0.25, times=configured_times(config))
    write(tmp_path / "v", people(900, time=pa.array(times, pa.timestamp("us"))), cutoffs=cutoffs)
    version = read_version(tmp_path / "v")
    assert min(version.table("test")["time"].to_pylist()) == datetime(2024, 3, 1)  # noqa: DTZ001 - Arrow gives naive times
    assert max(version.table("train")["time"].to_pylist()) == datetime(2024, 1, 31)  # noqa: DTZ001 - as above


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2024-02-30", "2024-03-01", "'2024-02-30'"),
        ("5", "4", "is not before"),
        ("x", "y", "expected a number or a time"),
    ],
)
def test_bad_times_in_the_configuration(start: str, end: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured_times(SplitConfig(method="time", validation_from=start, test_from=end))


def test_two_times_cannot_make_three_splits() -> None:
    with pytest.raises(InputError, match="2 different values"):
        time_cutoffs(np.array([1.0, 1.0, 2.0]), 0.15, 0.25)


def test_official_splits_are_kept_and_validation_is_carved_from_train_where_it_is_missing(tmp_path: Path) -> None:
    split = pa.array(["train", "test", "train"] * 300)
    card = write(tmp_path / "v", people(900, split=split), method="official")
    assert card["splits"]["test"] == 300
    assert card["splits"]["validation"] == pytest.approx(120, abs=30)
    full = pa.array(["train", "validation", "test", None] * 225)
    card = write(tmp_path / "w", people(900, split=full), method="official")
    assert card["splits"] == {"train": 225, "validation": 225, "test": 225, "rest": 225}
    assert read_version(tmp_path / "w").splits == [*SPLITS, "rest"]
    verify_version(tmp_path / "w")


def test_official_splits_that_tear_a_group_are_refused(tmp_path: Path) -> None:
    split = pa.array(["train", "validation", "test"] * 300)
    group = pa.array([f"house {row // 3 if row == 899 else row}" for row in range(900)])
    with pytest.raises(InputError, match="group 'house 299' stands in the source's split 'test' and, with row '0-899'"):
        write(
            tmp_path / "v",
            people(900, split=pa.array([*split.to_pylist()[:899], "train"]), group=group),
            method="official",
        )


@pytest.mark.parametrize(
    ("method", "facts", "message"),
    [
        ("random", {"grouped": True}, "rows of a group would cross splits"),
        ("stratified", {"grouped": True}, "rows of a group would cross splits"),
        ("time", {"grouped": True}, "rows of a group would cross splits"),
        ("group", {}, "rows have no group"),
        ("official", {}, "no splits of its own"),
        ("time", {}, "rows have no time"),
    ],
)
def test_methods_that_the_data_cannot_have(method: str, facts: dict[str, bool], message: str) -> None:
    known = {"official": False, "grouped": False, "timed": False} | (
        {"timed": True} if facts and method == "time" else {}
    )
    with pytest.raises(ConfigError, match=message):
        chosen_method(SplitConfig(method=method), "table", **(known | facts))  # type: ignore[arg-type]


def test_the_method_is_found_from_the_data() -> None:
    def method(modality: str = "table", **facts: bool) -> str:
        return chosen_method(SplitConfig(), modality, **({"official": False, "grouped": False, "timed": False} | facts))

    assert method() == "random"
    assert method(grouped=True, timed=True) == "group"
    assert method(official=True, grouped=True) == "official"
    assert method("series", grouped=True) == "time"
    with pytest.raises(ConfigError, match="windows of a series overlap"):
        chosen_method(SplitConfig(method="random"), "series", official=False, grouped=False, timed=True)


def test_a_class_of_two_rows_is_refused_by_name(tmp_path: Path) -> None:
    label = pa.array([0] * 600 + [1] * 298 + [2] * 2)
    with pytest.raises(
        InputError, match=r"class 'c' has 2 usable rows .*and none of them falls into the \w+ split"
    ) as error:
        write(tmp_path / "v", people(900, label=label), method="stratified")
    assert "stratified" in error.value.hint


def test_a_column_that_changes_its_type_is_refused_by_row(tmp_path: Path) -> None:
    table = people(400)
    odd = table.slice(200).set_column(table.column_names.index("visits"), "visits", pa.array(["many"] * 200))
    hasher = Hasher(modality="table", task="multiclass", labels=LABELS, schema={}, inputs=["visits"])
    writer = VersionWriter(
        tmp_path,
        name="t",
        hasher=hasher,
        splitter=Splitter(Cutoffs(method="random", validation=0.15, test=0.25), LABELS, "table"),
    )
    writer.add(table.slice(0, 200))
    with pytest.raises(InputError, match="row '0-200'"):
        writer.add(odd)


def test_labels_of_people_are_part_of_the_digest_where_there_are_some(tmp_path: Path) -> None:
    table = people()
    nobody = {"label_by": pa.nulls(900, pa.string()), "label_at": pa.nulls(900, pa.string())}
    somebody = {
        "label_by": pa.array(["Ada"] + [None] * 899, pa.string()),
        "label_at": pa.array(["2024-05-01T00:00:00Z"] + [None] * 899, pa.string()),
    }
    plain = write(tmp_path / "a", table)
    empty = write(tmp_path / "b", pa.table({name: table[name] for name in table.column_names} | nobody))
    one = write(tmp_path / "c", pa.table({name: table[name] for name in table.column_names} | somebody))
    assert plain["digest"] == empty["digest"] != one["digest"]
    assert (empty["corrected"], one["corrected"]) == (0, 1)


def test_extras_are_part_of_the_version(tmp_path: Path) -> None:
    edges = pa.table({"source": [1, 2], "target": [2, 3]})
    first = write(tmp_path / "a", people(), extras={"edges": edges})
    second = write(tmp_path / "b", people(), extras={"edges": edges.take([1, 0])})
    third = write(tmp_path / "c", people(), extras={"edges": edges.slice(1)})
    assert first["digest"] == second["digest"] != third["digest"]
    version = verify_version(tmp_path / "a")
    assert version.beside("edges").equals(edges)
    assert version.beside("votes") is None


def test_the_version_before_is_kept_on_the_card_unless_it_is_the_same(tmp_path: Path) -> None:
    first = write(tmp_path / "a", people(), previous=["x", "y"])
    again = write(tmp_path / "b", people(), previous=[first["digest"], "x"])
    assert first["previous"] == again["previous"] == "x"


def test_a_table_is_not_a_set_of_images(tmp_path: Path) -> None:
    write(tmp_path / "v", people())
    with pytest.raises(InputError, match="holds table rows, but images are needed"):
        read_version(tmp_path / "v").split("train")


@pytest.mark.parametrize("damage", ["cell", "edges", "card"])
def test_damage_does_not_verify(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "v"
    write(folder, people(), extras={"edges": pa.table({"source": [1], "target": [2]})})
    name = {"cell": "train.arrow", "edges": "edges.arrow", "card": "card.json"}[damage]
    path = folder / name
    data = bytearray(path.read_bytes())
    if damage == "card":
        data = bytearray(data.replace(b'"town"', b'"tawn"'))
    else:
        place = data.rfind(b"Bern") if damage == "cell" else data.rfind(b"\x02\0\0\0\0\0\0\0")
        data[place] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))
    with pytest.raises((StateError, KeyError)):
        verify_version(folder)


FROZEN_HASHES = [
    "80893adca52afbf823a1b59be3ff65be",
    "97492fd26a4dcf503ee568331d2e6bc8",
    "d0b97e371d7a8a6b54cdb670cb1496a1",
    "cfb0f01ac0c66d76b910df01180eff8b",
]


@pytest.mark.parametrize("method", ["random", "stratified", "group"])
def test_another_seed_draws_other_test_rows_of_the_same_share(tmp_path: Path, method: str) -> None:
    group = pa.array([f"g{row % 200}" for row in range(1500)])
    table = people(1500, 3, **({"group": group} if method == "group" else {}))
    found: dict[int, set[str]] = {}
    for turn, seed in enumerate((0, 1, 1)):
        cutoffs = Cutoffs.from_card(None, method, SplitConfig(seed=seed))
        folder = tmp_path / str(turn)
        card = write(folder, table, cutoffs=cutoffs)
        tested = {name for name, split in places(folder).items() if split == "test"}
        assert found.setdefault(seed, tested) == tested  # the same seed draws the same rows
        assert card["splits"]["test"] / 1500 == pytest.approx(0.25, abs=0.08)
        assert card["split"]["seed"] == seed
    both = len(found[0] & found[1]) / len(found[0])
    assert both == pytest.approx(0.25, abs=0.12)  # independent draws share a quarter


def test_a_seed_that_changes_starts_new_cutoffs_and_one_without_effect_is_refused(tmp_path: Path) -> None:
    card = write(tmp_path / "a", people(300, 3), method="stratified")
    assert Cutoffs.from_card(card, "stratified", SplitConfig()).classes
    assert not Cutoffs.from_card(card, "stratified", SplitConfig(seed=1)).classes
    del card["split"]["seed"]  # a version of before
    assert Cutoffs.from_card(card, "stratified", SplitConfig()).classes
    for config, facts in (
        (SplitConfig(seed=1, method="time"), {"timed": True}),
        (SplitConfig(seed=1), {"official": True}),
    ):
        told = {"official": False, "grouped": False, "timed": False} | facts
        with pytest.raises(ConfigError, match=r"data\.split\.seed is 1"):
            chosen_method(config, "table", **told)
    with pytest.raises(ConfigError, match="chosen by the times of rows"):
        chosen_method(SplitConfig(seed=1), "series", official=False, grouped=False, timed=True)
