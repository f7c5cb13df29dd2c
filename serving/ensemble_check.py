"""The wiring of an ensemble: what Triton would find wrong when it loads it, found before it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Written = dict[str, tuple[int, tuple[int, ...]]]  # type and dims of each tensor that exists so far


def check_ensemble(config: Any, models: Mapping[str, Any]) -> None:
    """Refuse an ensemble whose steps do not fit each other.

    Args:
        config: The ensemble's ``ModelConfig``, its steps in the order in which they run.
        models: ``ModelConfig`` of each model it may call, by name.

    Raises:
        ServingError: A step calls what is not there, reads what nobody wrote, or an output is never written.
    """
    written: Written = {port.name: (port.data_type, tuple(port.dims)) for port in config.input}
    problems: list[str] = []
    for step in config.ensemble_scheduling.step:
        model = models.get(step.model_name)
        if model is None:
            problems.append(f"step '{step.model_name}' is no model of this repository ({', '.join(models)})")
            continue
        problems += [f"step '{step.model_name}' {problem}" for problem in _step(step, model, written)]
        if model.max_batch_size < config.max_batch_size:
            problems.append(f"step '{step.model_name}' takes fewer rows than the ensemble")
    problems += [
        f"output '{port.name}' is written by no step, or in another type or shape"
        for port in config.output
        if port.name not in written or not _same(written[port.name], port)
    ]
    if problems:
        raise ServingError(f"the ensemble '{config.name}' cannot be served: {'; '.join(problems)}")


def _step(step: Any, model: Any, written: Written) -> Iterator[str]:
    """What is wrong with one step; what it gives is added to ``written``."""
    takes = {port.name: port for port in model.input}
    gives = {port.name: port for port in model.output}
    for name in sorted(set(takes) ^ set(step.input_map)):
        yield f"leaves its input '{name}' open, or has none of that name"
    for name, source in sorted(step.input_map.items()):
        if source not in written:
            yield f"reads '{source}' before anything wrote it"
        elif name in takes and not _same(written[source], takes[name]):
            yield f"takes '{source}' as '{name}', which has another type or shape"
    for name, place in sorted(step.output_map.items()):
        if name not in gives:
            yield f"has no output '{name}'"
        elif place in written:
            yield f"writes '{place}' a second time"
        else:
            written[place] = (gives[name].data_type, tuple(gives[name].dims))


def _same(found: tuple[int, tuple[int, ...]], port: Any) -> bool:
    kind, dims = found
    alike = all(-1 in {one, other} or one == other for one, other in zip(dims, port.dims, strict=False))
    return bool(kind == port.data_type and len(dims) == len(port.dims) and alike)
