"""Each shell for real, in this process, as far as that is cheap: imported, bound to its core, and run by KFP's executor.

A shell of kfloop's kind (``workspace`` and ``config_json``) is given a section with a key that cannot be: it must refuse it by name. That
passes through KFP's serialisation, the shell's own imports and the config model, and stops before the core does any work. Other
components are imported only: what they would do with made-up inputs is theirs to say, in a test with ``kfloop.testing.Harness``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import ConfigError
from kfloop.pipelines.checks.importing import spec_of
from kfloop.pipelines.checks.rules import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.pipelines.checks.rooms import Room
    from kfloop.pipelines.checks.shells import Shell

IMPOSSIBLE_KEY = "key_that_kfloop_check_made_up"
PLUMBING = frozenset({"workspace", "config_json"})


def is_own(folder: Path) -> bool:
    """Whether a folder of components is kfloop's, so that it is imported by that name."""
    import kfloop

    return folder.resolve() == (Path(kfloop.__file__).parent / "components").resolve()


def probe_rooms(folder: Path, rooms: list[Room]) -> Iterator[Finding]:
    """Import and try the shells of every room.

    Args:
        folder: ``components/``.
        rooms: What stands in it.
    """
    names: set[str] = set()
    for room in rooms:
        if not room.shells:
            continue  # said by check_rooms
        try:
            module = _module(folder, room.folder)
        except Exception as error:  # noqa: BLE001 - importing runs somebody's code, which may raise anything
            message = f"component '{room.folder.name}' cannot be imported: {_told(error)}"
            yield Finding(room.folder / "component.py", 1, "shell-unreadable", message)
            continue
        for shell in room.shells:
            names.add(shell.name)
            yield from _probe(shell, getattr(module, shell.name))
    if is_own(folder):
        yield from _registered(folder, names)


def _registered(folder: Path, names: set[str]) -> Iterator[Finding]:
    """Kfloop's own steps: those with a section of the loop file, and those on disk."""
    from kfloop.components.monitor.standing import STEP
    from kfloop.core.config import STEP_SECTIONS

    for name in sorted(names - set(STEP_SECTIONS) - {STEP}):
        yield Finding(folder, 1, "room-unlisted", f"component '{name}' has no section in STEP_SECTIONS")
    for name in sorted(set(STEP_SECTIONS) - names):
        yield Finding(folder, 1, "room-unlisted", f"STEP_SECTIONS has '{name}', which no component.py on disk defines")


def _module(folder: Path, room: Path) -> Any:
    if is_own(folder):
        return importlib.import_module(f"kfloop.components.{room.name}.component")
    root = str(folder.resolve().parent)
    if root not in sys.path:
        sys.path.append(root)  # as the image has it; last, so that it hides nothing
    spec = spec_of(f"{folder.name}.{room.name}.component", room / "component.py")
    if spec is None or spec.loader is None:
        raise ImportError(room)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _probe(shell: Shell, component: Any) -> Iterator[Finding]:
    problem = _unbound(shell)
    if not problem and shell.inputs >= PLUMBING:
        problem = _accepts_nonsense(component)
    if problem:
        yield Finding(shell.file, shell.line, "harness-fails", f"'{shell.name}': {problem}")


def _unbound(shell: Shell) -> str:
    """Why the core cannot take what the shell hands to ``execute``; empty when it can, or when the shell does not use it."""
    if shell.core is None:
        return ""
    module, _, name = shell.core.rpartition(".")
    try:
        core = getattr(importlib.import_module(module), name)
        signature = inspect.signature(core)
        signature.bind(object(), out=Path(), workspace=object(), **dict.fromkeys(shell.handed, Path()))
    except Exception as error:  # noqa: BLE001 - as above
        return f"its core {shell.core} does not take what the shell hands it: {_told(error)}"
    return ""


def _accepts_nonsense(component: Any) -> str:
    from kfloop.core.workspace import Workspace
    from kfloop.testing import Harness

    with tempfile.TemporaryDirectory(prefix="kfloop-check-") as temporary:
        root = Path(temporary)
        url = f"sqlite:///{root}/state.db"
        workspace = Workspace(loop="check", root=root, state=url, store=str(root / "store"), mlflow=url)
        spec = component.component_spec
        arguments: dict[str, Any] = {"config_json": f'{{"{IMPOSSIBLE_KEY}": 1}}'}
        for name, item in (spec.inputs or {}).items():
            if "@" in item.type:
                arguments[name] = root / "inputs" / name
                arguments[name].mkdir(parents=True)
            elif name not in PLUMBING:
                arguments[name] = {"state": "SUCCEEDED"} if item.type.endswith("TaskFinalStatus") else "{}"
        try:
            Harness(root / "executor", workspace).run(component, **arguments)
        except ConfigError as error:
            return "" if IMPOSSIBLE_KEY in error.message else f"refused something else than the key: {error.message}"
        except Exception as error:  # noqa: BLE001 - as above
            return f"ended with {_told(error)} instead of naming the key"
    return "took a section with a key that does not exist"


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
