"""Samples: the same data every time, and a clear word for a name that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfloop.components.ingest import samples
from kfloop.components.ingest.samples import SAMPLES, sample_path
from kfloop.components.ingest.sources import inspect
from kfloop.core.artifacts import folder_digest
from kfloop.core.sections import DataConfig
from kfloop.errors import InputError

FOUND = {
    "breast_cancer": ("table", "multiclass", 569),
    "co2": ("series", "forecasting", 2284),
    "diabetes": ("table", "regression", 442),
    "digits_graph": ("nodes", "multiclass", 1797),
    "docstrings": ("text", "multiclass", 3500),
    "sounds": ("audio", "multiclass", 720),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_every_sample_is_looked_at() -> None:
    assert set(FOUND) == set(SAMPLES)


@pytest.mark.parametrize("name", sorted(set(FOUND) - {"docstrings"}))
def test_a_sample_is_what_it_says(name: str) -> None:
    info = inspect(DataConfig(source=f"sample:{name}"))
    assert (info.modality, info.task, info.n) == FOUND[name]


@pytest.mark.slow
def test_docstrings_are_what_they_say() -> None:
    info = inspect(DataConfig(source="sample:docstrings"))
    assert (info.modality, info.task, info.n) == FOUND["docstrings"]
    text = sample_path("sample:docstrings").read_text()
    assert all(name not in line.partition("\t")[2].lower() for line in text.splitlines() for name in info.labels)


@pytest.mark.parametrize("name", ["breast_cancer", "sounds", "digits_graph"])
def test_a_sample_is_the_same_every_time(name: str, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        SAMPLES[name](folder)
    assert folder_digest(folders[0]) == folder_digest(folders[1])


def test_a_sample_is_made_once() -> None:
    first = sample_path("sample:diabetes")
    before = first.stat().st_mtime_ns
    assert sample_path("sample:diabetes") == first
    assert first.stat().st_mtime_ns == before


def test_a_making_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(folder: Path) -> Path:
        (folder / "half.csv").write_text("a,")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(samples.SAMPLES, "diabetes", torn)
    with pytest.raises(OSError, match="No space"):
        sample_path("sample:diabetes")
    assert not list((tmp_path / "cache" / "kfloop" / "samples").iterdir())


def test_an_unknown_sample_names_the_nearest() -> None:
    with pytest.raises(InputError, match="no sample is called 'co3'") as error:
        inspect(DataConfig(source="sample:co3"))
    assert "co2" in error.value.hint
