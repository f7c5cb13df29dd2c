"""The runtime environment of the embedded Triton: an environment of its own, made once for each user.

The server comes out of the ``nvidia-pytriton`` wheel (the only public wheel that carries ``tritonserver``). Its python backend
was built against numpy 1: under numpy 2 it answers zeros and HTTP 200. So it gets its own virtual environment with numpy 1.26,
which shares nothing with the environment that trains.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.errors import NoEmbeddedServer, ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRITON_VERSION = "2.51.0"
LOCATION_VARIABLE = "KFLOOP_TRITON_RUNTIME"
SERVING_PACKAGES = ("numpy==1.26.4", "onnxruntime==1.31.1")
SERVER_PACKAGE = "nvidia-pytriton==0.7.0"  # with --no-deps: only the server inside is used, not the library
RECIPE = " ".join((*SERVING_PACKAGES, SERVER_PACKAGE))
MARKER = "runtime.json"
OLDEST_GLIBC = (2, 35)
PYTHONS = range(8, 14)  # minor versions of Python 3 for which the wheel has a stub
HINT = "install it with: make runtime (or: python -m kfloop.serving install-runtime)"


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """An installed runtime environment.

    Attributes:
        root: Its folder.
        site: Its site-packages.
        libdir: Folder of the shared library of the Python it is based on.
        version: Version of Triton.
    """

    root: Path
    site: Path
    libdir: Path
    version: str = TRITON_VERSION

    @property
    def executable(self) -> Path:
        """The ``tritonserver`` program."""
        return self.site / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """Folder for ``--backend-directory``."""
        return self.root / "backends"

    @property
    def caches(self) -> Path:
        """Folder for ``--cache-directory``."""
        return self.site / "pytriton" / "tritonserver" / "caches"

    def environment(self) -> dict[str, str]:
        """Environment of the server: nothing of the caller's Python may leak into its stubs."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "LC_ALL", "TZ", "TMPDIR") if name in os.environ}
        return kept | {
            "PATH": os.pathsep.join((str(self.root / "bin"), os.environ.get("PATH", os.defpath))),
            "LD_LIBRARY_PATH": os.pathsep.join((str(self.site / "nvidia_pytriton.libs"), str(self.libdir))),
            "PYTHONDONTWRITEBYTECODE": "1",  # a __pycache__ in a version folder would make the next load a real reload
        }


def default_root() -> Path:
    """Where the runtime environment belongs: ``$KFLOOP_TRITON_RUNTIME``, or the user's cache."""
    if location := os.environ.get(LOCATION_VARIABLE):
        return Path(location).expanduser().absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "kfloop" / f"triton-2.51-py3.{sys.version_info.minor}"


def locate() -> Runtime:
    """The installed runtime environment.

    Raises:
        NoEmbeddedServer: This machine cannot run it, or it is not installed.
    """
    require_platform()
    root = default_root()
    runtime = _installed(root)
    if runtime is None:
        raise NoEmbeddedServer(f"the Triton runtime is not installed: '{root}' holds no finished one", hint=HINT)
    return runtime


def require_platform() -> None:
    """Refuse machines for which the wheel has no server.

    Raises:
        NoEmbeddedServer: Not x86-64 Linux with glibc 2.35 or newer, or a Python without a stub.
    """
    away = "give the URL of a Triton that runs elsewhere, or work on x86-64 Linux; run, check and train work here"
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "AMD64"}:
        here = f"{platform.system()} on {platform.machine()}"
        raise NoEmbeddedServer(f"the embedded Triton needs Linux on x86-64, and this is {here}", hint=away)
    library, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if library != "glibc" or numbers < OLDEST_GLIBC:
        wanted = ".".join(map(str, OLDEST_GLIBC))
        raise NoEmbeddedServer(
            f"the embedded Triton needs glibc {wanted} or newer, found {library} {version}", hint=away
        )
    if sys.version_info.major != 3 or sys.version_info.minor not in PYTHONS:
        raise NoEmbeddedServer(f"the embedded Triton has no stub for Python {platform.python_version()}", hint=away)


def install(say: Callable[[str], None] = lambda _: None) -> Runtime:
    """Make the runtime environment, or find it made.

    A marker is written last, so an interrupted installation is not taken for a finished one; it is started anew.

    Args:
        say: Told what is happening, one sentence each.

    Raises:
        NoEmbeddedServer: This machine cannot run it.
        ServingError: A package cannot be installed, or the result does not work.
    """
    require_platform()
    root = default_root()
    root.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(root.with_name(f"{root.name}.lock")):
        if found := _installed(root):
            say(f"the Triton runtime is there: {root}")
            return found
        if root.exists():
            _discard(root)
        say(f"making the Triton runtime in {root} (downloads about 80 MB)")
        _run([sys.executable, "-m", "venv", str(root)], "make a virtual environment")
        pip = [
            str(root / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ]
        _run([*pip, *SERVING_PACKAGES], f"install {' '.join(SERVING_PACKAGES)}")
        _run([*pip, "--no-deps", SERVER_PACKAGE], f"install {SERVER_PACKAGE}")
        facts = _facts(root)
        _assemble_backends(root, Path(facts["site"]))
        runtime = Runtime(root=root, site=Path(facts["site"]), libdir=Path(facts["libdir"]))
        _prove(runtime)
        (root / f"{MARKER}.tmp").write_text(json.dumps(facts | {"recipe": RECIPE}, indent=1), encoding="utf-8")
        (root / f"{MARKER}.tmp").rename(root / MARKER)
        say("the Triton runtime is ready")
        return runtime


def _installed(root: Path) -> Runtime | None:
    try:
        facts = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if facts.get("recipe") != RECIPE:
        return None
    runtime = Runtime(root=root, site=Path(facts["site"]), libdir=Path(facts["libdir"]))
    return runtime if runtime.executable.is_file() and runtime.libdir.is_dir() else None


def _discard(root: Path) -> None:
    """Remove an unfinished or outdated runtime; refuse to remove anything else."""
    if not (root / "pyvenv.cfg").is_file() and any(root.iterdir()):
        raise ServingError(
            f"'{root}' holds something that is no Triton runtime",
            hint=f"move it away, or set {LOCATION_VARIABLE} elsewhere",
        )
    shutil.rmtree(root)


def _facts(root: Path) -> dict[str, str]:
    """Where the environment keeps its packages, and its base Python its shared library."""
    code = (
        "import json, sys, sysconfig as s; v = s.get_config_var; print(json.dumps([s.get_path('purelib'), sys.base_prefix,"
        " v('LIBDIR') or '', v('MULTIARCH') or '', '%d.%d' % sys.version_info[:2]]))"
    )
    answer = _run([str(root / "bin" / "python"), "-c", code], "ask the new environment for its folders")
    site, base, libdir, multiarch, version = json.loads(answer)
    library = f"libpython{version}.so.1.0"
    places = [Path(libdir), Path(libdir) / multiarch, Path(base) / "lib"]
    for place in places:
        if (place / library).is_file():
            return {"site": site, "libdir": str(place), "python": version}
    raise NoEmbeddedServer(
        f"the Python in '{base}' has no shared library: {library} is in none of {', '.join(map(str, places))}",
        hint="use a Python built with --enable-shared (Debian: apt-get install libpython3-dev; pyenv: PYTHON_CONFIGURE_OPTS)",
    )


def _assemble_backends(root: Path, site: Path) -> None:
    """The python backend with the stub for this Python; the wheel keeps the two apart."""
    server = site / "pytriton" / "tritonserver"
    target = root / "backends" / "python"
    target.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy2(server / "backends" / "python" / name, target)
    stub = server / "python_backend_stubs" / f"3.{sys.version_info.minor}" / "triton_python_backend_stub"
    shutil.copy2(stub, target)
    (target / stub.name).chmod(0o755)
    (server / "bin" / "tritonserver").chmod(0o755)


def _prove(runtime: Runtime) -> None:
    """Run what was installed: the right numpy, and a server that starts."""
    code = "import numpy, onnxruntime; assert numpy.__version__ < '2', numpy.__version__"
    _run([str(runtime.root / "bin" / "python"), "-c", code], "import numpy and onnxruntime", runtime.environment())
    # It has no --version, and its --help ends with status 1: that it loads its libraries is what can be asked for here.
    linked = _run(["ldd", str(runtime.executable)], "look at tritonserver's libraries", runtime.environment())
    missing = [line.strip() for line in linked.splitlines() if "not found" in line]
    if missing:
        raise NoEmbeddedServer(f"tritonserver lacks libraries: {'; '.join(missing)}", hint="install them and repeat")


def _run(command: list[str], purpose: str, environment: dict[str, str] | None = None) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode != 0:
        tail = "\n".join((result.stderr or result.stdout).strip().splitlines()[-8:])
        raise ServingError(
            f"could not {purpose}: '{' '.join(command[:4])} ...' ended with {result.returncode}:\n{tail}",
            hint="the packages come from the index that pip is configured for; see that it can be reached, then repeat",
        )
    return result.stdout


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for another installation to end."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
