"""What stands around the tensors: raw rows that become the model's inputs, and the label, confidence and review flag of its answers."""

import json
import os

import numpy as np
from bare.forms import BadRow, RawForm

EXTRAS = ("label", "confidence", "review")
REVIEW = "review.json"


def raw_form(folder, signature):
    """The raw form of a version's examples; null where its tensors are what a client has.

    Args:
        folder: The version's folder.
        signature: Content of its ``signature.json``.
    """
    with open(os.path.join(folder, "encoder.json"), encoding="utf-8") as stream:
        encoder = json.load(stream)
    if encoder.get("modality") not in ("text", "table") or signature["objective"] == "generation":
        return None
    return RawForm(encoder, [port["name"] for port in (*signature["inputs"], *signature["outputs"])])


def encoded(form, named, limit):
    """Tensors of a request in the raw form, or what is wrong with it.

    Args:
        form: The raw form.
        named: Arrays of the request by name.
        limit: Most rows in a request.
    """
    for wanted in form.inputs:
        array = named.get(wanted.name)
        if array is None:
            return (
                None,
                f"column '{wanted.name}' is missing: a raw row has {', '.join(one.name for one in form.inputs)}",
            )
        fits = array.shape[1:] == (1,)
        if not fits or array.dtype != (np.object_ if wanted.is_bytes else np.float64):
            kind = "BYTES" if wanted.is_bytes else "FP64"
            return None, f"column '{wanted.name}' must be {kind} of shape [n, 1], got {array.dtype} {list(array.shape)}"
    arrays = [named[wanted.name][:, 0] for wanted in form.inputs]
    if len({len(array) for array in arrays}) > 1 or not 1 <= len(arrays[0]) <= limit:
        counts = {wanted.name: len(array) for wanted, array in zip(form.inputs, arrays, strict=True)}
        return None, f"each column must hold the same 1 to {limit} rows, got {counts}"
    extra = sorted(set(named) - {wanted.name for wanted in form.inputs})
    if extra:
        return None, f"a raw row and a tensor came together ({', '.join(extra)}): send one of the two forms"
    try:
        return list(form.encoded(arrays)), ""
    except BadRow as error:
        return None, str(error)


class Judge:
    """Tells label, confidence and whether a person should look, for models that tell classes apart.

    Args:
        folder: The version's folder; without ``review.json`` nothing is flagged.
        labels: Class names.
    """

    def __init__(self, folder, labels):
        self._labels = np.array([label.encode() for label in labels], dtype=np.object_)
        self._thresholds = None
        path = os.path.join(folder, REVIEW)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                told = json.load(stream)["classes"]
            if [row["label"] for row in told] != list(labels):
                raise ValueError(f"{REVIEW} is about other classes than the signature")
            lowest = [np.inf if row["threshold"] is None else row["threshold"] for row in told]
            self._thresholds = np.array(lowest, dtype=np.float32)

    def extras(self, wanted, probabilities):
        """Those of ``EXTRAS`` that are wanted, by name, each with one axis per row as Triton has it."""
        found = {}
        for name in EXTRAS:
            if name in wanted:
                rows = getattr(self, name)(probabilities)
                found[name] = rows[:, None]
        return found

    def label(self, probabilities):
        """Name of the most probable class, bytes [N]."""
        return self._labels[probabilities.argmax(axis=1)]

    def confidence(self, probabilities):
        """Probability of that class, float32 [N]."""
        return probabilities.max(axis=1).astype(np.float32)

    def review(self, probabilities):
        """Whether the confidence is below the class's threshold, bool [N]; what is no number is flagged."""
        if self._thresholds is None:
            return np.zeros(len(probabilities), dtype=bool)
        return ~(self.confidence(probabilities) >= self._thresholds[probabilities.argmax(axis=1)])

    def flags(self, probabilities):
        """``review`` for the request log; null where the version has no thresholds."""
        return None if self._thresholds is None else self.review(probabilities)
