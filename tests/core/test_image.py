"""Images come from the lock, by digest or marked as not released."""

from pathlib import Path

import pytest

import kfloop
from kfloop.core.image import IMAGE, LOCK, is_released, locked_images
from kfloop.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "sha256:" + "0a" * 32
PINNED = f"ghcr.io/kfloop/kfloop@{DIGEST}"


def lock(folder: Path, **images: str) -> Path:
    path = folder / "images.lock"
    lines = "".join(f"  {name}: {image}\n" for name, image in images.items())
    path.write_text(f"kfloop:\n{lines}", encoding="utf-8")
    return path


def test_the_lock_of_the_checkout_is_the_one_that_is_installed() -> None:
    assert (ROOT / "infra" / "images.lock").resolve() == LOCK.resolve()
    assert locked_images()["cpu"] == IMAGE


def test_an_unreleased_image_is_that_of_this_version() -> None:
    for image in locked_images().values():
        assert is_released(image) or image.endswith(f":{kfloop.__version__}-unreleased")


def test_a_digest_is_a_release(tmp_path: Path) -> None:
    path = lock(tmp_path, cpu=PINNED, gpu=f"registry.example.org:5000/a/b@{DIGEST}", triton="x:1-unreleased")
    assert [is_released(image) for image in locked_images(path).values()] == [True, True, False]


@pytest.mark.parametrize(
    "image",
    [
        "kfloop:latest",
        "kfloop",
        "kfloop:1.0",
        f"kfloop@{DIGEST[:-1]}",
        f"kfloop@{DIGEST}0",
        "-unreleased",
        "a b@" + DIGEST,
        "",
    ],
)
def test_an_image_that_may_change_is_refused(tmp_path: Path, image: str) -> None:
    with pytest.raises(ConfigError, match="expected registry/name@sha256"):
        locked_images(lock(tmp_path, cpu=f"'{image}'", gpu=PINNED, triton=PINNED))
    assert not is_released(image)


@pytest.mark.parametrize("text", [None, "", "kfloop: 3", "- a", "kfloop: [", "kfloop: {cpu: a}", "\xff"])
def test_a_lock_that_is_none_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "images.lock"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="does not name the images cpu, gpu, triton"):
        locked_images(path)
