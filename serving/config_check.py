"""What Triton's own schema does not see in a ``config.pbtxt``: names, lengths, batches and versions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kfloop.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kfloop.core.signature import Signature

BACKENDS = ("python", "onnxruntime")


def check_config(config: Any, signatures: Mapping[int, Signature] | None = None) -> None:
    """Refuse a configuration that parses and still cannot be served.

    Args:
        config: A ``ModelConfig`` of tritonclient's schema.
        signatures: Signature of each version that the model has, where it is to be compared.

    Raises:
        ServingError: It is one; names the field and its value.
    """
    problems = [*_basics(config), *_ports(config), *_batches(config)]
    if signatures is not None:
        problems += _against(config, signatures)
    if problems:
        raise ServingError(
            f"the configuration of model '{config.name}' cannot be served: {'; '.join(problems)}",
            hint="see config.pbtxt; kfloop writes it anew with every promotion",
        )


def _basics(config: Any) -> Iterable[str]:
    if not config.name:
        yield "it has no name"
    if config.platform != "ensemble" and config.backend not in BACKENDS:
        yield f"backend '{config.backend}' is none of {', '.join(BACKENDS)}"
    if not config.input or not config.output:
        yield "it has no inputs or no outputs"
    versions = list(config.version_policy.specific.versions)
    if any(version < 1 for version in versions) or len(set(versions)) < len(versions):
        yield f"versions {versions} are not different numbers from 1 on"


def _ports(config: Any) -> Iterable[str]:
    for side in ("input", "output"):
        ports = getattr(config, side)
        for name, count in Counter(port.name for port in ports).items():
            if not name or count > 1:
                yield f"{side} '{name}' is there {count} times" if name else f"an {side} has no name"
        for port in ports:
            if not port.data_type:
                yield f"{side} '{port.name}' has no type"
            if not port.dims or any(size < 1 and size != -1 for size in port.dims):
                yield f"{side} '{port.name}' has dims {list(port.dims)}: each is 1 or more, or -1"


def _batches(config: Any) -> Iterable[str]:
    most = config.max_batch_size
    if most < 0:
        yield f"max_batch_size is {most}"
    if config.HasField("dynamic_batching"):
        if not most:
            yield "dynamic batching needs a batch axis, and max_batch_size is 0"
        preferred = list(config.dynamic_batching.preferred_batch_size)
        if any(not 1 <= size <= most for size in preferred):
            yield f"preferred batch sizes {preferred} are not all between 1 and {most}"
    names = {port.name: port for port in config.input}
    for sample in config.model_warmup:
        if sample.batch_size > most:
            yield f"warm-up '{sample.name}' has {sample.batch_size} rows, max_batch_size is {most}"
        for name, value in sample.inputs.items():
            if name not in names or value.data_type != names[name].data_type or any(size < 1 for size in value.dims):
                yield f"warm-up '{sample.name}': '{name}' is no input of this type with known lengths"
    if any(group.count < 0 for group in config.instance_group):
        yield "an instance group has a negative count"


def _against(config: Any, signatures: Mapping[int, Signature]) -> Iterable[str]:
    """The tensors of every version are there, under their names, and so are the versions."""
    held = set(config.version_policy.specific.versions)
    if held and not held <= set(signatures):
        yield f"versions {sorted(held - set(signatures))} do not exist"
    for version, signature in signatures.items():
        for side, ports in (("input", signature.inputs), ("output", signature.outputs)):
            found = {port.name: port for port in getattr(config, side)}
            for port in ports:
                dims = list(port.shape) or [1]
                told = found.get(port.name)
                fits = told is not None and len(told.dims) == len(dims)
                if not fits or any(
                    want not in (-1, size)
                    for want, size in zip(told.dims, dims, strict=True)  # type: ignore[union-attr]
                ):
                    yield f"version {version}: {side} '{port.name}' of shape {dims} is not among the {side}s"
        if signature.batched != bool(config.max_batch_size) or signature.max_batch_size > config.max_batch_size:
            yield f"version {version} takes {signature.max_batch_size} rows, max_batch_size is {config.max_batch_size}"
