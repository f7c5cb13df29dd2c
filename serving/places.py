"""Where a model repository lies that another server reads: a folder, or anything fsspec writes to, such as S3.

A file appears there whole: on a disk by rename, in an object store by the one request that puts it. There is no rename of folders, so what must be whole
together is told by the file that is written last.
"""

from __future__ import annotations

import contextlib
import posixpath
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import ConfigError, KfloopError, ServingError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTRAS = {"s3": 'pip install "kfloop[s3]"', "gs": "pip install gcsfs", "abfs": "pip install adlfs"}


class Place:
    """A folder, by path or fsspec URL; credentials come from the environment, as the file system wants them.

    Args:
        url: The folder.

    Raises:
        ConfigError: Nothing here can write to such a URL.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        self.url = url.rstrip("/")
        try:
            # Not one that was opened before: the credentials may be others by now.
            self._fs, self._root = url_to_fs(self.url, skip_instance_cache=True)
        except (ImportError, ValueError) as error:
            kind = url.partition(":")[0]
            raise ConfigError(
                f"nothing here writes to '{url}': {error}", hint=EXTRAS.get(kind, "give a path or an fsspec URL")
            ) from error
        self._on_disk = "file" in ([self._fs.protocol] if isinstance(self._fs.protocol, str) else self._fs.protocol)

    def names(self) -> list[str]:
        """What lies in it; nothing where it is not there yet."""
        with self._told("listed"):
            self._fs.invalidate_cache()
            if not self._fs.isdir(self._root):
                return []
            return sorted({posixpath.basename(str(path).rstrip("/")) for path in self._fs.ls(self._root, detail=False)})

    def read(self, name: str) -> str | None:
        """Text of a file in it; null where there is none."""
        with self._told("read"):
            try:
                return str(self._fs.cat_file(self._at(name)).decode("utf-8"))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Put a file there, whole or not at all."""
        with self._told("written"):
            path = self._at(name)
            if not self._on_disk:
                self._fs.pipe_file(path, content)
                return
            place = Path(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            staging = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.tmp")
            staging.write_bytes(content)
            staging.replace(place)

    def put(self, folder: Path, last: str) -> None:
        """Put the files of a local folder there, ``last`` (a path in it) after all others."""
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        for name in [*(name for name in files if name != last), last]:
            self.write(name, (folder / name).read_bytes())

    def remove(self, name: str) -> None:
        """Remove a file or a folder; nothing happens where there is none."""
        with self._told("removed"), contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._at(name), recursive=True)

    def _at(self, name: str) -> str:
        return posixpath.join(self._root, name)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Every file system has errors of its own; here they are one."""
        try:
            yield
        except KfloopError:
            raise
        except Exception as error:
            reason: Any = str(error) or repr(error)
            raise ServingError(
                f"the model repository '{self.url}' cannot be {what}: {reason}",
                hint="see deploy.target.repository; credentials of S3 come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL)",
                repository=self.url,
            ) from error
