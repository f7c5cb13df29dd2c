"""What of a request goes into the log: inputs as they came, without what is private, or none of them.

A column of a table is no column any more when it comes here: the encoder turned it into slots of a tensor (one number; for a time also
its place on circles; one code for a category). A column that is dropped or hashed is written as missing in every slot of its own: NaN,
or code 0. A hash is a column of its own in the log, ``hash.COLUMN``: a keyed digest of the value as the model got it, which tells
equal values apart from different ones and nothing more.
"""

import hashlib
import json
import os

import numpy as np

ENCODER = "encoder.json"
DIGEST_BYTES = 16
EMBEDDING = "embedding"
WHOLE = None  # all slots: the tensor itself is left out


class Mask:
    """The rules of one version.

    Args:
        folder: The version's folder, which holds its encoder.
        inputs: Names of its input tensors.
        outputs: Names of its outputs.
        settings: ``inputs``, ``hash``, ``drop``, and ``secret`` in hex; see section ``serve.log`` of the loop file.
    """

    def __init__(self, folder, inputs, outputs, settings):
        self._inputs, self._outputs = inputs, outputs
        self._full = settings.get("inputs", "full") == "full"
        self._embedding = settings.get("inputs", "full") != "none"
        self._secret = bytes.fromhex(settings.get("secret", ""))
        hashed, dropped = settings.get("hash", ()), settings.get("drop", ())
        encoder = _encoder(folder) if hashed or dropped else {}
        self._rows = (
            encoder.get("modality") == "rows"
        )  # the JSON of a row in bytes, for a model that somebody else serves
        places = slots(encoder, inputs)
        self.unknown = [name for name in (*hashed, *dropped) if name not in places]
        self._private = {name: places[name] for name in (*hashed, *dropped) if name in places}
        self._hashed = [name for name in hashed if name in places]
        # Of a text that is private as a whole, or a tensor that is, the embedding says as much.
        whole = any(at is WHOLE for places in self._private.values() for _, at in places)
        self._embedding = self._embedding and not whole
        # A name that this version does not know may be in any place: then no input is written.
        self._full = self._full and not self.unknown

    def apply(self, arrays):
        """Names and arrays of what is written: inputs, digests (uint8 [N, 16]) and outputs.

        Args:
            arrays: The inputs, then the outputs, each with the axis of rows in front.
        """
        named = dict(zip([*self._inputs, *self._outputs], arrays, strict=True))
        kept = {name: named[name] for name in self._inputs}
        told = {}
        if self._private:
            kept, told = self._without(kept)
        told = {f"hash.{name}": digests for name, digests in told.items()}
        kept = {f"input.{name}": array for name, array in kept.items()} if self._full else {}
        answers = {f"output.{name}": named[name] for name in self._outputs if self._embedding or name != EMBEDDING}
        return {**kept, **told, **answers}

    def _without(self, tensors):
        """The tensors without what is private, and the digests of what was asked for as such."""
        if self._rows:
            return self._without_members(tensors)
        told = {}
        for name in self._hashed:
            parts = [tensors[tensor] if at is WHOLE else tensors[tensor][:, at] for tensor, at in self._private[name]]
            rows = zip(*([row.tobytes() for row in np.ascontiguousarray(part)] for part in parts), strict=True)
            told[name] = self._digests(name, (b"".join(row) for row in rows))
        kept = dict(tensors)
        for places in self._private.values():
            for tensor, at in places:
                if at is WHOLE:
                    kept.pop(tensor, None)
                elif tensor in kept:
                    array = kept[tensor].copy()
                    array[:, at] = np.nan if array.dtype.kind == "f" else 0
                    kept[tensor] = array
        return kept, told

    def _without_members(self, tensors):
        """The same for rows that are JSON in bytes: a member becomes null."""
        ((port, packed),) = tensors.items()
        values = [json.loads(row.tobytes()) for row in packed]
        told = {
            name: self._digests(name, (json.dumps(_member(value, name), sort_keys=True).encode() for value in values))
            for name in self._hashed
        }
        for place, value in enumerate(values):
            for name in self._private:
                if isinstance(value, dict):
                    value[name] = None
                else:
                    values[place] = None
        texts = [json.dumps(value, ensure_ascii=False).encode() for value in values]
        width = max(map(len, texts))
        filled = b"".join(text.ljust(width) for text in texts)
        return {port: np.frombuffer(filled, np.uint8).reshape(len(texts), width)}, told

    def _digests(self, name, values):
        """Keyed digests, uint8 [N, 16]; the name is hashed, too: equal values of two columns look different."""
        head = name.encode() + b"\0"
        found = [hashlib.blake2b(head + value, digest_size=DIGEST_BYTES, key=self._secret).digest() for value in values]
        return np.frombuffer(b"".join(found), np.uint8).reshape(-1, DIGEST_BYTES)


def slots(encoder, inputs):
    """Where each name that can be private is: a list of (tensor, slots), where no slots mean the whole tensor."""
    places = {name: [(name, WHOLE)] for name in inputs}
    modality, columns = encoder.get("modality"), encoder.get("columns", [])
    if modality == "rows":
        return {column["name"]: [] for column in columns} or {"text": []}
    if modality == "text":
        places["text"] = [(name, WHOLE) for name in inputs]
    if modality != "table":
        return places
    number = category = 0
    for column in columns:
        if column["kind"] == "category":
            places[column["name"]] = [("category", [category])]
            category += 1
            continue
        count = 1 + 2 * len(column.get("periods", ()))  # as kfloop.core.encoding.table lays them out
        places[column["name"]] = [("number", list(range(number, number + count)))]
        number += count
    return places


def _encoder(folder):
    try:
        with open(os.path.join(folder, ENCODER), encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return {}


def _member(value, name):
    return value.get(name) if isinstance(value, dict) else value
