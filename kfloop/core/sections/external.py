"""Section ``train.external``: a model that somebody else serves."""
# ruff: noqa: RUF012 - pydantic gives each section a copy of a default

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kfloop.core.sections.base import Positive, Section


class AdapterConfig(Section):
    """How rows become the JSON that an endpoint takes, and its JSON an array."""

    body: Any = {"instances": "$rows"}
    """What is posted: ``$rows`` is replaced by the list of rows, ``$row`` by the only one (with ``batch: 1``)."""
    answer: str = "predictions"
    """Where the answers stand: keys, places of a list and ``*`` for each item, such as ``outputs.*.scores``. An object with the classes as keys is taken by name."""
    request: str | None = None
    """Your own function ``module:function`` instead of ``body``: a list of rows in, what is posted as JSON out."""
    response: str | None = None
    """Your own function ``module:function`` instead of ``answer``: the JSON that came back in, one answer for each row out. Same module as ``request``; it is
    copied into the package, so it imports nothing but the standard library and NumPy."""

    @model_validator(mode="after")
    def _one_module(self) -> AdapterConfig:
        told = [name for name in (self.request, self.response) if name is not None]
        if any(
            not all(part.isidentifier() for part in name.replace(":", ".").split(".")) or name.count(":") != 1
            for name in told
        ):
            message = f"{' and '.join(map(repr, told))}: expected module:function"
            raise ValueError(message)
        if len({name.split(":", maxsplit=1)[0] for name in told}) > 1:
            message = f"{' and '.join(map(repr, told))} stand in two modules: put both functions into one"
            raise ValueError(message)
        return self


class ExternalConfig(Section):
    """A model that somebody else serves: nothing is trained, it is asked. What it is sent leaves this machine; see docs/external-models.md."""

    protocol: Literal["kserve", "json"]
    """``kserve``: the Open Inference Protocol (KServe v2) over HTTP; ``json``: any JSON over HTTP, by ``adapter``."""
    url: str
    """``http://`` or ``https://``: the server (kserve), or the very address that is posted to (json). No token or password in it."""
    model: str | None = None
    """kserve: the model's name there."""
    version: str | None = None
    """kserve: its version there; null means whatever the server answers with."""
    revision: str | None = None
    """A word of yours for the state of the endpoint. Its owner's new model is asked anew when you change this word."""
    token_env: str | None = None
    """NAME of the environment variable that holds the token; it begins with ``MODEL_TOKEN``. Only variables of such names are handed to the embedded server."""
    token_header: str = "Authorization"  # noqa: S105 - the name of a header
    """Header that carries the token; ``Authorization`` says ``Bearer`` before it, another header the token alone."""
    price_per_1000: Annotated[float, Field(ge=0)] | None = None
    """What 1000 rows (or calls, see ``price_of``) cost, in any currency; null: unknown."""
    price_of: Literal["rows", "calls"] = "rows"
    """What the price is for: rows that are answered, or calls with up to ``batch`` rows."""
    batch: Positive = 32
    """Rows in one call."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Longest wait for one answer, in seconds."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Further attempts where a call may work later: no connection, no answer in time, status 429, 502, 503, 504."""
    unseen_rows: bool = False
    """You vouch that the model was not trained on the test rows. Otherwise nobody knows, and the gate promotes nothing."""
    labels: tuple[str, ...] | None = None
    """Classes in the endpoint's order; null means the order of the dataset (alphabetical)."""
    gives: Literal["probabilities", "logits"] = "probabilities"
    """For classes: what the numbers are; logits are put through softmax (several labels: sigmoid) here."""
    input: str | None = None
    """kserve: the input tensor; null means the only one, as the server's metadata say. Columns of a table go to inputs of their names."""
    datatype: str | None = None
    """kserve: type of that tensor, such as ``FP32``; null means as the metadata say."""
    input_shape: tuple[Positive, ...] | None = None
    """kserve: shape of one row there; null means the row's own, or that of the metadata where it has as many numbers."""
    channels_first: bool = False
    """kserve: send images as [C, H, W]."""
    output: str | None = None
    """kserve: the output tensor with the answer; null means the first, or ``probabilities``, ``prediction`` or ``forecast`` where there is one."""
    embedding: str | None = None
    """kserve: an output tensor with an embedding, for the monitor; null means that the answer stands for it."""
    binary: bool = False
    """kserve: send tensors as bytes (Triton's binary extension); JSON cannot say missing numbers."""
    adapter: AdapterConfig | None = None
    """json: how to speak; null means ``{"instances": rows}`` and ``predictions``."""

    @field_validator("url")
    @classmethod
    def _public(cls, url: str) -> str:
        """Refuse a secret in the address, without repeating it."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise PydanticCustomError("secret", "expected http://HOST... or https://HOST...")
        asked = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        hiding = any(word in name for name in asked for word in ("key", "token", "secret", "password", "sig"))
        if parts.username or parts.password or hiding:
            raise PydanticCustomError(
                "secret", "the address holds a secret (not shown): give its token through token_env and token_header"
            )
        return url

    @field_validator("token_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        """A token that was written here by mistake must not be repeated in the error."""
        if name is not None and not re.fullmatch(r"MODEL_TOKEN[A-Z0-9_]*", name):
            raise PydanticCustomError(
                "secret",
                "expected the NAME of an environment variable, MODEL_TOKEN or MODEL_TOKEN_SOMETHING (what stands here is not shown: it may be the token)",
            )
        return name

    @model_validator(mode="after")
    def _one_protocol(self) -> ExternalConfig:
        kserve = {
            "model",
            "version",
            "input",
            "datatype",
            "input_shape",
            "channels_first",
            "output",
            "embedding",
            "binary",
        }
        told = sorted(key for key in self.model_fields_set & kserve if getattr(self, key))
        if self.protocol == "json" and told:
            message = f"{', '.join(told)} belong to protocol kserve; json takes adapter"
            raise ValueError(message)
        if self.protocol == "kserve" and (self.adapter is not None or not self.model):
            message = "protocol kserve takes the model's name in model, and no adapter"
            raise ValueError(message)
        return self
