"""The image definitions: what can be said of them where no container can be built. The script that builds them is run with an engine that only notes what it is asked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kfloop.serving.production import IMAGE
from manifests import INFRA, ROOT

IMAGES = INFRA / "images"
DEFINITIONS = sorted(IMAGES.glob("*.Containerfile"))
ENGINE = """#!/bin/sh
printf '%s\\n' "$*" >> "$NOTES"
case "$1" in
    inspect) echo "registry.example/image@sha256:0123" ;;
    run) echo '{"installed": []}' ;;
    push) exit "${PUSH_FAILS:-0}" ;;
esac
"""


def bases() -> dict[str, str]:
    lines = [
        line.partition("=") for line in (IMAGES / "bases.env").read_text().splitlines() if not line.startswith("#")
    ]
    return {name: value for name, _, value in lines}


def test_bases_are_pinned() -> None:
    told = bases()
    assert set(told) == {"PYTHON", "PYTHON_DIGEST", "TRITON", "TRITON_DIGEST"}
    for name in ("PYTHON", "TRITON"):
        assert re.fullmatch(r"[\w.-]+\.[a-z]+/[\w./-]+:(?!latest)[\w.-]*[0-9][\w.-]*", told[name])
        assert re.fullmatch(r"(sha256:[0-9a-f]{64})?", told[f"{name}_DIGEST"])
    assert told["TRITON"] == IMAGE  # what kfloop writes into README and manifests of a repository
    assert re.search(r"python:3\.11\.", told["PYTHON"])


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.name)
def test_definitions_keep_to_the_policy(path: Path) -> None:
    lines = re.sub(r"\\\n", " ", path.read_text()).splitlines()
    words = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    assert [rest for word, rest in words if word == "FROM"] == ["${BASE}"]  # pinned in bases.env
    users = [rest for word, rest in words if word == "USER"]
    assert users[-1:] == ["1000:1000"]
    assert [word for word, _ in words].index("USER") > max(i for i, (word, _) in enumerate(words) if word == "RUN")
    assert not any(word == "ADD" for word, _ in words)
    text = "\n".join(lines)
    assert "pip inspect > /opt/kfloop/packages.json" in text
    assert not re.search(r"curl|wget|--trusted-host|latest", text)
    assert (IMAGES / f"{path.name}.dockerignore").read_text().startswith("*\n")


def test_there_are_definitions() -> None:
    assert [path.name for path in DEFINITIONS] == ["kfloop.Containerfile", "triton.Containerfile"]
    text = DEFINITIONS[0].read_text()
    for part in ("-c /opt/kfloop/constraints.txt", "install-runtime", "dist/*.whl", " boto3 "):
        assert part in text
    extras = re.search(r"EXTRAS=(\S+)", text)
    known = re.findall(
        r"^(\w+) = \[",
        (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2],
        re.MULTILINE,
    )
    assert extras is not None
    assert set(extras[1].split(",")) <= set(known)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that the script reads, with a wheel; a checkout of its own, since it writes into ``dist``."""
    there = tmp_path / "checkout"
    shutil.copytree(IMAGES, there / "infra" / "images")
    (there / "infra" / "images.lock").write_text(
        "kfloop:\n"
        "  cpu: ghcr.io/kfloop/kfloop:1.0-unreleased\n"
        f"  gpu: ghcr.io/kfloop/kfloop-gpu@sha256:{'1' * 64}\n"
        "  triton: ghcr.io/kfloop/kfloop-triton:1.0-unreleased\n"
    )
    shutil.copy2(ROOT / "constraints.txt", there / "constraints.txt")
    (there / "kfloop").mkdir()
    (there / "kfloop" / "__init__.py").write_text('__version__ = "1.0"\n')
    (there / "dist").mkdir()
    (there / "dist" / "kfloop-1.0-py3-none-any.whl").touch()
    engine = tmp_path / "bin" / "docker"
    engine.parent.mkdir()
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    return there


def script(checkout: Path, *words: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    notes = checkout.parent / "notes.txt"
    notes.unlink(missing_ok=True)
    path = os.pathsep.join((str(checkout.parent / "bin"), "/usr/bin", "/bin"))
    done = subprocess.run(
        [str(checkout / "infra" / "images" / "build.sh"), *words],
        env={"PATH": path, "NOTES": str(notes)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, notes.read_text().splitlines() if notes.exists() else []


def test_all_images_are_built_as_the_lock_names_them(checkout: Path) -> None:
    done, notes = script(checkout)
    assert done.returncode == 0, done.stderr
    built = [line for line in notes if line.startswith("build ")]
    assert [re.findall(r"-t (\S+)", line)[0] for line in built] == [
        "ghcr.io/kfloop/kfloop:1.0-unreleased",
        "ghcr.io/kfloop/kfloop-gpu:1.0",
        "ghcr.io/kfloop/kfloop-triton:1.0-unreleased",
    ]
    assert "TORCH_INDEX=https://download.pytorch.org/whl/cpu " in built[0] + " "
    assert "whl/cu" in built[1]
    numpy = re.findall(r"^numpy==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[0]
    assert f"NUMPY={numpy}" in built[2]
    assert all(
        f"BASE={bases()[name]}" in line for name, line in zip(("PYTHON", "PYTHON", "TRITON"), built, strict=True)
    )
    assert not any(line.startswith("push") for line in notes)
    assert sorted(path.name for path in (checkout / "dist").glob("sbom*")) == [
        "sbom-cpu.pip.json",
        "sbom-gpu.pip.json",
        "sbom-triton.pip.json",
    ]
    assert "has no digest" in done.stderr


def test_a_digest_is_taken_where_there_is_one(checkout: Path) -> None:
    place = checkout / "infra" / "images" / "bases.env"
    place.write_text(re.sub(r"_DIGEST=$", f"_DIGEST=sha256:{'a' * 64}", place.read_text(), flags=re.MULTILINE))
    done, notes = script(checkout, "triton")
    assert done.returncode == 0
    assert f"BASE={bases()['TRITON']}@sha256:{'a' * 64}" in notes[0]
    assert "has no digest" not in done.stderr


def test_what_is_pushed_is_told_by_digest(checkout: Path) -> None:
    done, _ = script(checkout, "cpu", PUSH="1")
    assert (done.returncode, done.stdout) == (0, "  cpu: registry.example/image@sha256:0123\n")
    failed, _ = script(checkout, "cpu", PUSH="1", PUSH_FAILS="1")
    assert (failed.returncode, failed.stdout) == (1, "")


def test_pinning_gives_the_file_with_digests(checkout: Path) -> None:
    done, notes = script(checkout, "pin")
    assert done.returncode == 0
    assert [line.split()[0] for line in notes] == ["pull", "inspect"] * 2
    assert done.stdout.splitlines()[:2] == [f"PYTHON={bases()['PYTHON']}", "PYTHON_DIGEST=sha256:0123"]


@pytest.mark.parametrize(
    ("words", "missing", "told"),
    [
        (("cpus",), "", "'cpus' is none of"),
        (("cpu",), "dist/kfloop-1.0-py3-none-any.whl", "no wheel in dist"),
        (("cpu",), "../bin/docker", "neither docker nor podman"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_built(
    checkout: Path, words: tuple[str, ...], missing: str, told: str
) -> None:
    if missing:
        (checkout / missing).unlink()
    if missing.endswith("docker") and any(shutil.which(name, path="/usr/bin:/bin") for name in ("docker", "podman")):
        pytest.skip("a container engine is here")
    done, notes = script(checkout, *words)
    assert (done.returncode, notes) == (2, [])
    assert told in done.stderr


def test_an_image_that_the_lock_does_not_name_is_not_built(checkout: Path) -> None:
    (checkout / "infra" / "images.lock").write_text("kfloop:\n  cpu: a:1\n")
    done, notes = script(checkout, "triton")
    assert (done.returncode, notes) == (2, [])
    assert "names no triton" in done.stderr
