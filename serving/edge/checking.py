"""Checks one inference request and writes it anew: what goes on to Triton are our own bytes, never the caller's JSON.

The JSON of a caller is read by one parser only, this one: two parsers that understand a request differently would be a way around
the checks, and Triton 2.51's own ends the server on some (a shape of 10^9 rows). Every input goes on as binary data of the size that
its shape and type say.
"""

from __future__ import annotations

import json
import math
import struct
import uuid
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.serving.edge.contract import NUMPY

if TYPE_CHECKING:
    from kfloop.serving.edge.contract import Contract, Tensor

LENGTH_HEADER = "Inference-Header-Content-Length"
OWN_IDS = "kfloop-"  # golden requests and the like, which are neither logged nor split
LONGEST_WORD = 256  # characters of an id or a key
LONGEST_TEXT = 65_536  # bytes of one text
REQUEST_KEYS = frozenset({"id", "parameters", "inputs", "outputs"})
PARAMETERS = {"key": str, "binary_data_output": bool}
INPUT_KEYS = frozenset({"name", "datatype", "shape", "data", "parameters"})
OUTPUT_KEYS = frozenset({"name", "parameters"})
MOST_AXES = 8
JSON_TYPES: dict[str, set[type]] = {"BOOL": {bool}, "BYTES": {str}, "FP32": {int, float}, "FP64": {int, float}}


class Refused(Exception):
    """The request is refused; its words are for the caller.

    Args:
        message: What is wrong and what was expected.
        status: Status of the answer.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.status = message, status


def check(body: bytes, header_length: str | None, contract: Contract) -> tuple[bytes, int]:
    """Check a request.

    Args:
        body: The request's body.
        header_length: Value of the header that says how many of its bytes are JSON; null: all are.
        contract: What the model takes.

    Returns:
        The body to send on, and how many of its bytes are JSON.

    Raises:
        Refused: Something is wrong with it.
    """
    text, binary = _split(body, header_length)
    try:
        return _checked(_parsed(text), binary, contract)
    except RecursionError:
        raise Refused("the request's JSON is nested too deeply") from None


def _checked(parsed: Any, binary: memoryview, contract: Contract) -> tuple[bytes, int]:
    request = _members(parsed, REQUEST_KEYS, "the request")
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise Refused(f"'inputs' must be a list of tensors: {_wanted(contract)}")
    arrays, left = {}, binary
    for item in inputs:
        name, array, left = _input(item, left, contract)
        if name in arrays:
            raise Refused(f"input '{name}' is given twice")
        arrays[name] = array
    if left:
        raise Refused(f"{len(left)} bytes follow the last binary input; the sizes do not add up")
    _check_whole(arrays, contract)
    head: dict[str, Any] = {"id": _identity(request.get("id")), "inputs": []}
    parameters = _parameters(request.get("parameters", {}))
    if parameters:
        head["parameters"] = parameters
    if "outputs" in request:
        head["outputs"] = _outputs(request["outputs"], contract)
    parts = []
    for name, array in arrays.items():
        data = _packed(array)
        parts.append(data)
        told = {"name": name, "datatype": contract.inputs[name].datatype, "shape": list(array.shape)}
        head["inputs"].append(told | {"parameters": {"binary_data_size": len(data)}})
    written = json.dumps(head).encode()
    return written + b"".join(parts), len(written)


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    digits = header_length.isascii() and header_length.isdigit() and len(header_length) < 20  # noqa: PLR2004 - 64 bits
    if not digits or not 0 < int(header_length) <= len(body):
        raise Refused(f"{LENGTH_HEADER} is '{header_length[:40]}', expected a number from 1 to {len(body)}")
    length = int(header_length)
    return body[:length], memoryview(body)[length:]


def _parsed(text: bytes) -> Any:
    """JSON without doubled keys: another parser would take the other one."""

    def single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Refused("a key stands twice in one object of the request")
        return found

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=single)
    except UnicodeDecodeError:
        raise Refused("the request's JSON is not UTF-8") from None
    except ValueError as error:
        raise Refused(f"the request is not JSON: {error}") from None


def _members(value: Any, known: frozenset[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"{where} must be a JSON object with {', '.join(sorted(known))}")
    unknown = next((key for key in value if key not in known), None)
    if unknown is not None:
        raise Refused(f"{where} has '{unknown[:40]}', expected only {', '.join(sorted(known))}")
    return value


def _input(item: Any, binary: memoryview, contract: Contract) -> tuple[str, np.ndarray, memoryview]:
    """Name and array of one input, and the binary data behind it."""
    told = _members(item, INPUT_KEYS, "an input")
    name = told.get("name")
    if not isinstance(name, str) or name not in contract.inputs:
        raise Refused(f"the model has no input {_quoted(name)}: {_wanted(contract)}")
    tensor = contract.inputs[name]
    if told.get("datatype") != tensor.datatype:
        raise Refused(f"input '{name}' is {_quoted(told.get('datatype'))}, expected {contract.expected(name)}")
    shape = _shape(told.get("shape"), tensor, contract)
    parameters = _members(
        told.get("parameters", {}), frozenset({"binary_data_size"}), f"'parameters' of input '{name}'"
    )
    size = parameters.get("binary_data_size")
    if size is None:
        return name, _from_json(told.get("data"), shape, tensor, contract), binary
    if "data" in told:
        raise Refused(f"input '{name}' has data and binary_data_size: give one of them")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(binary):
        raise Refused(f"binary_data_size of input '{name}' is {_quoted(size)}, but {len(binary)} bytes are left")
    return name, _from_binary(bytes(binary[:size]), shape, tensor), binary[size:]


def _shape(shape: Any, tensor: Tensor, contract: Contract) -> tuple[int, ...]:
    """The shape, when it is one that the model takes."""
    whole = isinstance(shape, list) and len(shape) <= MOST_AXES
    if not whole or not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
        raise Refused(
            f"the shape of input '{tensor.name}' is {_quoted(shape)}, expected {contract.expected(tensor.name)}"
        )
    axes = shape[1:] if contract.limit else shape
    fits = len(shape) == len(tensor.shape) + bool(contract.limit) and all(
        want in (-1, size) for want, size in zip(tensor.shape, axes, strict=True)
    )
    if not fits:
        raise Refused(
            f"the shape of input '{tensor.name}' is {_quoted(shape)}, expected {contract.expected(tensor.name)}"
        )
    if contract.limit and not 1 <= shape[0] <= contract.limit:
        raise Refused(f"input '{tensor.name}' has {shape[0]} rows, expected 1 to {contract.limit}")
    return tuple(shape)


def _from_json(data: Any, shape: tuple[int, ...], tensor: Tensor, contract: Contract) -> np.ndarray:
    """The array of nested or flat lists."""
    if not isinstance(data, list):
        raise Refused(f"input '{tensor.name}' has no data: expected a list of values, or binary_data_size")
    flat = data
    if flat and isinstance(flat[0], list):
        for place, size in enumerate(shape):
            parts = [data] if place == 0 else flat
            if not all(isinstance(part, list) and len(part) == size for part in parts):
                raise Refused(f"the data of input '{tensor.name}' do not have its shape {list(shape)}")
            flat = data if place == 0 else list(chain.from_iterable(flat))
    count = math.prod(shape)
    if len(flat) != count:
        raise Refused(f"input '{tensor.name}' has {len(flat)} values, but its shape {list(shape)} holds {count}")
    kinds = set(map(type, flat))
    allowed = JSON_TYPES.get(tensor.datatype, {int})
    if not kinds <= allowed:
        wrong = min(kind.__name__ for kind in kinds - allowed)
        raise Refused(f"the data of input '{tensor.name}' hold a {wrong}, expected {contract.expected(tensor.name)}")
    if tensor.datatype == "BYTES":
        try:
            texts = [value.encode() for value in flat]
        except UnicodeEncodeError:
            raise Refused(f"a text of input '{tensor.name}' is no valid Unicode") from None
        _not_too_long(texts, tensor.name)
        return np.array(texts, dtype=object).reshape(shape)
    try:
        with np.errstate(over="ignore"):  # becomes infinite, which is refused below
            return np.array(flat, dtype=NUMPY[tensor.datatype]).reshape(shape)
    except (OverflowError, ValueError):
        raise Refused(f"a value of input '{tensor.name}' does not fit into {tensor.datatype}") from None


def _from_binary(data: bytes, shape: tuple[int, ...], tensor: Tensor) -> np.ndarray:
    """The array of bytes, which must be as many as shape and type say."""
    count = math.prod(shape)
    if tensor.datatype == "BYTES":
        return _texts(data, count, tensor.name).reshape(shape)
    dtype = np.dtype(NUMPY[tensor.datatype])
    if len(data) != count * dtype.itemsize:
        raise Refused(
            f"input '{tensor.name}' has {len(data)} bytes, but {tensor.datatype} {list(shape)} takes {count * dtype.itemsize}"
        )
    if tensor.datatype == "BOOL" and data.strip(b"\0\1"):
        raise Refused(f"a value of input '{tensor.name}' is no BOOL: expected bytes 0 and 1")
    return np.frombuffer(data, dtype).reshape(shape)


def _texts(data: bytes, count: int, name: str) -> np.ndarray:
    """Texts with their length, 4 bytes of little endian, in front of each."""
    found: list[bytes] = []
    at = 0
    while at < len(data) and len(found) <= count:
        end = at + 4 + (struct.unpack_from("<I", data, at)[0] if at + 4 <= len(data) else len(data))
        if end > len(data):
            raise Refused(f"a text of input '{name}' ends after the data do")
        try:
            data[at + 4 : end].decode()
        except UnicodeDecodeError:
            raise Refused(f"a text of input '{name}' is not UTF-8") from None
        found.append(data[at + 4 : end])
        at = end
    if len(found) != count:
        raise Refused(f"input '{name}' has {len(found)} texts, but its shape holds {count}")
    _not_too_long(found, name)
    return np.array(found, dtype=object)


def _not_too_long(texts: list[bytes], name: str) -> None:
    """Everybody waits while one process takes a text apart."""
    longest = max(map(len, texts), default=0)
    if longest > LONGEST_TEXT:
        raise Refused(f"a text of input '{name}' has {longest} bytes, at most {LONGEST_TEXT} are taken", 413)


def _packed(array: np.ndarray) -> bytes:
    if array.dtype == object:
        return b"".join(struct.pack("<I", len(value)) + value for value in array.ravel())
    return array.tobytes()


def _check_whole(arrays: dict[str, np.ndarray], contract: Contract) -> None:
    """What concerns all inputs: that they are complete, of one length, and numbers."""
    if frozenset(arrays) not in contract.forms:
        raise Refused(f"inputs {', '.join(sorted(arrays))} are no complete request: {_wanted(contract)}")
    if contract.limit and len({len(array) for array in arrays.values()}) > 1:
        counts = {name: len(array) for name, array in arrays.items()}
        raise Refused(f"the inputs have different numbers of rows: {counts}")
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        wrong = np.isinf(array) if contract.gaps else ~np.isfinite(array)
        if wrong.any():
            word = "infinite numbers" if contract.gaps else "NaN or infinite numbers"
            raise Refused(f"input '{name}' holds {word} ({int(wrong.sum())}), expected finite ones")


def _identity(given: Any) -> str:
    """The request's id; a fresh one when it has none."""
    if given is None or given == "":
        return uuid.uuid4().hex
    if not isinstance(given, str) or len(given) > LONGEST_WORD or not given.isprintable():
        raise Refused(f"'id' is {_quoted(given)}, expected at most {LONGEST_WORD} printable characters")
    if given.startswith(OWN_IDS):
        raise Refused(f"'id' begins with '{OWN_IDS}', which the server keeps for itself")
    return given


def _parameters(given: Any) -> dict[str, Any]:
    told = _members(given, frozenset(PARAMETERS), "'parameters' of the request")
    for name, value in told.items():
        if not isinstance(value, PARAMETERS[name]) or (
            isinstance(value, str) and (len(value) > LONGEST_WORD or not value.isprintable())
        ):
            raise Refused(f"parameter '{name}' is {_quoted(value)}, expected {PARAMETERS[name].__name__}")
    return told


def _outputs(given: Any, contract: Contract) -> list[dict[str, Any]]:
    """The wanted outputs; none given means all."""
    if not isinstance(given, list):
        raise Refused("'outputs' must be a list")
    found: list[dict[str, Any]] = []
    for item in given:
        told = _members(item, OUTPUT_KEYS, "an output")
        name = told.get("name")
        if not isinstance(name, str) or name not in contract.outputs:
            raise Refused(f"the model has no output {_quoted(name)}: expected {', '.join(sorted(contract.outputs))}")
        if name in {output["name"] for output in found}:
            raise Refused(f"output '{name}' is asked for twice")
        parameters = _members(
            told.get("parameters", {}), frozenset({"binary_data"}), f"'parameters' of output '{name}'"
        )
        if not isinstance(parameters.get("binary_data", False), bool):
            raise Refused(f"binary_data of output '{name}' must be true or false")
        found.append({"name": name} | ({"parameters": parameters} if parameters else {}))
    return found


def _wanted(contract: Contract) -> str:
    forms = [
        ", ".join(f"{name} {contract.expected(name)}" for name in contract.inputs if name in form)
        for form in contract.forms
    ]
    return "expected " + "; or ".join(forms)


def _quoted(value: Any) -> str:
    """A value of a caller for a message, not longer than a line."""
    text = repr(value) if isinstance(value, str | int | float | bool | None) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - a line
