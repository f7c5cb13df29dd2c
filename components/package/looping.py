"""A graph that repeats one step: samplers of many steps are exported once, not once for each step."""

from __future__ import annotations

from typing import Any

CARRIED, NUMBER, RESULT = "carried", "step.number", "step.result"  # names in the graph of one step


def looped(model: Any, steps: int, start: str, output: str) -> Any:
    """The graph of ``steps`` steps, each with the result of the one before, as an ONNX ``Loop``.

    Args:
        model: Graph of one step (``onnx.ModelProto``): its inputs are what is carried, the inputs that stay, and the number of the step
            (int64 without axes); its output is what the next step begins with. Changed in place.
        steps: Number of steps.
        start: Name of the input the first step begins with.
        output: Name of the last result.

    Returns:
        The same model, with the inputs of the step but its number.
    """
    import numpy as np
    import onnx
    from onnx import helper

    step = model.graph
    carried, *kept, number = step.input
    (result,) = step.output
    going = [helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, []) for name in ("step.going", "step.goes_on")]
    same = helper.make_node("Identity", ["step.going"], ["step.goes_on"])
    # The weights stay outside: a body sees the values around it.
    body = helper.make_graph([*step.node, same], "step", [number, going[0], carried], [going[1], result])
    count = onnx.numpy_helper.from_array(np.array(steps, dtype=np.int64), "steps")
    loop = helper.make_node("Loop", ["steps", "", start], [output], body=body)
    inputs, outputs = [_called(carried, start), *kept], [_called(carried, output)]
    model.graph.CopyFrom(helper.make_graph([loop], "model", inputs, outputs, [*step.initializer, count]))
    return model


def _called(value: Any, name: str) -> Any:
    """A copy of the description of a value, under another name."""
    found = type(value)()
    found.CopyFrom(value)
    found.name = name
    return found
