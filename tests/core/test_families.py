"""The cnn at several shapes, and checkpoints that are damaged or hostile."""

import os
from pathlib import Path

import pytest
import torch

from kfloop.core.families import NetworkSpec, build_network
from kfloop.core.families.checkpoints import load_checkpoint, read_tensors, save_checkpoint
from kfloop.errors import ConfigError, StateError, TerminalError


def spec_of(shape: tuple[int, int, int] = (8, 8, 1), family: str = "cnn") -> NetworkSpec:
    channels = shape[2]
    return NetworkSpec(
        family=family, image_shape=shape, labels=("a", "b", "c"), mean=(100.0,) * channels, std=(50.0,) * channels
    )


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (64, 64, 3), (7, 13, 3), (1, 1, 1), (33, 5, 1)])
def test_the_cnn_adapts_to_the_images(shape: tuple[int, int, int]) -> None:
    network = build_network(spec_of(shape)).eval()
    logits, embedding = network(torch.zeros((2, *shape), dtype=torch.uint8))
    assert logits.shape == (2, 3)
    assert embedding.shape == (2, 64)
    assert torch.isfinite(logits).all()
    assert sum(parameter.numel() for parameter in network.parameters()) < 120_000


def test_the_small_cnn_has_less_than_100_000_parameters() -> None:
    assert sum(parameter.numel() for parameter in build_network(spec_of()).parameters()) < 100_000


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    spec = spec_of()
    network = build_network(spec).eval()
    save_checkpoint(tmp_path / "model.ckpt", spec, network.state_dict())
    loaded_spec, loaded = load_checkpoint(tmp_path / "model.ckpt")
    image = torch.randint(0, 256, (3, 8, 8, 1), dtype=torch.uint8)
    assert loaded_spec == spec
    assert torch.equal(loaded(image)[0], network(image)[0])


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    save_checkpoint(path, spec_of(), build_network(spec_of()).state_dict())
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF  # inside a weight: torch alone would load it
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(StateError, match=r"model\.ckpt"):
            load_checkpoint(path)
    with pytest.raises(StateError, match=r"absent\.ckpt"):
        load_checkpoint(tmp_path / "absent.ckpt")


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("hostile-code-ran",)


def test_code_in_a_checkpoint_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "spec": Hostile()}, tmp_path / "model.ckpt")
    with pytest.raises(StateError):
        read_tensors(tmp_path / "model.ckpt")
    assert not (tmp_path / "hostile-code-ran").exists()


def test_foreign_files_and_other_networks_are_refused(tmp_path: Path) -> None:
    torch.save({"something": torch.zeros(2)}, tmp_path / "foreign.ckpt")
    with pytest.raises(StateError, match="not a kfloop checkpoint"):
        load_checkpoint(tmp_path / "foreign.ckpt")
    save_checkpoint(tmp_path / "mixed.ckpt", spec_of((8, 8, 3)), build_network(spec_of()).state_dict())
    with pytest.raises(StateError, match="do not fit"):
        load_checkpoint(tmp_path / "mixed.ckpt")


def test_impossible_specs_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown model family 'cmm'") as caught:
        build_network(spec_of(family="cmm"))
    assert "cnn" in caught.value.hint
    with pytest.raises(TerminalError, match="at least 2"):
        NetworkSpec(family="cnn", image_shape=(8, 8, 1), labels=("a",), mean=(0.0,), std=(1.0,))
    with pytest.raises(TerminalError, match="are empty"):
        spec_of((0, 8, 1))
    with pytest.raises(TerminalError, match="1 means for 3 channels"):
        NetworkSpec(family="cnn", image_shape=(8, 8, 3), labels=("a", "b"), mean=(0.0,), std=(1.0,))
