"""What a training runs or loads from outside of kfloop: the user's own module, a folder of pretrained weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.core.artifacts import file_sha256, sha256_text

if TYPE_CHECKING:
    from kfloop.core.sections import ExternalConfig, TrainConfig


def own_digest(config: TrainConfig, root: Path) -> str:
    """Digest that changes when the training would compute something else although the loop file is the same.

    Of ``train.external``, the file of its adapter's functions. Of ``train.model``, the source of its module, or of all modules of its package; other modules that a lone module imports do not count.
    Of a local folder in ``train.finetune``, names, sizes and times of its files: weights are large. Nothing is imported.

    Args:
        config: Section ``train``.
        root: Folder of the loop file, where modules are found too.

    Returns:
        The digest; empty where everything is kfloop's own, or the module is not there (which the training says).
    """
    if config.external is not None:
        adapter = adapter_file(config.external, root)
        return file_sha256(adapter) if adapter is not None and adapter.is_file() else ""
    if config.model is not None:
        files = _module_files(config.model.split(":", maxsplit=1)[0].split(".", maxsplit=1)[0], root)
        return sha256_text("".join(f"{path.name}\0{file_sha256(path)}\n" for path in files)) if files else ""
    if config.finetune is None or not Path(config.finetune.model).is_dir():
        return ""
    folder = Path(config.finetune.model)
    facts = [(path.relative_to(folder).as_posix(), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return sha256_text("".join(f"{name}\0{fact.st_size}\0{fact.st_mtime_ns}\n" for name, fact in facts))


def adapter_file(external: ExternalConfig, root: Path) -> Path | None:
    """The file with the user's functions of ``train.external.adapter``, whether or not it is there; null where there are none.

    Args:
        external: Section ``train.external``.
        root: Folder of the loop file, which is looked at before installed modules.
    """
    adapter = external.adapter
    name = (adapter.request or adapter.response) if adapter else None
    if name is None:
        return None
    module = name.split(":", maxsplit=1)[0]
    beside = root / f"{module.replace('.', '/')}.py"
    if beside.is_file():
        return beside
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of the package that the module is said to be in
        found = None
    return Path(found.origin) if found and found.origin else beside


def _module_files(top: str, root: Path) -> list[Path]:
    """Source files of a top-level module or package; installed ones come first, as in an import."""
    if not top.isidentifier():
        return []
    found = importlib.util.find_spec(top)
    places = [Path(place) for place in (found.submodule_search_locations or ())] if found else [root / top]
    if found and not places and found.origin:
        places = [Path(found.origin)]
    elif not found and not places[0].is_dir():
        places = [root / f"{top}.py"]
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
    return sorted(files)
