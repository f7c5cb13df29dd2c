"""Triton's model repository: version folders that appear complete or not at all, and a checked ``config.pbtxt``."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core import external
from kfloop.core.artifacts import file_sha256
from kfloop.core.encoding import bare
from kfloop.core.scoring import ENCODER, EXTERNAL, GOLDEN, MODEL, REVIEW
from kfloop.core.signature import MEND, SIGNATURE, read_signature
from kfloop.errors import ServingError, StateError
from kfloop.serving.model_config import config_text, raw_form

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kfloop.core.signature import Signature

PACKAGE_FILES = (MODEL, SIGNATURE, ENCODER, GOLDEN)
EXTERNAL_FILES = (
    EXTERNAL,
    SIGNATURE,
    ENCODER,
    GOLDEN,
)  # of a model that somebody else serves: this server passes requests on
CLIENT = "external"  # folder beside such a version, with what asks the endpoint
BARE = "bare"  # folder beside every version, with the encoding of raw rows
RAW = "raw.py"  # a version without this file was made before raw rows were taken
CONFIG = "config.pbtxt"
SERVED = "served.json"  # MODEL.served.json beside the model's folder
DIGESTS = "files.json"  # of each file of the package; the server loads no file that is another one


def add_version(repository: Path, model: str, version: int, package: Path) -> Path:
    """Put a package into the repository as a version; repeating it with the same package does nothing.

    Raises:
        StateError: The version is there with other content, or a file of the package is missing.
    """
    place = repository / model / str(version)
    asked = (package / EXTERNAL).is_file()
    reviewed = (REVIEW,) if (package / REVIEW).is_file() else ()
    files = (*(EXTERNAL_FILES if asked else PACKAGE_FILES), *reviewed)
    missing = [name for name in files if not (package / name).is_file()]
    if missing:
        raise StateError(
            f"the package '{package}' has no {', '.join(missing)}",
            hint=MEND,
        )
    if place.is_dir():
        same = (EXTERNAL, GOLDEN) if asked else (MODEL,)
        same = (*same, REVIEW) if REVIEW in files or (place / REVIEW).is_file() else same
        if not all(_alike(place / name, package / name) for name in same):
            raise StateError(
                f"version {version} of model '{model}' is in the repository with other content",
                hint="a version is never overwritten; register the model again to get a new number",
            )
        if (place / DIGESTS).is_file():
            return place
    place.parent.mkdir(parents=True, exist_ok=True)
    for leftover in place.parent.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    staging = place.with_name(f".tmp-{version}-{uuid.uuid4().hex[:8]}")
    _fill(staging, package, files, asked=asked)
    if (
        place.is_dir()
    ):  # of an older kfloop, whose code does not follow the policy: the same model with the code of this one
        old = place.with_name(f".tmp-old-{uuid.uuid4().hex[:8]}")
        place.rename(old)
        staging.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        staging.rename(place)
    return place


def _fill(staging: Path, package: Path, files: Sequence[str], *, asked: bool) -> None:
    """Everything a version folder holds, with the digests of the package's files."""
    staging.mkdir()
    for name in files:
        shutil.copy2(package / name, staging / name)
    if asked:
        _add_client(package, staging)
    _copy_modules(Path(bare.__file__).parent, staging / BARE)
    for source in (Path(__file__).parent / "model").glob("[!_]*.py"):
        shutil.copy2(source, staging / source.name)
    # A file where Python would put its folder: the server's python writes bytecode whatever the environment says, and a folder that
    # changes after its first load is loaded a second time by the next one.
    (staging / "__pycache__").touch()
    digests = {name: file_sha256(staging / name) for name in files}
    (staging / DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def _add_client(package: Path, staging: Path) -> None:
    """What asks the endpoint: it runs in the server's own environment, where kfloop is not."""
    _copy_modules(Path(external.__file__).parent, staging / CLIENT)
    if (package / external.ADAPTER).is_file():
        shutil.copy2(package / external.ADAPTER, staging / external.ADAPTER)


def _copy_modules(source: Path, place: Path) -> None:
    shutil.copytree(source, place, ignore=lambda _, names: [name for name in names if not name.endswith(".py")])


def _alike(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and file_sha256(one) == file_sha256(other)


def set_versions(
    repository: Path,
    model: str,
    served: Sequence[int],
    default: int,
    *,
    rollout: Mapping[str, Any] | None = None,
    beside: int | None = None,
) -> None:
    """Say which versions the server holds, and which one answers.

    Writes ``config.pbtxt`` for Triton and ``served.json`` for the model's processes (``model/routing.py``), each by rename.

    Args:
        repository: Model repository.
        model: Name of the model.
        served: Versions that the policy names; each process opens them all.
        default: The one that answers.
        rollout: A challenger that gets a share: ``mode``, ``challenger``, ``share``, ``salt`` and ``look_seconds``.
        beside: A version that Triton holds and no other process opens, because it is only being verified.

    Raises:
        ServingError: A version is not in the repository, or the versions cannot be served side by side.
        StateError: The signature of a version cannot be read.
    """
    folder = repository / model
    held = sorted({*served, *([] if beside is None else [beside])})
    missing = [version for version in held if not (folder / str(version)).is_dir()]
    if missing or default not in served or (rollout and rollout["challenger"] not in served):
        raise ServingError(f"model '{model}': versions {missing or [default]} are not in the repository '{repository}'")
    _replace(folder / CONFIG, check_side_by_side(repository, model, held))
    set_policy(repository, model, policy(served, default, rollout) | ({} if beside is None else {"beside": beside}))


def check_side_by_side(repository: Path, model: str, versions: Collection[int]) -> str:
    """The ``config.pbtxt`` that serves versions of the repository side by side.

    Raises:
        ServingError: They cannot be.
        StateError: The signature of a version cannot be read.
    """
    folder = repository / model
    signatures = {version: read_signature(folder / str(version)) for version in sorted(versions)}
    raw = {version: raw_form(folder / str(version), signature) for version, signature in signatures.items()}
    modern = all((folder / str(version) / RAW).is_file() for version in versions)
    return config_text(model, signatures, raw if modern else None)


def policy(versions: Sequence[int], default: int, rollout: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What ``served.json`` says."""
    return {"default": default, "versions": sorted(versions), "rollout": dict(rollout) if rollout else None}


def set_policy(repository: Path, model: str, told: Mapping[str, Any]) -> None:
    """Write ``served.json`` alone: what is held already answers differently from here on."""
    _replace(policy_path(repository, model), json.dumps(told))


def policy_path(repository: Path, model: str) -> Path:
    """Where the policy is: not in the model's folder, because after any change there Triton loads every version anew."""
    return repository / f"{model}.{SERVED}"


def read_policy(repository: Path, model: str) -> dict[str, Any] | None:
    """What ``served.json`` says; null before the first promotion.

    Raises:
        StateError: It is damaged.
    """
    path = policy_path(repository, model)
    if not path.is_file():
        path = repository / model / SERVED  # where an older kfloop kept it
    if not path.is_file():
        return None
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rollout = raw.get("rollout")
        default, versions = int(raw["default"]), [int(version) for version in raw["versions"]]
        if rollout is not None and int(rollout["challenger"]) not in versions:
            raise ValueError(f"the challenger {rollout['challenger']} is not held")  # noqa: TRY301 - told below, with the file
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(
            f"'{path}' is damaged: {error!r}", hint="kfloop run or kfloop monitor writes it anew from the ledger"
        ) from error
    return raw | {"default": default, "versions": versions, "rollout": rollout}


def served(repository: Path, model: str) -> tuple[int | None, list[int]]:
    """Default version and all versions to hold; null and none before the first promotion."""
    raw = read_policy(repository, model)
    return (None, []) if raw is None else (int(raw["default"]), [int(version) for version in raw["versions"]])


def instances(repository: Path, model: str) -> int:
    """Processes that each version of a model has, as ``config.pbtxt`` says."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    text = (repository / model / CONFIG).read_text(encoding="utf-8")
    return sum(int(group.count) for group in text_format.Parse(text, schema.ModelConfig()).instance_group) or 1


def served_signature(repository: Path, model: str) -> Signature:
    """Signature of the version that answers.

    Raises:
        ServingError: No version is served.
        StateError: Its signature cannot be read.
    """
    default, _ = served(repository, model)
    if default is None:
        raise ServingError(f"model '{model}' has no served version yet", hint="promote one with: kfloop run")
    return read_signature(repository / model / str(default))


def _replace(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return  # the server loads every held version anew after a change of any file beside their folders, but of config.pbtxt
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # two may write at once; each file is whole
    staging.write_text(text, encoding="utf-8")
    staging.replace(path)
