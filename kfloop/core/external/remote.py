"""The model behind the endpoint, as one object that turns rows into answers."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import ADAPTER, DESCRIPTION, kserve
from .answers import BadAnswer, at_path, judged, parsed
from .calling import Caller
from .rows import BadRows, values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROWS, ROW = "$rows", "$row"  # in adapter.body: what is put in their place
PACKED = ("text", "table")  # modalities whose rows travel as JSON
FORMAT = 1


class Remote:
    """A model that somebody else serves.

    Args:
        folder: Where ``external.json`` is, and ``adapter.py`` when the user has functions of their own.

    Raises:
        ValueError: The description is of another format.
        OSError: It is missing.
    """

    def __init__(self, folder: Path | str) -> None:
        self.told: dict[str, Any] = json.loads((Path(folder) / DESCRIPTION).read_text(encoding="utf-8"))
        if self.told.get("format") != FORMAT:
            message = f"{DESCRIPTION} has format {self.told.get('format')!r}, expected {FORMAT}"
            raise ValueError(message)
        self.caller = Caller(self.told)
        self.rows = 0
        adapter = self.told.get("adapter") or {}
        self._own = load_adapter(Path(folder) / ADAPTER) if adapter.get("request") or adapter.get("response") else None
        kserves = self.told["protocol"] == "kserve"
        self.url = f"{kserve.address(self.told)}/infer" if kserves else self.told["url"]

    def run(self, names: Sequence[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The named outputs for one tensor of rows; the signature of onnxruntime's ``run``.

        Raises:
            CallFailed: No answer.
            BadAnswer: One that cannot be scored.
            BadRows: Rows that cannot be sent.
        """
        (rows,) = feed.values()
        step = self.told["batch"]
        parts = [self._ask(rows[at : at + step]) for at in range(0, len(rows), step)]
        return [np.concatenate([part[name] for part in parts]) for name in names]

    def _ask(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """One call."""
        if self.told["protocol"] == "kserve":
            body, headers = kserve.request(self.told, rows)
            content, answered = self.caller.call(self.url, body, headers)
            tensors = kserve.outputs(self.told, content, answered, self.url)
            found, embedding = tensors[self.told["answer"]], tensors.get(self.told.get("embedding") or "")
        else:
            body = json.dumps(self._body(rows), allow_nan=False).encode()
            content, _ = self.caller.call(self.url, body, {"Content-Type": "application/json"})
            found, embedding = self._read(parsed(content, self.url)), None
        answers = judged(found, self.told, len(rows), self.url)
        self.rows += len(rows)
        return {self.told["output"]: answers, "embedding": _embedding(answers, embedding, self.url)}

    def _body(self, rows: NDArray[Any]) -> Any:
        listed = values(rows, packed_rows=self.told["modality"] in PACKED)
        name = self.told["adapter"].get("request")
        if name:
            return _own(self._own, name, listed)
        return filled(self.told["adapter"]["body"], listed)

    def _read(self, answer: Any) -> Any:
        adapter = self.told["adapter"]
        if adapter.get("response"):
            return _own(self._own, adapter["response"], answer)
        return at_path(answer, adapter["answer"], self.url)


def filled(template: Any, rows: list[Any]) -> Any:
    """A body: the template with the rows in place of ``$rows``, or the only one in place of ``$row``."""
    if template == ROWS:
        return rows
    if template == ROW:
        return rows[0]
    if isinstance(template, dict):
        return {key: filled(item, rows) for key, item in template.items()}
    if isinstance(template, list):
        return [filled(item, rows) for item in template]
    return template


def load_adapter(path: Path) -> Any:
    """The user's own functions, from the file in the package.

    Raises:
        BadRows: The file cannot be imported.
    """
    # Not by an import, which would write bytecode beside the file: a package or a served version is what its digests say, and nothing more.
    module = types.ModuleType("kfloop_adapter")
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102 - the user's own code, as an import would run it
    except Exception as error:
        raise BadRows(f"the adapter '{path.name}' cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _own(module: Any, name: str, argument: Any) -> Any:
    """What a function of the user makes of rows or of an answer."""
    try:
        return getattr(module, name)(argument)
    except Exception as error:
        raise BadAnswer(f"the adapter's function {name} fails: {type(error).__name__}: {error}") from error


def _embedding(answers: NDArray[Any], told: NDArray[Any] | None, where: str) -> NDArray[np.float32]:
    """The endpoint's embedding float32 [N, D]; its answer stands for it where it gives none."""
    if told is None:
        return answers.reshape(len(answers), -1)
    if told.dtype == object or told.ndim == 0 or len(told) != len(answers) or not np.isfinite(told).all():
        raise BadAnswer(f"{where} answers with an embedding of shape {list(told.shape)} for {len(answers)} rows")
    return told.reshape(len(told), -1).astype(np.float32)
