"""The blob store: atomic, idempotent, safe against a rival."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kfloop.core.artifacts import folder_digest
from kfloop.core.store import Store
from kfloop.errors import ConfigError, StateError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.txt").write_text("b")
    return folder


def test_a_blob_is_named_by_its_content(tmp_path: Path, folder: Path) -> None:
    store = Store(str(tmp_path / "store"))
    place = store.publish(folder, "models")
    assert place.name == folder_digest(folder) == folder_digest(place)
    assert store.has("models", place.name)
    assert store.require("models", place.name) == place
    assert store.publish(folder, "models") == place


def test_the_digest_sees_content_and_names_and_nothing_else(tmp_path: Path, folder: Path) -> None:
    before = folder_digest(folder)
    (folder / "a.txt").touch()
    assert folder_digest(folder) == before
    (folder / "a.txt").rename(folder / "c.txt")
    assert folder_digest(folder) != before


def test_a_missing_blob_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="models 'abc'"):
        Store(str(tmp_path)).require("models", "abc")


def test_many_at_once_leave_one_blob_and_no_litter(tmp_path: Path, folder: Path) -> None:
    store = Store(str(tmp_path / "store"))
    with ThreadPoolExecutor(8) as pool:
        places = set(pool.map(lambda _: store.publish(folder, "models", "same"), range(16)))
    assert len(places) == 1
    assert [path.name for path in (tmp_path / "store" / "models").iterdir()] == ["same"]


def test_a_store_elsewhere_needs_a_mirror_rather_than_being_taken_for_a_folder() -> None:
    with pytest.raises(ConfigError, match="s3://"):
        Store("s3://bucket/blobs")
