"""The blob store in a real object store: what is there when, who wins, what a kill leaves, and what is said when it cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kfloop.core.artifacts import folder_digest
from kfloop.core.blobs import Blobs
from kfloop.core.store import Store
from kfloop.errors import ConfigError, StateError, TransientError
from seaweed import KEYS

pytestmark = pytest.mark.slow


@pytest.fixture
def url(s3: str, tmp_path: Path) -> str:
    """A place of the test's own; a bucket each would be a handful of volumes each to this server."""
    return f"s3://ready/{tmp_path.name}/kfloop"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "a [1].txt").write_text("a")
    (folder / "deep" / "b?.txt").write_bytes(b"b" * 100_000)
    (folder / "empty").write_bytes(b"")
    return folder


def test_a_blob_is_brought_back_as_it_was(url: str, tmp_path: Path, folder: Path) -> None:
    store = Store(url, tmp_path / "mirror")
    digest = folder_digest(folder)
    assert not store.has("models", digest)
    assert not store.path("models", digest).exists()
    place = store.publish(folder, "models")
    assert place.name == digest == folder_digest(place)
    elsewhere = Store(url, tmp_path / "other")
    assert elsewhere.has("models", digest)
    assert elsewhere.digests("models") == [digest]
    assert elsewhere.digests("none") == []
    assert folder_digest(elsewhere.require("models", digest)) == digest
    assert elsewhere.uri("models", digest) == f"{url}/models/{digest}"
    assert [path.name for path in (tmp_path / "other" / "models").iterdir()] == [digest]
    # A place that is gone from this disk is brought again; one that the store never gave is left alone.
    subprocess.run(["rm", "-r", str(place)], check=True)
    assert folder_digest(store.bring(place)) == digest
    assert not store.bring(tmp_path / "nowhere").exists()


def test_a_kind_with_a_slash_has_its_own_blobs(url: str, tmp_path: Path, folder: Path) -> None:
    store = Store(url, tmp_path / "mirror")
    first = store.publish(folder, "cards/sorter-1").name
    (folder / "a [1].txt").write_text("later")
    second = store.publish(folder, "cards/sorter-1").name
    assert sorted(store.digests("cards/sorter-1")) == sorted([first, second])
    assert store.digests("cards/sorter-10") == store.digests("cards") == []


def test_many_at_once_leave_one_blob_and_no_litter(url: str, tmp_path: Path) -> None:
    """They are of one name and not of one content, as two cards of one version may be: whose list is there, theirs are the files."""
    folders = []
    for number in range(4):
        made = tmp_path / f"made{number}"
        made.mkdir()
        (made / "who.txt").write_text(str(number) * 1000)
        (made / "again.txt").write_text(str(number) * 1000)
        folders.append(made)
    stores = [Store(url, tmp_path / f"mirror{number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        places = list(
            pool.map(lambda pair: pair[0].publish(pair[1], "models", "same"), zip(stores, folders, strict=True))
        )
    digests = {folder_digest(place) for place in places}
    fresh = Store(url, tmp_path / "fresh").require("models", "same")
    assert digests == {folder_digest(fresh)}
    found = stores[0].blobs
    assert found is not None
    assert sorted(key.rpartition("/")[2] for key in found._files()) == ["again.txt", "same.blob.json", "who.txt"]


def test_an_upload_that_is_killed_leaves_nothing_that_reads_as_complete(url: str, tmp_path: Path, folder: Path) -> None:
    """Killed after the last file and before the list."""
    code = (
        "import os, pathlib, sys\n"
        "from kfloop.core.blobs import Blobs\n"
        "Blobs._create = lambda *given: os._exit(9)\n"
        "Blobs(sys.argv[1]).publish(pathlib.Path(sys.argv[2]), 'models', 'whole')\n"
    )
    assert subprocess.run([sys.executable, "-c", code, url, str(folder)], check=False).returncode == 9
    blobs, store = Blobs(url), Store(url, tmp_path / "mirror")
    assert len(blobs._files()) == 3
    assert blobs.sizes() == {}
    assert blobs.leftovers(time.time() - 3600) == {}  # it may still be at work
    (left,) = blobs.leftovers(time.time() + 3600)
    assert not store.has("models", "whole")
    assert store.digests("models") == []
    with pytest.raises(StateError, match="models 'whole' is not in the store"):
        store.require("models", "whole")
    assert folder_digest(store.publish(folder, "models", "whole")) == folder_digest(folder)
    assert list(blobs.leftovers(time.time() + 3600)) == [left]
    store.remove_leftover(left)
    assert len(blobs._files()) == 4
    assert list(store.everything()) == [("models", "whole")]
    store.remove("models", "whole")
    assert blobs._files() == {}
    assert not store.path("models", "whole").exists()


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.6])
def test_a_kill_at_any_time_leaves_all_or_nothing(url: str, tmp_path: Path, seconds: float) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.txt").write_text(str(number) * 500)
    code = (
        "import pathlib, sys\n"
        "from kfloop.core.blobs import Blobs\n"
        "blobs = Blobs(sys.argv[1]); print('ready', flush=True)\n"
        "blobs.publish(pathlib.Path(sys.argv[2]), 'models', 'whole')\n"
    )
    maker = subprocess.Popen([sys.executable, "-c", code, url, str(folder)], stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    assert maker.stdout.readline() == "ready\n"
    time.sleep(seconds)  # the moment of the kill is the parameter; whatever it hits must hold
    maker.kill()
    maker.communicate()
    store = Store(url, tmp_path / "mirror")
    if store.has("models", "whole"):
        assert folder_digest(store.require("models", "whole")) == folder_digest(folder)
    assert folder_digest(store.publish(folder, "models", "whole")) == folder_digest(folder)
    assert folder_digest(Store(url, tmp_path / "fresh").require("models", "whole")) == folder_digest(folder)


@pytest.mark.parametrize("damage", ["another content", "a file is gone", "no list", "another format"])
def test_a_damaged_blob_is_told_and_never_given(url: str, tmp_path: Path, folder: Path, damage: str) -> None:
    import s3fs

    Store(url, tmp_path / "mirror").publish(folder, "models", "d")
    server, blobs = s3fs.S3FileSystem(skip_instance_cache=True), Blobs(url)
    victim = next(key for key in blobs._files() if key.endswith("b?.txt"))
    listing = f"{url}/models/d.blob.json"
    if damage == "another content":
        server.pipe_file(f"{url}/{victim}", b"c" * 100_000)
    elif damage == "a file is gone":
        server.rm_file(f"{url}/{victim}")
    else:
        server.pipe_file(listing, b"no list" if damage == "no list" else json.dumps({"format": 2}).encode())
    with pytest.raises(StateError, match="damaged") as caught:
        Store(url, tmp_path / "other").path("models", "d")
    assert "restore" in caught.value.hint
    assert not (tmp_path / "other" / "models" / "d").exists()
    assert list((tmp_path / "other").rglob(".tmp-*")) == []


def test_a_blob_that_only_the_mirror_has_is_not_in_the_store(url: str, tmp_path: Path, folder: Path) -> None:
    store = Store(url, tmp_path / "mirror")
    store.publish(folder, "models", "d")
    assert store.blobs is not None
    store.blobs.remove("models")
    with pytest.raises(StateError, match="not in the store"):
        store.require("models", "d")


def test_a_bucket_that_is_not_ours_or_not_there_is_told(
    s3: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    with pytest.raises(StateError, match=r"store 's3://ready/x' cannot be") as caught:
        Store("s3://ready/x", tmp_path / "mirror").publish(folder, "models", "d")
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    assert "another-secret" not in str(caught.value.as_dict())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["AWS_SECRET_ACCESS_KEY"])


def test_a_server_that_does_not_answer_is_transient(
    s3: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seaweed import free_ports

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(TransientError, match="cannot be read now"):
        Store("s3://ready/x", tmp_path / "mirror").publish(folder, "models", "d")
    assert not (tmp_path / "mirror").exists()


def test_an_answer_that_is_lost_after_the_list_was_written_costs_no_file(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store("memory://lost-answer", tmp_path / "mirror")
    blobs = store.blobs
    assert blobs is not None
    asked, lists = [], type(blobs).contents

    def flaky(self: Any, kind: str, digest: str) -> Any:
        asked.append(digest)
        if len(asked) == 2:  # the look after the list was written
            raise TransientError("store cannot be read now")
        return lists(self, kind, digest)

    monkeypatch.setattr(type(blobs), "contents", flaky)
    with pytest.raises(TransientError):
        blobs.publish(folder, "models", "d" * 32)
    assert not blobs.publish(folder, "models", "d" * 32)  # it is there, whole
    assert blobs.fetch("models", "d" * 32, tmp_path / "back")


def test_a_store_of_an_unknown_kind_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_SECRET", "hunter2hunter2")
    for url in ("nosuch://x:${STORE_SECRET}@y", "nosuch://x:hunter2hunter2@y"):
        with pytest.raises(ConfigError, match="cannot be opened") as caught:
            Store(url, tmp_path / "mirror")
        assert "hunter2" not in str(caught.value.as_dict())
