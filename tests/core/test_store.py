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


def test_a_store_without_a_rename_shows_whole_blobs_only(tmp_path: Path, folder: Path) -> None:
    """Any file system of fsspec; the tests of S3 ask the same of a server."""
    url = f"memory://{tmp_path.name}"
    store = Store(url, tmp_path / "mirror")
    digest = folder_digest(folder)
    assert (store.has("models", digest), store.digests("models"), store.everything()) == (False, [], {})
    assert folder_digest(store.publish(folder, "models")) == digest
    other = Store(url, tmp_path / "other")
    assert folder_digest(other.require("models", digest)) == digest
    assert (other.digests("models"), list(other.everything())) == ([digest], [("models", digest)])
    assert other.blobs is not None
    (listed,) = [key for key in other.blobs._files() if key.endswith(".blob.json")]
    other.blobs.remove(listed)  # as before the list was put
    assert (store.has("models", digest), store.everything()) == (False, {})
    with pytest.raises(StateError, match="not in the store"):
        other.require("models", digest)
    assert folder_digest(store.publish(folder, "models")) == digest
    store.remove("models", digest)
    assert store.everything() == {}
    assert not (tmp_path / "mirror" / "models" / digest).exists()
