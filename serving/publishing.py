"""A version in the repository of a server that is not kfloop's own: written once, never changed, and there only when it is whole.

A version is a set of models (see ``production.py``). The ``config.pbtxt`` of the one that clients ask is written last and names the package, so a set
without it is a leftover, and one with it is complete.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import StateError
from kfloop.serving.production import write_production
from kfloop.serving.repository import CONFIG

if TYPE_CHECKING:
    from kfloop.serving.places import Place
    from kfloop.serving.production_configs import Production

PACKAGE = "kfloop_package"  # parameter of a config.pbtxt: digest of the package
STEPS = ("", "_pre", "_model", "_post")


def put_version(place: Place, package: Path, digest: str, name: str, options: Production) -> bool:
    """Write a version's set of models; one that is there already is left alone.

    Args:
        place: The repository.
        package: The version's package.
        digest: Digest of that package.
        name: Name of the model that clients ask.
        options: What the set is made for.

    Returns:
        Whether it was written now.

    Raises:
        StateError: Another model of that name is there; a version is never overwritten.
        ServingError: The repository cannot be written, or the package has no graph.
    """
    found = place.read(f"{name}/{CONFIG}")
    if found is not None:
        if packaged(found) == digest:
            return False
        raise StateError(
            f"'{place.url}' holds another model called '{name}': {_whose(found)}",
            hint="a version is never overwritten: remove that model, or give this loop a repository of its own",
        )
    with tempfile.TemporaryDirectory(prefix="kfloop-version-") as folder:
        out = Path(folder) / "set"
        texts = write_production(package, out, name, options)
        (out / "README.md").unlink()  # it tells people how to run a repository; this server runs already
        (out / name / CONFIG).write_text(stamped(texts[name], digest), encoding="utf-8")
        place.put(out, last=f"{name}/{CONFIG}")
    return True


def stamped(text: str, digest: str) -> str:
    """A configuration that names the package it was made of."""
    config = _parsed(text)
    config.parameters[PACKAGE].string_value = digest
    return _printed(config)


def packaged(text: str) -> str:
    """Digest of the package that a configuration was made of; empty where kfloop did not write it."""
    config = _parsed(text)
    return str(config.parameters[PACKAGE].string_value) if PACKAGE in config.parameters else ""


def pointing(text: str, name: str, version: int) -> str:
    """The configuration of a model called ``name`` that passes every request on to the one of ``text``.

    Its only version is ``version``, so that each answer tells which one it came from.
    """
    config = _parsed(text)
    target, config.name = config.name, name
    del config.ensemble_scheduling.step[:]
    step = config.ensemble_scheduling.step.add(model_name=target, model_version=-1)
    step.input_map.update({port.name: port.name for port in config.input})
    step.output_map.update({port.name: port.name for port in config.output})
    config.version_policy.specific.versions.append(version)
    return _printed(config)


def points_to(text: str) -> tuple[str, str] | None:
    """Name of the set, and version, that the configuration of a loop's name passes requests on to; null where it is no such configuration."""
    config = _parsed(text)
    steps, versions = config.ensemble_scheduling.step, config.version_policy.specific.versions
    if PACKAGE not in config.parameters or len(steps) != 1 or len(versions) != 1:
        return None
    return steps[0].model_name, str(versions[0])


def set_name(model: str, version: int) -> str:
    """Name of a version's set. No loop has a dot in its name, so the sets of two loops in one repository are never called alike."""
    return f"{model}.v{version}"


def sets_in(place: Place, model: str) -> dict[int, list[str]]:
    """The models of every set of a loop that lie in a repository, also of those that are not whole, by version."""
    pattern = re.compile(rf"{re.escape(model)}\.v([0-9]+)({'|'.join(STEPS[1:])})?")
    found: dict[int, list[str]] = {}
    for name in place.names():
        match = pattern.fullmatch(name)
        if match:
            found.setdefault(int(match[1]), []).append(name)
    return found


def remove_set(place: Place, names: list[str]) -> None:
    """Remove a set: the configuration that makes it whole first."""
    first = min(names, key=len)
    place.remove(f"{first}/{CONFIG}")
    for name in names:
        place.remove(name)


def _whose(text: str) -> str:
    return f"made of package {packaged(text)[:12]}" if packaged(text) else "kfloop did not write it"


def _parsed(text: str) -> Any:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as schema

    try:
        return text_format.Parse(text, schema.ModelConfig())
    except text_format.ParseError:
        return schema.ModelConfig()  # of a model that is not ours


def _printed(config: Any) -> str:
    from google.protobuf import text_format

    return str(text_format.MessageToString(config))
